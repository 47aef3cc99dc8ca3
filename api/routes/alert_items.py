"""An alert as it is answered, to its tenant and to the operator."""

from typing import Any, Self
from uuid import UUID

from pydantic import BaseModel

from billing.models import Alert
from core.clock import to_iso


class AlertItem(BaseModel):
    """`delivery`: `none` (no endpoint was set), `pending`, `delivered`, `failed`."""

    id: UUID
    type: str
    at: str
    data: dict[str, Any]
    delivery: str
    tries: int

    @classmethod
    def of(cls, row: Alert) -> Self:
        """As it is answered."""
        return cls(id=row.id, type=row.kind, at=to_iso(row.at_ms), data=row.data, delivery=row.state, tries=row.tries)
