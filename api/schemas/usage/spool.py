"""Shapes of the settlements on a host's disk."""

from uuid import UUID

from pydantic import AliasPath, BaseModel, Field

from api.schemas.rows import Row


class PoisonedItem(Row):
    """A settlement that Postgres refuses."""

    tenant_id: UUID
    request_id: UUID = Field(validation_alias="id")
    outcome: str
    model: str
    input_tokens: int = Field(validation_alias=AliasPath("usage", "input_tokens"))
    output_tokens: int = Field(validation_alias=AliasPath("usage", "output_tokens"))
    cost_nano_usd: int


class Retried(BaseModel):
    """The result of a retry."""

    settled: int
    refused_again: int
