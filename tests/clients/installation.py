"""Installs the clients into the cache folder, from the registries that pip and npm are configured for."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

from tests.clients.catalogue import SCRIPTS, Client

LONGEST_S = 900


def install(client: Client, *, upgrade: bool = False) -> str:
    """Installs a client unless it is there, and returns its version. Raises subprocess.SubprocessError."""
    if not client.packages:
        return _python_version(sys.executable, "anthropic")
    done = client.folder / ".installed"
    if upgrade or not done.exists():
        client.folder.mkdir(parents=True, exist_ok=True)
        (_npm if client.is_npm else _pip)(client)
        done.touch()
    if client.program.endswith(".mjs"):
        for script in SCRIPTS.glob("*.mjs"):
            shutil.copy(script, client.folder)
    return version(client)


def version(client: Client) -> str:
    """The installed version of its first package."""
    package = client.packages[0]
    if client.is_npm:
        package = "@".join(package.split("@")[:2]) if package.startswith("@") else package.partition("@")[0]
        return str(json.loads((client.folder / "node_modules" / package / "package.json").read_text())["version"])
    return _python_version(str(client.folder / "bin" / "python"), package.partition("=")[0].partition("[")[0])


def _python_version(python: str, package: str) -> str:
    code = f"from importlib.metadata import version; print(version({package!r}))"
    return subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def _pip(client: Client) -> None:
    python = client.folder / "bin" / "python"
    if not python.exists():
        execute(sys.executable, "-m", "venv", str(client.folder))
    execute(str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *client.packages)


def _npm(client: Client) -> None:
    settings = {"private": True, "type": "module"}
    (client.folder / "package.json").write_text(json.dumps(settings))
    execute("npm", "install", "--prefix", str(client.folder), "--no-audit", "--no-fund", "--silent", *client.packages)


def execute(*command: str, cwd: Path | None = None) -> None:
    """Runs a command of the installation; shows what it wrote only if it fails."""
    done = subprocess.run(
        command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=LONGEST_S, check=False
    )
    if done.returncode:
        raise subprocess.SubprocessError(f"{command[0]}: {done.stdout[-1000:]}")
