"""The application layer: each use case is one function here, called by the JSON routes, the pages and the commands.

A service takes the `ServiceContext` first: it says who calls, gives the transaction, writes the audit entry's actor and
publishes after the commit. Shapes in and out are in `api.schemas`. Nothing here knows HTTP, HTML or a terminal.
Postgres down: `Unavailable`, nothing was done. Redis down: done; caches elsewhere live as long as their time to live.
"""
