"""The wishes in a request: the script in its text or header, the directives in its last text, and earlier turns.

The last marker of a conversation counts. In a tool's round trip the marker is still there when the result comes back; a
script whose answer asked for a tool is then over, and with `turns` the script of the next answer applies.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from sandbox.anthropic.errors import ApiError
from sandbox.anthropic.requests.fields import Request
from sandbox.anthropic.requests.turns import blocks_of
from sandbox.anthropic.script import Script, ScriptError, read_markers, read_script

Json = dict[str, Any]

_DIRECTIVE = re.compile(r"\buse the tool ([A-Za-z0-9_-]+)(?:\s+with\s+(?=\{))?", re.IGNORECASE)
_JSON = json.JSONDecoder()


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A tool that the text tells to use; `given` is None without `with {...}`."""

    name: str
    given: Json | None


@dataclass(frozen=True, slots=True)
class Asked:
    """The script, the last turn's text without markers, the tools it names, and what tools answered in it."""

    script: Script
    said: str
    calls: tuple[ToolCall, ...]
    results: tuple[tuple[str, str], ...]
    """Name of the tool and text of its result, in the last turn."""


def read_asked(request: Request) -> Asked:
    """Read what a request asks for; raises `ApiError` (400)."""
    messages = request.fields.messages
    script, position, said = _last_script(messages)
    if script is None and request.head.script is not None:
        try:
            script, position = read_script(request.head.script), len(messages) - 1
        except ScriptError as error:
            raise ApiError(400, f"x-sandbox-script: {error}") from error
    last = messages[-1]
    results = tuple(_results(messages)) if last["role"] == "user" else ()
    answers = sum(turn["role"] == "assistant" for turn in messages[position + 1 :])
    return Asked(
        script=_of_this_answer(script or Script(), answers, answered=bool(results)),
        said=said,
        calls=tuple(_directives(said)) if last["role"] == "user" else (),
        results=results,
    )


def _last_script(messages: Sequence[Json]) -> tuple[Script | None, int, str]:
    """Return the last script, the number of its turn, and the last turn's text without markers."""
    script, position, said = None, 0, ""
    for number, turn in enumerate(messages):
        said = ""
        for text in _texts(turn["content"]):
            try:
                found, rest = read_markers(text) if "[[sim" in text else (None, text)
            except ScriptError as error:
                raise ApiError(400, str(error)) from error
            if found is not None:
                script, position = found, number
            said = f"{said} {rest}"
    return script, position, said


def _of_this_answer(script: Script, answers: int, *, answered: bool) -> Script:
    """Return the script of the next answer, `answers` answers after the marker."""
    if script.turns is not None:
        turn = script.turns[answers] if answers < len(script.turns) else Script()
        return turn if turn.ref is not None else msgspec.structs.replace(turn, ref=script.ref)
    asks = any(block.get("type") == "tool_use" for block in script.blocks or ())
    if answered and answers and asks:
        return msgspec.structs.replace(script, blocks=None, stop_reason=None)
    return script


def _texts(content: str | Sequence[Json]) -> Sequence[str]:
    """Return the texts that a turn itself says: what a tool answered gives no orders."""
    return [block["text"] for block in blocks_of(content) if block["type"] == "text"]


def _texts_inside(result: Json) -> list[str]:
    content = result.get("content") or ()
    if isinstance(content, str):
        return [content]
    return [block["text"] for block in content if block.get("type") == "text" and block.get("text")]


def _directives(said: str) -> Sequence[ToolCall]:
    """Find every `use the tool NAME with {...}`."""
    calls, at = [], 0
    while found := _DIRECTIVE.search(said, at):
        at, given = found.end(), None
        if said[at : at + 1] == "{" and found.group(0).rstrip().lower().endswith("with"):
            try:
                given, at = _JSON.raw_decode(said, at)
            except ValueError as error:
                raise ApiError(400, f"use the tool {found.group(1)} with ...: {error}") from error
        calls.append(ToolCall(found.group(1), given))
    return calls


def _results(messages: Sequence[Json]) -> Sequence[tuple[str, str]]:
    """Name each result of the last turn by the tool use it answers."""
    names = {
        block["id"]: block["name"]
        for turn in messages
        for block in blocks_of(turn["content"])
        if block["type"] == "tool_use"
    }
    return [
        (names.get(block["tool_use_id"], "tool"), " ".join(_texts_inside(block)))
        for block in blocks_of(messages[-1]["content"])
        if block["type"] == "tool_result"
    ]
