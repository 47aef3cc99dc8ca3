"""Signals that end a process, heard from its first statement on.

Python starts in a moment, Naka's imports take a second or more, and a process that is the first of a container (PID 1)
does not end by a signal that it has no handler for. Until a server or a worker has begun its own orderly stop, there
is nothing to put in order, so the process ends at once. SIGHUP ends like SIGTERM, unless `nohup` had it ignored.
"""

import os
import signal
import sys
import threading
from types import FrameType

_ASKED_TO_STOP = frozenset({"serve", "worker", "up"})
"""For these a stop is what was asked for, and no failure."""


def ending_signals() -> list[signal.Signals]:
    """The signals that end this process, without those that whoever started it had ignored."""
    wanted = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    return [number for number in wanted if signal.getsignal(number) is not signal.SIG_IGN]


def end_on_signals() -> None:
    """From now on SIGTERM and SIGHUP end this process, also as PID 1. Ctrl-C is Python's own.

    Only the main thread may say so; a command that runs in another belongs to a process that has begun long ago.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    for number in ending_signals():
        if number is not signal.SIGINT:
            signal.signal(number, _end)


def _end(number: int, _: FrameType | None) -> None:
    """At once, without what belongs to an orderly end: imports may be under way. Postgres rolls back what was begun."""
    os._exit(0 if _ASKED_TO_STOP.intersection(sys.argv[1:2]) else 128 + number)
