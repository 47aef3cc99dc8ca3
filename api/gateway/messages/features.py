"""The features and the modifiers that a request asks for. Pure.

Some features need a plan that names them, as their tokens are not bounded by the request. Others are never offered:
they name things in the operator's workspace by id, and Anthropic would not tell the tenants behind one key apart. A
tool of an unknown type is refused: a new server tool could cost what nobody admitted.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import msgspec

from api.gateway.messages.body import InvalidRequest, MessagesBody
from api.gateway.messages.fields import NULL, Block, Fallback, Fields, Source, Tool, is_given
from core.features import Feature
from core.tenancy.principal import Forbidden, Principal
from metering.pricing.price import Modifiers

_BY_TOOL = {
    "web_search_": Feature.WEB_SEARCH,
    "web_fetch_": Feature.WEB_FETCH,
    "code_execution_": Feature.CODE_EXECUTION,
    "tool_search_tool_": Feature.TOOL_SEARCH,
    "advisor_": Feature.ADVISOR,
    "mcp_": Feature.MCP,
}
"""The feature of a tool that the provider runs, by the start of its type."""
_CLIENT_TOOLS = ("bash_", "text_editor_", "memory_", "computer_", "browser_toolset_")
"""Tools that the client runs; so does it custom ones."""
_CLIENT_TYPES = frozenset({"custom", "tool_reference"})
_CLEARING = "clear_"
"""The start of edits of the history that only take something away; any other may be an inference of its own."""
_SPEEDS = frozenset({"standard", "fast"})
_GEOS = frozenset({"global", "us"})
_TIERS = frozenset({"auto", "standard_only"})
_THREADS = "Message threads are not supported here. Send the whole conversation in `messages`."


class NotOffered(Forbidden):
    """The request asks for a feature that no plan has."""

    def __init__(self, feature: str, place: str) -> None:
        super().__init__(f"{place}: {feature} are not offered here.", code="feature_not_offered")


@dataclass(frozen=True, slots=True)
class Asked:
    """The needs of a request: features that the plan has to name, modifiers of the price, and further models.

    `models`: those that `fallbacks` and advisors name; each may be charged beside the request's own.
    `may_choose_model`: the provider may choose others.
    """

    features: frozenset[Feature]
    modifiers: Modifiers
    models: tuple[str, ...] = ()
    may_choose_model: bool = False

    def require_models(self, principal: Principal) -> None:
        """Raises Forbidden for a further model that the key may not use."""
        if self.may_choose_model and principal.models is not None:
            raise Forbidden("fallbacks: this key may use some models only, so name them instead of `default`.")
        for model in self.models:
            principal.require_model(model)


def asked(body: MessagesBody) -> Asked:
    """Returns what a request asks for. Raises InvalidRequest, NotOffered."""
    fields = body.fields
    _refuse_ids(fields)
    features = {*_of_tools(body.tools), *_of_blocks(body.blocks), *_of_fields(fields)}
    return Asked(frozenset(features), _modifiers(fields), _further_models(body), isinstance(fields.fallbacks, str))


def _refuse_ids(fields: Fields) -> None:
    """Refuses what names things in the operator's workspace."""
    if is_given(fields.thread):
        # With this code the clients' tool runners, which try threads first, go on without.
        raise InvalidRequest(f"thread: {_THREADS}", error_code="thread_unsupported_request")
    if fields.diagnostics is not None and is_given(fields.diagnostics.previous_message_id):
        raise NotOffered("diagnostics of earlier messages", "diagnostics.previous_message_id")
    if is_given(fields.skills):
        raise NotOffered("skills", "skills")
    if is_given(fields.container):
        container = bytes(fields.container)
        has_skills = container.startswith(b"{") and is_given(msgspec.json.decode(container, type=_Container).skills)
        raise NotOffered(*(("skills", "container.skills") if has_skills else ("containers", "container")))


class _Container(msgspec.Struct):
    skills: msgspec.Raw = NULL


def _of_tools(tools: Iterable[Tool]) -> Iterator[Feature]:
    for tool in tools:
        feature = feature_of(tool)
        if feature is not None:
            yield feature


def feature_of(tool: Tool) -> Feature | None:
    """Returns the feature of a tool that the provider runs; None for one that the client runs. Raises NotOffered."""
    if tool.type is None or tool.type in _CLIENT_TYPES:
        return None
    for start, feature in _BY_TOOL.items():
        if tool.type.startswith(start):
            return feature
    if not tool.type.startswith(_CLIENT_TOOLS):
        raise NotOffered("tools of this type", "tools")
    return None


def _of_blocks(blocks: Iterable[Block]) -> Iterator[Feature]:
    for block in blocks:
        kind = block.source.type if isinstance(block.source, Source) else ""
        if kind == "file" or block.type == "container_upload":
            raise NotOffered("files", "messages")
        if kind == "url":
            yield Feature.URL_SOURCES


def _of_fields(fields: Fields) -> Iterator[Feature]:
    if fields.mcp_servers:
        yield Feature.MCP
    if fields.fallbacks is not None or is_given(fields.fallback_credit_token):
        yield Feature.FALLBACKS
    edits = () if fields.context_management is None else fields.context_management.edits or ()
    if is_given(fields.compaction) or any(not edit.type.startswith(_CLEARING) for edit in edits):
        yield Feature.COMPACTION


def _fallbacks(fields: Fields) -> list[Fallback]:
    return fields.fallbacks if isinstance(fields.fallbacks, list) else []


def _further_models(body: MessagesBody) -> tuple[str, ...]:
    advisors = (tool.model for tool in body.tools if tool.model is not None and feature_of(tool) is Feature.ADVISOR)
    return tuple(dict.fromkeys([*(one.model for one in _fallbacks(body.fields)), *advisors]))


def _modifiers(fields: Fields) -> Modifiers:
    """Returns the modifiers as prices name them; the dearest, where a fallback differs. Raises InvalidRequest."""
    speeds = [_one_of("speed", fields.speed, _SPEEDS) or "standard"]
    for place, one in enumerate(_fallbacks(fields)):
        if one.max_tokens is not None:
            raise InvalidRequest(f"fallbacks.{place}.max_tokens: the request's own `max_tokens` applies to each model")
        speeds.append(_one_of(f"fallbacks.{place}.speed", one.speed, _SPEEDS) or "standard")
    _one_of("service_tier", fields.service_tier, _TIERS)
    return Modifiers(
        speed="fast" if "fast" in speeds else "standard",
        inference_geo=_one_of("inference_geo", fields.inference_geo, _GEOS) or "global",
    )


def _one_of(name: str, value: str | None, known: frozenset[str]) -> str | None:
    if value is not None and value not in known:
        choices = " or ".join(f"'{one}'" for one in sorted(known))
        raise InvalidRequest(f"{name}: Input should be {choices}")
    return value
