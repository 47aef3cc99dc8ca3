"""Authentication and authorisation: API keys, browser sessions, scopes, and the throttle of failed sign-ins.

A revoked key opens no metered request: Postgres checks the key when it inserts the row. Postgres down: 503.
"""
