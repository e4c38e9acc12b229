"""A small process that stops a robot when the one that controls it dies or hangs. Standard library only.

    with Watchdog(["python", "stop_robot.py"], latch=Path("stopped"), seconds=0.5) as watchdog:
        while True:
            command = robot.next(missed=pace.wait())
            watchdog.beat()

When no `beat` has come for `seconds`, or when the controlling process is gone however it ended, it writes the file
`latch`, and no watchdog starts while that is there: a person looks at the robot, and removes it. Then it runs the
command that you give, again until that succeeds. The command must stop the robot by itself: through its driver, a
relay, a switch. Only leaving the `with` block without an error ends it quietly.
"""

import contextlib
import os
import select
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

BEAT, GOODBYE = b".", b"q"
COMMAND_SECONDS = 10.0  # that one run of the stopping command may take
PAUSE = 0.2  # between two attempts to stop [s]


class Watchdog:
    """The controlling process's side: starts the watching process, and tells it that all is well.

    Raises:
        ValueError: `seconds` is not above 0, there is no command, no `latch` can be written, or an earlier stop has not
            been released.
    """

    def __init__(self, command: Sequence[str], *, latch: Path, seconds: float = 0.5) -> None:
        if not seconds > 0 or not command:
            raise ValueError(f"a watchdog needs a command that stops the robot, and seconds above 0; got {seconds}")
        if latch.exists():
            reason = latch.read_text().strip()
            raise ValueError(f"the robot was stopped ({reason}); look at it, then remove {latch} to release it")
        if not os.access(latch.absolute().parent, os.W_OK):
            raise ValueError(f"{latch} cannot be written, so a stop would be forgotten: give a folder that is there")
        arguments = [sys.executable, "-S", "-E", "-P", __file__, str(latch), str(seconds), *command]
        # A session of its own: Ctrl-C in the terminal must not end the one process that would notice.
        self._process = subprocess.Popen(arguments, stdin=subprocess.PIPE, start_new_session=True)
        assert self._process.stdin is not None
        self._line = self._process.stdin.fileno()
        os.set_blocking(self._line, False)

    @property
    def is_alive(self) -> bool:
        """Whether the watching process still watches; if not, it has stopped the robot, or was killed itself."""
        return self._process.poll() is None

    def beat(self) -> None:
        """Say that all is well; returns at once.

        Raises:
            RuntimeError: nobody watches any more.
        """
        try:
            os.write(self._line, BEAT)
        except BlockingIOError:  # it has enough beats to read
            pass
        except OSError as error:
            raise RuntimeError("the watchdog is gone: it has stopped the robot, or was killed") from error

    def close(self) -> None:
        """End the watch without a stop: the robot is at rest, and nobody controls it from here."""
        with contextlib.suppress(OSError):
            os.set_blocking(self._line, True)  # a pipe full of beats must not swallow the goodbye
            os.write(self._line, GOODBYE)
        self._hang_up()

    def _hang_up(self) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        self._process.wait()

    def __enter__(self) -> "Watchdog":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:
            self._hang_up()  # the watching process takes it for a death, and stops the robot


def watch(line: int, *, seconds: float) -> str | None:
    """Read beats until something is wrong; return what, or None after a goodbye."""
    while True:
        ready, _, _ = select.select([line], [], [], seconds)
        if not ready:
            return f"no heartbeat for {seconds:g} s"
        if not (beats := os.read(line, 4096)):
            return "the controlling process is gone"
        if GOODBYE in beats:
            return None


def stop(command: Sequence[str], latch: Path, reason: str) -> None:
    """Run the command until it succeeds; the latch is written first, so that nobody starts anew meanwhile."""
    with contextlib.suppress(OSError):  # a full disk must not keep the robot from being stopped
        latch.write_text(f"{time.strftime('%Y-%m-%d %H:%M:%S')}: {reason}\n")
    print(f"watchdog: {reason}; stopping the robot", file=sys.stderr, flush=True)
    while True:
        try:
            done = subprocess.run(command, stdin=subprocess.DEVNULL, timeout=COMMAND_SECONDS, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            print(f"watchdog: {error}; trying again", file=sys.stderr, flush=True)
        else:
            if done.returncode == 0:
                return
            print(f"watchdog: {command[0]} ended with {done.returncode}; trying again", file=sys.stderr, flush=True)
        time.sleep(PAUSE)


def main(arguments: Sequence[str]) -> None:
    """Watch standard input: `LATCH SECONDS COMMAND …`."""
    latch, seconds, *command = arguments
    if (reason := watch(sys.stdin.fileno(), seconds=float(seconds))) is not None:
        stop(command, Path(latch), reason)


if __name__ == "__main__":
    main(sys.argv[1:])
