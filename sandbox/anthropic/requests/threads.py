"""Message threads: refused, unless the script of a request allows them; then a thread is kept for five minutes.

The errors are those that make SDKs send the whole history, or begin a new thread.
"""

from collections import OrderedDict
from dataclasses import replace
from typing import Any

import msgspec

from sandbox.anthropic.clock import Clock
from sandbox.anthropic.errors import ApiError
from sandbox.anthropic.requests.fields import CountFields, Request
from sandbox.anthropic.requests.turns import check_pairs
from sandbox.anthropic.script import Script

Json = dict[str, Any]

MAX_THREADS = 1_000
_LIVES_S = 300


class Threads:
    """The conversations of the threads, by the id of their last answer."""

    def __init__(self, clock: Clock) -> None:
        """Start empty."""
        self._clock = clock
        self._kept: OrderedDict[tuple[int, str], tuple[float, CountFields]] = OrderedDict()
        self._continued: OrderedDict[tuple[int, str], None] = OrderedDict()

    def continued(self, request: Request, script: Script) -> Request:
        """Return a request with the turns of its thread before its own; raises `ApiError`."""
        thread = request.fields.thread or {}
        if not script.allow_threads:
            raise ApiError(
                400,
                "thread: this request cannot be served as a thread; send the whole conversation",
                error_code="thread_unsupported_request",
            )
        if thread.get("type") == "create":
            return request
        key = (request.head.workspace, str(thread.get("previous_message_id")))
        if key in self._continued:
            raise ApiError(409, "thread: it was continued already", error_code="thread_already_continued")
        expires, before = self._kept.pop(key, (0.0, request.fields))
        if expires < self._clock.now_s():
            raise ApiError(404, "thread: not found", error_code="thread_not_found")
        self._continued[key] = None
        messages = [*before.messages, *request.fields.messages]
        check_pairs(messages)
        fields = msgspec.structs.replace(
            request.fields,
            messages=messages,
            system=before.system,
            tools=before.tools,
        )
        return replace(request, fields=fields)

    def keep(self, request: Request, content: list[Json], message_id: str) -> None:
        """Keep the conversation of a thread with its answer."""
        if request.fields.thread is None:
            return
        turns = [*request.fields.messages, {"role": "assistant", "content": content}]
        fields = msgspec.structs.replace(request.fields, messages=turns)
        self._kept[request.head.workspace, message_id] = (self._clock.now_s() + _LIVES_S, fields)
        while len(self._kept) > MAX_THREADS:
            self._kept.popitem(last=False)
        while len(self._continued) > MAX_THREADS:
            self._continued.popitem(last=False)
