"""Collecting demonstrations in generated homes: many processes act, one writes, Ctrl-C loses nothing finished.

`collect` makes a LeRobot v3.0 data set of demonstrations, `collect_web` web-style rows (pictures with questions and
answers) of the same kind of homes. Both are deterministic in their arguments, whatever the number of workers: the same
command gives the same data, run again goes on where it stopped, and with more `homes` appends.
"""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from pilot.data.formats import lerobot_layout as fmt
from pilot.data.formats.web import PACKED, ROWS, WebWriter
from pilot.data.formats.writer import LeRobotWriter, encode_png
from pilot.data.loading.workers import in_processes
from pilot.data.storage.files import read_json, write_json
from pilot.names import shorten
from pilot.robots.homes import ROBOT
from pilot.sims.homes import HomesEnv
from pilot.sims.homes.demonstrations import Demonstration, DriveFn, Noise, demonstrate
from pilot.sims.homes.questions import pictures_of_home

PROGRESS = "collect.json"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything that decides what is in a collected set, apart from how many homes."""

    level: int
    task: str
    split: str
    episodes_per_home: int
    first_home: int
    seed: int
    verbal: bool
    image_format: str
    kinds: tuple[str, ...] | None
    receptacles: tuple[str, ...] | None
    noise: Noise
    takeover: bool  # a policy drives the first steps

    def env(self) -> HomesEnv:
        kinds, receptacles = self.kinds, self.receptacles
        return HomesEnv(level=self.level, task=self.task, split=self.split, kinds=kinds, receptacles=receptacles)


def collect(
    out: str | Path,
    *,
    level: int,
    task: str,
    split: str = "train",
    homes: int,
    episodes_per_home: int,
    first_home: int = 0,
    workers: int = 2,
    seed: int = 0,
    verbal: bool = False,
    noise: Noise | None = None,
    image_format: str = "image",
    kinds: Sequence[str] | None = None,
    receptacles: Sequence[str] | None = None,
    policy: DriveFn | None = None,
    progress: bool = True,
) -> Path:
    """Records `homes * episodes_per_home` demonstrations into the data set `out`; returns its path.

    `verbal`: a person says each next step (stored as events). `policy`: an `observation -> action [4]` that drives the
    first 4-24 steps of each episode, in every worker process (it must pickle); a `reset()` of it is called per episode.

    Raises `ValueError` when `out` holds a set collected with other settings.
    """
    settings = Settings(
        level=level, task=task, split=split, episodes_per_home=episodes_per_home, first_home=first_home, seed=seed,
        verbal=verbal, image_format=image_format, kinds=_tuple(kinds), receptacles=_tuple(receptacles),
        noise=noise or Noise(), takeover=policy is not None,
    )  # fmt: skip
    out = Path(out)
    settings.env().close()  # names, levels and tasks that do not exist are said here, before a folder is made
    done = _resume(out, settings)
    if done["homes"] >= homes and not (out / fmt.RECORDING).exists():
        return out
    writer = LeRobotWriter(out, ROBOT, ROBOT.control_hz, image_format=image_format)
    writer.truncate(done["episodes"])
    todo = range(first_home + done["homes"], first_home + homes)
    bar = tqdm(total=homes, initial=done["homes"], unit="home", desc=f"collecting {out.name}", disable=not progress)
    job = partial(_demonstrate_home, settings, policy)
    with bar, closing(in_processes(workers)(job, todo)) as each:
        for recorded in each:
            for number, episode in enumerate(recorded):
                if episode is not None:
                    add_demonstration(writer, episode, settings, home=first_home + done["homes"], episode_number=number)
            done = _count(done, recorded, writer)
            write_json(out / PROGRESS, done)
            bar.update()
            bar.set_postfix(frames=done["frames"], dropped=done["dropped"])
    writer.close()
    return out


def collect_web(
    out: str | Path,
    *,
    rows: int,
    split: str = "train",
    homes: int,
    seed: int = 0,
    level: int = 2,
    first_home: int = 0,
    workers: int = 2,
    kinds: Sequence[str] | None = None,
    receptacles: Sequence[str] | None = None,
    progress: bool = True,
) -> Path:
    """About `rows` question-and-answer rows on pictures of `homes` homes, with the gripper in the way; returns `out`.

    Raises `ValueError` when `out` holds rows collected with other settings.
    """
    settings = {"rows": rows, "split": split, "homes": homes, "seed": seed, "level": level, "first_home": first_home}
    settings |= {"kinds": list(kinds or []), "receptacles": list(receptacles or [])}
    out = Path(out)
    if (out / ROWS).exists():
        known = read_json(out / PROGRESS, remedy=f"remove {out} and collect again")
        return _same(out, known, settings)
    HomesEnv(level=level, split=split, kinds=_tuple(kinds), receptacles=_tuple(receptacles)).close()
    _refuse_used(out, ours=(PACKED,))
    job = partial(
        pictures_of_home, level=level, split=split, seed=seed, rows=-(-rows // homes),
        kinds=_tuple(kinds), receptacles=_tuple(receptacles),
    )  # fmt: skip
    bar = tqdm(total=homes, unit="home", desc=f"asking {out.name}", disable=not progress)
    todo = range(first_home, first_home + homes)
    with WebWriter(out) as writer, bar, closing(in_processes(workers)(job, todo)) as each:
        for asked in each:
            for png, questions in asked:
                writer.add(png, questions)
            bar.update()
            bar.set_postfix(rows=writer.rows)
        write_json(out / PROGRESS, settings)
    return out


def add_demonstration(
    writer: LeRobotWriter, episode: Demonstration, settings: Settings, *, home: int, episode_number: int
) -> None:
    """Stores one demonstration; subtasks become persistent language rows, utterances events."""
    frames: dict[str, Any] = {
        fmt.STATE: np.stack(episode.states),
        fmt.ACTION: np.stack(episode.actions),
        fmt.BOX: np.stack(episode.boxes),
        fmt.PERTURBED: np.array(episode.perturbed),
    }
    for camera, pictures in episode.images.items():
        frames[fmt.IMAGES + camera] = pictures if isinstance(pictures[0], bytes) else np.stack(pictures)
    writer.add_episode(
        frames,
        task=episode.prompt,
        persistent=[(step / writer.fps, "subtask", "assistant", text) for step, text in episode.subtasks],
        events=[(step, "interjection", "user", text) for step, text in episode.events],
        labels={
            "group": "verbal" if settings.verbal else settings.task,
            "level": settings.level,
            "home": home,
            "episode": episode_number,
        },
    )


def _demonstrate_home(settings: Settings, policy: DriveFn | None, home: int) -> list[Demonstration | None]:
    """All episodes of one home, pictures compressed here, in the worker."""
    env = settings.env()
    recorded = []
    for episode in range(settings.episodes_per_home):
        if hasattr(policy, "reset"):
            policy.reset()  # type: ignore[union-attr]
        demonstration = demonstrate(
            env, home=home, episode=episode, seed=settings.seed, noise=settings.noise,
            verbal=settings.verbal, policy=policy,
        )  # fmt: skip
        if demonstration and settings.image_format == "image":
            demonstration.images = {c: [encode_png(p) for p in ps] for c, ps in demonstration.images.items()}  # type: ignore
        recorded.append(demonstration)
    env.close()
    return recorded


def _resume(out: Path, settings: Settings) -> dict[str, Any]:
    """What was finished: homes and episodes. Refuses a folder that was collected with other settings."""
    mine = asdict(settings)
    fresh = {"settings": mine, "homes": 0, "episodes": 0, "frames": 0, "dropped": 0}
    if not (out / PROGRESS).exists():
        _refuse_used(out, ours=(fmt.RECORDING,))
        return fresh
    known = read_json(out / PROGRESS, remedy=f"remove {out} and collect again")
    if "settings" not in known:
        raise ValueError(f"{out} holds web-style rows, collected with --web; choose another folder for demonstrations")
    _same(out, known["settings"], mine)
    return known


def _refuse_used(out: Path, *, ours: tuple[str, ...]) -> None:
    """A folder for a new set is empty, or has no more than what is there before the first home is finished."""
    names = sorted(path.name for path in out.iterdir()) if out.is_dir() else []
    if others := [name for name in names if name not in ours and not name.startswith(".")]:
        raise ValueError(f"{out} holds {shorten(others)}, not what this command collects; choose another folder")


def _same(out: Path, known: dict[str, Any], mine: dict[str, Any]) -> Path:
    for name, value in mine.items():
        value = list(value) if isinstance(value, tuple) else value
        if known.get(name) != value:
            raise ValueError(
                f"{out} was collected with {name}={known.get(name)!r}, now {value!r}; choose another folder, "
                "or repeat the settings to go on"
            )
    return out


def _count(done: dict[str, Any], recorded: list[Demonstration | None], writer: LeRobotWriter) -> dict[str, Any]:
    kept = [episode for episode in recorded if episode is not None]
    return done | {
        "homes": done["homes"] + 1,
        "episodes": writer.episodes,
        "frames": done["frames"] + sum(len(episode.states) for episode in kept),
        "dropped": done["dropped"] + len(recorded) - len(kept),
    }


def _tuple(names: Sequence[str] | None) -> tuple[str, ...] | None:
    return tuple(names) if names else None
