"""A child process that takes variables from its parent and ends with it, through the pipe that is its standard input.

The kernel closes the pipe when the parent ends, however that ends.
"""

import json
import os
import signal
import sys
import threading


def take_variables() -> None:
    """Waits for the parent's line, a JSON object, and adds it to the environment. Ends this process without one."""
    line = sys.stdin.buffer.readline()
    if not line:
        sys.exit(0)  # the parent has ended
    os.environ.update(json.loads(line))


def end_with_parent() -> None:
    """Sends this process SIGTERM when standard input ends."""
    threading.Thread(target=_wait, name="parent-exit", daemon=True).start()


def _wait() -> None:
    os.read(sys.stdin.fileno(), 1)
    os.kill(os.getpid(), signal.SIGTERM)
