"""A simulator of Anthropic's Messages API, with a ledger of what it served.

Responses have the real API's format, and the ledger records their tokens exactly. A prompt may carry a script
(`[[sim {...}]]`, `script.Script`) for its own request only, so tests may run concurrently. All state is in memory and
bounded.

Modules in the order of a request: `app` (routes), `request` (validation), `script`, `answer` and `tokens` (text and
counts), `frames` (bytes), `reply` and `wire` (sending and faults), `ledger` (what was served).
"""

from sandbox.anthropic.app import create_app
from sandbox.anthropic.request import MODELS, REQUEST_OVERHEAD_TOKENS
from sandbox.anthropic.script import Script
from sandbox.anthropic.tokens import count_text

__all__ = ["MODELS", "REQUEST_OVERHEAD_TOKENS", "Script", "count_text", "create_app"]
