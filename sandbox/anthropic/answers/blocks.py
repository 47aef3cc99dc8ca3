"""A content block in its two forms: whole, and as a start with deltas.

Text, thinking, tool inputs and compactions come in deltas; every other block, also of an unknown type, comes whole in
its start. A block's weight is what it adds to the output tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from itertools import accumulate
from typing import Any

import msgspec

from sandbox.anthropic.tokens import QUARTERS_PER_TOKEN, filler, quarters, split_pieces, tokens_of

Json = dict[str, Any]

SIGNATURE = "c2ltdWxhdGVk"
"""The signature of every simulated thinking block."""

TOOL_USES = frozenset({"tool_use", "server_tool_use", "mcp_tool_use"})
_PRIVATE = frozenset({"pieces", "tokens"})
_JSON_PIECE_CHARS = 14


@dataclass(slots=True)
class Delta:
    """One delta; `chars` are those of text, and a piece counts for the faults of a script."""

    payload: Json
    quarters: int = 0
    chars: int = 0
    piece: bool = False
    thinking: bool = False


@dataclass(frozen=True)
class Block:
    """One block of an answer."""

    whole: Json
    start: Json
    deltas: tuple[Delta, ...] = ()
    start_quarters: int = 0
    """Weight that belongs to the start."""
    thinking_tokens: int = 0
    counted: bool = True
    """Whether its tokens are in the top-level output: not those of a compaction."""
    advisor_model: str | None = None
    pieces: tuple[str, ...] = field(default=())
    """The deltas of a text, as strings."""

    @property
    def kind(self) -> str:
        """The type."""
        return str(self.whole["type"])

    @cached_property
    def tokens(self) -> int:
        """Output tokens of the block."""
        return tokens_of(self.start_quarters + sum(delta.quarters for delta in self.deltas))

    @cached_property
    def tokens_after(self) -> Sequence[int]:
        """Output tokens generated with each delta."""
        weights = accumulate((delta.quarters for delta in self.deltas), initial=self.start_quarters)
        return [tokens_of(weight) for weight in weights][1:]


def text_block(text: str, pieces: Sequence[str] | None = None, citations: Sequence[Json] | None = None) -> Block:
    """Make a block of text; its citations come after the text."""
    return _plain_text(text) if pieces is None and citations is None else _text_block(text, pieces, citations)


def _text_block(text: str, pieces: Sequence[str] | None, citations: Sequence[Json] | None) -> Block:
    parts = tuple(split_pieces(text) if pieces is None else pieces)
    deltas = [_text_delta(piece) for piece in parts]
    whole: Json = {"type": "text", "text": text}
    start: Json = {"type": "text", "text": ""}
    if citations is not None:
        whole["citations"], start["citations"] = list(citations), []
        deltas += [Delta({"type": "citations_delta", "citation": each}) for each in citations]
    return Block(whole, start, tuple(deltas), pieces=parts)


@lru_cache(maxsize=64)
def _plain_text(text: str) -> Block:
    """Make a block of text without more; a test asks for the same one many times."""
    return _text_block(text, None, None)


def thinking_block(
    text: str, *, tokens: int | None, shown: bool, estimates: bool, pieces: Sequence[str] | None = None
) -> Block:
    """Make a block of thinking; omitted thinking has only its signature, and weighs the same."""
    parts = tuple(split_pieces(text) if pieces is None else pieces)
    weights = [quarters(piece) for piece in parts]
    weight = max(sum(weights), (tokens or 0) * QUARTERS_PER_TOKEN)
    deltas = []
    if shown:
        rest = weight - sum(weights)  # a summary weighs less than what was thought
        for number, (piece, piece_weight) in enumerate(zip(parts, weights, strict=True)):
            delta: Json = {"type": "thinking_delta", "thinking": piece}
            if estimates:
                delta["estimated_tokens"] = tokens_of(piece_weight)
            deltas.append(Delta(delta, piece_weight + (rest if number == 0 else 0), thinking=True))
        if not parts:
            deltas.append(Delta({"type": "thinking_delta", "thinking": ""}, weight, thinking=True))
    signature = Delta({"type": "signature_delta", "signature": SIGNATURE}, 0 if shown else weight)
    return Block(
        {"type": "thinking", "thinking": text if shown else "", "signature": SIGNATURE},
        {"type": "thinking", "thinking": "", "signature": ""},
        (*deltas, signature),
        thinking_tokens=tokens_of(weight),
    )


def tool_block(whole: Json, pieces: Sequence[str] | None = None) -> Block:
    """Make a tool use of any kind; its first delta is empty, and an empty input has no other."""
    text = msgspec.json.encode(whole["input"]).decode() if whole["input"] else ""
    if pieces is None:
        pieces = [text[at : at + _JSON_PIECE_CHARS] for at in range(0, len(text), _JSON_PIECE_CHARS)]
    deltas = [Delta({"type": "input_json_delta", "partial_json": ""})]
    deltas += [
        Delta({"type": "input_json_delta", "partial_json": piece}, quarters(piece), piece=True) for piece in pieces
    ]
    return Block(whole, whole | {"input": {}}, tuple(deltas), quarters(whole["name"]), pieces=tuple(pieces))


def make_block(given: Json, *, block_id: str, shown: bool, estimates: bool) -> Block:
    """Make a block from a script's, with what is missing."""
    whole = {name: value for name, value in given.items() if name not in _PRIVATE and not name.startswith("_")}
    kind, pieces, tokens = whole.get("type", ""), given.get("pieces"), given.get("tokens")
    if kind == "text":
        text = "".join(pieces) if pieces is not None else str(whole.get("text", ""))
        block = text_block(text, pieces, whole.get("citations"))
        extra = {name: value for name, value in whole.items() if name not in ("type", "text", "citations")}
        return replace(block, whole=block.whole | extra, start=block.start | extra)
    if kind == "thinking":
        text = "".join(pieces) if pieces is not None else whole.get("thinking") or filler(tokens or 0)
        block = thinking_block(text, tokens=tokens, shown=shown, estimates=estimates, pieces=pieces)
        return _signed(block, whole.get("signature"))
    if kind in TOOL_USES:
        return tool_block({"type": kind, "id": block_id, "name": "", "input": {}} | whole, pieces)
    if kind == "redacted_thinking":
        weight = quarters(str(whole.get("data", ""))) if tokens is None else tokens * QUARTERS_PER_TOKEN
        return Block(whole, whole, (), weight, thinking_tokens=tokens_of(weight))
    if kind == "compaction":
        return _compaction(whole)
    weight = (tokens or 0) * QUARTERS_PER_TOKEN
    return Block(whole, whole, (), weight, advisor_model=given.get("_model"))


def _text_delta(piece: str) -> Delta:
    return Delta({"type": "text_delta", "text": piece}, quarters(piece), len(piece), piece=True)


def _signed(block: Block, signature: str | None) -> Block:
    """Replace the signature of a thinking block."""
    if signature is None:
        return block
    last = replace(block.deltas[-1], payload={"type": "signature_delta", "signature": signature})
    return replace(block, whole=block.whole | {"signature": signature}, deltas=(*block.deltas[:-1], last))


def _compaction(whole: Json) -> Block:
    """Make a compaction: one delta with all of it, and no output of the message."""
    said: Json = {name: whole.get(name) for name in ("content", "encrypted_content")}
    weight = quarters(str(whole.get("content") or ""))
    delta = Delta({"type": "compaction_delta"} | said)
    return Block(whole | said, whole | dict.fromkeys(said), (delta,), weight, counted=False)
