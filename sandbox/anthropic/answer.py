"""The plan of an answer: its text and counts, from a request and its script. Pure.

Output tokens are the tokens generated, thinking included, at most `max_tokens`; only the script's `output_tokens` may
report another number.
"""

from dataclasses import dataclass
from itertools import accumulate

from sandbox.anthropic.request import MessagesBody, count_input
from sandbox.anthropic.script import Script
from sandbox.anthropic.tokens import cut_text, filler, quarters, split_pieces, tokens_of

_ECHO_CHARS = 80


@dataclass(frozen=True, slots=True)
class InputUsage:
    """The input side of a usage, in tokens; the four are disjoint."""

    input_tokens: int
    cache_read_input_tokens: int
    cache_creation_5m: int
    cache_creation_1h: int


@dataclass(frozen=True, slots=True)
class Answer:
    """The whole answer. `tokens_after[i]` are the output tokens generated with `i` pieces said, and
    `thought_after[i]` those generated after `i` deltas of thinking.
    """  # noqa: D205 - two facts, one sentence

    model: str
    usage: InputUsage
    thinking: tuple[str, ...]
    thinking_tokens: int
    pieces: tuple[str, ...]
    has_text: bool
    thought_after: tuple[int, ...]
    tokens_after: tuple[int, ...]
    output_tokens: int
    stop_reason: str
    stop_sequence: str | None


def compose(body: MessagesBody, script: Script, said: str) -> Answer:
    """Plan the answer to a request; `said` is the last message without markers."""
    pieces, thinking_tokens, stop_reason, stop_sequence = _speech(body, script, said)
    thinking = split_pieces(filler(thinking_tokens))
    thought = tuple(map(tokens_of, accumulate(map(quarters, thinking), initial=0)))
    said_after = [thinking_tokens + tokens_of(q) for q in accumulate(map(quarters, pieces), initial=0)]
    total = said_after[-1]
    reported = total if script.output_tokens is None else script.output_tokens
    if reported != total:  # a claimed total is reached in proportion, so that a cut has its share
        thought = tuple(reported * tokens // (total or 1) for tokens in thought)
        said_after = [reported * tokens // (total or 1) for tokens in said_after]
    return Answer(
        model=script.model or body.model,
        usage=_input_usage(body, script),
        thinking=thinking,
        thinking_tokens=thinking_tokens,
        pieces=pieces,
        has_text=script.refusal != "empty" and (thinking_tokens < body.max_tokens),
        thought_after=thought,
        tokens_after=tuple(said_after),
        output_tokens=reported,
        stop_reason=script.stop_reason or stop_reason,
        stop_sequence=stop_sequence,
    )


def _input_usage(body: MessagesBody, script: Script) -> InputUsage:
    """Count the input, or take what the script claims."""
    counted = count_input(body) if script.input_tokens is None else script.input_tokens
    return InputUsage(counted, script.cache_read_input_tokens, script.cache_creation_5m, script.cache_creation_1h)


def _speech(body: MessagesBody, script: Script, said: str) -> tuple[tuple[str, ...], int, str, str | None]:
    """Return the pieces, the tokens of thinking, the stop reason and the stop sequence."""
    if script.refusal == "empty":
        return (), 0, "refusal", None
    thinking = min(script.thinking, body.max_tokens)
    pieces = _pieces(script, said)
    whole = "".join(pieces)
    ends = [(at, sequence) for sequence in body.stop_sequences if (at := whole.find(sequence)) >= 0]
    stop_at, sequence = min(ends, default=(len(whole), None))
    kept = cut_text(whole[:stop_at], body.max_tokens - thinking)
    reason = "end_turn" if sequence is None else "stop_sequence"
    if len(kept) < stop_at or thinking < script.thinking:
        reason, sequence = "max_tokens", None
    if script.refusal == "partial":
        reason, sequence = "refusal", None
    return (pieces if len(kept) == len(whole) else _first_chars(pieces, len(kept))), thinking, reason, sequence


def _pieces(script: Script, said: str) -> tuple[str, ...]:
    """Return the deltas before anything is cut off."""
    if script.pieces is not None:
        return script.pieces
    if script.text is not None:
        return split_pieces(script.text)
    if script.words is not None:
        return split_pieces(filler(script.words))
    return split_pieces(_agree(said))


def _first_chars(pieces: tuple[str, ...], length: int) -> tuple[str, ...]:
    """Return the pieces that make up the first `length` characters, the last one shortened."""
    kept = []
    for piece in pieces:
        if length <= 0:
            break
        kept.append(piece[:length])
        length -= len(piece)
    return tuple(kept)


def _agree(said: str) -> str:
    """Make the answer that a person at a laptop gets."""
    words = " ".join(said.split())
    echo = words if len(words) <= _ECHO_CHARS else words[: _ECHO_CHARS - 1].rstrip() + "…"
    heard = f"You wrote: “{echo}”, and I could not agree more. " if echo else ""
    return (
        "This is the simulator of Anthropic's API that comes with Naka, not Claude: no model was asked, and "
        f"nothing was spent. {heard}A real answer would stand here. It would reach you like this one, a few "
        "words at a time, and every word of it would be counted, limited and billed in just the same way."
    )
