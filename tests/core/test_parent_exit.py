"""A child process that takes variables from its parent's pipe."""

import subprocess
import sys

import pytest

from tests.harness import ROOT

CHILD = "import os; from core.parent_exit import take_variables; take_variables(); print(os.environ['WHERE'])"


@pytest.mark.parametrize(("line", "printed"), [('{"WHERE": "here"}\n', "here\n"), ("", "")], ids=["line", "no parent"])
def test_a_child_takes_its_variables_or_ends(line: str, printed: str) -> None:
    command = [sys.executable, "-c", CHILD]
    ended = subprocess.run(command, input=line, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, printed, "")
