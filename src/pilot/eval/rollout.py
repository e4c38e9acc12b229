"""One episode in a simulator: a policy looks, acts for a few steps, looks again; the record says what came of it.

A policy plans a chunk of `action_horizon` actions, of which the first `replan_steps` are executed open loop. Pictures
are rendered only when the policy looks. Physics repeats itself exactly, so an episode is filmed afterwards, from its
actions, with pictures as large as people like them.
"""

import bisect
import itertools
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np

from pilot.eval.suites import check_control
from pilot.sims.base import Info, Observation, SimEnv, Suite
from pilot.tokenizers.text import box_to_locs

GREY = 128  # the middle of the range: nothing of a picture's brightness is left


@runtime_checkable
class RolloutPolicy(Protocol):
    """A policy in one episode: a session of a policy, or an expert."""

    def infer(self, observation: Observation) -> dict[str, Any]:
        """Return `{"actions": [ah ad], "subtask": str | None, "timing": {…}, …}` for a raw observation."""
        ...


@dataclass(frozen=True, kw_only=True)
class EpisodeRecord:
    """The record of one episode. `subtasks` are the policy's own words, each with the control step it began at.

    `prompt` is the episode's instruction, `asked` what the policy got; `placed` of `targets` goals were reached.
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
    infer_ms: float
    replan_steps: int | None = None  # logs of before these were recorded do not have them
    num_steps: int | None = None
    task: str | None = None  # of the suite's tasks, that of this scene

    def to_json(self) -> dict[str, Any]:
        """Return the record as logs hold it; there the scene is called "home", whatever the simulator."""
        return {"home" if name == "scene" else name: value for name, value in asdict(self).items()}

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> "EpisodeRecord":
        """Return the record that `to_json` wrote."""
        values = {"scene" if name == "home" else name: value for name, value in row.items()}
        values["subtasks"] = tuple((int(step), words) for step, words in row["subtasks"])
        return cls(**values)


Rollout = Generator[Observation, dict[str, Any], tuple[EpisodeRecord, np.ndarray]]
"""An episode under way: yields observations, takes the policy's answers, returns the record and the actions [t ad]."""


@dataclass(frozen=True, kw_only=True)
class Film:
    """Pictures of an episode for people: the start, then one per control step, each with the subtask at that time."""

    fps: float
    frames: list[np.ndarray]
    captions: list[str]


class ExpertPolicy:
    """The scripted expert behind the policy interface. It sees the simulator's state, and plans one step at a time."""

    metadata: ClassVar[dict[str, Any]] = {"replan_steps": 1, "fingerprint": "expert"}

    def __init__(self, suite: Suite, env: SimEnv, *, seed: int) -> None:
        self.expert = suite.expert(env, np.random.default_rng(seed))

    def infer(self, observation: Observation) -> dict[str, Any]:
        words, box = self.expert.subtask
        return {"actions": self.expert.act()[None], "subtask": words, "box": box, "timing": {}}


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
        shown["images"] = {name: np.full_like(picture, GREY) for name, picture in observation["images"].items()}
    if true_subtask or control == "oracle":
        box = box_to_locs(info["box"], stride=loc_stride) if info["box"] else ""
        shown["subtask"] = box + info["subtask"]
    return shown


def run_episode(
    env: SimEnv, make_session: Callable[[SimEnv], RolloutPolicy], setup: "EpisodeSetup"
) -> tuple[EpisodeRecord, np.ndarray]:
    """Run one episode; return its record and the executed actions [t ad].

    `make_session` is called once the scene stands, because an expert looks at it.

    Raises:
        ValueError: an unknown control.
    """
    rollout = roll_out(env, setup)
    shown = next(rollout)
    session = make_session(env)
    while True:
        try:
            shown = rollout.send(session.infer(shown))
        except StopIteration as end:
            return end.value


def run_batched(
    rollouts: Iterable[tuple[Any, Rollout, RolloutPolicy]],
    infer_many: Callable[..., list[dict[str, Any]]],
    *,
    batch_size: int,
) -> Iterator[tuple[Any, EpisodeRecord]]:
    """Run episodes in step, with one batched call of the policy for all; yield each `(name, record)` as it ends.

    `rollouts` gives `(name, rollout, session)`. It is asked for the next one only when another has ended, so that one
    environment can serve several in turn.
    """
    rollouts, running = iter(rollouts), {}
    for name, rollout, session in itertools.islice(rollouts, batch_size):
        running[name] = (rollout, session, next(rollout))
    while running:
        names = list(running)
        answers = infer_many([running[name][1] for name in names], [running[name][2] for name in names])
        for name, answer in zip(names, answers):
            rollout, session, _ = running[name]
            try:
                running[name] = (rollout, session, rollout.send(answer))
            except StopIteration as end:
                del running[name]
                yield name, end.value[0]
                for name, rollout, session in itertools.islice(rollouts, 1):
                    running[name] = (rollout, session, next(rollout))


@dataclass(frozen=True, kw_only=True)
class EpisodeSetup:
    """An episode to run, and the settings that the policy runs with."""

    suite: str
    task: str | None = None  # of the suite's tasks, that of this scene
    scene: int
    episode: int
    seed: int
    replan_steps: int  # actions of a chunk that are executed before the policy looks again
    num_steps: int | None = None  # denoising steps of the policy, for the record
    control: str = "none"
    prompt: str | None = None  # replaces the episode's instruction; success is still judged by the episode's own
    true_subtask: bool = False  # each observation holds the true subtask
    loc_stride: int = 1  # the steps in which the policy writes boxes, for the true subtask and the oracle


def roll_out(env: SimEnv, setup: EpisodeSetup) -> Rollout:
    """Act until the task is done or the steps run out: yield what the policy is shown, take its answer."""
    check_control(setup.control)
    observation, info = env.reset_to(setup.scene, episode=setup.episode, seed=setup.seed)
    asked = setup.prompt if setup.prompt is not None else observation["prompt"]
    subtasks: list[tuple[int, str]] = []
    seconds: list[float] = []
    executed: list[np.ndarray] = []
    done = False
    while not done:
        answer = yield apply_control(
            observation,
            setup.control,
            info=info,
            prompt=asked,
            loc_stride=setup.loc_stride,
            true_subtask=setup.true_subtask,
        )
        seconds.append(answer["timing"].get("total", 0.0))
        words = answer["subtask"]
        if words and (not subtasks or subtasks[-1][1] != words):
            subtasks.append((len(executed), words))
        for action in answer["actions"][: setup.replan_steps]:
            info = env.advance(action)
            executed.append(action)
            done = info["success"] or info.get("broken", False) or len(executed) >= env.max_steps
            if done:
                break
        if not done:
            observation = env.observe()
    first_grasped, wrong_object = info.get("first_grasped"), bool(info.get("wrong_object", False))
    record = EpisodeRecord(
        suite=setup.suite,
        control=setup.control,
        scene=setup.scene,
        episode=setup.episode,
        seed=setup.seed,
        prompt=observation["prompt"],
        asked=asked,
        success=bool(info["success"]),
        steps=len(executed),
        first_grasped=first_grasped,
        wrong_object=wrong_object,
        right_object_first=first_grasped is not None and not wrong_object,
        placed=int(info.get("placed", info["success"])),  # without a rubric, success is the one goal
        targets=int(info.get("targets", 1)),
        subtasks=tuple(subtasks),
        infer_ms=1e3 * float(np.median(seconds)),
        replan_steps=setup.replan_steps,
        num_steps=setup.num_steps,
        task=info.get("task", setup.task),
    )
    return record, np.array(executed)


def film(env: SimEnv, record: EpisodeRecord, *, actions: np.ndarray) -> Film:
    """Repeat an episode with a picture at every step; `env` is of the same suite, its pictures of any size."""
    env.reset_to(record.scene, episode=record.episode, seed=record.seed)
    frames, info = [env.render()], {}
    for action in actions:
        info = env.advance(action)
        frames.append(env.render())
    assert info["success"] == record.success, ("the repeated episode ended otherwise", record)
    starts = [step for step, _ in record.subtasks]
    words = ["", *(words for _, words in record.subtasks)]
    captions = [words[bisect.bisect_right(starts, step)] for step in range(len(frames))]
    return Film(fps=env.robot.control_hz, frames=frames, captions=captions)
