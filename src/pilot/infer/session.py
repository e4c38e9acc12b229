"""Two levels, two clocks: a high level says in words what comes next, a low level acts on it at every turn.

A `Session` is one robot's conversation with a policy: one `infer` per chunk. The high level (`infer/high_levels`)
decides anew

- at the first turn, and when the person says something else;
- when `subtask_seconds` have passed since it last decided;
- when a person who told it what to do leaves it to itself again;
- when the subtask has ended: the observation says so (`"subtask_done": True`), or, `on_gripper`, a gripper has opened
  or closed.

At all other turns the low level goes on with the subtask that there is. Time is control time: `replan_steps` control
ticks per turn. A robot that asks at other times than these gives a `clock`, any function that returns seconds. Nothing
else is read from the world, so the same observations give the same answers.
"""

import math
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from pilot.infer import rtc
from pilot.infer.high_level.base import HighLevel
from pilot.types import Robot, Sample

if TYPE_CHECKING:
    from pilot.infer.policy import Policy

REPLAN_STEPS = 2
SUBTASK_SECONDS = 0.4
KEPT = 64  # subtasks of a history


@dataclass(frozen=True, kw_only=True)
class Subtask:
    """What was decided on, and when in the session's time [s] it began. `box` is (y0, x0, y1, x1) in 0…1."""

    start: float
    words: str
    box: tuple[float, float, float, float] | None


class Session:
    """One robot's run with a policy.

    To be used: `infer` (or `Policy.infer_many` for several), `tell`, `reset`; to be read: `subtask` (what is acted on,
    its box in front as `<loc>` tokens), `history`, `trouble` (why the high level has nothing new), `metadata`.
    """

    def __init__(
        self,
        policy: "Policy",
        *,
        high_level: HighLevel,
        subtask_seconds: float = SUBTASK_SECONDS,
        replan_steps: int = REPLAN_STEPS,
        on_gripper: bool = False,
        clock: Callable[[], float] | None = None,
    ) -> None:
        high_level.check(policy)
        if not (subtask_seconds >= 0 and replan_steps >= 1):
            raise ValueError(
                f"subtask_seconds is 0 or more and replan_steps 1 or more, got {subtask_seconds} and {replan_steps}"
            )
        self.policy, self.metadata, self.high_level = policy, policy.metadata, high_level
        self.decider = high_level.decider(policy)
        self.replan_steps, self.subtask_seconds = replan_steps, subtask_seconds
        self.on_gripper, self.clock = on_gripper, clock
        self.reset()

    def reset(self) -> None:
        """Forget everything: the subtask and its history, what was told, the clock and the noise start again."""
        self.generator, self.words_generator = (torch.Generator().manual_seed(self.policy.seed) for _ in range(2))
        self.advisor = self.high_level.advisor()
        self.told: str | None = None
        self.subtask: str | None = None
        self.prompt: str | None = None
        self.asked: str | None = None
        self.grips: tuple[bool, ...] | None = None
        self.was_told = False
        self.control_time, self.decided_at = 0.0, -math.inf
        self.history: deque[Subtask] = deque(maxlen=KEPT)

    def infer(self, observation: Mapping[str, Any]) -> dict[str, Any]:
        """`{"images", "state", "prompt"[, "subtask"][, "subtask_done"][, "previous"]}` → a chunk.

        `subtask` overrides the high level. With its box in front (as `<loc>` tokens) it is acted on as it stands; plain
        words are heard as a verbal instruction: they take the place of the prompt, and the model finds the box.
        `subtask_done`: the subtask has ended, decide on another.

        `previous` is what the robot will do from this observation on if nothing new comes, and how much of that while
        it waits: `{"actions": [n robot action dim], "delay": ticks}`. The chunk goes on from there (`infer/rtc.py`).

        Returns `actions` float32 [ah, robot action dim] in the robot's units, `subtask` (words), `box` (y0, x0, y1, x1)
        or None, and `timing` in seconds; `scores` where the high level scores labels, and `trouble` while it fails.

        Raises:
            ValueError: the observation is not what the robot declares.
        """
        return self.policy.infer_many([self], [observation])[0]

    def tell(self, words: str | None) -> None:
        """From now on every observation is answered as if it held `words` as its `subtask`; None ends that.

        For the person who watches, where somebody else sends the observations; any thread may call it.

        Raises:
            ValueError: empty words, or a box that this model cannot read.
        """
        self.told = None if words is None else self._checked(words)

    def move_to(self, policy: "Policy") -> None:
        """Go on with other weights for the same robot: what was decided and told stays.

        Who was led by the policy's own high level is now led by that of the new one.

        Raises:
            ValueError: the high level cannot work with that policy; then the session stays with the old one.
        """
        level = policy.high_level if self.high_level == self.policy.high_level else self.high_level
        level.check(policy)
        if level != self.high_level:
            self.high_level, self.advisor = level, level.advisor()
        self.policy, self.metadata = policy, policy.metadata
        self.decider = level.decider(policy)

    @property
    def now(self) -> float:
        return self.control_time if self.clock is None else self.clock()

    @property
    def trouble(self) -> str | None:
        """Why the high level could not decide when it last tried; None if it could."""
        return None if self.advisor is None else self.advisor.trouble

    # --- a turn ------------------------------------------------------------------------------------------------------

    def turn(self, observation: Mapping[str, Any]) -> "Turn":
        """What is to be done about an observation: decide or go on, and the sample to read.

        Raises:
            ValueError: the observation is not what the robot declares.
        """
        told = self.told if observation.get("subtask") is None else observation["subtask"]
        told = None if told is None else self._checked(told)
        sample = self.policy.sample(observation if told is None else {"prompt": told, **observation})
        asked, grips, now = sample.prompt, grip_states(self.policy.bundle.robot, sample.state), self.now
        ended = self._ended(observation, told, grips)
        words, verbatim = told, False
        if words is None and self.advisor is not None:
            event = ended or asked != self.asked
            words = self.advisor.advise(sample, now=now, event=event, history=tuple(self.history))
            verbatim = self.advisor.verbatim
        prompt, given = self._heard(asked, words, verbatim=verbatim)
        decide = given is None and self.decider is not None and self._due(prompt, ended=ended, now=now)
        goes_on = self.subtask if self.decider is not None else None
        spoken = given if given is not None else None if decide else goes_on
        return Turn(
            session=self,
            sample=replace(sample, prompt=prompt),
            decide=decide,
            spoken=spoken,
            old=self.subtask if prompt == self.prompt and not ended else None,
            prepared=self.decider.prepare(observation) if decide and self.decider is not None else None,
            previous=self._previous(observation.get("previous")),
            asked=asked,
            told=told is not None,
            grips=grips,
            now=now,
        )

    def _checked(self, words: Any) -> str:
        if not isinstance(words, str) or not words.strip():
            raise ValueError(f"'subtask' is words, with or without a box in front, got {words!r}")
        plain, box = self.policy.pipeline.split_subtask(words)
        if box is not None and not self.policy.takes_subtasks:
            raise ValueError(
                f"this model acts on its prompt alone and reads no boxes; say it in words, such as {plain!r}"
            )
        return words

    def _ended(self, observation: Mapping[str, Any], told: str | None, grips: tuple[bool, ...]) -> bool:
        """Whether what was done until now is over: who told it is silent, or it is said, or a gripper moved."""
        done = observation.get("subtask_done")
        if done is not None and (np.asarray(done).dtype != bool or np.size(done) != 1):
            raise ValueError(f"'subtask_done' is True or False, got {done!r}")
        if (self.was_told and told is None) or done:
            return True
        return self.on_gripper and self.grips not in (None, grips)

    def _previous(self, value: Any) -> rtc.Previous | None:
        if value is not None and not self.metadata["rtc"]:
            raise ValueError("'previous' is for models with a flow (π0, π0.5); chunks of this one are not joined")
        return rtc.read_previous(value, self.policy.bundle.robot)

    def _heard(self, asked: str, words: str | None, *, verbatim: bool) -> tuple[str, str | None]:
        """The prompt to act on and, if one is given, a subtask that is complete."""
        if words is None:
            return asked, None
        _, box = self.policy.pipeline.split_subtask(words)
        return (asked, words) if box is not None or verbatim else (words, None)

    def _due(self, prompt: str, *, ended: bool, now: float) -> bool:
        if self.subtask is None or prompt != self.prompt or ended:
            return True
        return now - self.decided_at >= self.subtask_seconds - 1e-9

    def remember(self, turn: "Turn", *, words: str | None, box: Any) -> None:
        """The subtask acted on, and the control time that passes until the next turn."""
        if words is not None and (not self.history or self.history[-1].words != words):
            self.history.append(Subtask(start=turn.now, words=words, box=box))
        self.prompt, self.subtask, self.asked, self.grips = turn.sample.prompt, turn.spoken, turn.asked, turn.grips
        self.was_told = turn.told
        if turn.decide:
            self.decided_at = turn.now
        self.control_time += self.replan_steps / self.policy.bundle.robot.control_hz


@dataclass(kw_only=True)
class Turn:
    """One robot's part of a batch.

    `spoken` is the subtask that is acted on, `old` the one that there was and that nothing but time speaks against.
    `prepared` is what the high level made of the observation, `told` whether a person overrides it; `error` why there
    is no answer.
    """

    session: Session
    sample: Sample
    decide: bool
    spoken: str | None
    old: str | None
    prepared: Any
    previous: rtc.Previous | None
    asked: str
    told: bool
    grips: tuple[bool, ...]
    now: float
    answer: dict[str, Any] = field(default_factory=dict)
    error: Exception | None = None

    def finish(self, actions: np.ndarray) -> None:
        words, box = self.session.policy.pipeline.split_subtask(self.spoken) if self.spoken else (None, None)
        self.answer |= {"actions": actions, "subtask": words, "box": box}
        if self.session.trouble is not None:
            self.answer["trouble"] = self.session.trouble
        self.session.remember(self, words=words, box=box)


def grip_states(robot: Robot, state: np.ndarray | None) -> tuple[bool, ...]:
    """Which grippers are nearer to open than to closed, of those that are measured."""
    if state is None or state.shape != (robot.state_dim,):
        return ()
    measured = [(gripper, state[robot.state_names.index(gripper.state)]) for gripper in robot.grippers if gripper.state]
    return tuple(bool(abs(at - g.state_open) < abs(at - g.state_closed)) for g, at in measured)
