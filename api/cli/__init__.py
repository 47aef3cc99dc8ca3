"""`naka`: the operator's command line, on the same services as the admin API.

Every error is one line on standard error, and an exit code that is not 0.
"""

import gc

from api.cli.signals import end_on_signals
from core.environment import forget_blank_variables


def main() -> None:
    """Runs the console script."""
    end_on_signals()
    forget_blank_variables()
    gc.disable()  # imports create few garbage objects: collecting takes a quarter of their time
    from api.cli.commands import run  # noqa: PLC0415 - signals are handled before this long import

    gc.enable()
    run()
