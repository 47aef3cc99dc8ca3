"""Run the simulator: `python -m sandbox.anthropic --port N --api-key KEY`.

Prints one line, `listening on http://HOST:PORT`, when it is ready; SIGTERM or Ctrl-C ends it at once, with
streams cut, and exit status 0.
"""

import argparse
import socket
from types import FrameType

import uvicorn

from core.lifeline import end_with_parent
from sandbox.anthropic import create_app

_BACKLOG = 4096
_KEEP_ALIVE_S = 75  # longer than any client here keeps an idle connection


class _Server(uvicorn.Server):
    """Uvicorn that says where it listens, and does not wait for streams when told to stop."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and print the port that was really taken."""
        await super().startup(sockets)
        host, port = self.servers[0].sockets[0].getsockname()[:2]
        print(f"listening on http://{f'[{host}]' if ':' in host else host}:{port}", flush=True)  # noqa: T201

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close every connection first, so that no response is waited for."""
        for connection in list(self.server_state.connections):
            connection.transport.close()
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop, without uvicorn's habit of raising the signal again at the end."""
        del sig, frame
        self.should_exit = True


def main() -> None:
    """Read the arguments and serve until told to stop."""
    parser = argparse.ArgumentParser(prog="sandbox.anthropic", description="Simulator of Anthropic's Messages API")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True, help="0: any free one")
    parser.add_argument("--api-key", required=True, help="the one key that is let in")
    parser.add_argument("--pace-ms", type=int, default=25, help="milliseconds before each piece of an answer")
    parser.add_argument("--with-parent", action="store_true", help="end when standard input does")
    options = parser.parse_args()
    if options.with_parent:
        end_with_parent()
    config = uvicorn.Config(
        create_app(options.api_key, pace_ms=options.pace_ms),
        host=options.host,
        port=options.port,
        log_level="error",
        access_log=False,
        server_header=False,
        lifespan="off",
        backlog=_BACKLOG,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=1,
    )
    _Server(config).run()


if __name__ == "__main__":
    main()
