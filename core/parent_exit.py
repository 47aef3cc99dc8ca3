"""A child process that ends with its parent: the kernel closes the pipe that the parent passed as standard input."""

import os
import signal
import sys
import threading


def end_with_parent() -> None:
    """Sends this process SIGTERM when standard input ends."""
    threading.Thread(target=_wait, name="parent-exit", daemon=True).start()


def _wait() -> None:
    os.read(sys.stdin.fileno(), 1)
    os.kill(os.getpid(), signal.SIGTERM)
