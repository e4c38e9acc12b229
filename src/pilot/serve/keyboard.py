"""The emergency stop at the keyboard: any key stops the robot, and only the word `release` lets it move again.

    with StopKey(controller.stop, controller.release):
        …                                                  the control loop

In a terminal a key acts at once; where input comes from elsewhere, a line does.
"""

import contextlib
import os
import select
import sys
import threading
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import IO, Any

RELEASE = "release"
HELP = "any key stops the robot; type 'release' and Enter to let it move again"


class StopKey:
    """Calls `stop` for every key, and `release` when a person has typed the word and Enter, in a thread of its own."""

    def __init__(
        self, stop: Callable[[], object], release: Callable[[], object], *, source: IO[Any] | None = None
    ) -> None:
        self._stop, self._release = stop, release
        self._source = (source or sys.stdin).fileno()
        self._typed = ""
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._read, name="stop key", daemon=True)

    def __enter__(self) -> "StopKey":
        print(HELP, file=sys.stderr)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_over.set()
        self._thread.join()

    def press(self, text: str) -> None:
        """Take what was typed: anything stops, and a line that ends with the word releases."""
        for letter in text:
            if letter in "\r\n":
                is_word, self._typed = self._typed.endswith(RELEASE), ""
                self._release() if is_word else self._stop()
            else:
                self._typed += letter
                self._stop()  # the letters of the word too: who types is at the robot, and it stands still

    def _read(self) -> None:
        with every_key(self._source):
            while not self._is_over.is_set():
                ready, _, _ = select.select([self._source], [], [], 0.05)
                if not ready:
                    continue
                if not (text := os.read(self._source, 1024)):  # the input has ended
                    return
                self.press(text.decode(errors="replace"))


@contextlib.contextmanager
def every_key(source: int) -> Iterator[None]:
    """Let a terminal pass on every key at once, while the block runs; other inputs stay as they are."""
    if not os.isatty(source):
        yield
        return
    import termios
    import tty

    before = termios.tcgetattr(source)
    try:
        tty.setcbreak(source)
        yield
    finally:
        termios.tcsetattr(source, termios.TCSADRAIN, before)
