"""The stored lines of a bill, which a document shows. Pure."""

from dataclasses import dataclass
from typing import Any

from billing.gst.tax import Supply, gross_of, largest_net_of
from billing.rating.overage import AlreadyBilled, Line, OverageBill


@dataclass(frozen=True, slots=True)
class BasePrice:
    """The net amount of a collected fee, and the paise left over when no net has exactly that gross."""

    net_paise: int
    rounding_paise: int


def price_base(collected_paise: int, base_paise: int, supply: Supply) -> BasePrice:
    """The plan's price, if exactly its gross was collected; else the largest net within the amount, and the rest."""
    if gross_of(base_paise, supply) == collected_paise:
        return BasePrice(base_paise, 0)
    net_paise = largest_net_of(collected_paise, supply)
    return BasePrice(net_paise, collected_paise - gross_of(net_paise, supply))


def base_lines(plan: str, price: BasePrice) -> list[dict[str, Any]]:
    """The fee's line; rounding is a line after tax."""
    lines: list[dict[str, Any]] = [{"kind": "plan", "text": plan, "amount_paise": price.net_paise}]
    if price.rounding_paise:
        lines.append({"kind": "rounding", "text": "Rounding", "amount_paise": price.rounding_paise})
    return lines


def overage_lines(bill: OverageBill, taken: AlreadyBilled | None = None) -> list[dict[str, Any]]:
    """A line per meter with its amount in `taken`, and the ceiling's if it isn't 0.

    `taken` defaults to the bill's own amounts; a credit note passes its part of them.
    """
    taken = taken or bill.taken
    lines = [_meter_line(line, taken.by_meter.get(line.meter, 0)) for line in bill.lines]
    if taken.cut_paise:
        lines.append({"kind": "ceiling", "text": "Ceiling", "amount_paise": taken.cut_paise})
    return lines


def promotion_lines(paise: int) -> list[dict[str, Any]]:
    """The line that promotional credit takes off the taxable value; on a credit note, what of it comes back."""
    return [{"kind": "promotion", "text": "Promotional credit", "amount_paise": -paise}] if paise else []


def advance_lines(paise: int) -> list[dict[str, Any]]:
    """The line of a top-up, or of one that is given back."""
    return [{"kind": "advance", "text": "Advance for usage", "amount_paise": paise}]


def _meter_line(line: Line, amount_paise: int) -> dict[str, Any]:
    return {
        "kind": "meter",
        "meter": line.meter.value,
        "quantity": line.quantity,
        "allowance": line.allowance,
        **({} if line.of_allowance is None else {"of_allowance": line.of_allowance}),
        "excess": line.excess,
        "rate_paise": line.rate_paise,
        "unrounded_numerator": line.unrounded_numerator,
        "whole_paise": line.whole_paise,
        "earlier_paise": line.earlier_paise,
        "amount_paise": amount_paise,
    }
