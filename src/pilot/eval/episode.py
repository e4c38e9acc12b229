"""One episode under way: how it is run, what the policy is shown of it, and what is written down of it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from pilot.eval.records import EpisodeRecord
from pilot.eval.suites import check_control
from pilot.sims.base import Info, Observation, SimEnv
from pilot.tokenizers.text import box_to_locs

GREY = 128  # the middle of the range: nothing of a picture's brightness is left
ExecutorName = Literal["open-loop", "rtc", "ensemble"]
JoiningName = Literal["guided", "prefix", "trained"]


@dataclass(frozen=True, kw_only=True)
class Timekeeping:
    """How acting and thinking share time.

    Without `clock` the world waits for each answer. With it the world goes on at the robot's rate while the policy
    thinks, each answer arrives `latency_ms` after its observation (None: as long as it really took), and until then the
    robot does what `executor` says (`infer/executor.py`): `rtc` the rest of the old chunk, which the new one continues,
    `ensemble` the mean of all chunks, `open-loop` stands still; None is the policy's own choice, and `rtc` on the
    clock. Only the first answer is waited for: before it, nothing has been commanded. `joining` is how
    `rtc` continues the old chunk (`infer/rtc.py`); None is the policy's own way.
    """

    clock: bool = False
    latency_ms: float | None = None
    executor: ExecutorName | None = None
    joining: JoiningName | None = None

    def __post_init__(self) -> None:
        if self.joining is not None and self.executor != "rtc":
            raise ValueError(f"joining is how rtc continues a chunk, so it has no meaning for '{self.executor}'")
        if self.latency_ms is not None and not (self.clock and 0 <= self.latency_ms < float("inf")):
            raise ValueError(
                f"latency_ms is 0 or more, and only with the clock does it cost time; got {self.latency_ms} with "
                f"clock={self.clock} (pilot eval --clock --latency-ms MS)"
            )


@dataclass(frozen=True, kw_only=True)
class EpisodeSetup:
    """An episode to run, and the settings that the policy runs with."""

    suite: str
    task: str | None = None  # of the suite's tasks, that of this scene
    scene: int
    episode: int
    seed: int
    robot: str | None = None  # the name by which the policy knows it, for the record
    replan_steps: int  # actions of a chunk that are executed before the policy looks again
    num_steps: int | None = None  # denoising steps of the policy, for the record
    control: str = "none"
    prompt: str | None = None  # replaces the episode's instruction; success is still judged by the episode's own
    true_subtask: bool = False  # each observation holds the true subtask
    loc_stride: int = 1  # the steps in which the policy writes boxes, for the true subtask and the oracle
    hold_steps: int = 0  # control steps that the policy acts on after its first success
    timekeeping: Timekeeping = Timekeeping()
    moments: int = 1  # that the policy sees: with 2, observations hold what was seen one control step earlier
    joins_chunks: bool = False  # with `rtc`, observations hold what is left of the previous chunk


class SimulatorError(RuntimeError):
    """A simulator has crashed in the middle of an episode."""


@contextmanager
def _in_simulator() -> Iterator[None]:
    """Tell a crash of the simulator from an error of ours; what people can correct is raised as it is."""
    try:
        yield
    except (ValueError, OSError, ImportError):
        raise
    except Exception as error:
        raise SimulatorError(f"{type(error).__name__}: {error}") from error


class Course:
    """An episode from its start to its end: takes actions and answers, knows when it is over.

    Raises:
        SimulatorError: the simulator crashes, here or in a method.
    """

    def __init__(self, env: SimEnv, setup: EpisodeSetup) -> None:
        check_control(setup.control)
        self.env, self.setup = env, setup
        with _in_simulator():
            self.observation, self.info = env.reset_to(setup.scene, episode=setup.episode, seed=setup.seed)
        self.prompt = self.observation["prompt"]
        self.asked = self.prompt if setup.prompt is None else setup.prompt
        self.past: Observation | None = None  # one control step earlier
        self.executed: list[np.ndarray] = []
        self.subtasks: list[tuple[int, str]] = []
        self.seconds: list[float] = []
        self.succeeded_at: int | None = None
        self.progress = _progress(self.info)
        self.held = 0
        self.over = False

    def show(self) -> Observation:
        """Return what the policy is shown now."""
        setup = self.setup
        seen = self.observation
        if self.past is not None:
            seen = {**seen, "past": {name: self.past[name] for name in ("images", "state")}}
        return apply_control(
            seen,
            setup.control,
            info=self.info,
            prompt=self.asked,
            loc_stride=setup.loc_stride,
            true_subtask=setup.true_subtask,
        )

    def look(self) -> None:
        """Take a new observation."""
        with _in_simulator():
            self.observation = self.env.observe()

    def remember(self, observation: Observation | None = None) -> None:
        """Keep what is seen now, for a policy that sees two moments; the next control step comes before its look."""
        if self.setup.moments > 1:
            with _in_simulator():
                self.past = self.env.observe() if observation is None else observation

    def hear(self, answer: dict[str, Any]) -> None:
        """Take down how long an answer took, and what it says."""
        self.seconds.append(answer["timing"].get("total", 0.0))
        words = answer["subtask"]
        if words and (not self.subtasks or self.subtasks[-1][1] != words):
            self.subtasks.append((len(self.executed), words))

    def act(self, action: np.ndarray) -> None:
        """Run one control step."""
        with _in_simulator():
            self.info = self.env.advance(action)
        self.executed.append(action)
        steps = len(self.executed)
        self.progress = max(self.progress, _progress(self.info))
        if self.info["success"] and self.succeeded_at is None:
            self.succeeded_at = steps
        held_on = self.succeeded_at is not None and steps >= self.succeeded_at + self.setup.hold_steps
        self.over = held_on or self.info.get("broken", False) or steps >= self.env.max_steps

    def record(self) -> EpisodeRecord:
        """Return the record of the episode, which is over."""
        setup, info = self.setup, self.info
        first_grasped, wrong_object = info.get("first_grasped"), bool(info.get("wrong_object", False))
        return EpisodeRecord(
            suite=setup.suite,
            control=setup.control,
            scene=setup.scene,
            episode=setup.episode,
            seed=setup.seed,
            robot=setup.robot,
            prompt=self.prompt,
            asked=self.asked,
            success=self.succeeded_at is not None,
            success_at_end=bool(info["success"]),
            succeeded_at=self.succeeded_at,
            progress=self.progress,
            steps=len(self.executed),
            first_grasped=first_grasped,
            wrong_object=wrong_object,
            right_object_first=first_grasped is not None and not wrong_object,
            placed=int(info.get("placed", info["success"])),  # without a rubric, success is the one goal
            targets=int(info.get("targets", 1)),
            subtasks=tuple(self.subtasks),
            infer_ms=1e3 * float(np.median(self.seconds)),
            latencies_ms=tuple(round(1e3 * seconds, 2) for seconds in self.seconds),
            held=self.held,
            replan_steps=setup.replan_steps,
            num_steps=setup.num_steps,
            task=info.get("task", setup.task),
        )


def apply_control(
    observation: Observation,
    control: str,
    *,
    info: Info,
    prompt: str,
    loc_stride: int,
    true_subtask: bool = False,
) -> Observation:
    """Return what the policy is shown: `observation` with `prompt` as its instruction, changed as `control` says.

    With `true_subtask`, or under the control `oracle`, it holds the true subtask and its box, in steps of `loc_stride`.
    """
    shown = {**observation, "prompt": prompt}
    if control == "blank_images":
        shown["images"] = _blank(observation["images"])
        if "past" in observation:
            shown["past"] = {**observation["past"], "images": _blank(observation["past"]["images"])}
    if true_subtask or control == "oracle":
        box = box_to_locs(info["box"], stride=loc_stride) if info["box"] else ""
        shown["subtask"] = box + info["subtask"]
    return shown


def _blank(images: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return flat grey pictures in place of these."""
    return {name: np.full_like(picture, GREY) for name, picture in images.items()}


def _progress(info: Info) -> float:
    """Return the share of the task that is done: the simulator's own measure, or the goals reached, or success."""
    if info["success"]:
        return 1.0
    if "progress" in info:
        return float(info["progress"])
    return int(info.get("placed", 0)) / max(int(info.get("targets", 1)), 1)
