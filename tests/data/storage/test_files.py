"""The file layer: what has its name is whole, at whatever moment the process is killed or the power fails."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pilot.data.storage import files
from pilot.data.storage.files import (
    atomic_write,
    cache_folder,
    find_cache,
    output_folder,
    recover_folder,
    replace_folder,
    write_json,
)

DEAD = 2**22 + 1  # no process has this number: Linux counts to 2**22


class Disk:
    """A folder on a disk that forgets at a crash: what was not brought to it by `fsync` may be lost.

    Before every call that matters the state of the folder is kept: its names, and which contents are safe.
    """

    def __init__(self, root: Path, patch: pytest.MonkeyPatch, states: Path) -> None:
        self.root, self.states, self.safe, self.count = root, states, set[int](), 0
        for name in ("fsync", "replace", "rename"):
            patch.setattr(os, name, self._watch(name, getattr(os, name)))
        patch.setattr(files, "_exchange", self._watch("exchange", files._exchange))

    def _watch(self, name: str, call: Callable) -> Callable:
        def watched(*args, **options):
            self.keep()
            result = call(*args, **options)
            if name == "fsync":
                self.safe.add(os.fstat(args[0]).st_ino)
            return result

        return watched

    def keep(self) -> None:
        """Keep two states that a crash now could leave: all that was written, and only what is safe."""
        for kind in ("written", "safe only"):
            state = self.states / f"{self.count:03d} {kind}"
            shutil.copytree(self.root, state)
            for file in self.root.rglob("*"):
                if kind == "safe only" and file.is_file() and file.stat().st_ino not in self.safe:
                    (state / file.relative_to(self.root)).write_bytes(b"")
        self.count += 1

    def crashes(self) -> list[Path]:
        """Return the folders as crashes would have left them, and as it is at the end."""
        self.keep()
        return sorted(self.states.iterdir())


@pytest.fixture
def disk(tmp_path, monkeypatch):
    """A disk with one file and one folder of an earlier time, which are safe."""
    root = tmp_path / "root"
    (root / "policy").mkdir(parents=True)
    for name in ("a", "b"):
        (root / "policy" / name).write_text("old")
    (root / "note.json").write_text('"old"')
    disk = Disk(root, monkeypatch, tmp_path / "states")
    disk.safe |= {file.stat().st_ino for file in root.rglob("*")}
    return disk


def fill(folder: Path) -> Path:
    folder.mkdir()
    for name in ("a", "b"):
        (folder / name).write_text("new")
    return folder


def test_a_file_is_old_or_new_after_a_crash_at_any_moment(disk):
    write_json(disk.root / "note.json", "new")
    found = [(state / "note.json").read_text().strip() for state in disk.crashes()]
    assert set(found) == {'"old"', '"new"'} and found[-2:] == ['"new"', '"new"']


def test_without_fsync_the_same_test_finds_a_lost_file(disk, monkeypatch):
    """The harness can fail: this is what it is for."""
    monkeypatch.setattr(files, "sync", lambda path: None)
    write_json(disk.root / "note.json", "new")
    assert "" in {(state / "note.json").read_text() for state in disk.crashes()}


@pytest.mark.parametrize("exchange", [True, False], ids=["names are exchanged", "two renames"])
def test_a_folder_is_old_or_new_after_a_crash_at_any_moment(disk, monkeypatch, exchange):
    if not exchange:
        monkeypatch.setattr(files, "_exchange", lambda one, other: False)
    replace_folder(fill(disk.root / f".policy.{DEAD}.tmp"), disk.root / "policy")
    monkeypatch.setattr(files, "is_running", lambda pid: False)  # the process that crashed
    found = []
    for state in disk.crashes():
        recover_folder(state / "policy")
        found.append([(state / "policy" / name).read_text() for name in ("a", "b")])
    assert {tuple(pair) for pair in found} == {("old", "old"), ("new", "new")} and found[-1] == ["new", "new"]
    assert sorted(path.name for path in disk.root.iterdir()) == ["note.json", "policy"]


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path):
    (tmp_path / "note").write_text("old")
    with pytest.raises(ZeroDivisionError), atomic_write(tmp_path / "note") as temporary:
        temporary.write_text("half")
        raise ZeroDivisionError
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("note", "old")]


def test_the_next_writer_sweeps_what_a_dead_one_left(tmp_path):
    inner = tmp_path / "out" / "inner"
    inner.mkdir(parents=True)
    (inner / f".half.{DEAD}.tmp").write_text("half")
    (inner / f".mine.{os.getpid()}.tmp").write_text("somebody is at it")
    fill(inner / f".policy.{DEAD}.tmp")
    fill(inner / f".kept.{DEAD}.old")
    with output_folder(tmp_path / "out"):
        names = {path.relative_to(inner).as_posix() for path in inner.rglob("*")}
        assert names == {f".mine.{os.getpid()}.tmp", "kept", "kept/a", "kept/b"}


CACHES = {
    "nothing is said": ({}, "~/.cache/pilot"),
    "the user's cache": ({"XDG_CACHE_HOME": "/xdg"}, "/xdg/pilot"),
    "pilot's own": ({"XDG_CACHE_HOME": "/xdg", "PILOT_CACHE": "/own"}, "/own"),
    "under the home": ({"PILOT_CACHE": "~/own"}, "~/own"),
    "an empty one": ({"PILOT_CACHE": ""}, "~/.cache/pilot"),
}


@pytest.mark.parametrize(("said", "where"), CACHES.values(), ids=CACHES)
def test_there_is_one_cache(said, where, monkeypatch, tmp_path):
    """What is fetched, and what is made of a set in a place that cannot be written to, lie in the same folder."""
    for name in ("PILOT_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, folder in said.items():
        monkeypatch.setenv(name, folder)
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert find_cache() == cache_folder(tmp_path).parent == Path(where).expanduser()
