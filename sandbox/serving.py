"""The uvicorn server of a simulator: it prints its address, and stops at once when told to."""

import socket
from types import FrameType

import uvicorn
from starlette.types import ASGIApp

_BACKLOG = 4096
_KEEP_ALIVE_S = 75  # longer than any client here keeps an idle connection


class _Server(uvicorn.Server):
    """uvicorn's server, which prints its address and does not wait for answers when it stops."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Starts, and prints the address."""
        await super().startup(sockets)
        host, port = self.servers[0].sockets[0].getsockname()[:2]
        print(f"listening on http://{f'[{host}]' if ':' in host else host}:{port}", flush=True)  # noqa: T201

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Closes every connection, so that it waits for no response."""
        for connection in list(self.server_state.connections):
            connection.transport.close()
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stops; uvicorn would raise the signal again at the end."""
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
