"""What looks wrong in a set of demonstrations, found in its columns: each finding says where, and what to do about it.

An issue is a suspicion, not a proof. The thresholds are set so that sound recordings of the robots in `pilot.robots`
have none.

Axes: `n` rows of the set, `d` dims of a vector, `t` steps of an episode.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from pilot.data.formats.episodes import Episode, EpisodeDataset
from pilot.names import shorten

FLAT = 1e-6  # a range below it, as a share of the value, is none
FEW_VALUES = 8  # a dim with no more different values is a switch
JUMP_STEPS, JUMP_RANGE = 8.0, 0.3  # a jump is that many times a usual step, and that share of the dim's range
CLIPPED_SHARE, CLIPPED_RATIO = 0.02, 1.0  # of moving rows, exactly at one end; against those within 5 % of it
MIN_RUNS = 3
IDLE_SHARE = 0.5
MAX_LAG, LAG_CORRELATION, LAG_MARGIN, LAG_EPISODES = 10, 0.5, 0.05, 300
TRACKS = 0.9  # correlation of a command of a place with that place
TWO_PI = 2 * np.pi
SHOWN = 5  # places that a finding names


@dataclass(frozen=True, kw_only=True)
class QualityIssue:
    """`check`: the look that found it. `what` is wrong, `remedy`: what to do. `episodes`: where; none: everywhere."""

    check: str
    what: str
    remedy: str
    episodes: tuple[int, ...] = ()


CHECKS = {
    "constant dims": "every dim of state and action moves",
    "jumps": "no value leaps from one frame to the next",
    "clipped values": "no dim sticks to the end of its range while the robot moves",
    "frame rate": "timestamps, declared rate and the robot's control rate agree",
    "duplicated episodes": "no two episodes are the same",
    "actions lag state": "an action comes before the motion that it causes",
    "idle episodes": "the robot moves most of the time",
    "short episodes": "an episode is at least as long as a chunk",
    "no words": "every episode has an instruction",
}
"""Each look by name, and what it finds in a sound set."""


def find_quality_issues(
    dataset: EpisodeDataset,
    *,
    state_names: Sequence[str],
    action_names: Sequence[str],
    control_hz: float | None = None,
    timestamps: Float[np.ndarray, " n"] | None = None,
) -> list[QualityIssue]:
    """Find all issues, in the order of `CHECKS`. `timestamps`: of every row, in seconds of its episode, if known.

    Episodes are named by their numbers in the set.
    """
    vectors = {"state": (dataset.state, state_names), "action": (dataset.actions, action_names)}
    found = [s for kind, (values, names) in vectors.items() for s in constant_dims(kind, values, names)]
    places = [j for i, j in _pairs(state_names, action_names) if _tracks(dataset.state[:, i], dataset.actions[:, j])]
    found += jumps("state", dataset.state, names=state_names, dims=range(len(state_names)), dataset=dataset)
    found += jumps("action", dataset.actions, names=action_names, dims=places, dataset=dataset)
    for kind, (values, names) in vectors.items():
        found += clipped_values(kind, values, names=names, dataset=dataset)
    found += frame_rate(dataset, control_hz=control_hz, timestamps=timestamps)
    found += duplicated_episodes(dataset)
    found += lagging_actions(dataset, state_names=state_names, action_names=action_names)
    return found + idle_episodes(dataset) + short_episodes(dataset) + missing_words(dataset)


def constant_dims(kind: str, values: Float[np.ndarray, "n d"], names: Sequence[str]) -> list[QualityIssue]:
    """Find dims that never change."""
    low, high = values.min(0), values.max(0)
    flat = high - low < FLAT * np.maximum(1.0, np.abs(high))
    return [
        QualityIssue(
            check="constant dims",
            what=f"{kind} '{names[i]}' is {low[i]:.4g} in all {len(values):,} frames",
            remedy="a sensor or a joint that was not connected? If it is meant so, leave it: it gets a range of 1",
        )
        for i in np.flatnonzero(flat).tolist()
    ]


def jumps(
    kind: str, values: Float[np.ndarray, "n d"], *, names: Sequence[str], dims: Sequence[int], dataset: EpisodeDataset
) -> list[QualityIssue]:
    """Find steps between frames of one episode that are far longer than usual and cross much of the dim's range.

    `dims` are those that are places: a command of speed may leap.
    """
    inside = _inside_episodes(dataset)
    steps = np.diff(values, axis=0)[inside]
    rows = np.flatnonzero(inside) + 1
    found = []
    switches = _switches(values)
    for i in (dim for dim in dims if not switches[dim]):
        sizes = np.abs(steps[:, i])
        moving = sizes[sizes > FLAT * np.ptp(values[:, i])]
        if not moving.size:
            continue
        limit = max(JUMP_STEPS * float(np.quantile(moving, 0.9)), JUMP_RANGE * float(np.ptp(values[:, i])))
        if not (places := rows[sizes > limit]).size:
            continue
        first = int(places[0])
        turn = abs(abs(float(values[first, i] - values[first - 1, i])) - TWO_PI) < 0.05 * TWO_PI
        found.append(
            QualityIssue(
                check="jumps",
                what=f"{kind} '{names[i]}' leaps {_times(len(places))}from {values[first - 1, i]:.4g} to "
                f"{values[first, i]:.4g} at {_at(dataset, first)}",
                remedy="an angle that wraps at a full turn: unwrap it before recording"
                if turn
                else "dropped frames, a glitch of the sensor, or two recordings joined into one; cut the episode there",
                episodes=_episodes(dataset, places),
            )
        )
    return found


def clipped_values(
    kind: str, values: Float[np.ndarray, "n d"], *, names: Sequence[str], dataset: EpisodeDataset
) -> list[QualityIssue]:
    """Find dims with many moving rows at exactly one end of the range and few close to it: what lay beyond was cut
    off."""
    moved = np.concatenate([[False], (np.diff(values, axis=0) != 0).any(1) & _inside_episodes(dataset)])
    found = []
    for i in np.flatnonzero(~_switches(values) & ~_grippers(values)).tolist():
        dim = values[:, i]
        low, high = float(dim.min()), float(dim.max())
        for end, word in ((low, "lowest"), (high, "highest")):
            at = moved & (dim == end)
            near = moved & (np.abs(dim - end) < 0.05 * (high - low)) & ~at
            if at.sum() < max(CLIPPED_SHARE * moved.sum(), CLIPPED_RATIO * near.sum()) or len(_runs(at)) < MIN_RUNS:
                continue
            found.append(
                QualityIssue(
                    check="clipped values",
                    what=f"{kind} '{names[i]}' is exactly {end:.4g}, its {word} value, "
                    f"in {(dim == end).mean():.0%} of frames",
                    remedy="commands beyond a limit were cut off, so their size is lost; record what was commanded, or "
                    "raise the limit",
                    episodes=_episodes(dataset, np.flatnonzero(at)),
                )
            )
    return found


def frame_rate(
    dataset: EpisodeDataset, *, control_hz: float | None, timestamps: Float[np.ndarray, " n"] | None
) -> list[QualityIssue]:
    """Compare the set's frame rate with the robot's control rate and with the recorded timestamps."""
    found, fps = [], float(dataset.fps)
    if control_hz is not None and abs(control_hz / fps - 1) > 0.02:
        found.append(
            QualityIssue(
                check="frame rate",
                what=f"recorded at {fps:g} frames per second, but the robot is controlled at {control_hz:g} Hz",
                remedy="a policy learned from it moves the robot at another speed: resample, or serve at this rate",
            )
        )
    if timestamps is None:
        return found
    gaps = np.diff(timestamps)[_inside_episodes(dataset)]
    if not gaps.size:
        return found
    usual = float(np.median(gaps))
    if usual <= 0 or abs(usual * fps - 1) > 0.02:
        rate = f"{1 / usual:.3g} frames per second" if usual > 0 else "no rate at all"
        return [
            *found,
            QualityIssue(
                check="frame rate",
                what=f"timestamps run at {rate}, the set says {fps:g}",
                remedy="correct fps in meta/info.json: chunks would last another time than was recorded",
            ),
        ]
    off = np.abs(gaps * fps - 1) > 0.5
    if off.any():
        rows = np.flatnonzero(_inside_episodes(dataset))[off] + 1
        first = int(rows[0])
        found.append(
            QualityIssue(
                check="frame rate",
                what=f"{len(rows)} gap{'s' if len(rows) > 1 else ''} in the timestamps, the first of "
                f"{float(timestamps[first] - timestamps[first - 1]) * fps:.1f} frames at {_at(dataset, first)}",
                remedy="frames were dropped while recording; cut the episode there or leave it out",
                episodes=_episodes(dataset, rows),
            )
        )
    return found


def duplicated_episodes(dataset: EpisodeDataset) -> list[QualityIssue]:
    """Find episodes with equal states and actions, to the bit: copied twice, or one recording under two names."""
    seen: dict[str, list[int]] = {}
    for episode in dataset.episodes:
        rows = slice(episode.start, episode.stop)
        content = (
            np.ascontiguousarray(dataset.state[rows]).tobytes() + np.ascontiguousarray(dataset.actions[rows]).tobytes()
        )
        seen.setdefault(hashlib.sha256(content).hexdigest(), []).append(episode.index)
    groups = [group for group in seen.values() if len(group) > 1]
    if not groups:
        return []
    named = "; ".join(" = ".join(map(str, group)) for group in groups[:SHOWN])
    copies = sum(len(group) - 1 for group in groups)
    return [
        QualityIssue(
            check="duplicated episodes",
            what=f"{copies} {'episode is a copy' if copies == 1 else 'episodes are copies'} of another: {named}",
            remedy="leave the copies out: they weigh double, and test data may leak into training",
            episodes=tuple(index for group in groups for index in group[1:]),
        )
    ]


def lagging_actions(
    dataset: EpisodeDataset, *, state_names: Sequence[str], action_names: Sequence[str]
) -> list[QualityIssue]:
    """Find by how many frames the motion of the state follows the action, from their correlation over shifts.

    Positions commanded and positions moved by are both understood: what correlates best decides. A sound recording has
    the motion one frame later or more; with the same frame or earlier, the action was written down after the fact.
    """
    lags = [lag for i, j in _pairs(state_names, action_names) if (lag := _lag(dataset, i, j)) is not None]
    if not lags or (lag := int(np.median(lags))) >= 1:
        return []
    where = "in the same frame" if lag == 0 else f"{-lag} frame{'s' if lag < -1 else ''} earlier"
    return [
        QualityIssue(
            check="actions lag state",
            what=f"the motion that an action should cause is seen {where} ({len(lags)} dims agree)",
            remedy="the action of a frame tells what has happened: a policy learns to stand still; shift actions by "
            f"{1 - lag} frame{'s' if lag < 0 else ''}, or record the command before it is executed",
        )
    ]


def idle_episodes(dataset: EpisodeDataset) -> list[QualityIssue]:
    """Find episodes in which neither state nor action changes most of the time."""
    still = ~(np.abs(np.diff(dataset.state, axis=0)) > FLAT * np.maximum(np.ptp(dataset.state, axis=0), FLAT)).any(1)
    still &= ~(np.diff(dataset.actions, axis=0) != 0).any(1)
    idle = [e for e in dataset.episodes if e.stop - e.start > 2 and still[e.start : e.stop - 1].mean() > IDLE_SHARE]
    if not idle:
        return []
    return [
        QualityIssue(
            check="idle episodes",
            what=f"the robot stands still most of the time in {len(idle)} of {len(dataset.episodes)} episodes: "
            f"{shorten([e.index for e in idle], limit=SHOWN)}",
            remedy="cut the pauses at begin and end: a policy learns them, and waits for ever",
            episodes=tuple(e.index for e in idle),
        )
    ]


def short_episodes(dataset: EpisodeDataset) -> list[QualityIssue]:
    """Find episodes that are shorter than one chunk of actions."""
    short = [e.index for e in dataset.episodes if e.stop - e.start < dataset.action_horizon]
    if not short:
        return []
    return [
        QualityIssue(
            check="short episodes",
            what=f"{len(short)} of {len(dataset.episodes)} episodes are shorter than a chunk of "
            f"{dataset.action_horizon} actions: {shorten(short, limit=SHOWN)}",
            remedy="they teach no whole chunk; broken off recordings? Leave them out, or take a shorter chunk",
            episodes=tuple(short),
        )
    ]


def missing_words(dataset: EpisodeDataset) -> list[QualityIssue]:
    """Find episodes without an instruction."""
    silent = [e.index for e in dataset.episodes if not e.task.strip()]
    if not silent:
        return []
    return [
        QualityIssue(
            check="no words",
            what=f"{len(silent)} of {len(dataset.episodes)} episodes have no instruction: "
            f"{shorten(silent, limit=SHOWN)}",
            remedy="write one per episode into the set's tasks; a policy without words cannot be told anything",
            episodes=tuple(silent),
        )
    ]


# --- what the looks share ---------------------------------------------------------------------------------------------


def _inside_episodes(dataset: EpisodeDataset) -> Bool[np.ndarray, " m"]:
    """Return for each pair of neighbouring rows whether they are of one episode."""
    return np.diff(dataset.episode_of) == 0


def _switches(values: Float[np.ndarray, "n d"]) -> Bool[np.ndarray, " d"]:
    """Mark dims with few different values: on and off, open and closed."""
    return np.array([len(np.unique(dim)) <= FEW_VALUES for dim in values.T])


def _grippers(values: Float[np.ndarray, "n d"]) -> Bool[np.ndarray, " d"]:
    """Mark dims that are at one of their two ends most of the time."""
    low, high = values.min(0), values.max(0)
    air = 0.02 * (high - low)
    return ((values <= low + air) | (values >= high - air)).mean(0) > 0.5


def _runs(mask: Bool[np.ndarray, " n"]) -> Int[np.ndarray, " r"]:
    """Return where runs of True begin."""
    return np.flatnonzero(np.diff(mask.astype(np.int8), prepend=0) == 1)


def _pairs(state_names: Sequence[str], action_names: Sequence[str]) -> list[tuple[int, int]]:
    """Return pairs of state and action dims that mean the same: by name, else by place if there are as many."""
    by_name = [(state_names.index(name), j) for j, name in enumerate(action_names) if name in state_names]
    if by_name or len(state_names) != len(action_names):
        return by_name
    return [(i, i) for i in range(len(state_names))]


def _tracks(state: Float[np.ndarray, " n"], action: Float[np.ndarray, " n"]) -> bool:
    """Whether an action dim commands the place of a state dim."""
    if np.ptp(state) == 0 or np.ptp(action) == 0:
        return False
    return bool(np.corrcoef(state.astype(np.float64), action.astype(np.float64))[0, 1] > TRACKS)


def _lag(dataset: EpisodeDataset, i: int, j: int) -> int | None:
    """Frames from a change of action dim `j` to the motion of state dim `i`; None where they do not belong together."""
    state, action = dataset.state[:, i].astype(np.float64), dataset.actions[:, j].astype(np.float64)
    motion = np.diff(state, prepend=state[:1])
    begins = np.array([episode.start for episode in dataset.episodes])
    motion[begins] = 0.0
    change = np.diff(action, prepend=action[:1])
    change[begins] = 0.0
    sampled = dataset.episodes[:: -(-len(dataset.episodes) // LAG_EPISODES)]
    best: tuple[float, int, float] | None = None
    for command in (change, action):
        scores = {lag: _correlation(command, motion, lag, sampled) for lag in range(-MAX_LAG, MAX_LAG + 1)}
        peak = max(scores, key=lambda lag: scores[lag])
        if best is None or scores[peak] > best[0]:
            best = (scores[peak], peak, max(scores[lag] for lag in range(1, MAX_LAG + 1)))
    assert best is not None
    score, peak, sound = best
    if score < LAG_CORRELATION:
        return None
    return peak if peak >= 1 or score > sound + LAG_MARGIN else 1


def _correlation(command: np.ndarray, motion: np.ndarray, lag: int, episodes: Sequence[Episode]) -> float:
    """Correlate the command at a frame with the motion `lag` frames later, over all episodes."""
    pairs = [
        (
            command[max(e.start, e.start - lag) : min(e.stop, e.stop - lag)],
            motion[max(e.start, e.start + lag) : min(e.stop, e.stop + lag)],
        )
        for e in episodes
        if e.stop - e.start > abs(lag) + 1
    ]
    if not pairs:
        return 0.0
    a, b = (np.concatenate(side) for side in zip(*pairs, strict=True))
    a, b = a - a.mean(), b - b.mean()
    scale = np.sqrt((a**2).sum() * (b**2).sum())
    return float((a * b).sum() / scale) if scale > 0 else 0.0


def _at(dataset: EpisodeDataset, row: int) -> str:
    episode = dataset.episodes[int(dataset.episode_of[row])]
    return f"episode {episode.index}, frame {row - episode.start}"


def _episodes(dataset: EpisodeDataset, rows: np.ndarray) -> tuple[int, ...]:
    return tuple(dataset.episodes[number].index for number in np.unique(dataset.episode_of[rows]).tolist())


def _times(count: int) -> str:
    return "" if count == 1 else f"{count} times, first "
