"""A simulator of Anthropic's Messages API, with a ledger of what it really served.

The rule it keeps: what goes out on the wire has the shape of `facts/anthropic.md` section 1, and the
ledger tells afterwards, to the token, what went out. A prompt may carry a script (`[[sim {...}]]`, see
`script.Script`), so that tests running side by side get the faults they asked for and nobody else's.
It leans on nothing: no disk, no network, all state is in memory and bounded.

Its files, in the order a request meets them: `app` (routes), `request` (validation), `script` (what the
prompt orders), `answer` and `tokens` (what will be said and counted), `frames` (the bytes), `reply` and
`wire` (sending, and breaking, them), `ledger` (what was served).
"""

from sandbox.anthropic.app import create_app
from sandbox.anthropic.request import MODELS, REQUEST_OVERHEAD_TOKENS
from sandbox.anthropic.script import Script
from sandbox.anthropic.tokens import count_text

__all__ = ["MODELS", "REQUEST_OVERHEAD_TOKENS", "Script", "count_text", "create_app"]
