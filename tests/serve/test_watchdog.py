"""Whoever controls a robot may die or hang: the robot is stopped, and stays so until a person releases it."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from pilot.serve import watchdog
from pilot.serve.watchdog import Watchdog


@pytest.fixture
def place(tmp_path):
    return tmp_path / "latch", tmp_path / "stopped"


def stopping(stopped):
    """A command that stops the robot: it says so in a file."""
    return ["/bin/sh", "-c", f"echo stop >> {stopped}"]


def eventually(holds, *, seconds=60):
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it never came to hold"
        time.sleep(0.01)


def test_as_long_as_it_beats_nothing_happens(place):
    latch, stopped = place
    with Watchdog(stopping(stopped), latch=latch, seconds=30) as dog:
        for _ in range(100_000):  # more than the pipe holds: full when the goodbye comes
            dog.beat()
        assert dog.is_alive
    assert not dog.is_alive and not stopped.exists() and not latch.exists()


def test_without_a_beat_it_stops_the_robot_and_latches(place):
    latch, stopped = place
    dog = Watchdog(stopping(stopped), latch=latch, seconds=0.3)
    eventually(lambda: not dog.is_alive)
    assert stopped.read_text() == "stop\n" and "no heartbeat for 0.3 s" in latch.read_text()
    with pytest.raises(RuntimeError, match="the watchdog is gone"):
        for _ in range(100):
            dog.beat()
    with pytest.raises(ValueError, match=r"the robot was stopped .*no heartbeat.*remove .*latch to release it"):
        Watchdog(stopping(stopped), latch=latch)
    latch.unlink()
    Watchdog(stopping(stopped), latch=latch, seconds=30).close()
    dog.close()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV])
def test_however_the_controlling_process_dies_the_robot_is_stopped(place, number):
    latch, stopped = place
    program = f"""
        import time
        from pathlib import Path
        from pilot.serve.watchdog import Watchdog
        with Watchdog({stopping(stopped)!r}, latch=Path({str(latch)!r}), seconds=120) as dog:
            print("ready", flush=True)
            while True:
                dog.beat()
                time.sleep(0.01)
    """
    environment = os.environ | {"PYTHONPATH": str(Path(watchdog.__file__).parents[2])}
    controlling = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)], stdout=subprocess.PIPE, text=True, env=environment
    )
    assert controlling.stdout.readline() == "ready\n"
    os.kill(controlling.pid, number)
    controlling.wait()
    eventually(stopped.exists)
    assert "the controlling process is gone" in latch.read_text()
    controlling.stdout.close()


def test_an_error_in_the_control_loop_is_a_death(place):
    latch, stopped = place
    with pytest.raises(ZeroDivisionError), Watchdog(stopping(stopped), latch=latch, seconds=60):
        1 / 0  # noqa: B018
    assert stopped.exists() and latch.exists()


def test_a_command_that_fails_is_tried_again(place):
    latch, stopped = place
    second = ["/bin/sh", "-c", f"test -e {stopped} && echo done > {stopped} || {{ touch {stopped}; exit 3; }}"]
    dog = Watchdog(second, latch=latch, seconds=0.1)
    eventually(lambda: not dog.is_alive)
    assert stopped.read_text() == "done\n"
    dog.close()


@pytest.mark.parametrize(("command", "seconds"), [([], 1.0), (["true"], 0.0), (["true"], float("nan"))])
def test_what_would_watch_nothing_is_refused(place, command, seconds):
    with pytest.raises(ValueError, match="a command that stops the robot, and seconds above 0"):
        Watchdog(command, latch=place[0], seconds=seconds)


def test_a_latch_that_could_not_be_written_is_refused(place):
    with pytest.raises(ValueError, match="a stop would be forgotten"):
        Watchdog(["true"], latch=place[0].parent / "nowhere" / "stopped")
