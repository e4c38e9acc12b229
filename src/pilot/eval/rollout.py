"""One episode in a simulator: a policy looks, acts for a few steps, looks again; the record says what came of it.

A policy plans a chunk of `action_horizon` actions, of which the first `replan_steps` are executed open loop, while the
world waits for the next. On the clock (`Timekeeping`) the world waits for nobody: one command per control tick, from
whatever chunk has arrived. Pictures are rendered only when the policy looks. Physics repeats itself exactly, so an
episode is filmed afterwards, from its actions, with pictures as large as people like them.
"""

import bisect
import math
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np

from pilot.eval.episode import Course, EpisodeSetup, Timekeeping
from pilot.eval.records import EpisodeRecord
from pilot.infer.executor import ChunkRequest, Delays
from pilot.serve.control import EXECUTORS, build_observation, standing_still
from pilot.sims.base import Info, Observation, SimEnv, Suite


@runtime_checkable
class RolloutPolicy(Protocol):
    """A policy in one episode: a session of a policy, or an expert."""

    def infer(self, observation: Observation) -> dict[str, Any]:
        """Return `{"actions": [ah ad], "subtask": str | None, "timing": {…}, …}` for a raw observation."""
        ...


Acting = Generator[Observation, dict[str, Any], None]
"""Acting in an episode: yields observations, takes the policy's answers."""
MOST_FRAMES = 400  # of a film
Rollout = Generator[Observation, dict[str, Any], tuple[EpisodeRecord, np.ndarray]]
"""An episode under way: yields observations, takes the policy's answers, returns the record and the actions [t ad]."""


@dataclass(frozen=True, kw_only=True)
class Film:
    """Pictures of an episode for people, from its start to its end, each with the subtask at that time."""

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


def run_episode(
    env: SimEnv, make_session: Callable[[SimEnv], RolloutPolicy], setup: EpisodeSetup
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
) -> Iterator[tuple[Any, EpisodeRecord, np.ndarray]]:
    """Run episodes in step, with one batched call of the policy for all; yield `(name, record, actions)` as each ends.

    `rollouts` gives `(name, rollout, session)`. It is asked for the next one only when another has ended, so that one
    environment can serve several in turn.
    """
    rollouts, running = iter(rollouts), {}
    yield from _begin(running, rollouts, batch_size=batch_size)
    while running:
        names = list(running)
        answers = infer_many([running[name][1] for name in names], [running[name][2] for name in names])
        for name, answer in zip(names, answers):
            rollout, session, _ = running[name]
            try:
                running[name] = (rollout, session, rollout.send(answer))
            except StopIteration as end:
                del running[name]
                yield name, *end.value
                yield from _begin(running, rollouts, batch_size=batch_size)


def _begin(
    running: dict[Any, tuple[Rollout, RolloutPolicy, Observation]],
    rollouts: Iterator[tuple[Any, Rollout, RolloutPolicy]],
    *,
    batch_size: int,
) -> Iterator[tuple[Any, EpisodeRecord, np.ndarray]]:
    """Begin episodes until so many are running; yield those that are over already, because no reset worked."""
    while len(running) < batch_size and (following := next(rollouts, None)) is not None:
        name, rollout, session = following
        try:
            running[name] = (rollout, session, next(rollout))
        except StopIteration as end:
            yield name, *end.value


def roll_out(env: SimEnv, setup: EpisodeSetup) -> Rollout:
    """Act until the task is done or the steps run out: yield what the policy is shown, take its answer.

    Raises:
        ValueError: an unknown control.
    """
    course = Course(env, setup)
    in_lock_step = not setup.timekeeping.clock and setup.timekeeping.executor in (None, "open-loop")
    yield from (_in_lock_step(course) if in_lock_step else _on_clock(course))
    return course.record(), np.array(course.executed)


def _in_lock_step(course: Course) -> Acting:
    """Execute the first `replan_steps` actions of each chunk; the world waits for every answer."""
    while not course.over:
        answer = yield course.show()
        course.hear(answer)
        actions = answer["actions"][: course.setup.replan_steps]
        for number, action in enumerate(actions, 1):
            if number == len(actions):
                course.remember(course.observation if number == 1 else None)
            course.act(action)
            if course.over:
                return
        course.look()


def _on_clock(course: Course) -> Acting:
    """Send one command per control tick, from chunks that arrive as late as `Timekeeping` says."""
    setup, robot = course.setup, course.env.robot
    executor = EXECUTORS[setup.timekeeping.executor or "rtc"](
        replan_steps=setup.replan_steps,
        late=replace(standing_still({"action_units": robot.action_units}), latch=False),
        patience=course.env.max_steps + 1,  # answers are late here, but never lost
    )
    waiting: deque[tuple[int, ChunkRequest, np.ndarray]] = deque()  # answers, and the tick at which each arrives
    while not course.over:
        if (request := executor.request()) is not None:
            if course.executed:
                course.look()
            answer = yield build_observation(course.show(), request, joins=setup.joins_chunks)
            course.hear(answer)
            ticks = late_ticks(setup.timekeeping, answer, hz=robot.control_hz)
            waiting.append((request.tick + (ticks if course.executed else 0), request, answer["actions"]))
        while waiting and waiting[0][0] <= executor.state.tick:
            _, request, actions = waiting.popleft()
            executor.deliver(request, actions)
            if not course.executed:  # this answer was waited for: the next ones will be as late as it would have been
                executor.delays = Delays(first=ticks)
        command = executor.next()
        assert command.action is not None, "the first chunk is waited for"
        course.remember()
        course.held += command.status != "run"
        course.act(command.action)


def late_ticks(timekeeping: Timekeeping, answer: dict[str, Any], *, hz: float) -> int:
    """Return the control ticks that pass before an answer arrives, begun ticks counted as whole ones."""
    if not timekeeping.clock:
        return 0
    measured, given = answer["timing"].get("total", 0.0), timekeeping.latency_ms
    return math.ceil(round((measured if given is None else given / 1e3) * hz, 6))


def repeat(env: SimEnv, record: EpisodeRecord, *, actions: np.ndarray) -> Iterator[np.ndarray]:
    """Repeat an episode: yield each action just before it is executed, while `env` still shows where it was decided on.

    Raises:
        ValueError: it ends otherwise than the record says.
    """
    env.reset_to(record.scene, episode=record.episode, seed=record.seed)
    info: Info = {}
    for action in actions:
        yield action
        info = env.advance(action)
    repeated = record.success if record.success_at_end is None else record.success_at_end
    if info.get("success", False) != repeated:
        raise ValueError(
            f"scene {record.scene} of '{record.suite}' ended otherwise when its actions were repeated; the simulator "
            "is not as it was, so run the evaluation again"
        )


def film(env: SimEnv, record: EpisodeRecord, *, actions: np.ndarray) -> Film:
    """Repeat an episode with a picture at every step; `env` is of the same suite, its pictures of any size.

    A long episode has a picture at every second step or fewer: phones do not show larger sheets of pictures.

    Raises:
        ValueError: it ends otherwise than the record says.
    """
    every = math.ceil((len(actions) + 1) / MOST_FRAMES)
    steps = [*range(0, len(actions), every), len(actions)]
    shown = set(steps)
    frames = [env.render() for step, _ in enumerate(repeat(env, record, actions=actions)) if step in shown]
    frames.append(env.render())
    starts = [step for step, _ in record.subtasks]
    words = ["", *(words for _, words in record.subtasks)]
    captions = [words[bisect.bisect_right(starts, step)] for step in steps]
    return Film(fps=env.robot.control_hz / every, frames=frames, captions=captions)
