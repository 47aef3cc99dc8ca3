"""Asks `POST /chat` and writes the answer as it arrives. Standard library only.

NAKA_KEY=nk_... python3 python_client.py "What is a webhook?"
"""

import codecs
import json
import os
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator

URL = os.environ.get("NAKA_URL", "http://127.0.0.1:8000")
KEY = os.environ.get("NAKA_KEY", "")
LONGEST_WAIT_S = 60
SILENCE_S = 60
"""The server breaks silence every 15 s: longer than this, and the line is dead."""


def events(chunks: Iterable[bytes]) -> Iterator[tuple[str, str]]:
    """(type, data) of each server-sent event. A chunk may end anywhere: in a character, in a line, in a line's end."""
    decode = codecs.getincrementaldecoder("utf-8")("replace").decode
    data: list[str] = []
    rest, kind = "", "message"
    for chunk in chunks:
        text = rest + decode(chunk)
        held = "\r" if text.endswith("\r") else ""  # may be half of a CRLF
        lines = text.removesuffix(held).replace("\r\n", "\n").replace("\r", "\n").split("\n")
        rest = lines.pop() + held
        for line in lines:
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if not line and data:
                yield kind, "\n".join(data)
            if not line:
                kind, data = "message", []
            elif name == "data":
                data.append(value)
            elif name == "event":
                kind = value


def ask(message: str) -> Iterator[str]:
    """The pieces of the answer. Raises HTTPError before the first, RuntimeError when the answer breaks off."""
    request = urllib.request.Request(
        f"{URL}/chat",
        json.dumps({"message": message}).encode(),
        {"authorization": f"Bearer {KEY}", "content-type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=SILENCE_S) as answer:
        for kind, data in events(iter(lambda: answer.read1(65_536), b"")):
            if kind == "done":
                return
            if kind == "error":
                raise RuntimeError(json.loads(data)["detail"])
            yield data
    raise RuntimeError("the answer broke off")


def main() -> int:
    """Asks, and once more after `Retry-After` if there was one."""
    message = sys.argv[1] if len(sys.argv) > 1 else "What is a webhook?"
    for last in (False, True):
        try:
            for piece in ask(message):
                sys.stdout.write(piece)
                sys.stdout.flush()
            sys.stdout.write("\n")
        except urllib.error.HTTPError as error:
            problem = json.loads(error.read() or b"{}")
            sys.stderr.write(f"{error.code} {problem.get('title', '')}: {problem.get('detail', '')}\n")
            wait_s = int(error.headers.get("retry-after") or LONGEST_WAIT_S + 1)
            if last or wait_s > LONGEST_WAIT_S:
                return 1
            time.sleep(wait_s)
        except (OSError, RuntimeError) as error:
            sys.stderr.write(f"\n{error}\n")
            return 1
        else:
            return 0
    return 1


if __name__ == "__main__":
    sys.exit(main())
