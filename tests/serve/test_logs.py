"""One line for each event, whatever a stranger wrote into it."""

import json
import logging
import sys

import pytest

from pilot.serve.logs import JsonFormatter, TextFormatter, log_to_stderr


def record(message, **fields):
    made = logging.LogRecord("pilot.serve.server", logging.WARNING, "server.py", 1, message, (), None)
    made.created, made.msecs = 1767225600.25, 250.0
    vars(made).update(fields)
    return made


def test_json_carries_the_fields():
    line = JsonFormatter().format(record("connected", policy="nano", session="1a2b", reason="", address=None))
    assert json.loads(line) == {
        "time": "2026-01-01T00:00:00.250Z", "level": "warning", "message": "connected", "policy": "nano",
        "session": "1a2b",
    }  # fmt: skip


def test_text_carries_them_too():
    assert TextFormatter().format(record("connected", policy="nano")).endswith("warning connected policy=nano")


@pytest.mark.parametrize("formatter", [JsonFormatter(), TextFormatter()])
def test_nobody_writes_a_second_line(formatter):
    line = formatter.format(record("said: x\n12:00:00 info all is well\x1b[2J", reason="a\r\nb"))
    assert len(line.splitlines()) == 1 and "\x1b" not in line


@pytest.mark.parametrize("formatter", [JsonFormatter(), TextFormatter()])
def test_errors_come_with_their_traceback(formatter):
    failed = record("failed")
    try:
        raise RuntimeError("out of luck")
    except RuntimeError:
        failed.exc_info = sys.exc_info()
    assert "out of luck" in formatter.format(failed)


def test_an_unknown_kind_is_an_error():
    with pytest.raises(ValueError, match="text or json, got 'xml'"):
        log_to_stderr("xml")
