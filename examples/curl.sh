#!/bin/sh
# Asks once and shows the events as they arrive. The key goes through a file of curl's own, not through its arguments,
# which every user of this machine could read.
set -eu
: "${NAKA_KEY:?set NAKA_KEY to an API key}"
printf 'header = "authorization: Bearer %s"\n' "$NAKA_KEY" |
  curl --config - --no-buffer --silent --show-error --fail-with-body \
    --header 'content-type: application/json' \
    --data "{\"message\": \"${1:-What is a webhook?}\"}" \
    "${NAKA_URL:-http://127.0.0.1:8000}/chat"
