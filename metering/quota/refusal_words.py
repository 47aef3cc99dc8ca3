"""The words of a refusal by a limit: what is used, when it resets, and what to do. Pure.

Spend is the provider's cost, which a tenant may not see: such a limit is a budget here, without amounts.
"""

from core.figures import grouped
from core.money import ceil_div
from metering.quota.limits import BillMeter, EffectiveLimit, LimitScope, Meter
from metering.quota.query import Refused
from metering.quota.windows import WindowKind

_SPANS = {WindowKind.MINUTE: "this minute's", WindowKind.DAY: "today's", WindowKind.PERIOD: "this period's"}
_EACH = {WindowKind.MINUTE: "minute", WindowKind.DAY: "day", WindowKind.PERIOD: "billing period"}
_MINUTE_S, _HOUR_S, _DAY_S = 60, 3_600, 86_400
_PAISE = 100
_BUDGET = "budget for model usage"
_WHEN_ENDED = "Try again when one of them has ended."


def words_of(refused: Refused, limit: EffectiveLimit | None) -> str:
    """The message to the caller. `limit`: the one that refused, None for a concurrency."""
    if limit is None:
        return _at_once(refused)
    is_user, span = limit.scope is LimitScope.USER, _SPANS[limit.window]
    whose = "your" if is_user else "your account's"
    match refused.cause:
        case "never":
            most = f"{_BUDGET if _is_hidden(limit) else f'limit of {_all(limit)}'} per {_EACH[limit.window]}"
            return f"This request is too large for {whose} {most}. Shorten it, or ask for a shorter answer."
        case "held":
            used = "" if _is_hidden(limit) else f"; {_amount(limit, limit.in_unit(refused.used))} used"
            return f"{whose.capitalize()} running requests hold the rest of {span} {_all(limit)}{used}. {_WHEN_ENDED}"
        case _:
            who = "You've" if is_user else "Your account has"
            return f"{who} {_used(limit, limit.in_unit(refused.used))} {_reset(refused, limit)}. {_what_to_do(limit)}"


def wallet_words(refused: Refused, limit: EffectiveLimit) -> str:
    """The message when the money that was paid in does not cover a request."""
    left = max(0, limit.limit - limit.in_unit(refused.used))
    has = (
        "is empty" if not left else f"has {_amount(limit, left)} left, before tax, which is too little for this request"
    )
    return f"Your account's wallet {has}. To continue, an admin of your account can add money."


def _at_once(refused: Refused) -> str:
    if refused.cause == "never":
        return f"Requests are blocked for {'you' if refused.of_user else 'your account'}. Ask your admin."
    who = "You have" if refused.of_user else "Your account has"
    return f"{who} {grouped(refused.used)} requests running, the most at a time. {_WHEN_ENDED}"


def _used(limit: EffectiveLimit, used: int) -> str:
    """A sentence about the usage, and the subject of the next sentence."""
    span, they = _SPANS[limit.window], "It resets" if _is_hidden(limit) or _is_money(limit) else "They reset"
    if _is_hidden(limit):
        return f"used {span} {_BUDGET}, or what is left is too little for this request. {they}"
    if used >= limit.limit:
        return f"used {span} {_all(limit)}. {they}"
    return f"used {_amount(limit, used)} of {span} {_all(limit)}, and this request needs more than the rest. {they}"


def _reset(refused: Refused, limit: EffectiveLimit) -> str:
    wait_s = max(1, ceil_div(refused.ends_ms - refused.now_ms, 1000))
    match limit.window:
        case WindowKind.MINUTE:
            return f"in {wait_s} s"
        case WindowKind.DAY:
            return f"at 00:00, in {_long(wait_s)}"  # the operator's midnight
        case WindowKind.PERIOD:
            days = ceil_div(wait_s, _DAY_S)
            return f"in {days} days" if days > 1 else f"in {_long(wait_s)}"


def _long(wait_s: int) -> str:
    minutes = ceil_div(wait_s, _MINUTE_S)
    hours, rest = divmod(minutes, _HOUR_S // _MINUTE_S)
    return f"{hours} h {rest} min" if hours else f"{rest} min"


def _what_to_do(limit: EffectiveLimit) -> str:
    if limit.window is WindowKind.MINUTE:
        return "Try again then."
    if limit.scope is LimitScope.USER:
        return "To continue before, ask your admin for a higher limit."
    return "To continue before, an admin of your account can choose a larger plan."


def _is_hidden(limit: EffectiveLimit) -> bool:
    return limit.meter is Meter.SPEND


def _is_money(limit: EffectiveLimit) -> bool:
    return limit.meter is BillMeter.CHARGE


def _all(limit: EffectiveLimit) -> str:
    """The whole limit: `1,500 tokens`, `₹5,000 of overage`."""
    if _is_hidden(limit):
        return _BUDGET
    if _is_money(limit):
        return f"{_amount(limit, limit.limit)} of overage"
    return f"{_amount(limit, limit.limit)} {limit.meter.value.replace('_', ' ')}"


def _amount(limit: EffectiveLimit, value: int) -> str:
    if not _is_money(limit):
        return grouped(value)
    whole, paise = divmod(value, _PAISE)
    return f"₹{grouped(whole)}" + (f".{paise:02d}" if paise else "")
