"""The catalogue of models, and the answers of the models routes.

The order is the API's: newest first. Windows, output limits and generations follow Anthropic's model overview; the
dates of release are exact only where the public notes give them.
"""

from dataclasses import dataclass
from typing import Any

from starlette.datastructures import QueryParams

from sandbox.anthropic.errors import ApiError

Json = dict[str, Any]

_MILLION, _OLD_WINDOW = 1_000_000, 200_000
_MAX_IMAGES, _MAX_IMAGES_OLD_WINDOW = 600, 100
_OLD_IMAGE_TOKENS, _IMAGE_TOKENS = 1_568, 4_784
_DEFAULT_PAGE, _MOST_PAGE = 20, 1_000


@dataclass(frozen=True, slots=True)
class Model:
    """One model; `generation` is the version times ten (4.6 is 46)."""

    id: str
    line: str
    generation: int
    released: str
    lifecycle: str = "active"
    retires: str | None = None

    @property
    def max_input_tokens(self) -> int:
        """The window."""
        return _OLD_WINDOW if self.generation <= 45 else _MILLION  # noqa: PLR2004 - the last with the old window

    @property
    def max_images(self) -> int:
        """The most images of one request."""
        return _MAX_IMAGES_OLD_WINDOW if self.max_input_tokens == _OLD_WINDOW else _MAX_IMAGES

    @property
    def max_tokens(self) -> int:
        """The most output of one request."""
        return 64_000 if self.generation <= 45 else 128_000  # noqa: PLR2004 - the last with the old limit

    @property
    def image_tokens(self) -> int:
        """The most visual tokens of one image."""
        return _OLD_IMAGE_TOKENS if self.generation < 47 else _IMAGE_TOKENS  # noqa: PLR2004 - the first with more

    @property
    def omits_thinking(self) -> bool:
        """Whether thinking is omitted unless the request asks for its display."""
        return self.generation >= 47  # noqa: PLR2004 - the first that does

    @property
    def adaptive(self) -> bool:
        """Whether adaptive thinking is known."""
        return self.generation >= 46  # noqa: PLR2004 - the first that does

    @property
    def manual(self) -> bool:
        """Whether thinking with a budget is known."""
        return self.generation <= 46  # noqa: PLR2004 - the last that does

    @property
    def always_thinks(self) -> bool:
        """Whether thinking cannot be turned off."""
        return self.line in ("fable", "mythos") or self.id == "claude-opus-5-5"

    @property
    def takes_geo(self) -> bool:
        """Whether `inference_geo` is known."""
        return self.generation >= 46  # noqa: PLR2004 - the first that does

    @property
    def min_cache_tokens(self) -> int:
        """The shortest prefix that is cached."""
        return 4_096 if self.line == "haiku" or (self.line == "opus" and self.generation <= 46) else 1_024  # noqa: PLR2004

    def as_json(self) -> Json:
        """The model as the API shows it."""
        return {
            "type": "model",
            "id": self.id,
            "display_name": _display_name(self.id),
            "created_at": f"{self.released}T00:00:00Z",
            "lifecycle": self.lifecycle,
            "deprecated_at": None if self.lifecycle == "active" else "2026-08-31T00:00:00Z",
            "retires_at": f"{self.retires}T00:00:00Z" if self.retires else None,
            "line": self.line,
            "max_input_tokens": self.max_input_tokens,
            "max_tokens": self.max_tokens,
            "capabilities": _capabilities(self),
        }


_ALL = (
    Model("claude-fable-5-2", "fable", 52, "2026-11-09"),
    Model("claude-mythos-5-2", "mythos", 52, "2026-11-09"),
    Model("claude-haiku-5-5", "haiku", 55, "2026-10-20"),
    Model("claude-sonnet-5-5", "sonnet", 55, "2026-10-07"),
    Model("claude-fable-5-1", "fable", 51, "2026-09-28"),
    Model("claude-opus-5-5", "opus", 55, "2026-09-28"),
    Model("claude-mythos-5-1", "mythos", 51, "2026-09-28"),
    Model("claude-sonnet-5", "sonnet", 50, "2026-06-25"),
    Model("claude-fable-5", "fable", 50, "2026-06-09"),
    Model("claude-mythos-5", "mythos", 50, "2026-06-09"),
    Model("claude-opus-5", "opus", 50, "2026-06-09"),
    Model("claude-opus-4-8", "opus", 48, "2026-05-20"),
    Model("claude-opus-4-7", "opus", 47, "2026-04-16"),
    Model("claude-mythos-preview", "mythos", 47, "2026-04-07"),
    Model("claude-sonnet-4-6", "sonnet", 46, "2026-02-17"),
    Model("claude-opus-4-6", "opus", 46, "2026-02-04"),
    Model("claude-opus-4-5", "opus", 45, "2025-11-24", "deprecated"),
    Model("claude-opus-4-5-20251101", "opus", 45, "2025-11-24", "deprecated"),
    Model("claude-haiku-4-5", "haiku", 45, "2025-10-15"),
    Model("claude-haiku-4-5-20251001", "haiku", 45, "2025-10-15"),
    Model("claude-sonnet-4-5", "sonnet", 45, "2025-09-29", "deprecated", "2026-11-30"),
    Model("claude-sonnet-4-5-20250929", "sonnet", 45, "2025-09-29", "deprecated", "2026-11-30"),
)
CATALOGUE = {model.id: model for model in _ALL}
MODELS = frozenset(CATALOGUE)

FAST_MODELS = frozenset({"claude-fable-5-2", "claude-opus-5-5", "claude-opus-5", "claude-opus-4-8"})
SERVED_AS_STANDARD = frozenset({"claude-opus-4-6"})  # takes `speed: fast` and has no effect
NO_FORCED_TOOLS = frozenset({"claude-fable-5-1", "claude-sonnet-5-5"})


def find_model(name: object) -> Model:
    """Return a model; raises `ApiError` (404)."""
    model = CATALOGUE.get(name) if isinstance(name, str) else None
    if model is None:
        raise ApiError(404, f"model: {name}")
    return model


def models_page(asked: QueryParams) -> Json:
    """One page of the catalogue; raises `ApiError` (400)."""
    limit = _limit(asked.get("limit"))
    states = asked.getlist("lifecycle[]")
    models = [model for model in _ALL if not states or model.lifecycle in states]
    ids = [model.id for model in models]
    after, before = asked.get("after_id"), asked.get("before_id")
    for name, value in (("after_id", after), ("before_id", before)):
        if value is not None and value not in ids:
            raise ApiError(400, f"{name}: no model has the id {value!r}")
    if after is not None:
        models = models[ids.index(after) + 1 :]
    elif before is not None:
        models = models[: ids.index(before)]
    page = models[-limit:] if before is not None and after is None else models[:limit]
    return {
        "data": [model.as_json() for model in page],
        "has_more": len(page) < len(models),
        "first_id": page[0].id if page else None,
        "last_id": page[-1].id if page else None,
    }


def _limit(value: str | None) -> int:
    number = _DEFAULT_PAGE if value is None else int(value) if value.isascii() and value.isdigit() else 0
    if not 1 <= number <= _MOST_PAGE:
        raise ApiError(400, f"limit: must be between 1 and {_MOST_PAGE}")
    return number


def _display_name(model_id: str) -> str:
    """Write `claude-opus-4-5-20251101` as `Claude Opus 4.5`."""
    words = [part for part in model_id.split("-") if len(part) < 8]  # noqa: PLR2004 - a date is longer than a version
    names = [word.capitalize() for word in words if not word.isdigit()]
    return f"{' '.join(names)} {'.'.join(word for word in words if word.isdigit())}".strip()


def _supported(*, yes: bool) -> Json:
    return {"supported": yes}


def _capabilities(model: Model) -> Json:
    yes, adaptive = _supported(yes=True), _supported(yes=model.adaptive)
    return {
        "batch": yes,
        "citations": yes,
        "code_execution": yes,
        "context_management": {
            "supported": True,
            "clear_thinking_20251015": yes,
            "clear_tool_uses_20250919": yes,
            "compact_20260112": adaptive,
        },
        "effort": {
            "supported": model.adaptive,
            "low": adaptive,
            "medium": adaptive,
            "high": adaptive,
            "max": adaptive,
            "xhigh": _supported(yes=model.omits_thinking),
        },
        "image_input": yes,
        "pdf_input": yes,
        "server_tools": {"supported": True, "code_execution": yes, "web_search": yes},
        "structured_outputs": yes,
        "thinking": {
            "supported": True,
            "types": {
                "adaptive": adaptive,
                "disabled": _supported(yes=not model.always_thinks),
                "enabled": _supported(yes=model.manual),
            },
        },
    }
