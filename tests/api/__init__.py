"""The API and the command line, over a real Postgres and Valkey."""
