"""The top level of a request: types, values, betas and what the model allows.

A field that the simulator does not know is refused, as Anthropic does, unless a beta is named that it does not know
either: the field may belong to it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

import msgspec

from sandbox.anthropic.errors import ApiError
from sandbox.anthropic.models import FAST_MODELS, SERVED_AS_STANDARD, Model, find_model
from sandbox.anthropic.requests.caching import check_marks
from sandbox.anthropic.requests.head import OLD_VERSION, Head
from sandbox.anthropic.requests.tools import check_tools, is_server_tool
from sandbox.anthropic.requests.turns import blocks_of, check_turns

Json = dict[str, Any]

_MIN_BUDGET = 1_024
_MAX_MESSAGES = 100_000
_SAMPLING = ("temperature", "top_p", "top_k")
_BETA_FIELDS = {
    "billing_policy": ("user-profiles-billing-",),
    "compaction": ("compact-",),
    "context_management": ("context-management-", "compact-"),
    "fallback_credit_token": ("fallback-credit-",),
    "fallbacks": ("server-side-fallback-",),
    "mcp_servers": ("mcp-client-",),
    "output_format": ("structured-outputs-",),
    "thread": ("message-threads-",),
}


class CountFields(msgspec.Struct, kw_only=True):
    """The fields of count_tokens, and what the two routes have in common."""

    model: str
    messages: Annotated[list[Json], msgspec.Meta(max_length=_MAX_MESSAGES)]
    system: str | list[Json] | None = None
    tools: list[Json] | None = None
    tool_choice: Json | None = None
    thinking: Json | None = None
    cache_control: Json | None = None
    output_config: Json | None = None
    speed: Literal["standard", "fast"] | None = None
    context_management: Json | None = None
    mcp_servers: list[Json] | None = None
    output_format: Json | None = None
    fallbacks: str | list[Json] | None = None
    thread: Json | None = None


class MessagesFields(CountFields, kw_only=True):
    """The fields of messages."""

    max_tokens: Annotated[int, msgspec.Meta(ge=0)]
    stream: bool | None = None
    stop_sequences: list[Annotated[str, msgspec.Meta(min_length=1)]] | None = None
    metadata: Json | None = None
    service_tier: Literal["auto", "standard_only"] | None = None
    inference_geo: str | None = None
    container: str | Json | None = None
    diagnostics: Json | None = None
    compaction: Json | None = None
    billing_policy: object = None
    fallback_credit_token: str | Json | None = None
    temperature: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    top_p: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    top_k: Annotated[int, msgspec.Meta(ge=0)] | None = None


_Fields = TypeVar("_Fields", bound=CountFields)


@dataclass(frozen=True, slots=True)
class Request:
    """A request that was checked; `stream` and `max_tokens` are those of messages."""

    head: Head
    model: Model
    fields: CountFields
    stream: bool = False
    max_tokens: int = 0
    stop_sequences: tuple[str, ...] = ()
    inference_geo: str | None = None

    @property
    def tools(self) -> Sequence[Json]:
        """The tools offered."""
        return self.fields.tools or ()

    @property
    def thinks(self) -> bool:
        """Whether the request itself turns thinking on."""
        return (self.fields.thinking or {}).get("type") in ("enabled", "adaptive", "between_tools")

    @property
    def forces_tool(self) -> bool:
        """Whether a tool has to be called."""
        return (self.fields.tool_choice or {}).get("type") in ("any", "tool")


def read_messages(body: Json, head: Head) -> Request:
    """Check the body of messages; raises `ApiError` (400, 404)."""
    _check_names(body, MessagesFields, head)
    fields = _convert(body, MessagesFields)
    model = find_model(fields.model)
    request = Request(
        head=head,
        model=model,
        fields=fields,
        stream=bool(fields.stream),
        max_tokens=fields.max_tokens,
        stop_sequences=tuple(fields.stop_sequences or ()),
        inference_geo=fields.inference_geo,
    )
    if fields.max_tokens > model.max_tokens:
        raise ApiError(
            400,
            f"max_tokens: {fields.max_tokens} > {model.max_tokens}, which is the maximum allowed number of output "
            f"tokens for {model.id}",
        )
    _check_model(fields, model)
    _check_common(request)
    _check_thinking(request, fields.temperature)
    return request


def read_count(body: Json, head: Head) -> Request:
    """Check the body of count_tokens; raises `ApiError` (400, 404)."""
    _check_names(body, CountFields, head)
    fields = _convert(body, CountFields)
    request = Request(head=head, model=find_model(fields.model), fields=fields)
    _check_common(request)
    _check_countable(fields)
    return request


def _check_names(body: Json, shape: type[CountFields], head: Head) -> None:
    """Refuse fields that are unknown, or that belong to another version or to a beta that was not named."""
    if head.version != OLD_VERSION:
        for name in _SAMPLING:
            if name in body:
                raise ApiError(400, f"{name}: this parameter is not supported in this API version")
    known = set(shape.__struct_fields__)
    for name in body:
        if name in known and (name not in _BETA_FIELDS or head.has_beta(*_BETA_FIELDS[name])):
            continue
        if name not in known and head.has_unknown_beta:
            continue
        raise ApiError(400, f"{name}: Extra inputs are not permitted")


def _convert(body: Json, shape: type[_Fields]) -> _Fields:
    try:
        return msgspec.convert(body, shape)
    except msgspec.ValidationError as error:
        raise ApiError(400, str(error)) from error


def _check_common(request: Request) -> None:
    """Check what both routes have."""
    fields, head = request.fields, request.head
    for number, block in enumerate(blocks_of(fields.system) if fields.system is not None else ()):
        text = block.get("text")
        if block.get("type") != "text" or not isinstance(text, str):
            raise ApiError(400, f"system.{number}: Input should be a text block")
        if not text.strip():
            raise ApiError(400, "system: text content blocks must contain non-whitespace text")
    whole = (fields.thread or {}).get("type") != "continue"
    check_turns(fields.messages, head, request.model, whole=whole)
    check_tools(request.tools, fields.tool_choice, request.model, head)
    check_marks(fields.tools, fields.system, fields.messages, fields.cache_control)
    _check_output_config(fields.output_config, head)


def _check_output_config(config: Json | None, head: Head) -> None:
    if config is None:
        return
    if config.get("effort") not in (None, "low", "medium", "high", "xhigh", "max"):
        raise ApiError(400, "output_config.effort: Input should be 'low', 'medium', 'high', 'xhigh' or 'max'")
    asked = config.get("format")
    if asked is not None and (
        not isinstance(asked, dict) or asked.get("type") != "json_schema" or "schema" not in asked
    ):
        raise ApiError(400, "output_config.format: Input should be {type: 'json_schema', schema}")
    if "task_budget" in config and not head.has_beta("task-budgets-"):
        raise ApiError(400, "output_config.task_budget: Extra inputs are not permitted")


def _check_model(fields: MessagesFields, model: Model) -> None:
    """Check what not every model takes."""
    if fields.speed == "fast" and model.id not in FAST_MODELS | SERVED_AS_STANDARD:
        raise ApiError(400, f"speed: {model.id} does not support fast mode")
    if fields.inference_geo is not None:
        if not model.takes_geo:
            raise ApiError(400, f"inference_geo: {model.id} does not support this parameter")
        if fields.inference_geo not in ("us", "global"):
            raise ApiError(400, "inference_geo: Input should be 'us' or 'global'")
    for name in fields.stop_sequences or ():
        if not name.strip():
            raise ApiError(400, "stop_sequences: each stop sequence must contain non-whitespace")


def _check_thinking(request: Request, temperature: float | None) -> None:
    """Check thinking against the model, the output and the choice of tools."""
    thinking, model = request.fields.thinking, request.model
    if thinking is None:
        return
    kind = thinking.get("type")
    if kind not in ("enabled", "adaptive", "disabled", "between_tools"):
        raise ApiError(
            400, "thinking: Input tag does not match any of the expected tags: 'adaptive', 'enabled', 'disabled'"
        )
    if kind == "disabled" and model.always_thinks:
        raise ApiError(400, f"thinking: {model.id} does not support turning thinking off")
    if kind in ("adaptive", "between_tools") and not model.adaptive:
        raise ApiError(400, f"thinking: adaptive thinking is not supported on {model.id}")
    if kind == "enabled":
        _check_budget(request, thinking, temperature)


def _check_budget(request: Request, thinking: Json, temperature: float | None) -> None:
    """Check manual thinking: its budget, and what it excludes."""
    model = request.model
    if not model.manual:
        raise ApiError(400, f"thinking.type: 'enabled' is not supported for {model.id}; use 'adaptive'")
    budget = thinking.get("budget_tokens")
    if not isinstance(budget, int):
        raise ApiError(400, "thinking.enabled.budget_tokens: Field required")
    if budget < _MIN_BUDGET:
        raise ApiError(400, "thinking.enabled.budget_tokens: Input should be greater than or equal to 1024")
    interleaved = bool(request.tools) and request.head.has_beta("interleaved-thinking-")
    if budget >= request.max_tokens and not interleaved:
        raise ApiError(400, "`max_tokens` must be greater than `thinking.budget_tokens`.")
    if request.forces_tool:
        raise ApiError(400, "Thinking may not be enabled when tool_choice forces tool use.")
    if temperature not in (None, 1):
        raise ApiError(400, "`temperature` may only be set to 1 when thinking is enabled.")


def _check_countable(fields: CountFields) -> None:
    """Refuse what the count cannot know: server tools but the advisor, MCP, and sources elsewhere."""
    for tool in fields.tools or ():
        if is_server_tool(tool) and not str(tool.get("type")).startswith("advisor_"):
            raise ApiError(400, f"tools: {tool.get('type')!r} is not supported when counting tokens")
    if fields.mcp_servers:
        raise ApiError(400, "mcp_servers: the MCP connector is not supported when counting tokens")
    for number, turn in enumerate(fields.messages):
        for block in blocks_of(turn["content"]):
            inner = block.get("content") if block["type"] == "tool_result" else None
            for each in (block, *(inner if isinstance(inner, list) else ())):
                if each.get("type") in ("image", "document") and each["source"]["type"] in ("url", "file"):
                    raise ApiError(
                        400,
                        f"messages.{number}: {each['source']['type']} sources are not supported when counting tokens",
                    )
