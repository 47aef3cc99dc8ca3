"""Shapes of alerts, their endpoint and their deliveries."""

from typing import Annotated, Any
from uuid import UUID

from pydantic import BaseModel, Field, StringConstraints

from api.schemas.fields import Body, example
from api.schemas.moments import Iso
from api.schemas.rows import Row
from core.network.tenant_urls import MAX_URL

Url = Annotated[str, StringConstraints(min_length=8, max_length=MAX_URL, pattern=r"^https?://[!-~]+$")]


class AlertItem(Row):
    """`delivery`: `none` (no endpoint was set), `pending`, `delivered`, `failed`."""

    id: UUID
    type: str = Field(validation_alias="kind")
    at: Iso = Field(validation_alias="at_ms")
    data: dict[str, Any]
    delivery: str = Field(validation_alias="state")
    tries: int


class TenantAlert(AlertItem):
    """An alert in the operator's list."""

    tenant_id: UUID


class NewEndpoint(Body):
    """The URL that alerts are POSTed to, in the form of Standard Webhooks (standardwebhooks.com)."""

    model_config = example(url="https://app.example.com/hooks/naka")

    url: Url


class EndpointItem(BaseModel):
    """`secret` is shown once, when it is created."""

    url: str
    enabled: bool
    secret: str | None = None


class DeliveryItem(Row):
    """One attempt: the receiver's status, or why there is none."""

    attempt: int
    at: Iso = Field(validation_alias="at_ms")
    status: int | None
    error: str | None
    took_ms: int
