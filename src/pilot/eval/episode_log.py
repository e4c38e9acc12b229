"""The log of an evaluation, and the fingerprints that say whether an episode in it still holds.

Every finished episode is one line of a JSONL file under a key: fingerprints of policy, code and suite, control, seed,
scene. Change the weights, the simulator or how a policy acts, and the key changes with them.
"""

import hashlib
import inspect
import json
import os
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

import pilot
import pilot.sims
from pilot.data.storage.files import explain_disk_errors
from pilot.eval.records import EpisodeRecord, pack_actions
from pilot.eval.runner import Job
from pilot.eval.settings import describe
from pilot.infer.policy import Policy
from pilot.models.bundle import POLICY_FILES
from pilot.sims.base import Suite, TaskSuite
from pilot.sims.world.suites import WorldSuite

PHYSICS = ("mujoco", "pymunk")
"""Modules of what simulators are made with."""


class EpisodeLog:
    """The finished episodes of one policy by job, appended to a JSONL file if there is one.

    It reads all such files of the folder, those of other shards too. A line that a crash cut short is dropped, and its
    episode runs again; so does one that was lost (`EpisodeRecord.lost`).
    """

    def __init__(self, path: Path | None, *, policy: str) -> None:
        self.path = path
        self.policy = f"{policy}/{code_fingerprint()}"
        self.records: dict[str, EpisodeRecord] = {}
        if path is not None:
            drop_cut_line(path)
            rows = read_rows(path.parent)
            self.records = {key: record for key, (record, _) in rows.items() if record.lost is None}

    def key(self, job: Job) -> str:
        """Return what an episode is stored under: everything that decides how it goes."""
        pool = job.episodes if job.control == "shuffled_prompts" else ""  # prompts are drawn from that many scenes
        suite = f"{job.suite.name}/{suite_fingerprint(job.suite)}"
        return f"{self.policy}/{suite}/{job.control}/{pool}/{job.seed}/{job.scene}"

    def __contains__(self, job: Job) -> bool:
        return self.key(job) in self.records

    def __getitem__(self, job: Job) -> EpisodeRecord:
        return self.records[self.key(job)]

    def add(self, job: Job, record: EpisodeRecord, *, actions: np.ndarray | None = None) -> None:
        """Store the record of a job, in the file too, with the actions [t ad] that repeat the episode."""
        self.records[self.key(job)] = record
        if self.path is not None:
            row: dict[str, Any] = {"key": self.key(job), "record": record.to_json()}
            append_row(self.path, row if actions is None else row | {"actions": pack_actions(actions)})

    def running(self, job: Job) -> str:
        """Return the successes so far of the job's suite and control, as "12/20"."""
        same = self.key(job).rpartition("/")[0] + "/"
        done = [record.success for key, record in self.records.items() if key.startswith(same)]
        return f"{sum(done)}/{len(done)}"


def append_row(path: Path, row: dict[str, Any]) -> None:
    """Add a line of JSON to a file, which is made with its folder if there is none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with explain_disk_errors(path), path.open("a") as file:
        file.write(json.dumps(row) + "\n")
        file.flush()
        os.fsync(file.fileno())  # a finished episode survives a power cut too


def drop_cut_line(path: Path) -> None:
    """Remove the end of a file that a crash cut short in the middle of a line."""
    if path.exists():
        whole, _, cut = path.read_bytes().rpartition(b"\n")
        if cut:
            os.truncate(path, len(whole) + 1 if whole else 0)


def read_rows(folder: Path) -> dict[str, tuple[EpisodeRecord, str | None]]:
    """Return the records in a folder's logs by key, each with its packed actions if it has them; the last one counts.

    Of an episode that is there twice, one that was not lost counts.
    """
    found: dict[str, tuple[EpisodeRecord, str | None]] = {}
    for key, record, actions in read_lines(folder, pattern="episodes*.jsonl", read=_read_episode):
        if key not in found or record.lost is None:
            found[key] = (record, actions)
    return found


def _read_episode(row: dict[str, Any]) -> tuple[str, EpisodeRecord, str | None]:
    return row["key"], EpisodeRecord.from_json(row["record"]), row.get("actions")


def read_lines(folder: Path, *, pattern: str, read: Callable[[dict[str, Any]], Any] = dict) -> Iterator[Any]:
    """Yield `read(row)` of each line of a folder's JSONL files, but for a last one that is still being written.

    Raises:
        ValueError: a line is damaged, or of another version.
    """
    for path in sorted(folder.glob(pattern)):
        whole, _, _ = path.read_bytes().rpartition(b"\n")
        for number, line in enumerate(whole.splitlines(), 1):
            try:
                found = read(json.loads(line))
            except (ValueError, TypeError, LookupError, AttributeError) as error:
                raise ValueError(
                    f"{path}, line {number} is damaged, or of a newer pilot ({error}); update pilot, or remove this "
                    "line and run the same command again: its episode runs again"
                ) from error
            yield found


def fingerprint(policy: Any) -> str:
    """Return twelve hex digits of a policy: of a checkpoint's files, and for a loaded one of how it acts, too.

    An object that says its own `fingerprint` in its metadata is called that.

    Raises:
        FileNotFoundError: there is no checkpoint.
        ValueError: an object that does not say what it was made from.
    """
    if policy == "expert":
        return "expert"
    if isinstance(policy, str | Path):
        return _digest(_files_of(policy))
    if (own := policy.metadata.get("fingerprint")) is not None:
        return str(own)
    if not isinstance(policy, Policy) or policy.path is None:
        raise ValueError(
            "a policy object without a folder cannot be told from another one, so its episodes cannot be kept apart; "
            "give the checkpoint's folder, or no `out`, or name the object: metadata['fingerprint']"
        )
    choices = (policy.num_steps, [policy.replan_steps_of(robot) for robot in policy.robots], policy.seed, policy.rtc)
    return _digest(_files_of(policy.path), more=f"{choices} {describe(policy.high_level)}")


def _files_of(checkpoint: str | Path) -> list[Path]:
    # No others: a better description, or results that an evaluation left there, do not make it another policy.
    files = sorted({path for pattern in POLICY_FILES for path in Path(checkpoint).glob(pattern) if path.is_file()})
    if not files:
        raise FileNotFoundError(
            f"no checkpoint at {checkpoint}; give a folder that pilot train wrote, or checkpoints/nano"
        )
    return files


def code_fingerprint() -> str:
    """Return twelve hex digits of the source that every policy acts through; robots and simulators have their own."""
    root = Path(pilot.__path__[0])
    folders = ("tokenizers", "data", "nn", "models", "infer")
    files = [path for folder in folders for path in (root / folder).rglob("*.py")]
    return _digest(sorted([*files, root / "robots" / "__init__.py"]))


@cache
def suite_fingerprint(suite: Suite) -> str:
    """Return twelve hex digits of a suite's options, and of the source of its simulator and of its robot.

    Where a package simulates, its version and that of the physics count, too.
    """
    kinds = [kind for kind in type(suite).__mro__ if issubclass(kind, Suite) and kind.__module__ != Suite.__module__]
    files = list(dict.fromkeys(file for kind in kinds for file in _source_of(kind)))
    robots = Path(pilot.__path__[0], "robots")
    if isinstance(suite, WorldSuite):
        # The robots of these worlds are made from one another (`arm_ee` from `arm`), so any of them may matter.
        return _digest([*files, Path(inspect.getfile(Suite)), *sorted(robots.glob("*.py"))], more=repr(suite))
    robot = robots / f"{suite.robot.name}.py"
    files += [robot] if robot.is_file() else []
    if not suite.package and not isinstance(suite, TaskSuite):
        return _digest(files, more=repr(suite))
    # An adapter of a package has its starts numbered by `sims/base.py`, and so has a suite of several tasks.
    versions = _versions(suite.package) if suite.package else ""
    return _digest([*files, Path(inspect.getfile(Suite))], more=repr(suite) + versions)


def _versions(package: str) -> str:
    """Return the versions of a simulator's package and of the physics below it, as far as they are installed."""
    distributions = metadata.packages_distributions()
    names = sorted({name for module in (package, *PHYSICS) for name in distributions.get(module, [])})
    return f" {[(name, metadata.version(name)) for name in names]}"


def _source_of(kind: type[Suite]) -> list[Path]:
    """Return the files of the simulator that a kind of suite is of: its folder, or the one file that it is."""
    source = Path(inspect.getfile(kind))
    is_folder = source.parent != Path(pilot.sims.__path__[0]) and (source.parent / "__init__.py").exists()
    return sorted(source.parent.rglob("*.py")) if is_folder else [source]


def _digest(files: Sequence[Path], *, more: str = "") -> str:
    digest = hashlib.sha256(more.encode())
    for path in files:
        digest.update(path.name.encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]
