"""Asks `POST /chat` for plain text and writes it as it arrives. Standard library only.

NAKA_KEY=nk_... python3 text_client.py "What is a webhook?"
"""

import codecs
import http.client
import json
import os
import sys
import urllib.error
import urllib.request

URL = os.environ.get("NAKA_URL", "http://127.0.0.1:8000")


def main() -> int:
    """Asks. An answer that breaks off has no last chunk, which `http.client` reports as IncompleteRead."""
    message = sys.argv[1] if len(sys.argv) > 1 else "What is a webhook?"
    headers = {"authorization": f"Bearer {os.environ.get('NAKA_KEY', '')}", "content-type": "application/json"}
    body = json.dumps({"message": message}).encode()
    request = urllib.request.Request(f"{URL}/chat", body, {**headers, "accept": "text/plain"})
    decode = codecs.getincrementaldecoder("utf-8")().decode  # a chunk may end inside a character
    try:
        with urllib.request.urlopen(request) as answer:
            for chunk in iter(lambda: answer.read1(65_536), b""):
                sys.stdout.write(decode(chunk))
                sys.stdout.flush()
    except urllib.error.HTTPError as error:
        sys.exit(f"{error.code} {json.loads(error.read())['detail']}")
    except (OSError, http.client.HTTPException):
        sys.exit("\nthe answer broke off")
    sys.stdout.write("\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
