"""Prompt caches per workspace.

A prefix ends at a segment of the prompt (tools, system, messages) and is looked up at each mark and up to 20 segments
before it; the longest that was written earlier is read. What lies between it and the last mark is written, with the
time to live of the next mark. A read renews the time. Bounded; the oldest entries are dropped first.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from sandbox.anthropic.clock import Clock
from sandbox.anthropic.requests.caching import identity, mark_of, segments
from sandbox.anthropic.requests.counting import count_segment, overhead
from sandbox.anthropic.requests.fields import Request

MAX_ENTRIES = 100_000
LOOKBACK_SEGMENTS = 20
_TTL_S = {"5m": 300, "1h": 3_600}

Key = tuple[int, str, bytes]


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt's tokens by class, and the entries that the request writes or renews once it is answered."""

    input_tokens: int
    read: int = 0
    written_5m: int = 0
    written_1h: int = 0
    touched: tuple[tuple[Key, str], ...] = ()

    @property
    def total(self) -> int:
        """All tokens of the prompt."""
        return self.input_tokens + self.read + self.written_5m + self.written_1h


class Caches:
    """All prefixes that are cached."""

    def __init__(self, clock: Clock) -> None:
        """Start empty."""
        self._clock = clock
        self._entries: OrderedDict[Key, tuple[float, str]] = OrderedDict()  # when it expires, and its time to live

    def look_up(self, request: Request) -> Prompt:
        """Count a prompt, and say which part of it is cached."""
        prefixes = _Prefixes.of(request)
        marks = [(at, ttl) for at, ttl in prefixes.marks if prefixes.totals[at] >= request.model.min_cache_tokens]
        total = prefixes.totals[-1] if prefixes.totals else overhead(request)
        if not marks:
            return Prompt(total)
        hit = self._longest(prefixes, [at for at, _ in marks])
        read = prefixes.totals[hit] if hit is not None else 0
        touched = [(prefixes.keys[hit], "")] if hit is not None else []
        written = {"5m": 0, "1h": 0}
        done = read
        for at, ttl in marks:
            if prefixes.totals[at] > done:
                written[ttl] += prefixes.totals[at] - done
                done = prefixes.totals[at]
                touched.append((prefixes.keys[at], ttl))
            else:
                touched.append((prefixes.keys[at], ""))  # read as part of a longer prefix
        return Prompt(total - read - sum(written.values()), read, written["5m"], written["1h"], tuple(touched))

    def commit(self, prompt: Prompt) -> None:
        """Write and renew what a request touched."""
        now = self._clock.now_s()
        for key, ttl in prompt.touched:
            expires, kept = self._entries.get(key, (0.0, ttl))
            if ttl or expires > now:
                lives = ttl or kept
                self._entries[key] = (now + _TTL_S[lives], lives)
                self._entries.move_to_end(key)
        while len(self._entries) > MAX_ENTRIES:
            self._entries.popitem(last=False)

    def clear(self) -> None:
        """Forget everything."""
        self._entries.clear()

    def _longest(self, prefixes: "_Prefixes", marks: Sequence[int]) -> int | None:
        """Return the last segment of the longest prefix that is cached."""
        now = self._clock.now_s()
        for mark in reversed(marks):
            for at in range(mark, max(-1, mark - LOOKBACK_SEGMENTS - 1), -1):
                if self._entries.get(prefixes.keys[at], (0.0, ""))[0] > now:
                    return at
        return None


@dataclass(frozen=True, slots=True)
class _Prefixes:
    """For each segment of a prompt: the key and the tokens of the prefix that ends with it; and the marks."""

    keys: tuple[Key, ...]
    totals: tuple[int, ...]
    marks: tuple[tuple[int, str], ...]

    @classmethod
    def of(cls, request: Request) -> "_Prefixes":
        fields, running = request.fields, overhead(request)
        digest = hashlib.blake2b(digest_size=16)
        keys: list[Key] = []
        totals: list[int] = []
        marks: list[tuple[int, str]] = []
        top = fields.cache_control
        parts = list(segments(fields.tools, fields.system, fields.messages))
        marked = top is not None or any(mark_of(block) is not None for _, block in parts)
        for at, (place, block) in enumerate(parts):
            running += count_segment(place, block, request.model)
            totals.append(running)
            if marked:
                digest.update(identity(place, block))
                keys.append((request.head.workspace, request.model.id, digest.copy().digest()))
                ttl = mark_of(block)
                if ttl is not None:
                    marks.append((at, ttl))
        if top is not None and totals and (not marks or marks[-1][0] != len(totals) - 1):
            marks.append((len(totals) - 1, str(top.get("ttl") or "5m")))
        return cls(tuple(keys), tuple(totals), tuple(marks))
