"""One writer per folder, whatever becomes of the writer."""

import os
import signal
import subprocess
import sys

import pytest

from pilot.locks import FolderInUseError, is_running, lock_beside, lock_folder

HOLD = """
import sys, time
from pilot.locks import lock_folder
with lock_folder(sys.argv[1]):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the lock of `tmp_path / "out"`."""
    with subprocess.Popen([sys.executable, "-c", HOLD, tmp_path / "out"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_the_second_process_is_told_who_holds_the_folder(holder, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(FolderInUseError) as refused, lock_folder(out):
        pass
    line = str(refused.value)
    assert line.startswith(f"{out} is in use by process {holder.pid} on ") and "\n" not in line
    assert "since 20" in line and f"-c {out}" in line and line.endswith("or choose another folder")


def test_the_lock_of_a_process_that_was_killed_is_free(holder, tmp_path):
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    assert (tmp_path / "out" / ".lock").exists(), "nobody was left to remove it"
    with lock_folder(tmp_path / "out"):
        pass
    assert not (tmp_path / "out" / ".lock").exists()
    assert not is_running(holder.pid)


def test_a_folder_has_one_writer_within_a_process_too(tmp_path):
    with lock_folder(tmp_path / "out"):
        with pytest.raises(FolderInUseError, match=f"process {os.getpid()} "), lock_folder(tmp_path / "out"):
            pass
        with lock_folder(tmp_path / "out" / "part"):
            pass
    with lock_folder(tmp_path / "out"):
        pass


def test_what_is_put_in_place_whole_is_locked_beside_it(tmp_path):
    target = tmp_path / "policies" / "mine"
    with lock_beside(target):
        assert not target.exists()
        with (
            pytest.raises(FolderInUseError, match=f"^{target} is in use by process {os.getpid()} "),
            lock_beside(target),
        ):
            pass
        with lock_beside(target.with_name("other")):
            pass
    assert not target.parent.exists(), "what nobody has filled is removed"


def test_many_processes_take_turns_and_never_two_at_once(tmp_path):
    """Each adds 1 to a number, 50 times, without any other protection than the lock."""
    add = (
        "import sys, time\nfrom pathlib import Path\nfrom pilot.locks import FolderInUseError, lock_folder\n"
        "left, count = 50, Path(sys.argv[1]) / 'count'\n"
        "while left:\n"
        "    try:\n"
        "        with lock_folder(sys.argv[1]):\n"
        "            count.write_text(str(int(count.read_text()) + 1))\n"
        "            left -= 1\n"
        "    except FolderInUseError:\n"
        "        time.sleep(0.001)\n"
    )
    (tmp_path / "count").write_text("0")
    processes = [subprocess.Popen([sys.executable, "-c", add, tmp_path]) for _ in range(3)]
    assert [process.wait(timeout=120) for process in processes] == [0, 0, 0]
    assert (tmp_path / "count").read_text() == "150"
