"""Run the simulator: `python -m sandbox.razorpay --port N`.

Prints `listening on http://HOST:PORT` when it is ready. SIGTERM or Ctrl-C ends it at once, with exit status 0. Its
state is lost then, unless it has a state file.
"""

import argparse
from pathlib import Path

from core.parent_exit import end_with_parent
from sandbox.razorpay import create_app
from sandbox.serving import serve


def main() -> None:
    """Read the arguments and serve until told to stop."""
    parser = argparse.ArgumentParser(prog="sandbox.razorpay", description="Simulator of Razorpay")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True, help="0: any free one")
    parser.add_argument("--key-id", default="rzp_test_sandbox000001")
    parser.add_argument("--key-secret", default="sandbox_key_secret")
    parser.add_argument("--webhook-url", default=None, help="where events go; can be set later at /_sim/webhooks")
    parser.add_argument("--webhook-secret", default="sandbox_webhook_secret")
    parser.add_argument("--start", type=int, default=None, help="the clock's first moment, Unix seconds; default: now")
    parser.add_argument("--clock-file", type=Path, help="shows how many ms the clock is ahead; gone on from, if there")
    parser.add_argument("--state-file", type=Path, help="keeps what is known from one start to the next")
    parser.add_argument("--public-url", default="", help="what short_url begins with; default: as first called")
    parser.add_argument("--with-parent", action="store_true", help="end when standard input does")
    options = parser.parse_args()
    if options.with_parent:
        end_with_parent()
    try:
        app = create_app(
            options.key_id,
            options.key_secret,
            webhook_url=options.webhook_url,
            webhook_secret=options.webhook_secret,
            start=options.start,
            base_url=options.public_url.rstrip("/"),
            clock_file=options.clock_file,
            state_file=options.state_file,
        )
    except (ValueError, OSError) as error:
        parser.error(str(error))
    serve(app, options.host, options.port)


if __name__ == "__main__":
    main()
