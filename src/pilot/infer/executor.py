"""The robot's side of acting: one command at every control tick, from chunks that arrive when they arrive.

Time is counted in control ticks. A chunk belongs to the tick at which its observation was taken: its action `i` is
meant for tick `observation + i`, and is sent at that tick or never. So a chunk that took `d` ticks to arrive starts at
its action `d`, whatever the delay was, and nothing stale can be sent: there is no queue whose head could be too old.

Two threads meet here. The controller calls `next` at each tick; it takes no lock and waits for nothing. The other asks
with `request` what is wanted, has it answered by a policy, and brings the answer with `deliver`. The chunks that they
share are replaced as a whole, never changed. No clock is read: the same calls give the same commands.

Whatever a chunk says, a robot that declares limits is kept within them (`infer/safety.py`), and `Executor.stop` stops
it until somebody releases it.

Sources: real-time chunking (arXiv 2506.07339) algorithm 1; temporal ensemble: ACT (2304.13705) section IV. Numpy only.

Axes: `ah` action horizon, `n` actions that are left, `ad` the robot's action dims, in its own units.
"""

import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from jaxtyping import Float

from pilot.infer.safety import MotionFilter

Status = Literal["wait", "run", "hold", "stop"]
"""`wait`: no chunk has come yet. `run`: an action of a chunk. `hold`: the policy is late. `stop`: it is gone."""

SETTLED = 10  # ticks after its last command in which a robot comes to rest, and is measured where it was sent


@dataclass(frozen=True)
class Command:
    """The command of one tick. Without an action leave the robot as it is: nothing moves it.

    `reasons` say why the action is not `wanted`, the one that would have been sent without limits and without a stop.
    """

    tick: int
    status: Status
    action: Float[np.ndarray, " ad"] | None
    reasons: tuple[str, ...] = ()
    wanted: Float[np.ndarray, " ad"] | None = field(default=None, compare=False)


@dataclass(frozen=True, kw_only=True)
class ChunkRequest:
    """A request for a chunk, for an observation that is taken now.

    `leftover` is what the robot will do from now on if nothing new comes. It does about the first `delay` of that while
    it waits; the new chunk joins them (`infer/rtc.py`).
    """

    tick: int
    state: "ExecutorState"
    leftover: Float[np.ndarray, "n ad"]
    delay: int


@dataclass(frozen=True, kw_only=True)
class TimedChunk:
    """Actions for the ticks `start`, `start + 1`, …, made from the observation of tick `observed_at`."""

    start: int
    observed_at: int
    actions: Float[np.ndarray, "ah ad"]

    @property
    def end(self) -> int:
        """The tick after the last action."""
        return self.start + len(self.actions)

    def at(self, tick: int) -> Float[np.ndarray, " ad"] | None:
        """Return the action for a tick, or None if the chunk has none."""
        return self.actions[tick - self.start] if self.start <= tick < self.end else None


def repeat_last(last: Float[np.ndarray, " ad"]) -> Float[np.ndarray, " ad"]:
    """Repeat the last command: the robot stands still where commands are absolute."""
    return last


def zero_dims(*dims: int) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function that repeats the last command with these dims at zero.

    The robot then stands still where those dims are steps or velocities.
    """

    def still(last: np.ndarray) -> np.ndarray:
        action = last.copy()
        action[list(dims)] = 0
        return action

    return still


@dataclass(frozen=True, kw_only=True)
class LateBehavior:
    """The commands while the policy is late: `hold` of the last command for `stop_after` ticks, then `stop` of it.

    A stop lasts until `Executor.reset`, or with `latch=False` until a chunk arrives. After `stall_after` ticks in a row
    without a command (the control loop stood still) the chunks from before are dropped: the world has moved on.
    """

    hold: Callable[[np.ndarray], np.ndarray] = repeat_last
    stop: Callable[[np.ndarray], np.ndarray] = repeat_last
    stop_after: int = 50
    latch: bool = True
    stall_after: int = 10


class Delays:
    """An estimate of how many ticks a chunk takes: a percentile of the last `window` of them; `first` before any."""

    def __init__(self, *, window: int = 20, percentile: float = 95.0, first: int = 1) -> None:
        if window < 1 or not 0 <= percentile <= 100 or first < 0:
            raise ValueError(
                f"delays need a window of 1 or more, a percentile of 0 to 100 and a first of 0 or more; got {window}, "
                f"{percentile} and {first}"
            )
        self.percentile, self.first = percentile, first
        self.recent: deque[int] = deque(maxlen=window)

    def add(self, ticks: int) -> None:
        """Record how many ticks a chunk has taken."""
        self.recent.append(ticks)

    def expected(self) -> int:
        """Return the percentile; where it lies between two delays, the larger one."""
        if not self.recent:
            return self.first
        ordered = sorted(self.recent)
        # Rounded up: a chunk expected too early leaves the robot without actions, one too late costs little.
        return ordered[math.ceil(self.percentile / 100 * (len(ordered) - 1))]


@dataclass(kw_only=True)
class ExecutorCounts:
    """Counts of commands by status, of ticks without one, and of chunks that were taken, refused or lost.

    `stalls` counts the stalls that cost the chunks from before, `limited` the commands that were not as wanted.
    """

    run: int = 0
    hold: int = 0
    stop: int = 0
    wait: int = 0
    missed: int = 0
    chunks: int = 0
    refused: int = 0
    lost: int = 0
    stalls: int = 0
    limited: int = 0


@dataclass(eq=False)
class ExecutorState:
    """All that a reset forgets. An answer to a request from before a reset goes to a state that is no longer used.

    `tick` is the next one, `last` the last command, `pending` the request that is on its way. Observations from before
    `valid_from` are of no use any more.
    """

    tick: int = 0
    valid_from: int = 0
    chunks: tuple[TimedChunk, ...] = ()
    last: np.ndarray | None = None
    ticks_without_action: int = 0
    stopped: bool = False
    pending: ChunkRequest | None = None


class Executor:
    """Real-time chunking's controller: it continues the old chunk until the new one is there, then that.

    A new chunk is wanted when `replan_steps` ticks have passed since the observation of the current one, or earlier if
    it would end before an answer can be expected. A request unanswered for `patience` ticks is given up and made anew;
    an answer that still comes is taken if it is newer than what there is. `motion` keeps all commands within limits.
    """

    joins_chunks = True  # the next chunk should be told what is left of this one

    def __init__(
        self,
        *,
        replan_steps: int,
        late: LateBehavior | None = None,
        delays: Delays | None = None,
        patience: int = 50,
        motion: MotionFilter | None = None,
    ) -> None:
        if replan_steps < 1 or patience < 1:
            raise ValueError(
                f"replan_steps and patience are ticks, 1 or more; got replan_steps={replan_steps}, patience={patience}"
            )
        self.replan_steps, self.patience = replan_steps, patience
        self.late, self.delays = late or LateBehavior(), delays or Delays()
        self.motion = motion
        self.is_stopped = False  # by `stop`
        self.counts = ExecutorCounts()
        self.state = ExecutorState()
        self._sent: np.ndarray | None = None  # the last command ever; a reset does not move the robot
        self._missed = 0  # ticks without a command since the last one

    @property
    def has_settled(self) -> bool:
        """Whether the robot is at rest wherever it is: it was never commanded, or not for a while."""
        return self._sent is None or self._missed >= SETTLED

    def reset(self) -> None:
        """Start again at tick 0, without a chunk or a last command; the answer to a pending request will be refused.

        A robot that moves by itself (its commands are velocities, say) is brought to rest, and one with limits slows
        down within them.
        """
        self.state = ExecutorState()

    def stop(self) -> None:
        """Stop the robot at the next tick: an emergency stop, which holds until `release`, also over a `reset`."""
        self.is_stopped = True
        if self.motion is not None:
            self.motion.stop()

    def release(self) -> None:
        """Let the robot move again after a stop; only a person should."""
        self.is_stopped = False
        if self.motion is not None:
            self.motion.release()

    def place(self, position: Float[np.ndarray, " ad"]) -> None:
        """Say where the robot is, at rest, so that limits count from there; NaN in dims that nobody measures."""
        if self.motion is not None:
            self.motion.reset(position)

    # --- the controller's thread -------------------------------------------------------------------------------------

    def next(self, *, missed: int = 0) -> Command:
        """Return the command of this tick, the first being tick 0, after `missed` ticks without one."""
        self.skip(missed)
        command = self._limit(self._wanted_command())
        setattr(self.counts, command.status, getattr(self.counts, command.status) + 1)
        self.state.tick += 1
        if command.action is None:
            self._missed += 1
            return command
        self._missed, self._sent = 0, command.action
        if command.status != "wait":
            self.state.last = command.action
        return command

    def _wanted_command(self) -> Command:
        """Return what the chunks and `late` say of this tick, whatever the limits are."""
        state = self.state
        action = None if state.stopped else self.action_at(state.chunks, state.tick)
        if action is not None:
            state.ticks_without_action = 0
            return Command(state.tick, "run", action)
        # Before the first chunk there is nothing to hold: the robot is not commanded at all, but for what ends a motion
        # from before a reset. A velocity would go on for as long as no chunk comes, and a robot at full speed would be
        # stopped dead by its driver.
        if state.last is None:
            still = None if self._sent is None else self.late.hold(self._sent)
            moves = still is not None and self._sent is not None and not np.array_equal(still, self._sent)
            brakes = self.motion is not None and self.motion.must_brake and not self._missed
            return Command(state.tick, "wait", still if moves or brakes else None)
        state.ticks_without_action += 1
        if state.stopped or state.ticks_without_action > self.late.stop_after:
            # A latched stop needs a person (`reset`); otherwise the next chunk goes on from here.
            state.stopped = self.late.latch
            return Command(state.tick, "stop", self.late.stop(state.last))
        return Command(state.tick, "hold", self.late.hold(state.last))

    def _limit(self, command: Command) -> Command:
        """Return the command that the robot may have: within its limits, and standing still after `stop`."""
        wanted = command.action
        if self.is_stopped and self._sent is not None:
            # Also where a reset has left nothing to do: the motion of before has to end.
            command = replace(command, status="stop", action=self.late.stop(self._sent), reasons=("stopped",))
        elif self.is_stopped and wanted is not None:
            return replace(command, status="stop", action=None, reasons=("stopped",), wanted=wanted)
        if command.action is None:
            return command
        if self.motion is not None:
            can_stay = self.motion.knows_place
            filtered = self.motion.apply(command.action, missed=self._missed)
            if self.motion.is_stopped and not can_stay:  # nothing has moved it yet, and no command says "stay there"
                self.counts.limited += 1
                return replace(command, status="stop", action=None, reasons=filtered.reasons, wanted=wanted)
            status = "stop" if self.motion.is_stopped else command.status
            command = replace(command, status=status, action=filtered.action, reasons=filtered.reasons)
        self.counts.limited += bool(command.reasons)
        return replace(command, wanted=wanted)

    def skip(self, ticks: int) -> None:
        """Count ticks that passed without a command; a stall of the control loop ends the chunks from before it."""
        state = self.state
        state.tick += ticks
        state.ticks_without_action += ticks
        self.counts.missed += ticks
        self._missed += ticks
        if ticks >= self.late.stall_after and (state.chunks or state.pending is not None):
            state.chunks, state.pending, state.valid_from = (), None, state.tick
            self.counts.stalls += 1

    def action_at(self, chunks: tuple[TimedChunk, ...], tick: int) -> Float[np.ndarray, " ad"] | None:
        """Return the newest chunk's action for this tick, if it has one."""
        return chunks[-1].at(tick) if chunks else None

    # --- the policy's thread -----------------------------------------------------------------------------------------

    def request(self) -> ChunkRequest | None:
        """Return what is wanted now, if anything: take the observation, then have this answered."""
        state = self.state
        tick, chunks, pending = state.tick, state.chunks, state.pending
        if state.stopped or not self.is_due(chunks, tick):
            return None
        if pending is not None:
            # An answer may have been lost with a connection: after so many ticks ask again.
            if tick - pending.tick < self.patience:
                return None
            self.counts.lost += 1
        left = self.leftover(chunks, tick)
        # The model is told that these actions will have been executed when its answer arrives.
        delay = min(self.delays.expected(), len(left))
        state.pending = ChunkRequest(tick=tick, state=state, leftover=left, delay=delay)
        return state.pending

    def is_due(self, chunks: tuple[TimedChunk, ...], tick: int) -> bool:
        """Return whether a new chunk is wanted at this tick."""
        if not chunks:
            return True
        return tick - chunks[-1].observed_at >= self.replan_steps or chunks[-1].end - tick <= self.delays.expected()

    def leftover(self, chunks: tuple[TimedChunk, ...], tick: int) -> Float[np.ndarray, "n ad"]:
        """Return the newest chunk's actions from this tick on, which a new chunk has to continue."""
        if not chunks:
            return np.zeros((0, 0), np.float32)
        return chunks[-1].actions[max(0, tick - chunks[-1].start) :]

    def deliver(self, request: ChunkRequest, actions: np.ndarray) -> bool:
        """Take the chunk [ah ad] for `request`; return False if it comes too late, or after a reset.

        Raises:
            ValueError: not a chunk of finite numbers with as many dims as those before it.
        """
        state = request.state
        dims = len(state.last) if state.last is not None else None if self.motion is None else len(self.motion.low)
        actions = check_chunk(actions, dims)
        chunks, tick = state.chunks, state.tick
        if state.pending is request:
            state.pending = None
        chunk = self.place_chunk(request, actions, tick)
        current = state is self.state
        if current:
            self.delays.add(tick - request.tick)
        # From before a reset or a stall, all in the past, or older than what the robot executes already.
        is_old = chunk.observed_at < state.valid_from or (chunks and chunk.observed_at <= chunks[-1].observed_at)
        if not current or chunk.end <= tick or is_old:
            self.counts.refused += 1
            return False
        self.counts.chunks += 1
        state.chunks = (*self.keep_chunks(chunks, tick), chunk)
        return True

    def place_chunk(self, request: ChunkRequest, actions: np.ndarray, tick: int) -> TimedChunk:
        """Return the chunk with the tick of its first action, which is that of its observation."""
        return TimedChunk(start=request.tick, observed_at=request.tick, actions=actions)

    def keep_chunks(self, chunks: tuple[TimedChunk, ...], tick: int) -> tuple[TimedChunk, ...]:
        """Return the chunks that are still of use beside a new one."""
        return ()

    def count_executed(self) -> int | None:
        """Count the newest chunk's actions that are past: executed, or skipped because it came late."""
        state = self.state
        chunks, tick = state.chunks, state.tick
        return min(tick - chunks[-1].start, len(chunks[-1].actions)) if chunks else None

    def give_up(self, request: ChunkRequest) -> None:
        """Forget a request that the policy could not answer, so that it is made again."""
        if request.state.pending is request:
            request.state.pending = None
            self.counts.lost += 1


def check_chunk(actions: np.ndarray, dims: int | None) -> Float[np.ndarray, "ah ad"]:
    """Return a copy of a chunk that cannot be changed; it must be finite, with `dims` dims where they are known."""
    with np.errstate(over="ignore"):  # what float32 cannot hold is infinite, and refused
        actions = np.array(actions, np.float32)
    if actions.ndim != 2 or not actions.size or not np.isfinite(actions).all():
        raise ValueError(f"a chunk is finite numbers [ah ad], got {list(actions.shape)}: {actions.ravel()[:8]}…")
    if dims is not None and actions.shape[1] != dims:
        raise ValueError(f"this chunk has {actions.shape[1]} dims, the robot has been commanded with {dims}")
    # Two threads read it without a lock, so nobody may change it.
    actions.setflags(write=False)
    return actions


class OpenLoop(Executor):
    """Executes the first `replan_steps` of a chunk, then holds until there is another: what most evaluations do.

    The robot stands still while the policy thinks, so a chunk starts when it arrives, and `delay` means nothing.
    """

    joins_chunks = False

    def is_due(self, chunks: tuple[TimedChunk, ...], tick: int) -> bool:
        return not chunks or tick >= chunks[-1].end

    def place_chunk(self, request: ChunkRequest, actions: np.ndarray, tick: int) -> TimedChunk:
        return TimedChunk(start=tick, observed_at=request.tick, actions=actions[: self.replan_steps])


class TemporalEnsemble(Executor):
    """Executes the mean of all chunks' actions for a tick, weighted `exp(−decay · i)` from the oldest (`i` = 0) on.

    Dims are averaged one by one, which suits neither angles that wrap nor chunks that choose different ways. The chunks
    know nothing of each other.
    """

    joins_chunks = False

    def __init__(
        self,
        *,
        replan_steps: int = 1,
        decay: float = 0.01,
        late: LateBehavior | None = None,
        delays: Delays | None = None,
        patience: int = 50,
        motion: MotionFilter | None = None,
    ) -> None:
        super().__init__(replan_steps=replan_steps, late=late, delays=delays, patience=patience, motion=motion)
        self.decay = decay

    def action_at(self, chunks: tuple[TimedChunk, ...], tick: int) -> Float[np.ndarray, " ad"] | None:
        actions = [action for chunk in chunks if (action := chunk.at(tick)) is not None]
        if not actions:
            return None
        weights = np.exp(-self.decay * np.arange(len(actions)))
        return (weights @ np.stack(actions) / weights.sum()).astype(np.float32)

    def keep_chunks(self, chunks: tuple[TimedChunk, ...], tick: int) -> tuple[TimedChunk, ...]:
        return tuple(chunk for chunk in chunks if chunk.end > tick)


@dataclass(kw_only=True)
class Pace:
    """The clock of a controller: `wait` returns at each tick, with the number of ticks missed since the last.

    Ticks keep their times, so that being late once does not make every later one late.
    """

    hz: float
    clock: Callable[[], float] = time.perf_counter
    sleep: Callable[[float], None] = time.sleep
    due: float | None = field(default=None, init=False)

    def wait(self) -> int:
        """Sleep until the next tick; return how many ticks were missed before it."""
        period, now = 1 / self.hz, self.clock()
        if self.due is None:
            self.due = now
        missed = max(0, int((now - self.due) / period))
        self.due += missed * period
        if self.due > now:
            self.sleep(self.due - now)
        self.due += period
        return missed
