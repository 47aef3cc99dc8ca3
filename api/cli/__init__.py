"""`naka`: the operator's command line. The same operations as the admin API, on the database itself.

Whatever goes wrong is one line on standard error and exit code 1; a stack trace is for programmers.
"""

import gc

from api.cli.signals import end_on_signals
from core.environment import forget_blank_variables


def main() -> None:
    """The console script."""
    end_on_signals()
    forget_blank_variables()
    gc.disable()  # what a start makes stays: looking through it for garbage is a quarter of its time
    from api.cli.commands import run  # noqa: PLC0415 - as above

    gc.enable()
    run()
