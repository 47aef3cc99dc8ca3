"""What a client's program is told: where Naka is, its keys, and a prompt for each scenario.

The prompts order the simulator's answers; `EXPECTED` is what every client must make of them.
"""

import json
from dataclasses import dataclass
from typing import Any

from tests.clients.catalogue import Client
from tests.harness import scripted

MODEL = "claude-sonnet-4-6"
"""Takes thinking with a budget and adaptive thinking, so that old and new clients can ask for either."""
DOT = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
"""A PNG of one pixel, in base64."""
SYSTEM = "The office counts what passes. " * 500
_WEATHER = {"type": "tool_use", "name": "weather", "input": {"city": "Pune"}}
_TOOL: dict[str, Any] = {"turns": [{"blocks": [_WEATHER]}, {"text": "Dry."}]}
SCRIPTS: dict[str, dict[str, Any]] = {
    "text": {"text": "Namaste."},
    "stream": {"pieces": ["One, ", "two, ", "three."], "pings": True, "usage_delta_input": True},
    "turns": {"text": "Once more."},
    "tool": _TOOL,
    "runner": _TOOL,
    "image": {"text": "A dot."},
    "thinking": {"thinking": 100, "display": "summarized", "text": "So."},
    "cache": {"text": "Yes."},
    "limit": {"text": "Never said."},
    "key": {"text": "Never said."},
    "count": {"text": "Never said."},
    "cancel": {"pieces": ["a word or two "] * 200, "piece_delay_ms": 30},
}
INPUT = {"city": "Pune"}
EXPECTED: dict[str, dict[str, Any]] = {
    "text": {"text": "Namaste."},
    "stream": {"text": "One, two, three."},
    "turns": {"text": "Once more."},
    "tool": {"input": INPUT, "text": "Dry."},
    "runner": {"input": INPUT, "text": "Dry."},
    "image": {"text": "A dot."},
    "thinking": {"thinking": True, "text": "So."},
    "cache": {},
    "limit": {},
    "key": {},
    "cancel": {"text": True},
    "count": {"counted": True},
    "models": {"listed": True},
}
"""The fields that a program reports, by scenario. `cache` is compared by `usage`, `limit` and `key` by their errors."""
WITHOUT_ANSWER = frozenset({"count", "models"})
"""Scenarios that make no message."""


@dataclass(frozen=True)
class Task:
    """The task of one client; as JSON in the variable `NAKA_TASK`."""

    url: str
    key: str
    limited_key: str
    ref: str
    client: Client
    model: str = MODEL

    def encoded(self) -> str:
        """The task as the program reads it."""
        scripts = {**SCRIPTS, **dict.fromkeys(self.client.forced, _TOOL)}
        for name, tool, given in self.client.tools:
            use = {"type": "tool_use", "name": tool, "input": given}
            scripts[name] = {"turns": [{"blocks": [use]}, {"text": EXPECTED[name]["text"]}]}
        prompts = {
            name: scripted(f"About {name}.", ref=f"{self.ref}-{name}", **script) for name, script in scripts.items()
        }
        task = {
            "url": self.url,
            "key": self.key,
            "limited_key": self.limited_key,
            "model": self.model,
            "prompts": prompts,
            "image": DOT,
            "system": f"{self.ref} {SYSTEM}",
            "folder": str(self.client.folder),
        }
        return json.dumps(task)
