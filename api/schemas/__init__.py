"""Shapes that services take and return, as the JSON API, the pages and the commands show them. Pydantic only."""
