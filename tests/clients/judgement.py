"""Judges what a client reported: against the expected values, the simulator's ledger, and Naka's access log."""

import base64
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

from tests.clients.stage import Stage
from tests.clients.task import EXPECTED, INPUT, WITHOUT_ANSWER, Task
from tests.harness import Account

USED_UP = "You've used today's 1 requests."
"""What Naka says to an account with a limit of one request a day."""
_CACHED_TOKENS = 1000
_SENT = {
    "turns": (b'"assistant"',),
    "tool": (b'"tool_use"', b'"tool_result"', b"dry"),
    "runner": (b'"tool_use"', b'"tool_result"', b"dry"),
    "image": (b'"image/png"', b'"base64"'),
    "thinking": (b'"thinking"',),
    "cache": (b'"cache_control"',),
}
"""What the last request of a scenario has to contain."""


def fault_of(stage: Stage, name: str, seen: dict[str, Any], task: Task, limited: Account) -> str | None:
    """Returns the first fault of a scenario; None when it is as it should be."""
    if "raised" in seen:
        return str(seen["raised"])[:600]
    if name == "limit":
        return next(_of_refusal(stage.answers(limited), seen, task.client.tries), None)
    if name == "key":
        return None if seen.get("error") and USED_UP not in seen["message"] else f"the error is {seen}"
    expected = {"input": INPUT, **EXPECTED[name]}
    wrong = {field: value for field, value in seen.items() if field in expected and value != expected[field]}
    if wrong or not seen:
        return f"reported {wrong}"
    return None if name in WITHOUT_ANSWER else next(_of_answer(stage, name, seen, task), None)


def _of_answer(stage: Stage, name: str, seen: dict[str, Any], task: Task) -> Iterator[str]:
    """Yields how the ledger of a scenario's requests differs from what the client saw."""
    ref = f"{task.ref}-{name}"
    entries = stage.simulator.ledger(ref)
    if not entries or (name == "cancel" and entries[0]["state"] == "completed"):
        yield f"the provider served {entries}"
    sent = base64.b64decode(stage.simulator.received(ref)[-1]["body"])
    needed = () if name == "tool" and task.client.forced else _SENT.get(name, ())
    if not all(part in sent for part in needed):
        yield "the provider did not get what belongs to this scenario"
    served = [_usage(entry) for entry in entries]
    if "usage" in seen and seen["usage"] != served:
        yield f"saw usage {seen['usage']}, the provider served {served}"
    if name == "cache" and not served[0][2] + served[0][3] == served[1][2] > _CACHED_TOKENS:
        yield f"nothing was read from the cache: {served}"


def _usage(entry: dict[str, Any]) -> list[int]:
    """The counts of an answer as clients report them: input, output, read from a cache, written to one."""
    written = entry["cache_creation_5m"] + entry["cache_creation_1h"]
    return [entry["input_tokens"], entry["output_tokens"], entry["cache_read_input_tokens"], written]


def _of_refusal(answers: list[int], seen: dict[str, Any], tries: int) -> Iterator[str]:
    """Yields what is wrong with an error about a used-up limit: its class, its words, the requests that it took."""
    if USED_UP not in str(seen.get("message")) or not seen.get("error"):
        yield f"the error is {seen}"
    if seen.get("status") not in (None, HTTPStatus.TOO_MANY_REQUESTS):
        yield f"the status is {seen['status']}"
    if answers != [HTTPStatus.OK, *[HTTPStatus.TOO_MANY_REQUESTS] * tries]:
        yield f"asked again: {answers}"
