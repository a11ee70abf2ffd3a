"""Structured logs: one JSON object a line for machines, a readable line for people. Never payload values."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any

from pipelines.lake.settings import LogSettings

_ROOT = "lakehouse"


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "ts": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name.removeprefix(f"{_ROOT}."),
            "event": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info and record.exc_info[0] is not None:
            line["error_type"] = record.exc_info[0].__name__
            line["stack"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


class _ConsoleFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        clock = datetime.fromtimestamp(record.created, UTC).strftime("%H:%M:%S")
        fields = " ".join(f"{key}={value}" for key, value in getattr(record, "fields", {}).items())
        name = record.name.removeprefix(f"{_ROOT}.")
        line = f"{clock} {record.levelname.lower():7} {name:10} {record.getMessage()} {fields}".rstrip()
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class Log:
    """A logger whose fields are keyword arguments: `log.info("batch written", rows=5)`."""

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(f"{_ROOT}.{name}")

    def debug(self, event: str, **fields: Any) -> None:
        """Write `event` with `fields` at debug level."""
        self._logger.debug(event, extra={"fields": fields})

    def info(self, event: str, **fields: Any) -> None:
        """Write `event` with `fields` at info level."""
        self._logger.info(event, extra={"fields": fields})

    def warning(self, event: str, **fields: Any) -> None:
        """Write `event` with `fields` at warning level."""
        self._logger.warning(event, extra={"fields": fields})

    def error(self, event: str, *, exc_info: bool = False, **fields: Any) -> None:
        """Write `event` with `fields` at error level, with the stack trace if `exc_info`."""
        self._logger.error(event, extra={"fields": fields}, exc_info=exc_info)


def setup_logging(settings: LogSettings) -> None:
    """Send the project's logs to standard error in the chosen format; calling it again replaces the setting."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonFormatter() if settings.format == "json" else _ConsoleFormatter())
    root = logging.getLogger(_ROOT)
    root.handlers = [handler]
    root.setLevel(settings.level.upper())
    root.propagate = False
