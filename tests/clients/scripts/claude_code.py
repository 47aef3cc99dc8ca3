"""Claude Code: `claude -p`, pointed at Naka by its environment."""

import base64
import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

from tests.clients.scripts.driver import TASK, WRONG_KEY, Seen, prompt, run

PROGRAM = Path(TASK.get("folder", "")) / "node_modules" / "@anthropic-ai" / "claude-code-linux-x64" / "claude"
LONGEST_S = 60


def command(name: str, *options: str) -> list[str]:
    """The command of a scenario."""
    model = ["--model", TASK["model"]]
    return [str(PROGRAM), "-p", prompt(name), *model, "--output-format", "json", *options]


def environment(key: str = TASK.get("key", "")) -> dict[str, str]:
    """Its two settings, and the switch that keeps it from asking other hosts."""
    return {
        **os.environ,
        "ANTHROPIC_BASE_URL": TASK["url"],
        "ANTHROPIC_AUTH_TOKEN": key,
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "IS_SANDBOX": "1",
    }


def said(name: str, *options: str, key: str = TASK.get("key", "")) -> Any:
    """The result as it prints it."""
    done = subprocess.run(
        command(name, *options), env=environment(key), capture_output=True, text=True, timeout=LONGEST_S, check=False
    )
    try:
        return json.loads(done.stdout)
    except ValueError:
        raise RuntimeError(f"{done.returncode}: {done.stdout[-500:]} {done.stderr[-500:]}") from None


def usage_of(result: Any) -> list[int]:
    """The counts of a session of one request."""
    usage = result["usage"]
    return [
        usage["input_tokens"],
        usage["output_tokens"],
        usage["cache_read_input_tokens"],
        usage["cache_creation_input_tokens"],
    ]


def text() -> Seen:
    result = said("text")
    return {"text": result["result"], "usage": [usage_of(result)]}


def turns() -> Seen:
    first = said("stream")
    return {"text": said("turns", "--resume", first["session_id"])["result"]}


def tool() -> Seen:
    return {"text": said("tool", "--allowedTools", "Bash(echo dry)")["result"]}


def image() -> Seen:
    """It reads a picture with its own tool."""
    (Path(TASK["folder"]) / "dot.png").write_bytes(base64.b64decode(TASK["image"]))
    return {"text": said("image", "--allowedTools", "Read", "--add-dir", TASK["folder"])["result"]}


def thinking() -> Seen:
    result = said("thinking")
    return {"text": result["result"], "usage": [usage_of(result)]}


def cache() -> Seen:
    """It marks its system prompt by itself."""
    return {"usage": [usage_of(said("cache")) for _ in range(2)]}


def limit() -> Seen:
    return refused("limit", TASK["limited_key"])


def key() -> Seen:
    return refused("key", WRONG_KEY)


def refused(name: str, other_key: str) -> Seen:
    """The error that a session with another key ends with."""
    result = said(name, key=other_key)
    return {"error": ["is_error"] if result["is_error"] else [], "message": result["result"]}


def cancel() -> Seen:
    """It is interrupted while the answer runs."""
    process = subprocess.Popen(command("cancel"), env=environment(), stdout=subprocess.DEVNULL)
    time.sleep(LONGEST_S / 12)
    process.send_signal(signal.SIGINT)
    process.wait(LONGEST_S)
    return {"text": True}


def count() -> Seen:
    """`/context` counts each part of its prompt, all at once."""
    done = subprocess.run(
        [str(PROGRAM), "-p", "/context", "--model", TASK["model"]],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=LONGEST_S,
        check=False,
    )
    return {"counted": "System prompt" in done.stdout and "tokens" in done.stdout.lower()}


if __name__ == "__main__":
    run(
        {
            "text": text,
            "turns": turns,
            "tool": tool,
            "image": image,
            "thinking": thinking,
            "cache": cache,
            "limit": limit,
            "key": key,
            "cancel": cancel,
            "count": count,
        }
    )
