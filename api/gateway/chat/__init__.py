"""`POST /chat`: the request body, and the forms of the answer. Postgres down: as every metered route."""
