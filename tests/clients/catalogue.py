"""The clients, with the packages and the program of each."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.harness import ROOT

CACHE = Path(os.environ.get("NAKA_CLIENTS", Path.home() / ".cache" / "naka-clients"))
"""Each client has a folder of its own here: their versions of Anthropic's SDK exclude each other."""
SCRIPTS = Path(__file__).parent / "scripts"


@dataclass(frozen=True, eq=False)
class Client:
    """A client. Its first package gives its version; those with `@` in front or within are npm's.

    `program`: its script. `runtime`: the program in its folder that runs the script; None: this Python. `forced`:
    scenarios that it does by a forced tool, so that the tool's use is the answer. `tries`: how often it asks although
    `x-should-retry` forbids to ask again. `tools`: its own tool for a scenario, by the tool's name and input.
    """

    name: str
    packages: tuple[str, ...]
    program: str
    runtime: str | None = "bin/python"
    forced: tuple[str, ...] = ()
    tries: int = 1
    tools: tuple[tuple[str, str, dict[str, str]], ...] = ()

    @property
    def folder(self) -> Path:
        """Where it is installed."""
        return CACHE / self.name

    @property
    def is_npm(self) -> bool:
        """Whether its packages come from npm."""
        return self.runtime != "bin/python"

    def command(self) -> list[str]:
        """The command that runs its script."""
        if self.program.endswith(".mjs"):  # a module finds packages beside itself only
            return [str(self.folder / (self.runtime or "")), str(self.folder / self.program)]
        python = sys.executable if self.runtime is None or not self.packages else str(self.folder / self.runtime)
        return [python, "-m", f"tests.clients.scripts.{self.program}"]


INSTALLED = Client("anthropic", (), "anthropic_sdk")
"""The SDK that Naka itself is installed with."""
_NODE = "node_modules/node/bin/node"
CLIENTS = (
    INSTALLED,
    Client("anthropic-2", ("anthropic==2.*",), "anthropic_sdk"),
    Client("anthropic-1", ("anthropic==1.17.*",), "anthropic_sdk"),
    Client("anthropic-0", ("anthropic==0.93.*",), "anthropic_sdk"),
    Client("anthropic-ts", ("@anthropic-ai/sdk", "node@22"), "anthropic_sdk.mjs", _NODE),
    Client("ai-sdk", ("@ai-sdk/anthropic@4", "ai@7", "zod", "node@22"), "ai_sdk.mjs", _NODE, tries=3),
    Client("langchain", ("langchain-anthropic",), "langchain_client"),
    Client("pydantic-ai", ("pydantic-ai-slim[anthropic]",), "pydantic_ai_client"),
    Client("instructor", ("instructor[anthropic]",), "instructor_client", forced=("tool", "stream", "image")),
    Client("litellm", ("litellm",), "litellm_client"),
    Client(
        "claude-code",
        ("@anthropic-ai/claude-code-linux-x64",),
        "claude_code",
        None,
        tools=(
            ("tool", "Bash", {"command": "echo dry", "description": "Says dry"}),
            ("image", "Read", {"file_path": str(CACHE / "claude-code" / "dot.png")}),
        ),
    ),
)
BY_NAME = {client.name: client for client in CLIENTS}
__all__ = ["BY_NAME", "CACHE", "CLIENTS", "INSTALLED", "ROOT", "SCRIPTS", "Client"]
