"""The lines of a bill, as its row keeps them and a document shows them. Pure."""

from dataclasses import dataclass
from typing import Any

from billing.gst.tax import Supply, gross_of, largest_net_of
from billing.rating.overage import AlreadyBilled, Line, OverageBill


@dataclass(frozen=True, slots=True)
class BasePrice:
    """What was collected for a cycle: the net that it is the gross of, and the paise that no net explains."""

    net_paise: int
    rounding_paise: int


def price_base(collected_paise: int, base_paise: int, supply: Supply) -> BasePrice:
    """The plan's price, if that with its tax was collected; else the largest net that is in it, and the rest."""
    if gross_of(base_paise, supply) == collected_paise:
        return BasePrice(base_paise, 0)
    net_paise = largest_net_of(collected_paise, supply)
    return BasePrice(net_paise, collected_paise - gross_of(net_paise, supply))


def base_lines(plan: str, price: BasePrice) -> list[dict[str, Any]]:
    """The fee; what is rounded is a line after tax."""
    lines: list[dict[str, Any]] = [{"kind": "plan", "text": plan, "amount_paise": price.net_paise}]
    if price.rounding_paise:
        lines.append({"kind": "rounding", "text": "Rounding", "amount_paise": price.rounding_paise})
    return lines


def overage_lines(bill: OverageBill) -> list[dict[str, Any]]:
    """A line per meter, and the ceiling's where it took or gives back something."""
    return _lines(bill, bill.taken)


def credit_lines(owed: OverageBill, taken: AlreadyBilled) -> list[dict[str, Any]]:
    """The same for a note, which takes back `taken`: all that is owed, or one bill's part of it."""
    return _lines(owed, taken)


def _lines(bill: OverageBill, taken: AlreadyBilled) -> list[dict[str, Any]]:
    lines = [_meter_line(line, taken.by_meter.get(line.meter, 0)) for line in bill.lines]
    if taken.cut_paise:
        lines.append({"kind": "ceiling", "text": "Ceiling", "amount_paise": taken.cut_paise})
    return lines


def _meter_line(line: Line, amount_paise: int) -> dict[str, Any]:
    return {
        "kind": "meter",
        "meter": line.meter.value,
        "quantity": line.quantity,
        "allowance": line.allowance,
        "excess": line.excess,
        "rate_paise": line.rate_paise,
        "unrounded_numerator": line.unrounded_numerator,
        "whole_paise": line.whole_paise,
        "earlier_paise": line.earlier_paise,
        "amount_paise": amount_paise,
    }
