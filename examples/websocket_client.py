"""Asks questions on one WebSocket and writes the answers as they arrive. Needs `pip install websockets`.

NAKA_KEY=nk_... python3 websocket_client.py "What is a webhook?" "And a WebSocket?"
"""

import json
import os
import sys

from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

URL = os.environ.get("NAKA_URL", "http://127.0.0.1:8000").replace("http", "ws", 1)


def ask(socket: ClientConnection, message: str) -> None:
    """Asks one question. Raises RuntimeError for a refusal; the connection stays open."""
    socket.send(json.dumps({"message": message}))
    while True:
        match json.loads(socket.recv()):
            case {"text": text}:
                sys.stdout.write(text)
                sys.stdout.flush()
            case {"error": problem}:
                raise RuntimeError(f"{problem['status']} {problem['detail']}")
            case {"done": True}:
                sys.stdout.write("\n")
                return


def main() -> int:
    """Asks each question in its turn."""
    headers = {"authorization": f"Bearer {os.environ.get('NAKA_KEY', '')}"}
    try:
        with connect(f"{URL}/chat", additional_headers=headers) as socket:
            for message in sys.argv[1:] or ["What is a webhook?"]:
                ask(socket, message)
    except InvalidStatus as refused:
        sys.exit(f"{refused.response.status_code} {json.loads(refused.response.body)['detail']}")
    except (OSError, ConnectionClosed, RuntimeError) as error:
        sys.exit(str(error))
    return 0


if __name__ == "__main__":
    sys.exit(main())
