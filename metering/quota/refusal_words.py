"""The words of a refusal by a limit: what is used, when it resets, and what to do. Pure.

Spend is the provider's cost, which a tenant may not see: such a limit is a budget here, without amounts.
"""

from core.figures import grouped
from core.money import ceil_div
from metering.quota.budgets import Budget
from metering.quota.limits import BillMeter, EffectiveLimit, LimitScope, Meter
from metering.quota.query import Refused
from metering.quota.windows import WindowKind

_SPANS = {WindowKind.MINUTE: "this minute's", WindowKind.DAY: "today's", WindowKind.PERIOD: "this period's"}
_EACH = {WindowKind.MINUTE: "minute", WindowKind.DAY: "day", WindowKind.PERIOD: "billing period"}
_MINUTE_S, _HOUR_S, _DAY_S = 60, 3_600, 86_400
_PAISE = 100
_BUDGET = "budget for model usage"
_WHEN_ENDED = "Try again when one of them has ended."
_RAISE_BUDGET = "To continue before, an admin of your account can raise this budget."


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
            used = _used(limit, limit.in_unit(refused.used))
            return f"{who} {used} {_reset(refused, limit.window)}. {_what_to_do(limit)}"


def budget_words(refused: Refused, budget: Budget) -> str:
    """The message when a budget refuses. It names the key of the tag, and never its value."""
    of_token = budget.is_of_token
    who = "This token" if of_token else f"Requests with this {budget.key} tag"
    span = "its" if budget.window is None else _SPANS[budget.window]
    if refused.cause == "never":
        each = "" if budget.window is None else f" per {_EACH[budget.window]}"
        whose = "this token's" if of_token else f"the {budget.key} tag's"
        most = f"{_BUDGET if _is_hidden(budget) else f'limit of {_all(budget)}'}{each}"
        return f"This request is too large for {whose} {most}. Shorten it, or ask for a shorter answer."
    if refused.cause == "held":
        used = "" if _is_hidden(budget) else f"; {_amount(budget, budget.in_unit(refused.used))} used"
        running = "Running requests of this token" if of_token else f"Running requests with this {budget.key} tag"
        return f"{running} hold the rest of {span} {_all(budget)}{used}. {_WHEN_ENDED}"
    has = "has" if of_token else "have"
    if budget.window is None:
        return f"{who} {has} {_used_of(budget, budget.in_unit(refused.used), span)}. Use a new token."
    resets = "It resets" if _is_hidden(budget) else "They reset"
    spent = f"{who} {has} {_used_of(budget, budget.in_unit(refused.used), span)}. {resets}"
    more = "Try again then." if budget.window is WindowKind.MINUTE else _RAISE_BUDGET
    return f"{spent} {_reset(refused, budget.window)}. {more}"


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
    they = "It resets" if _is_hidden(limit) or _is_money(limit) else "They reset"
    return f"{_used_of(limit, used, _SPANS[limit.window])}. {they}"


def _used_of(limit: EffectiveLimit | Budget, used: int, span: str) -> str:
    if _is_hidden(limit):
        return f"used {span} {_BUDGET}, or what is left is too little for this request"
    if used >= limit.limit:
        return f"used {span} {_all(limit)}"
    return f"used {_amount(limit, used)} of {span} {_all(limit)}, and this request needs more than the rest"


def _reset(refused: Refused, window: WindowKind) -> str:
    wait_s = max(1, ceil_div(refused.ends_ms - refused.now_ms, 1000))
    match window:
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


def _is_hidden(limit: EffectiveLimit | Budget) -> bool:
    return limit.meter is Meter.SPEND


def _is_money(limit: EffectiveLimit | Budget) -> bool:
    return limit.meter is BillMeter.CHARGE


def _all(limit: EffectiveLimit | Budget) -> str:
    """The whole limit: `1,500 tokens`, `₹5,000 of overage`."""
    if _is_hidden(limit):
        return _BUDGET
    if _is_money(limit):
        return f"{_amount(limit, limit.limit)} of overage"
    return f"{_amount(limit, limit.limit)} {limit.meter.value.replace('_', ' ')}"


def _amount(limit: EffectiveLimit | Budget, value: int) -> str:
    if not _is_money(limit):
        return grouped(value)
    whole, paise = divmod(value, _PAISE)
    return f"₹{grouped(whole)}" + (f".{paise:02d}" if paise else "")
