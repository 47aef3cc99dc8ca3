"""The usage of an answer by model: its iterations, if the provider reports them, else its top-level counts. Pure.

The top level leaves out what other inferences cost: a compaction, an advisor, an attempt that another model declined.
So iterations, where present, replace the top level's tokens. Web searches are reported at the top level only.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from metering.pricing.tokens import NO_USAGE, Iteration, ReportedUsage, Usage, counted, overlay

_MESSAGE = "message"
_FALLBACK = "fallback_message"
_OWN = frozenset({_MESSAGE, _FALLBACK})
"""The types whose output is the message's text."""
_UNWRITTEN: dict[str, Any] = {"output_tokens": None, "output_tokens_details": None}
_KNOWN = _OWN | {"compaction", "advisor_message"}


@dataclass(frozen=True, slots=True)
class ModelUsage:
    """The usage of one model. `is_known` False: a part of it has an unknown iteration type, billed by its counts."""

    model: str
    usage: Usage = NO_USAGE
    is_known: bool = True


def usage_by_model(
    started: ReportedUsage, latest: ReportedUsage | None, model: str, *, refused: bool = False
) -> tuple[ModelUsage, ...]:
    """The billed usage of an answer: that of the message's `model` first, then other models', in their order.

    An attempt that was declined without output is free: one that a later fallback replaced, and, if the whole message
    was `refused`, any.
    """
    own = overlay(started, latest)
    iterations = _iterations(started, latest)
    if not iterations:
        return (ModelUsage(model, NO_USAGE if refused else own),)
    sums = {model: ModelUsage(model)}
    for one in _billed(iterations, refused=refused):
        name = one.model or model
        before = sums.get(name, ModelUsage(name))
        sums[name] = ModelUsage(name, before.usage + counted(one), before.is_known and one.type in _KNOWN)
    mine = sums[model]
    thinking = mine.usage.thinking_tokens or min(own.thinking_tokens, mine.usage.output_tokens)
    usage = replace(mine.usage, thinking_tokens=thinking, web_searches=own.web_searches)
    return replace(mine, usage=usage), *(each for name, each in sums.items() if name != model)


def message_output(started: ReportedUsage, latest: ReportedUsage | None, model: str) -> int:
    """The output that is the message itself, among the output of its own model."""
    iterations = _iterations(started, latest)
    if not iterations:
        return overlay(started, latest).output_tokens
    return sum(one.output_tokens or 0 for one in iterations if one.type in _OWN and one.model in {None, model})


def without_placeholders(started: ReportedUsage) -> ReportedUsage:
    """`message_start` without the output of the message itself, which is a placeholder there."""
    iterations = started.iterations and [
        msgspec.structs.replace(one, **_UNWRITTEN) if one.type in _OWN else one for one in started.iterations
    ]
    return msgspec.structs.replace(started, **_UNWRITTEN, iterations=iterations)


def _iterations(started: ReportedUsage, latest: ReportedUsage | None) -> Sequence[Iteration]:
    """The iterations of both reports.

    If `message_start` has them, and a later report counts the output without them, its top level is the message itself.
    """
    if latest is None or latest.iterations or latest.output_tokens is None or not started.iterations:
        return (latest and latest.iterations) or started.iterations or ()
    before = [one for one in started.iterations if one.type not in _OWN]
    said = started.then(latest)
    top = {name: getattr(said, name) for name in Iteration.__struct_fields__ if hasattr(said, name)}
    return [*before, Iteration(**top, type=_MESSAGE)]


def _billed(iterations: Sequence[Iteration], *, refused: bool) -> list[Iteration]:
    """The iterations that are charged."""
    served = [place for place, one in enumerate(iterations) if one.type == _FALLBACK]
    last = len(iterations) if refused else max(served, default=-1)
    return [
        one
        for place, one in enumerate(iterations)
        if one.output_tokens or not (place < last and (one.type == _MESSAGE or refused))
    ]
