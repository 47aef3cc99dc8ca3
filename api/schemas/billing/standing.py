"""The status of a tenant's money, in fields and in words."""

from typing import Literal
from uuid import UUID

from pydantic import BaseModel

from api.schemas.moments import IsoOrNone
from billing.standing.status import MoneyState


class AccountStatus(BaseModel):
    """A tenant's debts, the limits because of them, and the way out. Amounts with tax, in paise.

    `since`: since when something is overdue. `until`: the end that the state names, or of the paid time. `access`: what
    requests get now; `reduced` means the limits of `limits_of` instead of those of `plan`. `limited_from`: when that
    gets worse. `pay_url`: Razorpay's page, if one payment settles all that is overdue. `text`: all of it in words.
    """

    tenant_id: UUID
    state: MoneyState
    text: str
    plan: str | None
    since: IsoOrNone
    until: IsoOrNone
    due_paise: int
    overdue_paise: int
    due_by: IsoOrNone
    access: Literal["full", "reduced", "refused"]
    refusal: str | None
    limits_of: str | None
    limited_from: IsoOrNone
    retries_at: IsoOrNone
    balance_paise: int | None
    pay_url: str | None
