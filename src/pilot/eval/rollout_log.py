"""Rollouts of an evaluation as recordings of rerun (`data/tools/rerun_log.py`): each is repeated from its actions.

Beside what an episode of a data set has, `words` holds the policy's own subtasks, and at the end how it went.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pilot.data.tools.rerun_log import import_rerun, log_frame
from pilot.eval.episode_log import read_rows
from pilot.eval.records import EpisodeRecord, unpack_actions
from pilot.eval.rollout import repeat
from pilot.eval.suites import all_suites, load_suite, why_missing
from pilot.sims.base import Suite


def write_rollouts(folder: str | Path, out: str | Path, *, scenes: Iterable[int] | None = None) -> list[Path]:
    """Write rollouts of an evaluation's folder to `out`, one `.rrd` file each; return the files.

    `scenes` are their numbers; without them the first success and the first failure in each suite and control, of each
    policy with its settings and from each seed.

    Raises:
        ImportError: rerun, or what a suite needs, is not installed.
        ValueError: there are no episodes with actions, or none in a scene that is asked for, or their suite is unknown
            here, or one ends otherwise than it did.
    """
    rerun, folder, out, files = import_rerun(), Path(folder), Path(out), []
    chosen = list(choose_rollouts(folder, scenes))
    suites = {name: find_suite(name, folder=folder) for name in dict.fromkeys(one.record.suite for one in chosen)}
    out.mkdir(parents=True, exist_ok=True)
    for name, record, actions in chosen:
        stream = rerun.RecordingStream(folder.resolve().name, recording_id=name)
        files.append(out / f"{name}.rrd")
        stream.save(str(files[-1]))
        try:
            log_rollout(stream, record, actions, suite=suites[record.suite])
        except BaseException:
            stream.disconnect()
            files[-1].unlink(missing_ok=True)  # its name says how a rollout went that is not in it
            raise
        stream.disconnect()
    return files


def find_suite(name: str, *, folder: Path) -> Suite:
    """Return the suite that rollouts in `folder` are of; the log has its name alone, whatever file it came from.

    Raises:
        ValueError: no suite has that name here.
    """
    if name.partition("@")[0] not in all_suites():
        why = " ".join(why_missing(name)) or "that of a file of yours needs an entry point 'pilot.sims' to be found"
        raise ValueError(f"the rollouts in {folder} cannot be repeated: no suite is called '{name}' here; {why}")
    return load_suite(name)


class Chosen(NamedTuple):
    """A rollout to show: what it is called, its record and its actions [t ad]."""

    name: str
    record: EpisodeRecord
    actions: np.ndarray


def choose_rollouts(folder: Path, scenes: Iterable[int] | None) -> Iterator[Chosen]:
    """Yield the rollouts to show, in order of suite, control, seed and scene.

    Raises:
        ValueError: there are none.
    """
    # Without its scene a key says whose episode it is: of which policy, how that acts, in which simulator.
    found = [(key.rpartition("/")[0], *row) for key, row in read_rows(folder).items()]
    rows = [(whose, record, packed) for whose, record, packed in found if packed and record.lost is None]
    rows.sort(key=lambda row: (*_start(row[1]), row[0], row[1].scene))
    if not rows:
        raise ValueError(f"{folder} holds no episodes with their actions; evaluate again: pilot eval … --out FOLDER")
    wanted = None if scenes is None else set(scenes)
    if wanted is not None and (missing := wanted - {record.scene for _, record, _ in rows}):
        raise ValueError(f"{folder} has no episode in scene {min(missing)}")
    starts = Counter(start for start, _ in {(_start(record), whose) for whose, record, _ in rows})
    first = {(row[0], row[1].success): row for row in reversed(rows)}
    for row in rows:
        whose, record, packed = row
        if record.scene in wanted if wanted is not None else first[whose, record.success] is row:
            mark = f"-{hashlib.sha256(whose.encode()).hexdigest()[:6]}" if starts[_start(record)] > 1 else ""
            outcome = "success" if record.success else "failure"
            name = f"{record.suite}-{record.control}-{record.scene:05d}-seed-{record.seed}{mark}-{outcome}"
            yield Chosen(name, record, unpack_actions(packed))


def _start(record: EpisodeRecord) -> tuple[str, str, int]:
    return record.suite, record.control, record.seed


def log_rollout(stream: Any, record: EpisodeRecord, actions: np.ndarray, *, suite: Suite) -> None:
    """Repeat one rollout, and log every step of it to a stream of rerun.

    Raises:
        ValueError: it ends otherwise than the record says.
    """
    rerun, said = import_rerun(), dict(record.subtasks)
    env = suite.make_env()
    try:
        robot = env.robot
        for step, action in enumerate(repeat(env, record, actions=actions)):
            observation = env.observe()
            vectors = {"state": (robot.state_names, observation["state"]), "action": (robot.action_names, action)}
            log_frame(stream, step, fps=robot.control_hz, vectors=vectors, images=observation["images"])
            if step == 0:
                stream.log("words", rerun.TextLog(record.asked))
            if step in said:
                stream.log("words", rerun.TextLog(said[step]))
        stream.log("words", rerun.TextLog("success" if record.success else "failure"))
    finally:
        env.close()
