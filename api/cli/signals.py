"""Signals that end a process, handled from its first statement on.

Naka's imports take about a second, and a container's first process (PID 1) is not ended by a signal without a handler.
Until a server or a worker begins its own orderly stop there is nothing to finish, so the process ends at once. SIGHUP
acts as SIGTERM, unless `nohup` had it ignored.
"""

import os
import signal
import sys
import threading
from types import FrameType

_ASKED_TO_STOP = frozenset({"serve", "worker", "up"})
"""Commands that exit with 0 when they are stopped."""


def ending_signals() -> list[signal.Signals]:
    """The signals that end this process, without those that its parent had set to be ignored."""
    wanted = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    return [number for number in wanted if signal.getsignal(number) is not signal.SIG_IGN]


def end_on_signals() -> None:
    """Makes SIGTERM and SIGHUP end this process, also as PID 1. Python handles Ctrl-C itself.

    Does nothing outside the main thread, where Python does not allow signal handlers.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    for number in ending_signals():
        if number is not signal.SIGINT:
            signal.signal(number, _end)


def _end(number: int, _: FrameType | None) -> None:
    """Ends at once, because imports may be under way. Postgres rolls back open transactions."""
    os._exit(0 if _ASKED_TO_STOP.intersection(sys.argv[1:2]) else 128 + number)
