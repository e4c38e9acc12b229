"""One episode in a simulated home: a policy looks, acts for a few steps, looks again; the record says what came of it.

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
from pilot.sims.homes import Expert, HomesEnv
from pilot.tokenizers.text import box_to_locs

GREY = 128  # the middle of the range: nothing of a picture's brightness is left


@runtime_checkable
class Session(Protocol):
    """What acts in one episode: raw observation in, `{"actions": [ah ad], "subtask": str | None, …}` out."""

    def infer(self, observation: dict[str, Any]) -> dict[str, Any]: ...


@dataclass(frozen=True, kw_only=True)
class EpisodeRecord:
    """What happened in one episode. `subtasks` are the words spoken, each with the control step it began at."""

    suite: str
    control: str
    home: int
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

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> "EpisodeRecord":
        return cls(**{**row, "subtasks": tuple((int(step), words) for step, words in row["subtasks"])})


Game = Generator[dict[str, Any], dict[str, Any], tuple[EpisodeRecord, np.ndarray]]
"""An episode under way: what the policy is shown out, its answer in; then the record and its actions [steps 4]."""


@dataclass(frozen=True, kw_only=True)
class Film:
    """Pictures of an episode for people: the start, then one per control step, with the subtask spoken at that time."""

    fps: float
    frames: list[np.ndarray]
    captions: list[str]


class ExpertPolicy:
    """The scripted expert behind the policy interface. It sees the simulator's state, and plans one step at a time."""

    metadata: ClassVar[dict[str, Any]] = {"replan_steps": 1, "fingerprint": "expert"}

    def __init__(self, env: HomesEnv, *, seed: int) -> None:
        self.expert = Expert(env, np.random.default_rng(seed))

    def infer(self, observation: dict[str, Any]) -> dict[str, Any]:
        words, box = self.expert.subtask
        return {"actions": self.expert.act()[None], "subtask": words, "box": box, "timing": {}}


def controlled(
    observation: dict[str, Any],
    control: str,
    *,
    info: dict[str, Any],
    prompt: str,
    loc_stride: int,
    truth: bool = False,
) -> dict[str, Any]:
    """What the policy is shown: `observation` with `prompt` as its instruction, changed as `control` says.

    With `truth`, or as control `oracle`, the true subtask with its box, written in steps of `loc_stride`.
    """
    shown = {**observation, "prompt": prompt}
    if control == "blank_images":
        shown["images"] = {name: np.full_like(picture, GREY) for name, picture in observation["images"].items()}
    if truth or control == "oracle":
        box = box_to_locs(info["box"], stride=loc_stride) if info["box"] else ""
        shown["subtask"] = box + info["subtask"]
    return shown


def run_episode(
    env: HomesEnv, make_session: Callable[[HomesEnv], Session], plan: "Plan"
) -> tuple[EpisodeRecord, np.ndarray]:
    """One episode → the record, and the actions [steps 4] that were executed.

    `make_session` is called once the home stands, so that an actor may hold on to it. Raises ValueError for an unknown
    control.
    """
    game = play(env, plan)
    shown = next(game)
    session = make_session(env)
    while True:
        try:
            shown = game.send(session.infer(shown))
        except StopIteration as end:
            return end.value


def run_together(
    games: Iterable[tuple[Any, Game, Session]], infer_many: Callable[..., list[dict[str, Any]]], *, slots: int
) -> Iterator[tuple[Any, EpisodeRecord]]:
    """Episodes in step, `slots` at a time, with one batched question to the policy; each `(name, record)` as it ends.

    `games` gives `(name, game, session)` and is asked for the next one when a slot is free, so that one environment can
    serve one slot after the other.
    """
    games, waiting = iter(games), {}
    for name, game, session in itertools.islice(games, slots):
        waiting[name] = (game, session, next(game))
    while waiting:
        names = list(waiting)
        answers = infer_many([waiting[name][1] for name in names], [waiting[name][2] for name in names])
        for name, answer in zip(names, answers):
            game, session, _ = waiting[name]
            try:
                waiting[name] = (game, session, game.send(answer))
            except StopIteration as end:
                del waiting[name]
                yield name, end.value[0]
                for name, game, session in itertools.islice(games, 1):
                    waiting[name] = (game, session, next(game))


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Which episode, and how the policy is asked.

    `prompt` replaces the episode's own instruction (success is still judged by the episode's own). `truth`: each
    observation holds the true subtask. `loc_stride` is how the policy writes boxes, for that and for the oracle.
    """

    suite: str
    home: int
    episode: int
    seed: int
    replan_steps: int
    control: str = "none"
    prompt: str | None = None
    truth: bool = False
    loc_stride: int = 1


def play(env: HomesEnv, plan: Plan) -> Game:
    """Act until the task is done or the steps run out: yields what the policy is shown, takes its answer."""
    check_control(plan.control)
    observation, info = env.reset(seed=plan.seed, options={"home": plan.home, "episode": plan.episode})
    asked = plan.prompt if plan.prompt is not None else observation["prompt"]
    spoken: list[tuple[int, str]] = []
    seconds: list[float] = []
    executed: list[np.ndarray] = []
    done = False
    while not done:
        shown = controlled(
            observation, plan.control, info=info, prompt=asked, loc_stride=plan.loc_stride, truth=plan.truth
        )  # fmt: skip
        answer = yield shown
        seconds.append(answer["timing"].get("total", 0.0))
        words = answer["subtask"]
        if words and (not spoken or spoken[-1][1] != words):
            spoken.append((len(executed), words))
        for action in answer["actions"][: plan.replan_steps]:
            info = env.advance(action)
            executed.append(action)
            done = info["success"] or len(executed) >= env.max_steps
            if done:
                break
        if not done:
            observation = env.observe()
    record = EpisodeRecord(
        suite=plan.suite,
        control=plan.control,
        home=plan.home,
        episode=plan.episode,
        seed=plan.seed,
        prompt=observation["prompt"],
        asked=asked,
        success=bool(info["success"]),
        steps=len(executed),
        first_grasped=info["first_grasped"],
        wrong_object=bool(info["wrong_object"]),
        right_object_first=info["first_grasped"] is not None and not info["wrong_object"],
        placed=int(info["placed"]),
        targets=int(info["targets"]),
        subtasks=tuple(spoken),
        infer_ms=1e3 * float(np.median(seconds)),
    )
    return record, np.array(executed)


def film(env: HomesEnv, record: EpisodeRecord, *, actions: np.ndarray) -> Film:
    """The episode again, with a picture at every step; `env` is the same world, its pictures of any size."""
    env.reset(seed=record.seed, options={"home": record.home, "episode": record.episode})
    frames, info = [env.render()], {}
    for action in actions:
        info = env.advance(action)
        frames.append(env.render())
    assert info["success"] == record.success, ("the repeated episode ended otherwise", record)
    starts = [step for step, _ in record.subtasks]
    spoken = ["", *(words for _, words in record.subtasks)]
    captions = [spoken[bisect.bisect_right(starts, step)] for step in range(len(frames))]
    return Film(fps=env.robot.control_hz, frames=frames, captions=captions)
