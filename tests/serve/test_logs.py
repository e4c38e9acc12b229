"""One line for each event, whatever a stranger wrote into it."""

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

import pilot.serve
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


def test_with_json_every_line_is_json(tmp_path):
    """Warnings, other libraries, threads and the end of the process included."""
    program = """
import logging, threading, warnings
from pilot.serve.logs import log_to_stderr
log_to_stderr("json")
logging.getLogger("pilot.serve.server").info("ready")
logging.getLogger("asyncio").warning("slow\\ncallback")
warnings.warn("old")
thread = threading.Thread(target=lambda: 1 / 0)
thread.start(), thread.join()
raise RuntimeError("out of luck")
"""
    environment = os.environ | {"PYTHONPATH": str(Path(pilot.serve.__file__).parents[2])}
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    events = [json.loads(line) for line in ran.stderr.splitlines()]
    assert [event["level"] for event in events] == ["info", "warning", "warning", "critical", "critical"]
    assert "old" in events[2]["message"] and "division by zero" in events[3]["message"]
    assert ran.returncode == 1 and "out of luck" in events[4]["error"]
