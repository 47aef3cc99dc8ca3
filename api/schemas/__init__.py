"""Request and response models of the services, shared by the JSON API, the pages and the commands. Pydantic only."""
