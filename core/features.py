"""The features of the Messages API that a tenant may use only if its plan names them. Pure."""

from enum import StrEnum


class Feature(StrEnum):
    """A feature whose tokens the request does not bound, or that runs beside the model. None is allowed by default."""

    WEB_SEARCH = "web_search"
    WEB_FETCH = "web_fetch"
    CODE_EXECUTION = "code_execution"
    TOOL_SEARCH = "tool_search"
    ADVISOR = "advisor"
    MCP = "mcp"
    URL_SOURCES = "url_sources"
    FALLBACKS = "fallbacks"
    COMPACTION = "compaction"
