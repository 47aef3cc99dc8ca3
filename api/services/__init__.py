"""The application layer: each use case is one function here, called by the JSON routes, the pages and the commands.

A service takes the `ServiceContext` first: it authorises the caller, opens the transaction, names the audit log's actor
and publishes changes after the commit. Its models are in `api.schemas`. Nothing here knows HTTP, HTML or a terminal.
Postgres down: Unavailable, nothing is done. Redis down: caches of other processes expire by themselves.
"""
