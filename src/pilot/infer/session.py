"""Two levels, two clocks: a high level says in words what comes next, a low level acts on it at every turn.

A `Session` is one robot's run with a policy: one `infer` per chunk. The high level (`infer/high_level`) decides anew

- at the first turn, and when the prompt is another;
- when `subtask_seconds` have passed since it last decided;
- when a person who told the robot what to do leaves it to itself again;
- when the subtask has ended: the observation says so (`"subtask_done": True`), or, with `on_gripper`, a gripper has
  opened or closed.

At all other turns the low level continues with the subtask that there is. Time is control time: `replan_steps` control
ticks per turn. A robot that asks at other times sends the `control_tick` of its observation, or gives a `clock`, any
function that returns seconds. Nothing else is read from the world, so the same observations give the same answers.

A turn goes one way. `Session.begin` makes a `Request` from the session's state and the observation, and changes
nothing; the policy answers requests, of one robot or of many, without knowing sessions (`infer/actor.py`);
`Session.finish` brings the result into the session's state. A turn that fails in between has not happened. (Only the
connection to a high level outside of the model is asked in `begin`, and has a life of its own.)
"""

import math
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from pilot.data.pipeline import Pipeline
from pilot.infer.actor import Actor
from pilot.infer.high_level.base import HighLevel, Subtask, SubtaskRequest
from pilot.infer.request import Request, Result
from pilot.infer.rtc import Previous, read_previous
from pilot.models.trained_robots import same_dims
from pilot.types import Robot

SUBTASK_SECONDS = 0.4
HISTORY_LENGTH = 64  # subtasks


@dataclass(frozen=True, kw_only=True)
class SessionState:
    """The past of a session.

    `subtask` is what is acted on, with its box in front, and `prompt` the prompt it is for. `observed_prompt` is that
    of the last observation, which a person's words or advice may have replaced; `was_told`: a person's words have.
    `grippers` are those that are open. `time` is the control time at which the next observation is expected and
    `decided_at` the session's time of the last decision [s]; `tick` is the last observation's, if the robot says so.
    """

    subtask: str | None = None
    prompt: str | None = None
    observed_prompt: str | None = None
    was_told: bool = False
    grippers: tuple[bool, ...] | None = None
    time: float = 0.0
    tick: int | None = None
    decided_at: float = -math.inf


@dataclass(frozen=True, kw_only=True)
class Turn:
    """A request, and the state that its session has when it is answered, but for the subtask."""

    request: Request
    after: SessionState
    now: float


class Session:
    """One robot's run with a policy that was trained on a `robot` of this name (the only one, if none is named).

    To be called: `infer` (or `Policy.infer_many` for several robots), `tell`, `move_to`, `reset`. To be read: `subtask`
    (what is acted on, its box in front as `<loc>` tokens), `history` (the last subtasks), `trouble` (why the high level
    has nothing new), `metadata`.

    `high_level` decides, at the latest every `subtask_seconds`; see the head of this file for `replan_steps`,
    `on_gripper` and `clock`.

    Raises:
        ValueError: the high level cannot work with this policy, a clock that cannot run, or `on_gripper` for a robot
            without a gripper that is measured.
    """

    def __init__(
        self,
        policy: Actor,
        *,
        robot: str | None = None,
        high_level: HighLevel,
        subtask_seconds: float = SUBTASK_SECONDS,
        replan_steps: int | None = None,
        on_gripper: bool = False,
        clock: Callable[[], float] | None = None,
    ) -> None:
        high_level.check(policy.subtask_codec)
        self._follows_policy = replan_steps is None  # also when it moves on to another one
        replan_steps = policy.replan_steps_of(robot) if replan_steps is None else replan_steps
        if not (subtask_seconds >= 0 and replan_steps >= 1):
            raise ValueError(
                f"subtask_seconds is 0 or more and replan_steps 1 or more, got {subtask_seconds} and {replan_steps}"
            )
        self.robot = policy.bundle.find_robot(robot).robot
        if on_gripper and not any(gripper.state for gripper in self.robot.grippers):
            raise ValueError(
                f"on_gripper needs a gripper that is measured, and robot '{self.robot.name}' in this checkpoint has "
                "none: name its `state` in the robot's file, and train or convert with that"
            )
        self.policy = policy
        self.high_level = high_level
        self.replan_steps = replan_steps
        self.subtask_seconds = subtask_seconds
        self.on_gripper = on_gripper
        self.clock = clock
        self.reset()

    def reset(self) -> None:
        """Forget everything: the subtask and its history, what was told, the clock; the noise starts again."""
        self.state = SessionState()
        self.history: deque[Subtask] = deque(maxlen=HISTORY_LENGTH)
        self.told_subtask: str | None = None
        self.advisor = self.high_level.advisor()
        self.noise_generator = torch.Generator().manual_seed(self.policy.seed)
        self.text_generator = torch.Generator().manual_seed(self.policy.seed)

    def infer(self, observation: Mapping[str, Any]) -> dict[str, Any]:
        """Answer `{"images", "state", "prompt"[, "subtask", "subtask_done", "previous", "control_tick"]}` with a chunk.

        `subtask` overrides the high level. With its box in front (as `<loc>` tokens) it is acted on as it stands; plain
        words are a verbal instruction: they take the place of the prompt, and the model finds the box.
        `subtask_done`: the subtask has ended, decide on another.

        `previous` is what the robot will do from this observation on if nothing new comes, and how much of that while
        it waits: `{"actions": [n robot action dim], "delay": ticks}`. The chunk continues it (`infer/rtc.py`).

        Returns `actions` float32 [ah, robot action dim] in the robot's units, `subtask` (words), `box` (y0, x0, y1, x1)
        or None, and `timing` in seconds; `scores` where the high level scores labels, and `trouble` while it fails.

        Raises:
            ValueError: the observation is not what the robot declares.
        """
        turn = self.begin(observation)
        (result,) = self.policy.act([turn.request])
        return self.finish(turn, result)

    def tell(self, words: str | None) -> None:
        """Answer every observation from now on as if it held `words` as its `subtask`; None ends that.

        For the person who watches, where somebody else sends the observations; any thread may call it.

        Raises:
            ValueError: empty words, or a box that this model cannot read.
        """
        self.told_subtask = None if words is None else self._check_words(words)

    def move_to(self, policy: Actor) -> None:
        """Continue with other weights for the same robot: what was decided and told stays.

        A session that was led by the policy's own high level is then led by that of the new one.

        Raises:
            ValueError: the high level cannot work with that policy, or it does not know the robot or knows another of
                its name; then the session stays with the old one.
        """
        robot = policy.bundle.find_robot(self.robot.name).robot
        if not same_dims(robot, self.robot):
            raise ValueError(f"robot '{robot.name}' of the new policy has other dims than that of this session")
        # A high level chosen for this session stays; the policy's default follows the policy.
        level = policy.high_level if self.high_level == self.policy.high_level else self.high_level
        level.check(policy.subtask_codec)
        if level != self.high_level:
            self.high_level = level
            self.advisor = level.advisor()
        if self._follows_policy:
            self.replan_steps = policy.replan_steps_of(robot.name)
        self.policy, self.robot = policy, robot

    @property
    def metadata(self) -> dict[str, Any]:
        """What the policy says of itself to this robot: dims, cameras, rate, chunk length."""
        return self.policy.describe(self.robot.name)

    @property
    def subtask(self) -> str | None:
        """The subtask that is being done; None before the first decision."""
        return self.state.subtask

    @property
    def decider(self) -> HighLevel | None:
        """The high level that decides from what the model has prefilled; None if none does."""
        return self.high_level.decider(self.policy.subtask_codec)

    @property
    def trouble(self) -> str | None:
        """Why the high level could not decide when it last tried; None if it could."""
        return None if self.advisor is None else self.advisor.trouble

    # --- a turn ------------------------------------------------------------------------------------------------------

    def begin(self, observation: Mapping[str, Any]) -> Turn:
        """Make the request of a turn: the sample to act on, and whether the high level decides.

        Raises:
            ValueError: the observation is not what the robot declares.
        """
        state = self.state
        # 1) What is asked for: by the person who watches or the one who sends observations, else by the prompt.
        told = self.told_subtask if observation.get("subtask") is None else observation["subtask"]
        told = None if told is None else self._check_words(told)
        # A robot that sends no prompt may still be told what to do.
        shown = observation if told is None else {"prompt": told, **observation}
        sample = self.policy.make_sample(shown, robot=self.robot.name)
        observed_prompt = sample.prompt
        grippers = open_grippers(self.robot, sample.state)
        tick = read_tick(observation.get("control_tick"))
        time = self._control_time(tick)
        now = time if self.clock is None else self.clock()
        ended = self._has_ended(observation, told, grippers)
        # 2) Words from outside of the model are the subtask, or take the place of the prompt.
        words, as_subtask = told, False
        if words is None and self.advisor is not None:
            event = ended or observed_prompt != state.observed_prompt
            words = self.advisor.advise(sample, now=now, event=event, history=tuple(self.history))
            as_subtask = self.high_level.advises_subtasks(self.policy.subtask_codec)
        prompt, given_subtask = observed_prompt, None
        if words is not None:
            _, box = Pipeline.split_subtask(words)
            prompt, given_subtask = (observed_prompt, words) if box is not None or as_subtask else (words, None)
        # 3) Otherwise the model's own high level decides when it is due, or the subtask stays.
        decider = self.decider
        interrupted = prompt != state.prompt or ended
        # Times are sums of periods: a billionth of slack keeps rounding from putting a decision off by a turn.
        due = interrupted or state.subtask is None or now - state.decided_at >= self.subtask_seconds - 1e-9
        decide = given_subtask is None and decider is not None and due
        continued = state.subtask if decider is not None and not decide else None
        subtask = given_subtask if given_subtask is not None else continued
        request = Request(
            robot=self.robot.name,
            sample=replace(sample, prompt=prompt),
            high_level=decider,
            subtask=SubtaskRequest(
                decide=decide,
                subtask=subtask,
                previous=None if interrupted else state.subtask,
                prepared=decider.prepare(observation) if decide and decider is not None else None,
                generator=copy_generator(self.text_generator),
            ),
            bounded=subtask is None or told is not None,  # nobody could shorten words of the model's own
            previous=self._read_previous(observation.get("previous")),
            noise_generator=copy_generator(self.noise_generator),
        )
        after = SessionState(
            prompt=prompt,
            observed_prompt=observed_prompt,
            was_told=told is not None,
            grippers=grippers,
            time=time + self.replan_steps / self.robot.control_hz,
            tick=tick,
            decided_at=now if decide else state.decided_at,
        )
        return Turn(request=request, after=after, now=now)

    def finish(self, turn: Turn, result: Result) -> dict[str, Any]:
        """Bring a result into the session's state; return the answer to the robot."""
        words, box = Pipeline.split_subtask(result.subtask) if result.subtask else (None, None)
        if words is not None and (not self.history or self.history[-1].words != words):
            self.history.append(Subtask(start=turn.now, words=words, box=box))
        self.state = replace(turn.after, subtask=result.subtask)
        # Only now: a turn that failed has drawn nothing, and draws the same when it is tried again.
        self.noise_generator = turn.request.noise_generator
        self.text_generator = turn.request.subtask.generator
        trouble = {} if self.trouble is None else {"trouble": self.trouble}
        return {"actions": result.actions, "subtask": words, "box": box, **result.details, **trouble}

    def _control_time(self, tick: int | None) -> float:
        """Return the control time of an observation [s], of this tick where the robot counts them."""
        before = self.state.tick
        if tick is None or before is None or tick < before:  # the robot has begun to count anew
            return self.state.time
        return self.state.time + (tick - before - self.replan_steps) / self.robot.control_hz

    def _check_words(self, words: Any) -> str:
        if not isinstance(words, str) or not words.strip():
            raise ValueError(f"'subtask' is words, with or without a box in front, got {words!r}")
        plain, box = Pipeline.split_subtask(words)
        if box is not None and not self.policy.takes_subtasks:
            raise ValueError(
                f"this model acts on its prompt alone and reads no boxes; say it in words, such as {plain!r}"
            )
        return words

    def _has_ended(self, observation: Mapping[str, Any], told: str | None, grippers: tuple[bool, ...]) -> bool:
        """Return whether the subtask is over: a person took words back, the observation says so, or a gripper moved."""
        done = observation.get("subtask_done")
        if done is not None and (np.asarray(done).dtype != bool or np.size(done) != 1):
            raise ValueError(f"'subtask_done' is True or False, got {done!r}")
        if (self.state.was_told and told is None) or done:
            return True
        return self.on_gripper and self.state.grippers not in (None, grippers)

    def _read_previous(self, value: Any) -> Previous | None:
        if value is not None and not self.policy.model.has_flow:
            raise ValueError("'previous' is for models with a flow (π0, π0.5); chunks of this one are not joined")
        return read_previous(value, self.robot)


def read_tick(value: Any) -> int | None:
    """Read what an observation holds under "control_tick": a number of control ticks, or None.

    Raises:
        ValueError: anything else.
    """
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 0):
        raise ValueError(f"'control_tick' is a number of control ticks, 0 or more, got {value!r}")
    return None if value is None else int(value)


def open_grippers(robot: Robot, state: np.ndarray | None) -> tuple[bool, ...]:
    """Return for each measured gripper whether it is nearer to open than to closed."""
    if state is None or state.shape != (robot.state_dim,):
        return ()
    measured = [(gripper, state[robot.state_names.index(gripper.state)]) for gripper in robot.grippers if gripper.state]
    return tuple(bool(abs(at - g.state_open) < abs(at - g.state_closed)) for g, at in measured)


def copy_generator(generator: torch.Generator) -> torch.Generator:
    """Return a generator in the same state, so that a turn that fails draws nothing."""
    copy = torch.Generator()
    copy.set_state(generator.get_state())
    return copy
