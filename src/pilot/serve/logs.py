"""Structured logs: one line for each event, for people (`text`) or for machines (`json`), to stderr.

Both carry the same fields beside the message, where an event has them: `session`, `policy`, `address`, `reason`.
"""

import json
import logging
import time

FIELDS = ("policy", "session", "address", "reason")
FORMATS = ("text", "json")


class TextFormatter(logging.Formatter):
    """`12:00:01 info    connected policy=nano session=1a2b3c4d`"""

    def format(self, record: logging.LogRecord) -> str:
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        fields = "".join(f" {name}={value}" for name, value in fields_of(record).items())
        line = f"{clock} {record.levelname.lower():<7} {printable(record.getMessage() + fields)}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class JsonFormatter(logging.Formatter):
    """`{"time": "2026-01-01T12:00:01.250Z", "level": "info", "message": "connected", "policy": "nano", …}`"""

    def format(self, record: logging.LogRecord) -> str:
        second = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        event = {"time": f"{second}.{int(record.msecs):03d}Z", "level": record.levelname.lower()}
        event |= {"message": record.getMessage(), **fields_of(record)}
        if record.exc_info:
            event["error"] = self.formatException(record.exc_info)
        return json.dumps(event, default=str)


def fields_of(record: logging.LogRecord) -> dict[str, str]:
    return {name: str(value) for name in FIELDS if (value := getattr(record, name, None)) not in (None, "")}


def printable(text: str) -> str:
    """On one line, whatever a stranger sent: nobody writes a second line into our log."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def log_to_stderr(kind: str = "text") -> None:
    """Everything that `pilot.serve` has to say from now on.

    Raises:
        ValueError: there is no such kind.
    """
    if kind not in FORMATS:
        raise ValueError(f"logs are {' or '.join(FORMATS)}, not '{kind}'")
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if kind == "json" else TextFormatter())
    logger = logging.getLogger("pilot.serve")
    logger.handlers, logger.propagate = [handler], False
    logger.setLevel(logging.INFO)
