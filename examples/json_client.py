"""Asks `POST /chat` for one JSON object: the whole answer, and what it used. Standard library only.

NAKA_KEY=nk_... python3 json_client.py "What is a webhook?"
"""

import json
import os
import sys
import urllib.error
import urllib.request

URL = os.environ.get("NAKA_URL", "http://127.0.0.1:8000")


def main() -> int:
    """Asks, writes the text, and the usage to standard error if NAKA_USAGE is set."""
    message = sys.argv[1] if len(sys.argv) > 1 else "What is a webhook?"
    headers = {"authorization": f"Bearer {os.environ.get('NAKA_KEY', '')}", "content-type": "application/json"}
    body = json.dumps({"message": message}).encode()
    request = urllib.request.Request(f"{URL}/chat", body, {**headers, "accept": "application/json"})
    try:
        with urllib.request.urlopen(request) as response:
            answer = json.load(response)
    except urllib.error.HTTPError as error:
        sys.exit(f"{error.code} {json.load(error)['detail']}")
    except OSError as error:
        sys.exit(str(error))
    sys.stdout.write(answer["text"] + "\n")
    if os.environ.get("NAKA_USAGE"):
        sys.stderr.write(f"{answer['usage']['input_tokens']} in, {answer['usage']['output_tokens']} out\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
