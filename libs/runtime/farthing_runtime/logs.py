"""Structured logs: one line an event, with the request id, without prompt text or secrets."""

from __future__ import annotations

import logging
import sys
from typing import Any

import structlog


def configure_logs(*, level: str, form: str) -> None:
    """Sets structlog up for this process: `json` lines for machines or `text` for people, on standard error."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if form == "json":
        # Local variables of frames may hold prompts and keys, so tracebacks come without them.
        bare = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
        rendered: list[Any] = [structlog.processors.ExceptionRenderer(bare), structlog.processors.JSONRenderer()]
    else:
        # For the same reason these are plain.
        plain = structlog.dev.plain_traceback
        rendered = [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=plain)]
    structlog.configure(
        processors=[*shared, *rendered],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    # The pool reports each failed attempt with a traceback; what it means for a request is said where the request fails.
    logging.getLogger("asyncpg").setLevel(logging.CRITICAL)
