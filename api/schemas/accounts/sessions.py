"""Shapes of a browser session."""

from pydantic import BaseModel


class Caller(BaseModel):
    """The names by which people know a signed-in caller."""

    tenant: str
    user: str
    key_prefix: str


class Origin(BaseModel):
    """The client of a sign-in or sign-out, for the audit log."""

    address: str
    request_id: str | None
