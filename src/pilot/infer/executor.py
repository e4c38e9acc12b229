"""The robot's side of acting: one command at every control tick, from chunks that arrive when they arrive.

Time is counted in control ticks. A chunk belongs to the tick at which its observation was taken: its action `i` is
meant for tick `observation + i`, and is sent at that tick or never. So a chunk that took `d` ticks to arrive goes on at
its action `d`, whatever the delay was, and nothing stale can be sent: there is no queue whose head could be too old.

Two threads meet here. The controller calls `next` at each tick; it takes no lock and waits for nothing. The other asks
with `request` what is wanted, has it answered by a policy, and hands it in with `deliver`. The chunks that they share
are replaced whole, never changed. No clock is read: the same calls give the same commands.

Sources: real-time chunking (arXiv 2506.07339) algorithm 1; temporal ensemble: ACT (2304.13705) section IV. Numpy only.

Axes: `ah` action horizon, `n` actions that are left, `ad` the robot's action dims, in its own units.
"""

import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from jaxtyping import Float

Status = Literal["wait", "run", "hold", "stop"]
"""`wait`: no chunk has come yet. `run`: an action of a chunk. `hold`: the policy is late. `stop`: it is gone."""


@dataclass(frozen=True)
class Command:
    """What the robot is to do at one tick. No action: nothing has ever been commanded, leave the robot as it is."""

    tick: int
    status: Status
    action: Float[np.ndarray, " ad"] | None


@dataclass(frozen=True, kw_only=True)
class Request:
    """A chunk that is wanted, for an observation taken now.

    `leftover` is what the robot will do from now on if nothing new comes, of which it does the first `delay` while it
    waits, as far as the past tells: what real-time chunking goes on from (`infer/rtc.py`).
    """

    tick: int
    episode: "Episode"
    leftover: Float[np.ndarray, "n ad"]
    delay: int


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """Actions for the ticks `start`, `start + 1`, …; made from an observation at tick `seen`."""

    start: int
    seen: int
    actions: Float[np.ndarray, "ah ad"]

    @property
    def end(self) -> int:
        return self.start + len(self.actions)

    def at(self, tick: int) -> Float[np.ndarray, " ad"] | None:
        return self.actions[tick - self.start] if self.start <= tick < self.end else None


def repeat(last: Float[np.ndarray, " ad"]) -> Float[np.ndarray, " ad"]:
    """The last command again: stands still where commands are absolute."""
    return last


def zero(*dims: int) -> Callable[[np.ndarray], np.ndarray]:
    """The last command with these dims at zero: stands still where they are steps or velocities."""

    def still(last: np.ndarray) -> np.ndarray:
        action = last.copy()
        action[list(dims)] = 0
        return action

    return still


@dataclass(frozen=True, kw_only=True)
class Late:
    """What is sent when the policy is late: for `stop_after` ticks what `hold` makes of the last command, then `stop`.

    A stop lasts until `Executor.reset`, or with `latch=False` until a chunk arrives.
    """

    hold: Callable[[np.ndarray], np.ndarray] = repeat
    stop: Callable[[np.ndarray], np.ndarray] = repeat
    stop_after: int = 50
    latch: bool = True


class Delays:
    """How many ticks a chunk takes: a percentile of the last `window` of them, `first` before there is one."""

    def __init__(self, *, window: int = 20, percentile: float = 95.0, first: int = 1) -> None:
        if window < 1 or not 0 <= percentile <= 100 or first < 0:
            raise ValueError(
                f"delays need a window of 1 or more, a percentile of 0 to 100 and a first of 0 or more; got {window}, "
                f"{percentile} and {first}"
            )
        self.percentile, self.first = percentile, first
        self.seen: deque[int] = deque(maxlen=window)

    def add(self, ticks: int) -> None:
        self.seen.append(ticks)

    def expected(self) -> int:
        """Never between two delays that were seen: the upper one."""
        if not self.seen:
            return self.first
        ordered = sorted(self.seen)
        return ordered[math.ceil(self.percentile / 100 * (len(ordered) - 1))]


@dataclass(kw_only=True)
class Counts:
    """What an executor has seen: commands by status, ticks that passed without one, chunks taken and refused."""

    run: int = 0
    hold: int = 0
    stop: int = 0
    wait: int = 0
    missed: int = 0
    chunks: int = 0
    refused: int = 0
    lost: int = 0


@dataclass(eq=False)
class Episode:
    """All that a reset forgets; the answer to a request of before goes to an episode that nobody looks at.

    `tick` is the next one, `last` the last action of a chunk, `without` the ticks since, `asked` what is on its way.
    """

    tick: int = 0
    chunks: tuple[Chunk, ...] = ()
    last: np.ndarray | None = None
    without: int = 0
    stopped: bool = False
    asked: Request | None = None


class Executor:
    """Real-time chunking's controller: goes on with the old chunk until the new one is there, then with that.

    A new chunk is wanted when `replan_steps` ticks have passed since the observation of the current one, or earlier if
    it would end before an answer can be expected. A request unanswered for `patience` ticks is given up and made anew;
    what still comes for it is taken if it is newer than what there is.
    """

    joins = True  # the next chunk should be told what is left of this one

    def __init__(
        self, *, replan_steps: int, late: Late | None = None, delays: Delays | None = None, patience: int = 50
    ) -> None:
        if replan_steps < 1 or patience < 1:
            raise ValueError(
                f"replan_steps and patience are ticks, 1 or more; got replan_steps={replan_steps}, patience={patience}"
            )
        self.replan_steps, self.patience = replan_steps, patience
        self.late, self.delays = late or Late(), delays or Delays()
        self.counts = Counts()
        self.episode = Episode()

    def reset(self) -> None:
        """Start anew: tick 0, no chunk, no last command, and what is on its way belongs to the past."""
        self.episode = Episode()

    # --- the controller's thread -------------------------------------------------------------------------------------

    def next(self, *, missed: int = 0) -> Command:
        """The command of this tick, the first being tick 0; `missed` ticks have passed since the last without one."""
        self.skip(missed)
        episode, counts = self.episode, self.counts
        tick = episode.tick
        action = None if episode.stopped else self.action(episode.chunks, tick)
        episode.tick = tick + 1
        if action is not None:
            episode.last, episode.without = action, 0
            counts.run += 1
            return Command(tick, "run", action)
        if episode.last is None:
            counts.wait += 1
            return Command(tick, "wait", None)
        episode.without += 1
        if episode.stopped or episode.without > self.late.stop_after:
            episode.stopped = self.late.latch
            counts.stop += 1
            return Command(tick, "stop", self.late.stop(episode.last))
        counts.hold += 1
        return Command(tick, "hold", self.late.hold(episode.last))

    def skip(self, ticks: int) -> None:
        """So many ticks have passed without a command: what is asked for from now on is for after them."""
        self.episode.tick += ticks
        self.episode.without += ticks
        self.counts.missed += ticks

    def action(self, chunks: tuple[Chunk, ...], tick: int) -> Float[np.ndarray, " ad"] | None:
        """What the newest chunk means for this tick."""
        return chunks[-1].at(tick) if chunks else None

    # --- the policy's thread -----------------------------------------------------------------------------------------

    def request(self) -> Request | None:
        """What is wanted now, if anything: take the observation, then have this answered."""
        episode = self.episode
        tick, chunks, asked = episode.tick, episode.chunks, episode.asked
        if episode.stopped or not self.due(chunks, tick):
            return None
        if asked is not None:
            if tick - asked.tick < self.patience:
                return None
            self.counts.lost += 1
        left = self.leftover(chunks, tick)
        delay = min(self.delays.expected(), len(left))
        episode.asked = Request(tick=tick, episode=episode, leftover=left, delay=delay)
        return episode.asked

    def due(self, chunks: tuple[Chunk, ...], tick: int) -> bool:
        if not chunks:
            return True
        return tick - chunks[-1].seen >= self.replan_steps or chunks[-1].end - tick <= self.delays.expected()

    def leftover(self, chunks: tuple[Chunk, ...], tick: int) -> Float[np.ndarray, "n ad"]:
        if not chunks:
            return np.zeros((0, 0), np.float32)
        return chunks[-1].actions[max(0, tick - chunks[-1].start) :]

    def deliver(self, request: Request, actions: np.ndarray) -> bool:
        """Hand in the chunk [ah ad] for `request`; False if it is of no use: too late, or of before a reset.

        Raises:
            ValueError: not a chunk of finite numbers with as many dims as those before it.
        """
        episode, actions = request.episode, checked(actions, request.episode.last)
        chunks, tick = episode.chunks, episode.tick
        if episode.asked is request:
            episode.asked = None
        chunk = self.placed(request, actions, tick)
        current = episode is self.episode
        if current:
            self.delays.add(tick - request.tick)
        if not current or chunk.end <= tick or (chunks and chunk.seen <= chunks[-1].seen):
            self.counts.refused += 1
            return False
        self.counts.chunks += 1
        episode.chunks = (*self.kept(chunks, tick), chunk)
        return True

    def placed(self, request: Request, actions: np.ndarray, tick: int) -> Chunk:
        return Chunk(start=request.tick, seen=request.tick, actions=actions)

    def kept(self, chunks: tuple[Chunk, ...], tick: int) -> tuple[Chunk, ...]:
        """Which chunks are of use beside a new one."""
        return ()

    def executed(self) -> int | None:
        """How many actions of the newest chunk belong to the past: done, or skipped because it came late."""
        episode = self.episode
        chunks, tick = episode.chunks, episode.tick
        return min(tick - chunks[-1].start, len(chunks[-1].actions)) if chunks else None

    def give_up(self, request: Request) -> None:
        """The policy could not answer: ask again."""
        if request.episode.asked is request:
            request.episode.asked = None
            self.counts.lost += 1


def checked(actions: np.ndarray, last: np.ndarray | None) -> Float[np.ndarray, "ah ad"]:
    """A copy of a chunk that nobody else can change, if it is one and fits what the robot did last."""
    actions = np.array(actions, np.float32)
    if actions.ndim != 2 or not actions.size or not np.isfinite(actions).all():
        raise ValueError(f"a chunk is finite numbers [ah ad], got {list(actions.shape)}: {actions.ravel()[:8]}…")
    if last is not None and actions.shape[1] != len(last):
        raise ValueError(f"this chunk has {actions.shape[1]} dims, the robot has been commanded with {len(last)}")
    actions.setflags(write=False)
    return actions


class OpenLoop(Executor):
    """The first `replan_steps` of a chunk, then hold until there is another: what most evaluations do.

    The robot stands while the policy thinks, so a chunk starts when it arrives, and `delay` means nothing.
    """

    joins = False

    def due(self, chunks: tuple[Chunk, ...], tick: int) -> bool:
        return not chunks or tick >= chunks[-1].end

    def placed(self, request: Request, actions: np.ndarray, tick: int) -> Chunk:
        return Chunk(start=tick, seen=request.tick, actions=actions[: self.replan_steps])


class TemporalEnsemble(Executor):
    """The mean of what all chunks mean for a tick, weighted `exp(−decay · i)` from the oldest (`i` = 0) on.

    Averages dims one by one: not for angles that wrap, or for modes that differ. The chunks know nothing of each other.
    """

    joins = False

    def __init__(
        self,
        *,
        replan_steps: int = 1,
        decay: float = 0.01,
        late: Late | None = None,
        delays: Delays | None = None,
        patience: int = 50,
    ) -> None:
        super().__init__(replan_steps=replan_steps, late=late, delays=delays, patience=patience)
        self.decay = decay

    def action(self, chunks: tuple[Chunk, ...], tick: int) -> Float[np.ndarray, " ad"] | None:
        meant = [action for chunk in chunks if (action := chunk.at(tick)) is not None]
        if not meant:
            return None
        weights = np.exp(-self.decay * np.arange(len(meant)))
        return (weights @ np.stack(meant) / weights.sum()).astype(np.float32)

    def kept(self, chunks: tuple[Chunk, ...], tick: int) -> tuple[Chunk, ...]:
        return tuple(chunk for chunk in chunks if chunk.end > tick)


@dataclass(kw_only=True)
class Pace:
    """The beat of a controller: `wait` returns at each tick and says how many were missed since the last.

    Ticks keep their times, so that being late once does not make every later one late.
    """

    hz: float
    clock: Callable[[], float] = time.perf_counter
    sleep: Callable[[float], None] = time.sleep
    due: float | None = field(default=None, init=False)

    def wait(self) -> int:
        period, now = 1 / self.hz, self.clock()
        if self.due is None:
            self.due = now
        missed = max(0, int((now - self.due) / period))
        self.due += missed * period
        if self.due > now:
            self.sleep(self.due - now)
        self.due += period
        return missed


def answer(
    executor: Executor,
    infer: Callable[[Request], np.ndarray],
    *,
    stopped: Callable[[], bool],
    idle: Callable[[], None],
    failed: Callable[[Exception], None],
) -> None:
    """The policy's thread: has what the executor wants answered by `infer`, one request after the other.

    `infer` takes the observation and asks the policy; what it raises is handed to `failed` and asked for again. `idle`
    is called when nothing is wanted, a good place to sleep for a part of a tick, and after a failure.
    """
    while not stopped():
        request = executor.request()
        if request is None:
            idle()
            continue
        try:
            executor.deliver(request, infer(request))
        except Exception as error:
            executor.give_up(request)
            failed(error)
            idle()
