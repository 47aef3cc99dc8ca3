"""The head of a request: the key, the API version and the betas."""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sandbox.anthropic.errors import ApiError

API_VERSIONS = frozenset({"2023-06-01", "2026-10-21"})
OLD_VERSION = "2023-06-01"

_KNOWN_BETAS = (
    *("advanced-tool-use-", "advisor-tool-", "agent-memory-", "cache-diagnosis-", "claude-code-", "code-execution-"),
    *("compact-", "computer-use-", "context-1m-", "context-management-", "dev-full-thinking-", "effort-"),
    *("extended-cache-ttl-", "fallback-credit-", "fast-mode-", "files-api-", "fine-grained-tool-streaming-"),
    *("inline-tools-", "interleaved-thinking-", "mcp-client-", "message-batches-", "message-threads-"),
    *("mid-conversation-", "model-context-window-exceeded-", "output-128k-", "output-300k-", "pdfs-"),
    *("prompt-caching-", "server-side-fallback-", "skills-", "structured-outputs-", "task-budgets-"),
    *("thinking-binding-controls-", "thinking-display-updates-", "thinking-token-count-", "token-counting-"),
    *("token-efficient-tools-", "user-profiles-"),
)


@dataclass(frozen=True, slots=True)
class Head:
    """The part of a head that matters; `workspace` is the number of the key."""

    version: str
    betas: tuple[str, ...]
    workspace: int
    accept_encoding: str
    script: str | None

    def has_beta(self, *prefixes: str) -> bool:
        """Whether a beta was named that begins so."""
        return any(beta.startswith(prefixes) for beta in self.betas)

    @property
    def has_unknown_beta(self) -> bool:
        """Whether a beta was named that the simulator does not know; any field may belong to it."""
        return any(not beta.startswith(_KNOWN_BETAS) for beta in self.betas)


def read_head(headers: Mapping[bytes, bytes], api_keys: Sequence[bytes]) -> Head:
    """Read the head; raises `ApiError`: 401 without the right key, 400 without a known API version."""
    scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
    offered = token.strip() if scheme.lower() == b"bearer" else headers.get(b"x-api-key")
    if offered is None:
        raise ApiError(401, "x-api-key header is required")
    matches = [number for number, key in enumerate(api_keys) if secrets.compare_digest(offered, key)]
    if not matches:
        raise ApiError(401, "invalid x-api-key")
    version = headers.get(b"anthropic-version")
    if version is None:
        raise ApiError(400, "anthropic-version: header is required")
    if version.decode("latin-1") not in API_VERSIONS:
        raise ApiError(400, f"anthropic-version: {version.decode('latin-1')!r} is not a valid version")
    betas = headers.get(b"anthropic-beta", b"").decode("latin-1").split(",")
    script = headers.get(b"x-sandbox-script")
    return Head(
        version=version.decode("latin-1"),
        betas=tuple(beta.strip() for beta in betas if beta.strip()),
        workspace=matches[0],
        accept_encoding=headers.get(b"accept-encoding", b"").decode("latin-1"),
        script=None if script is None else script.decode("latin-1"),
    )
