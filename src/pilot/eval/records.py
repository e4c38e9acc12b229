"""What is written down of an episode: how it began, how it went, and the actions that repeat it."""

import base64
import io
import zlib
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

TUPLES = ("latencies_ms",)  # fields that JSON holds as lists


@dataclass(frozen=True, kw_only=True)
class EpisodeRecord:
    """The record of one episode. `subtasks` are the policy's own words, each with the control step it began at.

    `prompt` is the episode's instruction, `asked` what the policy got. `success`: the task was done at some time;
    `success_at_end`: it still was when the episode ended, which is the same unless the policy acted on after its first
    success (`hold_steps`). `placed` of `targets` goals were reached in the end; `progress` is the best share of them on
    the way.

    `restarts` counts how often a simulator that crashed or hung was begun anew for this episode. `lost` says why none
    of the attempts came to an end; the episode then counts as failed.
    """

    suite: str
    control: str
    scene: int
    episode: int
    seed: int
    prompt: str
    asked: str
    success: bool
    steps: int
    first_grasped: str | None
    wrong_object: bool
    right_object_first: bool
    placed: int
    targets: int
    subtasks: tuple[tuple[int, str], ...]
    infer_ms: float  # the median of the policy's answers
    # Older logs do not have what follows.
    replan_steps: int | None = None
    num_steps: int | None = None
    task: str | None = None  # of the suite's tasks, that of this scene
    robot: str | None = None
    success_at_end: bool | None = None
    succeeded_at: int | None = None  # the control step of the first success
    progress: float | None = None  # 0 to 1
    latencies_ms: tuple[float, ...] = ()  # of each answer
    held: int = 0  # control steps in which the robot stood still because the policy was late
    restarts: int = 0
    lost: str | None = None

    @property
    def share(self) -> float:
        """The progress, or in older logs the share of goals that were reached in the end."""
        return self.placed / max(self.targets, 1) if self.progress is None else self.progress

    @classmethod
    def of_lost(cls, why: str, *, suite: str, control: str, scene: int, seed: int, restarts: int) -> "EpisodeRecord":
        """Return the record of an episode that no attempt brought to an end: it has failed."""
        return cls(
            suite=suite, control=control, scene=scene, episode=0, seed=seed, prompt="", asked="", success=False,
            success_at_end=False, steps=0, first_grasped=None, wrong_object=False, right_object_first=False, placed=0,
            targets=1, progress=0.0, subtasks=(), infer_ms=0.0, restarts=restarts, lost=why,
        )  # fmt: skip

    def to_json(self) -> dict[str, Any]:
        """Return the record as logs hold it; there the scene is called "home", whatever the simulator."""
        return {"home" if name == "scene" else name: value for name, value in asdict(self).items()}

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> "EpisodeRecord":
        """Return the record that `to_json` wrote."""
        values = {"scene" if name == "home" else name: value for name, value in row.items()}
        values["subtasks"] = tuple((int(step), words) for step, words in row["subtasks"])
        values |= {name: tuple(values[name]) for name in TUPLES if name in values}
        return cls(**values)


def pack_actions(actions: np.ndarray) -> str:
    """Return executed actions [t ad] as text, exactly: a compressed .npy file in base64."""
    buffer = io.BytesIO()
    np.save(buffer, actions, allow_pickle=False)
    return base64.b64encode(zlib.compress(buffer.getvalue())).decode("ascii")


def unpack_actions(text: str) -> np.ndarray:
    """Return the actions [t ad] that `pack_actions` wrote."""
    return np.load(io.BytesIO(zlib.decompress(base64.b64decode(text))), allow_pickle=False)
