"""The end of an answer before its end: `max_tokens` and stop sequences, over all its blocks. Pure."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import msgspec

from sandbox.anthropic.answers.blocks import Block, text_block, thinking_block
from sandbox.anthropic.tokens import cut_text, filler, quarters, tokens_of

Json = dict[str, Any]

_MAX_OPEN = 64


def cut_blocks(
    blocks: Sequence[Block], max_tokens: int, stop_sequences: Sequence[str]
) -> tuple[tuple[Block, ...], str | None, str | None]:
    """Return the blocks that are said, the stop reason if it is one of the two, and the stop sequence."""
    kept: list[Block] = []
    left = max_tokens
    for block in blocks:
        if not block.counted:
            kept.append(block)
            continue
        stop_at, sequence = _find_stop(block, stop_sequences)
        if left <= 0 and (block.tokens or block.kind == "text"):
            return tuple(kept), "max_tokens" if block.tokens else None, None
        cut = _first_chars(block, stop_at) if sequence is not None else block
        if cut.tokens > left:
            short = _cut(cut, left)
            return (*kept, *([short] if short is not None else ())), "max_tokens", None
        kept.append(cut)
        if sequence is not None:
            return tuple(kept), "stop_sequence", sequence
        left -= cut.tokens
    return tuple(kept), None, None


def _find_stop(block: Block, stop_sequences: Sequence[str]) -> tuple[int, str | None]:
    """Return where a text stops, and why."""
    text = block.whole["text"] if block.kind == "text" else ""
    ends = [(at, sequence) for sequence in stop_sequences if (at := text.find(sequence)) >= 0]
    return min(ends, default=(len(text), None))


def _cut(block: Block, tokens: int) -> Block | None:
    """Return the part of a block that has at most so many tokens; None for one that comes whole."""
    if block.kind == "text":
        return _first_chars(block, len(cut_text(block.whole["text"], tokens)))
    if block.kind == "thinking":
        shown = bool(block.whole["thinking"])
        estimates = "estimated_tokens" in block.deltas[0].payload
        text = cut_text(block.whole["thinking"], tokens) if shown else filler(tokens)
        return thinking_block(text, tokens=tokens, shown=shown, estimates=estimates)
    if block.pieces:
        return _cut_input(block, tokens)
    return None


def _first_chars(block: Block, length: int) -> Block:
    """Return a text block of the first `length` characters, the last piece shortened."""
    kept = []
    for piece in block.pieces:
        if length <= 0:
            break
        kept.append(piece[:length])
        length -= len(piece)
    return block if kept == list(block.pieces) else text_block("".join(kept), kept, block.whole.get("citations"))


def _cut_input(block: Block, tokens: int) -> Block | None:
    """Return a tool use whose input breaks off; whole, it has the members that were complete."""
    if tokens_of(block.start_quarters) > tokens:
        return None
    deltas, weight, said = [block.deltas[0]], block.start_quarters, ""
    for delta in block.deltas[1:]:
        piece = delta.payload["partial_json"]
        if tokens_of(weight + delta.quarters) > tokens:
            piece = piece[: max(n for n in range(len(piece)) if tokens_of(weight + quarters(piece[:n])) <= tokens)]
        if piece:
            deltas.append(replace(delta, payload=delta.payload | {"partial_json": piece}, quarters=quarters(piece)))
        weight += quarters(piece)
        said += piece
        if piece != delta.payload["partial_json"]:
            break
    whole = block.whole | {"input": complete_members(said)}
    return replace(block, whole=whole, deltas=tuple(deltas))


def complete_members(text: str) -> Json:
    """Read JSON that breaks off as far as it is complete."""
    opened: list[str] = []
    in_string = escaped = False
    best: tuple[str, str] | None = None
    for at, char in enumerate(text):
        if in_string:
            in_string = escaped or char != '"'
            escaped = char == "\\" and not escaped
        elif char == '"':
            in_string = True
        elif char in "{[" and len(opened) < _MAX_OPEN:
            opened.append("}" if char == "{" else "]")
            best = (text[: at + 1], "".join(reversed(opened)))
        elif char in "}]":
            opened.pop()
            best = (text[: at + 1], "".join(reversed(opened)))
        elif char == ",":
            best = (text[:at], "".join(reversed(opened)))
    if best is None:
        return {}
    try:
        found = msgspec.json.decode(best[0] + best[1])
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
