"""A simulator of Anthropic's Messages API, with a ledger of what it served.

It answers `POST /v1/messages` (streamed or not), `/v1/messages/count_tokens`, `GET /v1/models` and `HEAD /api/hello` in
the real API's format, refuses what that refuses, and records exactly what the provider would bill. There is no model:
the request decides the answer. All state is in memory and bounded;
`--rows-file` keeps what was billed.

By itself it agrees with what was written, quotes the results of tools, fits a JSON schema if `output_config.format` has
one, thinks a little if the request turns thinking on, and uses a tool if `tool_choice` forces one. In the last message,
`use the tool NAME with {"city": "Pune"}` uses a tool that is offered, also one that runs at the provider; several in
one message are used in parallel.

A *script* orders anything else for its own request, so that tests may run concurrently: `[[sim {...}]]` anywhere in a
message's text (the last one of a conversation counts), or the header `x-sandbox-script: {...}`. All fields: `Script`.

| wanted | script |
| --- | --- |
| a text, exact deltas, n tokens | `{"text": "Hi"}`, `{"pieces": ["H", "i"]}`, `{"words": 500}` |
| blocks | `{"blocks": [{"type": "text", "text": "So"}, {"type": "tool_use", "name": "f", "input": {}}]}` |
| server tools | `{"blocks": [{"type": "web_search", "query": "q"}, {"type": "text", "text": "Found."}]}` |
| thinking | `{"thinking": 100, "display": "omitted"}` |
| answers of a tool's round trip | `{"turns": [{"blocks": [...]}, {"text": "Done."}]}` |
| usage | `{"input_tokens": 5, "cache_creation_1h": 9, "web_searches": 2, "speed": "fast", "usage": {"new": 1}}` |
| iterations | `{"iterations": [{"type": "compaction", "input_tokens": 7}, {"output_tokens": 3}]}` |
| a fallback | `{"blocks": [{"type": "fallback", "from": {"model": "A"}, "to": {"model": "B"}}, ...]}` |
| a refusal, free | `{"refusal": "empty"}` |
| an HTTP error | `{"status": 429, "retry_after": 3, "error_code": "x", "headers": {"x-should-retry": "false"}}` |
| an error, a cut | `{"error_after": 3}`, `{"cut_after": 3, "count": "events"}`, `{"cut_bytes": 700}` |
| bytes | `{"raw": "<base64 of the body>", "splits": [1, 5], "chunk_bytes": 7}`, `{"compress": "gzip"}` |

`/_sim/...` (`controls`) shows the ledger by request, by inference and as received, and moves the clock of the caches.
A prompt cache belongs to a workspace, which is an API key.

Modules in the order of a request: `app` (routes), `requests` (validation, counts, directives), `script`, `caches`,
`answers` (content, usage, events), `wire` and `frames` (bytes), `ledger` and `inferences` (what was served).
"""

from sandbox.anthropic.app import create_app
from sandbox.anthropic.models import MODELS
from sandbox.anthropic.requests.counting import REQUEST_OVERHEAD_TOKENS
from sandbox.anthropic.script import Script
from sandbox.anthropic.tokens import count_text

__all__ = ["MODELS", "REQUEST_OVERHEAD_TOKENS", "Script", "count_text", "create_app"]
