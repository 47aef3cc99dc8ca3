"""The blocks of an answer: the script's, a tool's use, a quote of a tool's result, or plain agreement. Pure."""

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from sandbox.anthropic.answers.blocks import TOOL_USES, Block, make_block, thinking_block
from sandbox.anthropic.answers.json_schema import example
from sandbox.anthropic.answers.server_tools import SHORT_BLOCKS, citation, expand
from sandbox.anthropic.caches import Prompt
from sandbox.anthropic.requests.asking import Asked
from sandbox.anthropic.requests.fields import Request
from sandbox.anthropic.requests.tools import is_server_tool, kind_of, name_of
from sandbox.anthropic.tokens import filler

Json = dict[str, Any]

_ECHO_CHARS = 80
_QUOTE_CHARS = 400
_THINKING_TOKENS = 60  # of a request that turns thinking on without a script
_COMPACT_AT_TOKENS = 150_000
_ID_PREFIXES = {"mcp": "mcptoolu_01", "mcp_tool_use": "mcptoolu_01", "tool_use": "toolu_01"}


def write_content(request: Request, asked: Asked, prompt: Prompt) -> tuple[tuple[Block, ...], str]:
    """Return the blocks before anything is cut off, and their stop reason."""
    script = asked.script
    if script.refusal == "empty":
        return (), "refusal"
    given, reason = _given(request, asked)
    ids = _Ids(request)
    shown, estimates = shows_thinking(request, asked), request.head.has_beta("thinking-token-count-")
    blocks = [*_thinking(request, asked, shown=shown, estimates=estimates)]
    if _compacts(request, prompt) and script.blocks is None:
        blocks.insert(0, make_block(_summary(), block_id="", shown=shown, estimates=estimates))
    cited: Json | None = None
    for short in given:
        kind = short.get("type", "")
        for whole in expand(short, ids.make(kind) if kind in SHORT_BLOCKS else ""):
            if cited is not None and whole.get("type") == "text" and "citations" not in whole and len(given) > 1:
                whole = whole | {"citations": [cited]}  # noqa: PLW2901 - the text after a search cites it
            cited = citation(whole)
            needs_id = "id" not in whole and whole.get("type", "") in TOOL_USES
            block_id = ids.make(whole["type"]) if needs_id else ""
            blocks.append(make_block(whole, block_id=block_id, shown=shown, estimates=estimates))
    return tuple(blocks), "refusal" if script.refusal == "partial" else reason


def shows_thinking(request: Request, asked: Asked) -> bool:
    """Whether thinking is shown: by the script, the request, or the model if the request thinks."""
    if asked.script.display is not None:
        return asked.script.display == "summarized"
    display = (request.fields.thinking or {}).get("display")
    if display is not None:
        return str(display) != "omitted"
    return not (request.thinks and request.model.omits_thinking)


def _thinking(request: Request, asked: Asked, *, shown: bool, estimates: bool) -> Iterator[Block]:
    """Think as the script says, or a little if the request turns thinking on."""
    tokens = asked.script.thinking
    if not tokens and request.thinks and not request.forces_tool and asked.script.blocks is None:
        tokens = _THINKING_TOKENS
    if tokens:
        yield thinking_block(filler(tokens), tokens=tokens, shown=shown, estimates=estimates)


def _given(request: Request, asked: Asked) -> tuple[Sequence[Json], str]:
    """Return the blocks after thinking, as a script would write them, and the stop reason."""
    script = asked.script
    if script.blocks is not None:
        uses = any(block.get("type") == "tool_use" for block in script.blocks)
        return script.blocks, "tool_use" if uses else "end_turn"
    if script.pieces is not None:
        return ({"type": "text", "pieces": list(script.pieces)},), "end_turn"
    if script.text is not None:
        return ({"type": "text", "text": script.text},), "end_turn"
    if script.words is not None:
        return ({"type": "text", "text": filler(script.words)},), "end_turn"
    calls = list(_calls(request, asked))
    if calls:
        uses = any(block["type"] == "tool_use" for block in calls)
        return calls, "tool_use" if uses else "end_turn"
    return ({"type": "text", "text": _text(request, asked)},), "end_turn"


def _calls(request: Request, asked: Asked) -> Iterator[Json]:
    """Yield the tools that are used: those that the text names, else one if the choice forces it."""
    choice = request.fields.tool_choice or {}
    tools = {name_of(tool): tool for tool in request.tools}
    named = [call for call in asked.calls if call.name in tools and choice.get("type") != "none"]
    if choice.get("type") == "tool":
        named = [call for call in named if call.name == choice.get("name")]
    if choice.get("disable_parallel_tool_use"):
        named = named[:1]
    served = False
    for call in named:
        tool = tools[call.name]
        if is_server_tool(tool):
            served = True
            yield _served(call.name, call.given or {})
        else:
            yield _use(tool, call.given)
    if served:
        yield {"type": "text", "text": "This is what the tool of the simulator found."}
    elif not named and request.forces_tool:
        forced = str(choice.get("name") or next((n for n, t in tools.items() if not is_server_tool(t)), ""))
        if forced in tools:
            yield _use(tools[forced], None)


def _use(tool: Json, given: Json | None) -> Json:
    """Use a client's tool, with an example input where none is given."""
    schema = tool.get("input_schema") if kind_of(tool) == "custom" else None
    arguments = given if given is not None else example(schema) or {}
    return {"type": "tool_use", "name": name_of(tool), "input": arguments}


def _served(name: str, given: Json) -> Json:
    """Use a server tool: the short block of its kind."""
    kind = "tool_search" if name.startswith("tool_search") else name
    return given | {"type": kind}


def _text(request: Request, asked: Asked) -> str:
    """Answer in text: by the output's schema, quoting what tools answered, or agreeing."""
    fields = request.fields
    form = (fields.output_config or {}).get("format") or fields.output_format
    if form:
        return msgspec.json.encode(example(form.get("schema"))).decode()
    if asked.results:
        quotes = [f"{name} answered: “{_shortened(text, _QUOTE_CHARS)}”." for name, text in asked.results]
        return " ".join(quotes)
    return _agree(asked.said)


def _agree(said: str) -> str:
    """Make the answer that a person at a laptop gets."""
    echo = _shortened(said, _ECHO_CHARS)
    heard = f"You wrote: “{echo}”, and I could not agree more. " if echo else ""
    return (
        "This is the simulator of Anthropic's API that comes with Naka, not Claude: no model was asked, and "
        f"nothing was spent. {heard}A real answer would stand here. It would reach you like this one, a few "
        "words at a time, and every word of it would be counted, limited and billed in just the same way."
    )


def _shortened(text: str, chars: int) -> str:
    words = " ".join(text.split())
    return words if len(words) <= chars else words[: chars - 1].rstrip() + "…"


def _compacts(request: Request, prompt: Prompt) -> bool:
    """Whether the request asks for a compaction at a size that its prompt has reached."""
    for edit in (request.fields.context_management or {}).get("edits") or ():
        if edit.get("type") == "compact_20260112":
            least = (edit.get("trigger") or {}).get("value", _COMPACT_AT_TOKENS)
            return prompt.total >= int(least)
    return False


def _summary() -> Json:
    return {"type": "compaction", "content": f"<summary>{filler(80)}</summary>"}


class _Ids:
    """Ids of tool uses: the same for the same conversation, different for each block."""

    def __init__(self, request: Request) -> None:
        self._messages = request.fields.messages
        self._made = 0

    def make(self, kind: str) -> str:
        """Make the next id."""
        self._made += 1
        digest = hashlib.blake2b(b"%d" % self._made, digest_size=16)
        digest.update(msgspec.json.encode(self._messages))
        return f"{_ID_PREFIXES.get(kind, 'srvtoolu_01')}{digest.hexdigest()[:22]}"
