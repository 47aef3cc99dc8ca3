"""The line at the top of the pages of an account that has something overdue, and the step that mends it. Pure."""

from dataclasses import dataclass
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from billing.standing.status import MoneyState, MoneyStatus
from billing.standing.words import Said, Step, money, say, say_to_user

FEE_PAGE = "/account/plan/pay"
"""Leads to Razorpay's page of the unpaid invoice."""
_SHOWN = {MoneyState.OVERDUE, MoneyState.HALTED, MoneyState.ENDED, MoneyState.EMPTY}
_BILLS, _PLAN, _WALLET = "/account/bills?state=open", "/account/plan", "/account/wallet"


class Way(NamedTuple):
    """A link to the next step. `is_away`: it ends on Razorpay's page, which opens in a tab of its own."""

    href: str
    label: str
    is_away: bool = False


@dataclass(frozen=True, slots=True)
class Banner:
    """A status, all that there is to say of it, and the next step if this visitor can take one."""

    state: str
    text: str
    way: Way | None = None

    def as_json(self) -> dict[str, Any]:
        """The fields that the script of a page reads."""
        href, label, is_away = self.way or ("", "", False)
        return {"state": self.state, "text": self.text, "href": href, "label": label, "away": is_away}


def banner_of(status: MoneyStatus, zone: ZoneInfo, *, is_admin: bool) -> Banner | None:
    """The banner of a status; None while no payment is late."""
    if status.state not in _SHOWN:
        return None
    said = say(status, zone) if is_admin else say_to_user(status, zone)
    return Banner(said.tag, said.whole, way_of(status, said))


def way_of(status: MoneyStatus, said: Said) -> Way | None:
    """The next step of an admin; None if there is none."""
    if said.step is None:
        return None
    pay = f"Pay {money(status.overdue_paise or status.due_paise)}"
    return {
        Step.PAY_BILL: Way(status.pay_url, pay, is_away=True) if status.pay_url else Way(_BILLS, pay),
        Step.PAY_FEE: Way(FEE_PAGE, pay, is_away=True),
        Step.AUTHORISE: Way(_PLAN, "Continue"),
        Step.CHOOSE_PLAN: Way(_PLAN, "Choose a plan"),
        Step.KEEP_PLAN: Way(_PLAN, "Keep it or choose another plan"),
        Step.TOP_UP: Way(_WALLET, "Add money"),
    }[said.step]
