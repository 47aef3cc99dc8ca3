"""How a simulator is served: it says where it listens, and ends at once when told to."""

import socket
from types import FrameType

import uvicorn
from starlette.types import ASGIApp

_BACKLOG = 4096
_KEEP_ALIVE_S = 75  # longer than any client here keeps an idle connection


class _Server(uvicorn.Server):
    """Uvicorn that says where it listens, and does not wait for answers when told to stop."""

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


def serve(app: ASGIApp, host: str, port: int) -> None:
    """Serves until SIGTERM or SIGINT. Port 0 is any free one."""
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        log_level="error",
        access_log=False,
        server_header=False,
        lifespan="on",
        backlog=_BACKLOG,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=1,
    )
    _Server(config).run()
