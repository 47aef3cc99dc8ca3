"""Structured logs: one JSON object per line, or coloured text; no secrets and no message texts.

All loggers, including those of libraries, go through the standard library's root logger, so that one processor redacts
credentials. Every line of a request has its id, which the outermost middleware binds.
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
    """Returns `value` with keys and URL passwords redacted, at any depth."""
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
    """Sends all loggers to standard error through one redacting formatter."""
    shared: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    last: structlog.types.Processor = (
        structlog.processors.JSONRenderer(sort_keys=False) if as_json else structlog.dev.ConsoleRenderer()
    )
    logging.getLogger("asyncpg.pool").setLevel(logging.ERROR)  # it logs a stack trace per try while Postgres is down
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
    """Returns the logger of a module, which takes keyword fields: `log.info("settled", request_id=...)`."""
    logger: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(name)
    return logger
