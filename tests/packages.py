"""npm's packages that examples need: `python -m tests.packages` installs them, once, from npm's registry.

Tests of an example without its packages are skipped.
"""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

FOLDER = Path(os.environ.get("NAKA_CLIENTS", Path.home() / ".cache" / "naka-clients")) / "examples"
PACKAGES = ("ai@7", "express@5", "jose@6")
LONGEST_S = 300


def require(*names: str) -> None:
    """Skips the test unless Node and the packages are here."""
    missing = [name for name in names if not (FOLDER / "node_modules" / name / "package.json").exists()]
    if shutil.which("node") is None:
        missing.append("node")
    if missing:
        pytest.skip(f"no {', '.join(missing)}: python -m tests.packages")


def main() -> None:
    """Installs the packages."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / "package.json").write_text(json.dumps({"private": True, "type": "module"}))
    options = ("--no-audit", "--no-fund", "--silent")
    subprocess.run(["npm", "install", "--prefix", str(FOLDER), *options, *PACKAGES], check=True, timeout=LONGEST_S)


if __name__ == "__main__":
    main()
