"""Structured logs: one JSON object a line (or coloured text for a person), never a secret, never a message's text.

Everything goes through the standard library's root logger, ours and our libraries' alike, so that one processor
can blank what looks like a credential before a line is written. The request's id is bound to the context by the
outermost middleware and is on every line of that request.
"""

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

_SECRETS = re.compile(
    r"nk_(?:live|test)_\w+|sk-ant-[\w-]+|rzp_(?:live|test)_\w+|(?i:bearer)\s+[\w.~+/=-]+|(?<=://)[^\s/@]*:[^\s/@]+(?=@)"
)
_BLANK = "[redacted]"


def redact(value: object) -> object:
    """`value` with everything that looks like a key or a password in a URL blanked, at any depth."""
    if isinstance(value, str):
        return _SECRETS.sub(_BLANK, value)
    if isinstance(value, dict):
        return {key: redact(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [redact(inner) for inner in value]
    return value


def _redact_event(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for key, value in event.items():
        if not key.startswith("_"):
            event[key] = redact(value)
    return event


def configure_logs(*, level: str, as_json: bool) -> None:
    """Sends every logger of the process through one redacting formatter to standard error."""
    shared: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    last: structlog.types.Processor = (
        structlog.processors.JSONRenderer(sort_keys=False) if as_json else structlog.dev.ConsoleRenderer()
    )
    logging.getLogger("asyncpg.pool").setLevel(logging.ERROR)  # a stack trace for each try while Postgres is away
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                _redact_event,
                last,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    for quiet in ("httpx2", "httpcore2", "anthropic", "uvicorn.access", "asyncio"):
        logging.getLogger(quiet).setLevel(max(root.level, logging.WARNING))


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """The logger of a module; takes keyword fields: `log.info("settled", request_id=...)`."""
    logger: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(name)
    return logger
