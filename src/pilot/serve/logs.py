"""Structured logs on stderr: one line per event, for people (`text`) or for machines (`json`).

Beside the message, both carry the same fields where an event has them: `policy`, `session`, `address`, `reason`.
"""

import json
import logging
import sys
import threading
import time
from types import TracebackType

FIELDS = ("policy", "session", "address", "reason")
FORMATS = ("text", "json")


class TextFormatter(logging.Formatter):
    """Formats an event as `12:00:01 info    connected policy=nano session=1a2b3c4d`."""

    def format(self, record: logging.LogRecord) -> str:
        """Format a record as one line: clock, level, message and fields."""
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        fields = "".join(f" {name}={value}" for name, value in read_fields(record).items())
        line = f"{clock} {record.levelname.lower():<7} {escape_unprintable(record.getMessage() + fields)}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class JsonFormatter(logging.Formatter):
    """Formats an event as `{"time": "2026-01-01T12:00:01.250Z", "level": "info", "message": "connected", …}`."""

    def format(self, record: logging.LogRecord) -> str:
        """Format a record as one JSON object."""
        second = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        event = {"time": f"{second}.{int(record.msecs):03d}Z", "level": record.levelname.lower()}
        event |= {"message": record.getMessage(), **read_fields(record)}
        if record.exc_info:
            event["error"] = self.formatException(record.exc_info)
        return json.dumps(event, default=str)


def read_fields(record: logging.LogRecord) -> dict[str, str]:
    """Return the fields of `FIELDS` that an event has."""
    return {name: str(value) for name in FIELDS if (value := getattr(record, name, None)) not in (None, "")}


def escape_unprintable(text: str) -> str:
    """Escape line breaks and control characters: a stranger's message must not write a second line into the log."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def log_to_stderr(kind: str = "text") -> None:
    """Write all events of `pilot.serve` to stderr from now on.

    With `json`, warnings, what other libraries log, and what ends the process or a thread as well: each line is JSON.

    Raises:
        ValueError: `kind` is not one of `FORMATS`.
    """
    if kind not in FORMATS:
        raise ValueError(f"a log is {' or '.join(FORMATS)}, got '{kind}'")
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if kind == "json" else TextFormatter())
    logger = logging.getLogger("pilot.serve")
    logger.handlers = [handler]
    logger.propagate = False
    logger.setLevel(logging.INFO)
    if kind == "json":
        logging.getLogger().addHandler(handler)
        logging.captureWarnings(True)
        sys.excepthook = log_uncaught
        threading.excepthook = lambda failed: log_uncaught(
            failed.exc_type, failed.exc_value or failed.exc_type(), failed.exc_traceback
        )


def log_uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Log what nobody has caught, as one event."""
    logging.getLogger("pilot.serve").critical("%s: %s", kind.__name__, error, exc_info=(kind, error, trace))
