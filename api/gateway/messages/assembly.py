"""Assembles the answer of a request that was not streamed from the provider's events. Pure.

The provider is always asked for a stream, so that an answer that breaks off is counted as exactly as a streamed one.
What the SDK's own accumulation does with each kind of event is the reference; fields and kinds that it does not know
are kept by general rules: strings and lists grow, any other value replaces the one before.
"""

import json
from io import StringIO
from typing import Any

import jiter

from api.gateway.upstream.events import whole

_IGNORED = frozenset({"type", "index"})


class Assembly:
    """One answer. `take` each event's data in their order; `message` is the whole."""

    def __init__(self) -> None:
        self.message: dict[str, Any] = {}
        self._blocks: dict[int, dict[str, Any]] = {}
        self._inputs: dict[int, StringIO] = {}
        self._texts: dict[int, dict[str, StringIO]] = {}
        """The growing texts of blocks: adding to a string copies all of it."""

    def take(self, data: bytes) -> None:
        """Adds an event. Raises ValueError for data that is no event."""
        if not data:
            return
        event = json.loads(data)
        match event:
            case {"type": "message_start", "message": dict(message)}:
                self.message = {**message, "content": list(message.get("content") or [])}
            case {"type": "content_block_start", "index": int(index), "content_block": dict(block)}:
                self._blocks[index] = block
                self.message.setdefault("content", []).append(block)
            case {"type": "content_block_delta", "index": int(index), "delta": dict(delta)} if index in self._blocks:
                self._grow(index, delta)
            case {"type": "content_block_stop", "index": int(index)}:
                self._complete(index)
            case {"type": "message_delta"}:
                self._finish(event)
            case _:
                pass  # no part of the message

    def encoded(self) -> bytes:
        """The message as JSON in UTF-8."""
        for index in self._blocks:  # a block that was cut has no stop
            self._complete(index)
        return whole(json.dumps(self.message, ensure_ascii=False, separators=(",", ":"))).encode()

    def _grow(self, index: int, delta: dict[str, Any]) -> None:
        block = self._blocks[index]
        match delta:
            case {"type": "input_json_delta", "partial_json": str(text)}:
                self._inputs.setdefault(index, StringIO()).write(text)
            case {"type": "citations_delta", "citation": citation}:
                cited = block.get("citations")
                if isinstance(cited, list):
                    cited.append(citation)
                else:
                    block["citations"] = [citation]
            case {"type": "signature_delta", "signature": signature}:
                block["signature"] = signature
            case _:
                for name, value in delta.items():
                    if name not in _IGNORED:
                        self._add(index, name, value)

    def _add(self, index: int, name: str, value: Any) -> None:
        """Adds a delta's value to a field of a block: strings and lists grow, any other value replaces."""
        block, texts = self._blocks[index], self._texts.setdefault(index, {})
        before = block.get(name)
        if isinstance(value, str) and isinstance(before, str):
            if name not in texts:
                texts[name] = StringIO()
                texts[name].write(before)
            texts[name].write(value)
            return
        texts.pop(name, None)
        block[name] = before + value if isinstance(before, list) and isinstance(value, list) else value

    def _complete(self, index: int) -> None:
        """Puts what has grown into its block."""
        for name, text in self._texts.pop(index, {}).items():
            self._blocks[index][name] = text.getvalue()
        if index in self._inputs:
            block = self._blocks[index]
            block["input"] = _parsed(self._inputs.pop(index).getvalue(), block.get("input"))

    def _finish(self, event: dict[str, Any]) -> None:
        """Adds what the end of a message tells: the stop reason, final counts, and whatever else it has."""
        self.message.update(event.get("delta") or {})
        usage = self.message.setdefault("usage", {})
        usage.update({name: value for name, value in (event.get("usage") or {}).items() if value is not None})
        for name, value in event.items():
            if name not in {"type", "delta", "usage"}:
                self.message[name] = value


def _parsed(text: str, empty: Any) -> Any:
    """The input of a tool; of one that was cut, what is whole of it."""
    if not text:
        return empty if isinstance(empty, dict) else {}
    try:
        return json.loads(text)
    except ValueError:
        try:
            return jiter.from_json(text.encode("utf-8", "replace"), partial_mode=True)
        except ValueError:
            return {}
