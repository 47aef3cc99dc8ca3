"""A child that ends with its parent, however the parent ends: also by SIGKILL, when nobody could stop the child.

The parent gives it a pipe as standard input and never writes to it; the kernel closes the pipe with the parent.
"""

import os
import signal
import sys
import threading


def end_with_parent() -> None:
    """From now on, the end of standard input is a SIGTERM to this process."""
    threading.Thread(target=_wait, name="lifeline", daemon=True).start()


def _wait() -> None:
    os.read(sys.stdin.fileno(), 1)
    os.kill(os.getpid(), signal.SIGTERM)
