"""The ledger of inferences: one row for each run of a model, with what the provider bills for it.

A request has one row, or more (`answers.usage`): by request id, iteration and model. Rows are written when the request
ends; of one that was interrupted they say how far it got: an inference that had not begun has none. Bounded; the oldest
rows are dropped first.
"""

import os
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from sandbox.anthropic.answers.plan import Answer
from sandbox.anthropic.answers.usage import INPUT_FIELDS, Counts, Inference, top_level, total
from sandbox.anthropic.ledger import Entry, Ledger, State

MAX_ROWS = 300_000


class Row(msgspec.Struct, kw_only=True):
    """One inference. Counts are tokens but the two of tools; thinking is part of the output."""

    seq: int
    """The number of the request's entry in the ledger."""
    request_id: str
    message_id: str | None
    ref: str | None
    workspace: int
    iteration: int
    type: str
    model: str
    input_tokens: int
    cache_read_input_tokens: int
    cache_creation_5m: int
    cache_creation_1h: int
    output_tokens: int
    thinking_tokens: int
    web_searches: int
    web_fetches: int
    speed: str
    inference_geo: str
    service_tier: str
    charged: bool
    state: State
    """The end of the request."""
    started_ms: int
    """The time at which the request was accepted."""
    ended_ms: int


class Inferences:
    """All rows; with a file, also those of earlier starts. The file has a row per line, as JSON."""

    def __init__(self, file: Path | None = None) -> None:
        """Start with the rows of the file. Raises OSError."""
        self._rows: deque[Row] = deque(_rows_of(file), maxlen=MAX_ROWS)
        self._file = file

    @property
    def last_seq(self) -> int:
        """The number of the newest row's request; 0 without rows."""
        return max((row.seq for row in self._rows), default=0)

    def add(self, row: Row) -> None:
        """Append a row."""
        self._rows.append(row)
        if self._file is not None:
            with self._file.open("ab") as file:
                file.write(msgspec.json.encode(row) + b"\n")

    def since(self, seq: int, *, ref: str | None = None, request_id: str | None = None) -> Iterator[Row]:
        """Yield the rows of the requests after `seq`, oldest first."""
        for row in self._rows:
            if row.seq > seq and ref in (None, row.ref) and request_id in (None, row.request_id):
                yield row

    def clear(self) -> None:
        """Forget the rows."""
        self._rows.clear()
        if self._file is not None:
            self._file.write_bytes(b"")


def _rows_of(file: Path | None) -> Iterator[Row]:
    """Yield the rows of a file, and cut off a last one that a kill left unfinished."""
    if file is None or not file.exists():
        return
    whole = file.read_bytes()
    end = whole.rfind(b"\n") + 1
    os.truncate(file, end)
    for line in whole[:end].splitlines():
        yield msgspec.json.decode(line, type=Row)


@dataclass(slots=True)
class Served:
    """One messages request while it is served: its entry, and its rows once it ends."""

    entry: Entry
    answer: Answer
    ledger: Ledger
    inferences: Inferences
    workspace: int
    blocks: int = 0
    """Blocks that were sent whole."""
    _rows: tuple[Row, ...] | None = None

    def generate(self) -> None:
        """Enter that the model has said it all."""
        self.blocks = len(self.answer.blocks)
        self.entry.output_tokens = self.answer.output_tokens
        self.entry.thinking_tokens = self.answer.usage.final.thinking_tokens

    def complete(self) -> None:
        """Enter the output of an answer that is complete; its input is entered by `end`."""
        self.generate()
        self.entry.stop_reason = self.answer.stop_reason

    def end(self, state: State) -> None:
        """End the entry and write the rows; a later call replaces the state only."""
        self.ledger.end(self.entry, state)
        if self._rows is not None:
            for row in self._rows:
                row.state = state
            return
        billed = list(self._billed()) if self.entry.status == 200 else []  # noqa: PLR2004 - an HTTP error is before any
        self._rows = tuple(self._row(number, each, state) for number, each in billed)
        for row in self._rows:
            self.inferences.add(row)
        self._enter_input([each for _, each in billed])

    def _billed(self) -> Iterator[tuple[int, Inference]]:
        """Yield the inferences that had begun, the last one with the output it had."""
        usage = self.answer.usage
        counted = {each.type for each in top_level(usage.inferences)}
        left = self.entry.output_tokens
        finished = self.blocks >= len(self.answer.blocks)
        for number, each in enumerate(usage.inferences):
            if each.type not in counted:
                if each.blocks > self.blocks and not finished:
                    return
                yield number, each
                continue
            whole = finished or self.blocks >= each.blocks > 0
            output = min(left, each.counts.output_tokens)
            left -= output
            yield number, each if whole and output == each.counts.output_tokens else _partial(each, output, self.entry)
            if not whole:
                return

    def _enter_input(self, billed: Sequence[Inference]) -> None:
        """Enter the input of the top level, of the inferences that had begun."""
        sums = total(top_level(billed))
        for name in INPUT_FIELDS:
            setattr(self.entry, name, getattr(sums, name))

    def _row(self, number: int, each: Inference, state: State) -> Row:
        counts, entry, answer = each.counts, self.entry, self.answer
        return Row(
            seq=entry.seq,
            request_id=entry.request_id,
            message_id=entry.message_id,
            ref=entry.ref,
            workspace=self.workspace,
            iteration=number,
            type=each.type,
            model=each.model,
            **{name: getattr(counts, name) for name in Counts.__slots__},
            speed=answer.speed,
            inference_geo=answer.inference_geo,
            service_tier=answer.service_tier,
            charged=each.charged,
            state=state,
            started_ms=entry.started_ms,
            ended_ms=entry.ended_ms or 0,
        )


def _partial(each: Inference, output: int, entry: Entry) -> Inference:
    """Return an inference that was interrupted: its input, and what it had said."""
    thought = min(output, entry.thinking_tokens, each.counts.thinking_tokens)
    counts = replace(each.counts.without_output(), output_tokens=output, thinking_tokens=thought)
    return replace(each, counts=counts)
