"""The usage of an answer: its inferences, what each cost, and the usage objects on the wire. Pure.

An inference is one run of a model. A request has one, unless a tool at the provider ran (each result starts another one
over the grown conversation), the context was compacted, an advisor was asked, or a fallback served. The top-level usage
is the sum of the `message` inferences, or of what the fallback used; the provider bills every charged inference.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sandbox.anthropic.answers.blocks import Block
from sandbox.anthropic.caches import Prompt
from sandbox.anthropic.models import Model
from sandbox.anthropic.requests.counting import REQUEST_OVERHEAD_TOKENS, count_block
from sandbox.anthropic.script import Script
from sandbox.anthropic.tokens import count_text

Json = dict[str, Any]

INPUT_FIELDS = ("input_tokens", "cache_read_input_tokens", "cache_creation_5m", "cache_creation_1h")
"""The input side of `Counts`, as a ledger's entry names it too."""
_OWN = frozenset({"compaction", "advisor_message"})  # never in the top level
_WIRE_COUNTS = ("input_tokens", "output_tokens", "cache_read_input_tokens")


@dataclass(frozen=True, slots=True)
class Counts:
    """Counts of one or more inferences; the four of input are disjoint, thinking is part of the output."""

    input_tokens: int = 0
    cache_read_input_tokens: int = 0
    cache_creation_5m: int = 0
    cache_creation_1h: int = 0
    output_tokens: int = 0
    thinking_tokens: int = 0
    web_searches: int = 0
    web_fetches: int = 0

    def plus(self, other: "Counts") -> "Counts":
        """Return the sum."""
        return Counts(*(getattr(self, name) + getattr(other, name) for name in self.__slots__))

    def without_output(self) -> "Counts":
        """Return the input side."""
        return replace(self, output_tokens=0, thinking_tokens=0, web_searches=0, web_fetches=0)


@dataclass(frozen=True, slots=True)
class Inference:
    """One run of a model; `blocks` is the number of the answer's blocks when it ends."""

    type: str
    model: str
    counts: Counts
    charged: bool = True
    blocks: int = 0


@dataclass(frozen=True, slots=True)
class Usage:
    """All inferences, and the two states of the top level."""

    inferences: tuple[Inference, ...]
    start: Counts
    final: Counts
    model: str
    """The model of the answer."""
    shown: bool
    """Whether `iterations` is part of the usage."""


def prompt_counts(prompt: Prompt, script: Script) -> Counts:
    """Return the input of the first inference: as counted, or as the script claims."""
    claimed = (script.cache_read_input_tokens, script.cache_creation_5m, script.cache_creation_1h)
    if script.input_tokens is None and not any(claimed):
        return Counts(prompt.input_tokens, prompt.read, prompt.written_5m, prompt.written_1h)
    return Counts(prompt.total if script.input_tokens is None else script.input_tokens, *claimed)


def count_usage(
    blocks: Sequence[Block], prompt: Counts, script: Script, model: Model, *, compacts: bool, charged: bool
) -> Usage:
    """Count what an answer costs; `compacts` says that the compaction beta shows the iterations."""
    served = script.model or model.id
    if script.iterations is not None:
        inferences = _scripted(script.iterations, served)
    else:
        inferences = _Walk(prompt, served, model).over(blocks)
    if not charged:
        inferences = tuple(replace(each, charged=False) for each in inferences)
    if script.web_searches is not None:
        inferences = _with_searches(inferences, script.web_searches)
    counted = top_level(inferences)
    final = total(counted)
    if script.output_tokens is not None:
        inferences = _scaled(inferences, counted, script.output_tokens, final.output_tokens)
        final = replace(final, output_tokens=script.output_tokens)
    return Usage(
        inferences=inferences,
        start=counted[0].counts.without_output() if counted else prompt,
        final=final,
        model=counted[-1].model if counted else served,
        shown=script.iterations is not None or compacts or any(each.type != "message" for each in inferences),
    )


def top_level(inferences: Sequence[Inference]) -> tuple[Inference, ...]:
    """Return the inferences that the top-level usage sums up."""
    fallbacks = [each for each in inferences if each.type == "fallback_message"]
    return tuple(fallbacks or [each for each in inferences if each.type not in _OWN])


def total(inferences: Iterable[Inference]) -> Counts:
    """Return the sum of their counts."""
    found = Counts()
    for each in inferences:
        found = found.plus(each.counts)
    return found


class _Walk:
    """Finds the inferences behind the blocks of an answer."""

    def __init__(self, prompt: Counts, model: str, tokenizer: Model) -> None:
        self._input = prompt
        self._model = model
        self._tokenizer = tokenizer
        self._type = "message"
        self._done: list[Inference] = []
        self._said = Counts()  # the output side of the current inference

    def over(self, blocks: Sequence[Block]) -> tuple[Inference, ...]:
        """Walk over all blocks."""
        for number, block in enumerate(blocks, start=1):
            self._meet(block, number)
        last = self._current(len(blocks))
        return (*self._done, last)

    def _current(self, blocks: int, *, charged: bool = True) -> Inference:
        return Inference(self._type, self._model, self._input.plus(self._said), charged, blocks)

    def _meet(self, block: Block, number: int) -> None:
        if block.kind == "compaction":
            self._compact(block, number)
        elif block.kind == "fallback":
            self._fall_back(block, number)
        elif block.kind.endswith("_tool_result"):
            self._said = self._said.plus(_searches(block))
            self._done.append(self._current(number))
            if block.advisor_model is not None:
                self._advise(block, number)
            self._grow(block)
        else:
            tokens = Counts(output_tokens=block.tokens, thinking_tokens=block.thinking_tokens)
            self._said = self._said.plus(tokens)

    def _grow(self, result: Block) -> None:
        """Let the next inference read all that came before; what was cached or written is read from the cache."""
        before = self._input
        self._input = Counts(
            input_tokens=before.input_tokens + self._said.output_tokens + count_block(result.whole, self._tokenizer),
            cache_read_input_tokens=before.cache_read_input_tokens
            + before.cache_creation_5m
            + before.cache_creation_1h,
        )
        self._said = Counts()

    def _compact(self, block: Block, number: int) -> None:
        output = Counts(output_tokens=block.tokens)
        self._done.append(Inference("compaction", self._model, self._input.plus(output), blocks=number))
        self._input = Counts(input_tokens=REQUEST_OVERHEAD_TOKENS + block.tokens)

    def _advise(self, block: Block, number: int) -> None:
        text = str(block.whole["content"].get("text", ""))
        counts = replace(self._input, output_tokens=count_text(text))
        self._done.append(Inference("advisor_message", block.advisor_model or self._model, counts, blocks=number))

    def _fall_back(self, block: Block, number: int) -> None:
        """End the declined attempt: free if it had no output; the next model starts anew."""
        self._model = str(block.whole.get("from", {}).get("model") or self._model)
        self._type = "message"
        self._done.append(self._current(number, charged=self._said.output_tokens > 0))
        self._model = str(block.whole.get("to", {}).get("model") or self._model)
        self._type = "fallback_message"
        self._said = Counts()


def _searches(result: Block) -> Counts:
    """Count a search or a fetch that succeeded."""
    succeeded = not (isinstance(result.whole.get("content"), dict) and "error_code" in result.whole["content"])
    return Counts(
        web_searches=int(result.kind == "web_search_tool_result" and succeeded),
        web_fetches=int(result.kind == "web_fetch_tool_result" and succeeded),
    )


def _scripted(iterations: Sequence[Json], model: str) -> tuple[Inference, ...]:
    """Take the inferences that a script claims."""
    found = []
    for number, given in enumerate(iterations, start=1):
        split = given.get("cache_creation") or {}
        written: int = given.get("cache_creation_input_tokens", 0)
        counts = Counts(
            input_tokens=given.get("input_tokens", 0),
            cache_read_input_tokens=given.get("cache_read_input_tokens", 0),
            cache_creation_5m=split.get("ephemeral_5m_input_tokens", written),
            cache_creation_1h=split.get("ephemeral_1h_input_tokens", 0),
            output_tokens=given.get("output_tokens", 0),
            thinking_tokens=given.get("thinking_tokens", 0),
            web_searches=given.get("web_searches", 0),
        )
        free = counts.output_tokens == 0 and number < len(iterations)
        charged = bool(given.get("charged", not free))
        found.append(Inference(given.get("type", "message"), given.get("model") or model, counts, charged))
    return tuple(found)


def _with_searches(inferences: Sequence[Inference], searches: int) -> tuple[Inference, ...]:
    """Claim a number of searches: those of the last inference, and none of the others."""
    none = [replace(each, counts=replace(each.counts, web_searches=0)) for each in inferences]
    if none:
        none[-1] = replace(none[-1], counts=replace(none[-1].counts, web_searches=searches))
    return tuple(none)


def _scaled(
    inferences: Sequence[Inference], counted: Sequence[Inference], claimed: int, total: int
) -> tuple[Inference, ...]:
    """Share the claimed output among the inferences of the top level, in proportion."""
    chosen, done, shared, found = {id(each) for each in counted}, 0, 0, []
    last = counted[-1] if counted else None
    for each in inferences:
        if id(each) in chosen:
            done += each.counts.output_tokens
            upto = claimed if each is last else claimed * done // (total or 1)
            each = replace(each, counts=replace(each.counts, output_tokens=upto - shared))  # noqa: PLW2901
            shared = upto
        found.append(each)
    return tuple(found)


def iterations_json(inferences: Sequence[Inference]) -> list[Json]:
    """Return `usage.iterations`."""
    return [
        {"type": each.type}
        | ({} if each.type == "compaction" else {"model": each.model})
        | {name: getattr(each.counts, name) for name in _WIRE_COUNTS}
        | {
            "cache_creation_input_tokens": each.counts.cache_creation_5m + each.counts.cache_creation_1h,
            "cache_creation": {
                "ephemeral_5m_input_tokens": each.counts.cache_creation_5m,
                "ephemeral_1h_input_tokens": each.counts.cache_creation_1h,
            },
        }
        for each in inferences
    ]


def tools_json(counts: Counts) -> Json | None:
    """Return `usage.server_tool_use`, or None if no such tool was used."""
    if not counts.web_searches and not counts.web_fetches:
        return None
    return {"web_search_requests": counts.web_searches, "web_fetch_requests": counts.web_fetches}
