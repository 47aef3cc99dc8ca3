"""Run the simulator: `python -m sandbox.razorpay --port N`.

Prints one line, `listening on http://HOST:PORT`, when it is ready; SIGTERM or Ctrl-C ends it at once, with exit
status 0. What it knew is gone then, unless it has a file for it.
"""

import argparse
import socket
from pathlib import Path
from types import FrameType

import uvicorn

from core.lifeline import end_with_parent
from sandbox.razorpay import create_app

_BACKLOG = 4096
_KEEP_ALIVE_S = 75  # longer than any client here keeps an idle connection


class _Server(uvicorn.Server):
    """Uvicorn that says where it listens, and does not wait for calls when told to stop."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and print the port that was really taken."""
        await super().startup(sockets)
        host, port = self.servers[0].sockets[0].getsockname()[:2]
        print(f"listening on http://{f'[{host}]' if ':' in host else host}:{port}", flush=True)  # noqa: T201

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close every connection first, so that no answer is waited for."""
        for connection in list(self.server_state.connections):
            connection.transport.close()
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop, without uvicorn's habit of raising the signal again at the end."""
        del sig, frame
        self.should_exit = True


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
    config = uvicorn.Config(
        app,
        host=options.host,
        port=options.port,
        log_level="error",
        access_log=False,
        server_header=False,
        lifespan="on",
        backlog=_BACKLOG,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=1,
    )
    _Server(config).run()


if __name__ == "__main__":
    main()
