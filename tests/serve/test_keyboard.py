"""A key stops the robot at once; a word releases it."""

import os
import pty
import termios
import time

import pytest

from pilot.serve.keyboard import StopKey


def eventually(holds):
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline, "it never came to hold"
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("typed", "heard"),
    [
        (" ", ["stop"]),
        ("\n", ["stop"]),
        ("release\n", ["stop"] * 7 + ["release"]),
        ("xrelease\n", ["stop"] * 8 + ["release"]),
        ("releases\n", ["stop"] * 9),
        ("release", ["stop"] * 7),
        ("x\nrelease\r", ["stop"] * 9 + ["release"]),
    ],
)
def test_any_key_stops_and_only_the_word_on_a_line_releases(typed, heard, tmp_path):
    said = []
    with (tmp_path / "empty").open("w+") as source:
        StopKey(lambda: said.append("stop"), lambda: said.append("release"), source=source).press(typed)
    assert said == heard


def test_in_a_terminal_a_key_acts_without_enter():
    person, terminal = pty.openpty()
    said = []
    stop, release = (lambda: said.append("stop")), (lambda: said.append("release"))
    with os.fdopen(terminal, "r") as source, StopKey(stop, release, source=source):
        eventually(lambda: not termios.tcgetattr(terminal)[3] & termios.ICANON)
        os.write(person, b" ")
        eventually(lambda: said == ["stop"])
        os.write(person, b"\nrelease\n")
        eventually(lambda: said[-1] == "release")
    os.close(person)


def test_a_line_from_elsewhere_acts_as_well():
    reading, writing = os.pipe()
    said = []
    stop, release = (lambda: said.append("stop")), (lambda: said.append("release"))
    with os.fdopen(reading, "r") as source, StopKey(stop, release, source=source):
        os.write(writing, b"\n")
        eventually(lambda: said == ["stop"])
        os.close(writing)
