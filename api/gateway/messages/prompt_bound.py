"""The most tokens that a prompt of the Messages API can be, and the probable number. Pure.

A token is at least a byte of text, and JSON never writes a text in fewer bytes than UTF-8 has, so the bytes of the body
less its base64 data bound all text, tools and results. So they do for encrypted text of earlier turns: encryption and
base64 make it longer, and no compression makes a token shorter than a byte. An image has a documented most. A PDF is
compressed text and pictures, so only count-tokens bounds it; without a count, the model's window does. Admission counts
when the window does not fit the limits and the probable size does. A loop at the provider sends the conversation again
in each inference (docs: at most 10 of a request).
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from api.gateway.messages.body import MessagesBody
from api.gateway.messages.features import Asked, feature_of
from api.gateway.messages.fields import Block, Fields, Source, Tool, is_given
from core.features import Feature
from metering.pricing.tokens import (
    PROMPT_OVERHEAD_TOKENS,
    TOOLS_OVERHEAD_TOKENS,
    bound_of_text,
    image_tokens,
    likely_of_text,
    tool_overhead,
)

LARGEST_WINDOW_TOKENS = 1_000_000
"""The window of a model whose own is unknown, and of one with the beta of long prompts."""
LOOP_INFERENCES = 10
SEARCHES_WITHOUT_MAX_USES = 50
"""The most searches held for a request that sets no `max_uses`: five in each inference of the loop."""
DEFAULT_FALLBACKS = 2
"""The most models that `fallbacks: "default"` is taken to try after the first one; which, the provider decides."""
ADVISOR_OUTPUT_TOKENS = 128_000
"""The output held for each use of an advisor whose tool has no `max_tokens`: the most that a model writes."""
_LOOPS = frozenset({Feature.WEB_SEARCH, Feature.WEB_FETCH, Feature.CODE_EXECUTION, Feature.TOOL_SEARCH, Feature.MCP})
_UNCOUNTABLE = _LOOPS | {Feature.URL_SOURCES}
"""Count-tokens refuses these."""
_LONG_PROMPTS = "context-1m-"
_INTERLEAVED = "interleaved-thinking-"
_PLAIN = frozenset(
    {
        *("text", "search_result", "thinking", "redacted_thinking", "tool_use", "tool_result", "tool_reference"),
        *("server_tool_use", "mcp_tool_use", "mcp_tool_listing", "compaction", "fallback"),
        *("tool_addition", "tool_removal", "browser_state"),
    }
)
_PLAIN_ENDS = ("_result", "_error", "_output")
"""Blocks whose text is in the body: the ones above, and results of tools."""
_PDF_BYTES_PER_TOKEN = 5
"""Of base64 text: a PDF of 500 kB is about 125,000 tokens (documented)."""


@dataclass(frozen=True, slots=True)
class PromptBound:
    """The size of a prompt in tokens, over all inferences of the request.

    `is_countable`: count-tokens takes it. `smallest_output`: the fewest output tokens worth a grant, None for the
    setting's. `web_searches`: the most that are held.
    """

    most: int
    once: int
    """The most that the first inference of its own model reads: what its body shows, without lists of MCP tools. The
    window only if its bytes are no bound: of a document that is not text, or one behind a URL. Of an image, either way,
    the documented most."""
    likely: int
    inferences: int
    beside: int
    """Tokens that other models read, which no count shows."""
    is_countable: bool
    smallest_output: int | None
    web_searches: int
    further_output: int = 0
    """The most output tokens beside `max_tokens`: of advisors, of attempts that decline, and of a compaction."""

    def of_count(self, counted_tokens: int) -> int:
        """The tokens of the whole request, if one inference of its own model reads `counted_tokens`."""
        return counted_tokens * self.inferences + self.beside


def prompt_bound(
    body: MessagesBody,
    asked: Asked,
    *,
    window_tokens: int = LARGEST_WINDOW_TOKENS,
    betas: Collection[str] = (),
    min_grant_tokens: int,
    min_tool_grant_tokens: int,
) -> PromptBound:
    """Returns the bound of a prompt. `betas`: the values of `anthropic-beta`."""
    fields, features = body.fields, asked.features
    if any(beta.startswith(_LONG_PROMPTS) for beta in betas):
        window_tokens = max(window_tokens, LARGEST_WINDOW_TOKENS)
    size = _sizes(body)
    overhead = PROMPT_OVERHEAD_TOKENS + size.images * image_tokens(fields.model) + _overhead_of_tools(body.tools)
    loops = bool(features & _LOOPS)
    unbounded = loops or size.is_opaque or Feature.URL_SOURCES in features
    of_body = min(window_tokens, bound_of_text(size.text_bytes, overhead))
    most = window_tokens if unbounded else of_body
    likely = likely_of_text(size.text_bytes, overhead) + size.opaque_bytes // _PDF_BYTES_PER_TOKEN
    answers = _attempts(fields) * (2 if Feature.COMPACTION in features else 1)
    inferences = (LOOP_INFERENCES if loops else 1) * answers
    beside, advice = _of_advisors(body.tools)
    return PromptBound(
        most=most * inferences + beside,
        once=window_tokens if size.is_opaque else of_body,
        likely=min(likely, window_tokens) * inferences + beside,
        inferences=inferences,
        beside=beside,
        is_countable=not features & _UNCOUNTABLE,
        smallest_output=_smallest_output(body, betas, min_grant_tokens, min_tool_grant_tokens),
        web_searches=_web_searches(body.tools),
        further_output=(answers - 1) * body.max_tokens + advice,
    )


@dataclass(slots=True)
class _Sizes:
    text_bytes: int
    images: int = 0
    opaque_bytes: int = 0
    is_opaque: bool = False


def _sizes(body: MessagesBody) -> _Sizes:
    """Returns the bytes that bound text, the number of images, and whether anything is bounded by neither."""
    sizes = _Sizes(len(body.raw))
    for block in body.blocks:
        source = block.source if isinstance(block.source, Source) else None
        if block.type == "image":
            sizes.images += 1
            sizes.text_bytes -= _data_bytes(source)
        elif _is_opaque(block, source):
            sizes.is_opaque = True
            sizes.opaque_bytes += _data_bytes(source)
            sizes.text_bytes -= _data_bytes(source)
    return sizes


def _data_bytes(source: Source | None) -> int:
    return 0 if source is None or source.type != "base64" else memoryview(source.data).nbytes


def _is_opaque(block: Block, source: Source | None) -> bool:
    if block.type == "document":
        return source is None or source.type not in {"text", "content"}
    return source is not None or not (block.type in _PLAIN or block.type.endswith(_PLAIN_ENDS))


def _overhead_of_tools(tools: Collection[Tool]) -> int:
    if not tools:
        return 0
    return TOOLS_OVERHEAD_TOKENS + sum(tool_overhead(tool.type) for tool in tools)


def _attempts(fields: Fields) -> int:
    """The most models that try to answer one after the other; each reads the prompt."""
    if fields.fallbacks is None:
        return 1
    return 1 + (len(fields.fallbacks) if isinstance(fields.fallbacks, list) else DEFAULT_FALLBACKS)


def _of_advisors(tools: Iterable[Tool]) -> tuple[int, int]:
    """The most tokens that advisors read (the conversation so far, each time one is asked), and that they write."""
    read = written = 0
    for tool in tools:
        if feature_of(tool) is Feature.ADVISOR:
            uses = LOOP_INFERENCES if tool.max_uses is None else tool.max_uses
            read += uses * LARGEST_WINDOW_TOKENS
            written += uses * (ADVISOR_OUTPUT_TOKENS if tool.max_tokens is None else tool.max_tokens)
    return read, written


def _web_searches(tools: Iterable[Tool]) -> int:
    return sum(
        SEARCHES_WITHOUT_MAX_USES if tool.max_uses is None else tool.max_uses
        for tool in tools
        if feature_of(tool) is Feature.WEB_SEARCH
    )


def _smallest_output(
    body: MessagesBody, betas: Collection[str], min_grant_tokens: int, min_tool_grant_tokens: int
) -> int | None:
    """Returns the fewest tokens worth a grant: `max_tokens` must exceed the thinking, and a cut breaks JSON.

    With interleaved thinking the budget may exceed `max_tokens` (documented), as it is of all inferences together.
    """
    fields, thinking = body.fields, body.fields.thinking
    has_format = is_given(fields.output_format) or (
        fields.output_config is not None and is_given(fields.output_config.format)
    )
    smallest = min_tool_grant_tokens if fields.tools or has_format else 0
    interleaved = bool(fields.tools) and any(beta.startswith(_INTERLEAVED) for beta in betas)
    if thinking is not None and thinking.type == "enabled" and thinking.budget_tokens and not interleaved:
        smallest = thinking.budget_tokens + (smallest or min_grant_tokens)
    return min(smallest, body.max_tokens) if smallest else None
