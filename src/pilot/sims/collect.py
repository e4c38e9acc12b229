"""Collecting data in any simulator: many processes act, one writes, Ctrl-C loses nothing that is finished.

`collect` makes a LeRobot v3.0 data set of demonstrations, `collect_web` web-style rows (pictures with questions and
answers). Both are deterministic in their arguments, whatever the number of workers: the same command gives the same
data, a second run goes on where the first stopped, and one with more scenes appends.
"""

from collections import Counter
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from pilot.data.formats import lerobot_layout as fmt
from pilot.data.formats.web import PACKED, ROWS, WebWriter
from pilot.data.formats.writer import LeRobotWriter, encode_png
from pilot.data.loading.parallel import ParallelMap, map_in_processes
from pilot.data.storage.files import output_folder, read_json, write_json
from pilot.data.storage.manifest import made_by
from pilot.names import shorten
from pilot.sims.base import DriveFn, SimEnv, Suite
from pilot.sims.demonstrate import DRIVEN_STEPS, Demonstration, Dropped, demonstrate

PROGRESS = "collect.json"


@dataclass(frozen=True, kw_only=True)
class CollectSettings:
    """Everything that decides what is in a set of demonstrations, apart from how many scenes there are."""

    suite: Suite
    episodes_per_scene: int
    first_scene: int
    seed: int
    verbal: bool
    image_format: str
    driver: str | None  # which policy drives the first steps, if one does
    driven_steps: int = DRIVEN_STEPS  # at most so many
    takeovers: int = 1  # how often the expert takes over from it
    picture_every: int = 1  # frames from one picture to the next
    image_size: int | None = None  # None: as the suite makes it

    def to_json(self) -> dict[str, Any]:
        """Return the settings as `collect.json` holds them; scenes have the name that they have in the suite."""
        return self.suite.settings() | {
            f"episodes_per_{self.suite.scene}": self.episodes_per_scene,
            f"first_{self.suite.scene}": self.first_scene,
            "seed": self.seed,
            "verbal": self.verbal,
            "image_format": self.image_format,
            "takeover": self.driver is not None,
            "driver": self.driver,
            "driven_steps": self.driven_steps,
            "takeovers": self.takeovers,
            "picture_every": self.picture_every,
            "image_size": self.image_size,
        }

    def make_env(self) -> SimEnv:
        """Make the suite's environment with pictures of the size that was asked for."""
        return self.suite.make_env() if self.image_size is None else self.suite.make_env(image_size=self.image_size)


def collect(
    out: str | Path,
    suite: Suite,
    *,
    scenes: int,
    episodes_per_scene: int,
    first_scene: int = 0,
    workers: int | ParallelMap = 2,
    seed: int = 0,
    verbal: bool = False,
    image_format: str = "image",
    policy: DriveFn | None = None,
    driven_steps: int = DRIVEN_STEPS,
    takeovers: int = 1,
    picture_every: int = 1,
    image_size: int | None = None,
    progress: bool = True,
) -> Path:
    """Record `scenes * episodes_per_scene` demonstrations of a suite into the data set `out`; return its path.

    `verbal`: a supervisor says each next step (stored as events). `policy`: an `observation -> action [ad]` that drives
    the first 4 to `driven_steps` steps of each episode, in every worker process (it must pickle). `takeovers`: it has
    so many such turns, with the expert between them; a `reset()` of it is called before each. `picture_every`: states
    and actions are recorded at the robot's rate, pictures at every so many frames; the set holds each until the next,
    and training draws rows where there is a new one. `image_size`: pixels on a side. `workers`: processes of this
    machine, or another map such as one over a Ray cluster.

    Raises:
        ValueError: the suite has no expert (or, for `verbal`, no supervisor), its options do not fit together, `out`
            holds a set collected with other settings, or fewer than 4 `driven_steps`.
        FolderInUseError: another process collects into `out`.
    """
    check_offers(suite, expert=True, supervisor=verbal)
    settings = CollectSettings(
        suite=suite, episodes_per_scene=episodes_per_scene, first_scene=first_scene, seed=seed, verbal=verbal,
        image_format=image_format, driver=None if policy is None else getattr(policy, "name", "a function"),
        driven_steps=driven_steps, takeovers=takeovers, picture_every=picture_every, image_size=image_size,
    )  # fmt: skip
    if policy is not None and driven_steps < 4:
        raise ValueError(f"a policy drives at least 4 steps, got driven_steps={driven_steps}")
    out = Path(out)
    env = settings.make_env()  # options that do not fit together are refused here, before a folder is made
    if picture_every > 1 and not hasattr(env, "state"):
        raise ValueError(f"suite '{suite.name}' gives a state with pictures only; collect it with picture_every=1")
    env.close()
    with output_folder(out):
        _collect_scenes(
            out, settings, scenes=range(first_scene, first_scene + scenes), policy=policy, workers=workers,
            progress=progress,
        )  # fmt: skip
    return out


def _collect_scenes(
    out: Path,
    settings: CollectSettings,
    *,
    scenes: range,
    policy: DriveFn | None,
    workers: int | ParallelMap,
    progress: bool,
) -> None:
    """Record those of the scenes that are not in `out` yet, in a folder that nobody else writes into."""
    suite, count_name = settings.suite, f"{settings.suite.scene}s"
    done = _resume(out, settings, count_name=count_name)
    if done[count_name] >= len(scenes) and not (out / fmt.RECORDING).exists():
        return
    writer = LeRobotWriter(
        out, suite.robot, suite.robot.control_hz, image_format=settings.image_format,
        origin=made_by({"config": settings.to_json()}),
    )  # fmt: skip
    writer.truncate(done["episodes"])
    bar = tqdm(
        total=len(scenes), initial=done[count_name], unit=suite.scene, desc=f"collecting {out.name}",
        disable=not progress,
    )  # fmt: skip
    job = partial(_demonstrate_scene, settings, policy)
    with bar, closing(_map_over(workers)(job, scenes[done[count_name] :])) as each:
        for recorded in each:
            for number, episode in enumerate(recorded):
                if isinstance(episode, Demonstration):
                    scene = scenes.start + done[count_name]
                    add_demonstration(writer, episode, settings, scene=scene, episode_number=number)
            done = _add_counts(done, recorded, writer, count_name=count_name)
            write_json(out / PROGRESS, done)
            bar.update()
            bar.set_postfix(frames=done["frames"], dropped=done["dropped"])
    while _kept:  # where this process was the only worker
        _kept.pop()[1].close()
    writer.close()


def collect_web(
    out: str | Path,
    suite: Suite,
    *,
    rows: int,
    scenes: int,
    seed: int = 0,
    first_scene: int = 0,
    workers: int | ParallelMap = 2,
    image_size: int | None = None,
    progress: bool = True,
) -> Path:
    """Write about `rows` question-and-answer rows on pictures of `scenes` scenes; return `out`.

    Raises:
        ValueError: the suite has no questions, its options do not fit together, or `out` holds rows collected with
            other settings.
        FolderInUseError: another process collects into `out`.
    """
    check_offers(suite, questions=True)
    settings = suite.settings() | {"rows": rows, f"{suite.scene}s": scenes, "seed": seed}
    settings |= {f"first_{suite.scene}": first_scene, "image_size": image_size}
    out = Path(out)
    suite.make_env().close()  # options that do not fit together are refused here, before a folder is made
    with output_folder(out):
        if (out / ROWS).exists():
            known = read_json(out / PROGRESS, remedy=f"remove {out} and collect again")
            return _check_same(out, known, settings)
        _refuse_used(out, ours=(PACKED,))
        size = {} if image_size is None else {"image_size": image_size}
        job = partial(suite.web_rows, rows=-(-rows // scenes), seed=seed, **size)
        bar = tqdm(total=scenes, unit=suite.scene, desc=f"asking {out.name}", disable=not progress)
        todo = range(first_scene, first_scene + scenes)
        with (
            WebWriter(out, origin=made_by({"config": settings})) as writer,
            bar,
            closing(_map_over(workers)(job, todo)) as each,
        ):
            for pictures in each:
                for png, questions in pictures:
                    writer.add(png, questions)
                bar.update()
                bar.set_postfix(rows=writer.rows)
            write_json(out / PROGRESS, settings)
    return out


def _map_over(workers: int | ParallelMap) -> ParallelMap:
    return map_in_processes(workers) if isinstance(workers, int) else workers


def dropped_reasons(out: str | Path) -> dict[str, int]:
    """Return how many episodes of a collected set were left out, by the reason."""
    return read_json(Path(out) / PROGRESS, remedy=f"remove {out} and collect again").get("dropped_because", {})


def check_offers(suite: Suite, *, expert: bool = False, supervisor: bool = False, questions: bool = False) -> None:
    """Check that a suite offers what is asked of it.

    Raises:
        ValueError: it does not.
    """
    lacking = {
        "a scripted expert": expert and not suite.has_expert,
        "a supervisor's words": supervisor and not suite.has_supervisor,
        "questions about its pictures": questions and not suite.has_questions,
    }
    for what, is_lacking in lacking.items():
        if is_lacking:
            raise ValueError(f"suite '{suite.name}' does not offer {what}; choose another suite")


def add_demonstration(
    writer: LeRobotWriter, episode: Demonstration, settings: CollectSettings, *, scene: int, episode_number: int
) -> None:
    """Store one demonstration of a collection, with the labels of its suite."""
    labels = settings.suite.labels(scene=scene, episode=episode_number)
    if episode.task is not None:
        labels |= {"group": episode.task}
    labels |= {"group": "verbal"} if settings.verbal else {}
    write_demonstration(writer, episode, labels=labels, marks_drawable=settings.picture_every > 1)


def write_demonstration(
    writer: LeRobotWriter, episode: Demonstration, *, labels: dict[str, Any], marks_drawable: bool = False
) -> int:
    """Store one demonstration and return its index: subtasks become persistent language rows, utterances events.

    `marks_drawable`: training draws only the rows that are `fresh`.
    """
    frames: dict[str, Any] = {
        fmt.STATE: np.stack(episode.states),
        fmt.ACTION: np.stack(episode.actions),
        fmt.BOX: np.stack(episode.boxes),
        fmt.PERTURBED: np.array(episode.perturbed),
    }
    if marks_drawable:
        frames[fmt.TRAINABLE] = np.array(episode.fresh)
    for camera, pictures in episode.images.items():
        frames[fmt.IMAGES + camera] = pictures if isinstance(pictures[0], bytes) else np.stack(pictures)
    return writer.add_episode(
        frames,
        task=episode.prompt,
        persistent=[(step / writer.fps, "subtask", "assistant", text) for step, text in episode.subtasks],
        events=[(step, "interjection", "user", text) for step, text in episode.events],
        labels=labels,
    )


def _demonstrate_scene(settings: CollectSettings, policy: DriveFn | None, scene: int) -> list[Demonstration | Dropped]:
    """Demonstrate all episodes of one scene; pictures are compressed here, in the worker."""
    env = _take_env(settings)
    recorded: list[Demonstration | Dropped] = []
    for episode in range(settings.episodes_per_scene):
        demonstration = demonstrate(
            settings.suite, env, scene=scene, episode=episode, seed=settings.seed, verbal=settings.verbal,
            policy=policy, driven_steps=settings.driven_steps, takeovers=settings.takeovers,
            picture_every=settings.picture_every,
        )  # fmt: skip
        if isinstance(demonstration, Demonstration) and settings.image_format == "image":
            demonstration.images = {name: encode_held(pictures) for name, pictures in demonstration.images.items()}  # type: ignore
        recorded.append(demonstration)
    _kept[:] = [(settings, env)]  # not reached with an environment that has failed
    return recorded


_kept: list[tuple[CollectSettings, SimEnv]] = []
"""The environment of this process between two scenes, if there is one: making it takes seconds in some simulators."""


def _take_env(settings: CollectSettings) -> SimEnv:
    """Return the environment that is kept, if it is for these settings, or make one."""
    while _kept:
        known, env = _kept.pop()
        if known == settings:
            return env
        env.close()
    return settings.make_env()


def encode_held(pictures: list[np.ndarray]) -> list[bytes]:
    """Encode pictures as PNG; one that is held from the frame before is encoded once."""
    encoded: list[bytes] = []
    for number, picture in enumerate(pictures):
        held = number > 0 and picture is pictures[number - 1]
        encoded.append(encoded[-1] if held else encode_png(picture))
    return encoded


def _resume(out: Path, settings: CollectSettings, *, count_name: str) -> dict[str, Any]:
    """Read what is finished: scenes and episodes. Refuses a folder that was collected with other settings."""
    mine = settings.to_json()
    fresh = {"settings": mine, count_name: 0, "episodes": 0, "frames": 0, "dropped": 0}
    if not (out / PROGRESS).exists():
        _refuse_used(out, ours=(fmt.RECORDING,))
        return fresh
    known = read_json(out / PROGRESS, remedy=f"remove {out} and collect again")
    if "settings" not in known:
        raise ValueError(f"{out} holds web-style rows, collected with --web; choose another folder for demonstrations")
    _check_same(out, known["settings"], mine)
    return known


def _refuse_used(out: Path, *, ours: tuple[str, ...]) -> None:
    """Refuse a folder that holds more than what is there before the first scene is finished."""
    names = sorted(path.name for path in out.iterdir()) if out.is_dir() else []
    if others := [name for name in names if name not in ours and not name.startswith(".")]:
        raise ValueError(f"{out} holds {shorten(others)}, not what this command collects; choose another folder")


def _check_same(out: Path, known: dict[str, Any], mine: dict[str, Any]) -> Path:
    for name, value in mine.items():
        if name in known and _plain(known[name]) != _plain(value):  # a set may be older than one of the settings
            raise ValueError(
                f"{out} was collected with {name}={known[name]!r}, now {value!r}; choose another folder, "
                "or repeat the settings to go on"
            )
    return out


def _plain(value: Any) -> Any:
    """Return a setting as JSON has it; an empty list is as good as none."""
    return (list(value) or None) if isinstance(value, tuple | list) else value


def _add_counts(
    done: dict[str, Any], recorded: list[Demonstration | Dropped], writer: LeRobotWriter, *, count_name: str
) -> dict[str, Any]:
    finished = [episode for episode in recorded if isinstance(episode, Demonstration)]
    reasons = Counter(done.get("dropped_because", {}))
    reasons.update(episode.reason for episode in recorded if isinstance(episode, Dropped))
    return done | {
        count_name: done[count_name] + 1,
        "episodes": writer.episodes,
        "frames": done["frames"] + sum(len(episode.states) for episode in finished),
        "dropped": done["dropped"] + len(recorded) - len(finished),
        "dropped_because": dict(reasons),
    }
