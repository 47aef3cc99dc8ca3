"""Runs the simulator: `python -m sandbox.anthropic --port N --api-key KEY`.

Prints `listening on http://HOST:PORT` when ready. SIGTERM or Ctrl-C stops it at once, cutting streams, with exit
status 0. Its state is lost then, but for what it billed, with `--rows-file`.
"""

import argparse
from pathlib import Path

from core.clock import follow_test_clock
from core.parent_exit import end_with_parent
from sandbox.anthropic import create_app
from sandbox.serving import serve


def main() -> None:
    """Read the arguments and serve until told to stop."""
    parser = argparse.ArgumentParser(prog="sandbox.anthropic", description="Simulator of Anthropic's Messages API")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True, help="0: any free one")
    parser.add_argument("--api-key", required=True, action="append", help="a key that is let in")
    parser.add_argument("--pace-ms", type=int, default=25, help="milliseconds before each piece of an answer")
    parser.add_argument(
        "--clock-file", type=Path, help="how many ms the clock is ahead, as the Razorpay simulator says"
    )
    parser.add_argument("--rows-file", type=Path, help="keeps what is billed from one start to the next")
    parser.add_argument("--with-parent", action="store_true", help="end when standard input does")
    options = parser.parse_args()
    if options.with_parent:
        end_with_parent()
    if options.clock_file is not None:
        follow_test_clock(options.clock_file)
    app = create_app(*options.api_key, pace_ms=options.pace_ms, rows=options.rows_file)
    serve(app, options.host, options.port)


if __name__ == "__main__":
    main()
