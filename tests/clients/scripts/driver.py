"""Runs a client's scenarios and prints what each saw. Imports the standard library only."""

import json
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

TASK: dict[str, Any] = json.loads(os.environ.get("NAKA_TASK", "{}"))
"""`url`, `key`, `limited_key`, `model`, `prompts` by scenario, `image` (PNG in base64), a long `system`, `folder`."""
WEATHER: Any = {
    "name": "weather",
    "description": "The weather of a city.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
WRONG_KEY = "nk_test_wrong"
Seen = dict[str, Any]


def run(scenarios: Mapping[str, Callable[[], Seen]]) -> None:
    """Runs all of them; one that raises does not keep the others from running."""
    only = sys.argv[1:] or list(scenarios)
    for name in only:
        try:
            seen = scenarios[name]()
        except Exception as error:  # noqa: BLE001 - whatever a client raises is the finding
            seen = {"raised": f"{type(error).__name__}: {error}"}
        print(json.dumps({"scenario": name, **seen}), flush=True)  # noqa: T201 - read by the trial


def prompt(name: str) -> str:
    """The prompt of a scenario."""
    return str(TASK["prompts"][name])


def failure_of(ask: Callable[[], object]) -> Seen:
    """Returns the error that a call raises."""
    try:
        ask()
    except Exception as error:  # noqa: BLE001 - any class is reported
        kinds = [kind.__name__ for kind in type(error).__mro__]
        status = getattr(error, "status_code", None)
        return {"error": kinds[:-3], "status": status, "message": str(error)}
    return {"error": [], "message": "it was answered"}
