"""Each suspicion is found in a set that was made to have it, and none in a sound one."""

from dataclasses import dataclass, field

import numpy as np
import pytest

from pilot.data.formats.episodes import EpisodeDataset, Steps
from pilot.data.tools.quality_checks import CHECKS, QualityIssue, find_quality_issues

NAMES = ("x", "y", "gripper")
FPS, LENGTH, LEAD = 10.0, 60, 1


@dataclass(kw_only=True)
class Made:
    """Episodes of a robot that follows its commands one frame later, to be spoilt."""

    states: list[np.ndarray] = field(default_factory=list)
    actions: list[np.ndarray] = field(default_factory=list)
    tasks: list[str] = field(default_factory=list)


class InMemory(EpisodeDataset):
    """A set without files."""

    def __init__(self, made: Made, *, action_horizon: int = 10) -> None:
        super().__init__("made", action_horizon)
        self.fps, self.cameras = FPS, ()
        self.tasks = sorted(set(made.tasks))

        def load(number: int) -> tuple[int, str, Steps]:
            state, actions = made.states[number].astype(np.float32), made.actions[number].astype(np.float32)
            task = np.full(len(state), self.tasks.index(made.tasks[number]))
            return number, "made", Steps(state=state, actions=actions, task=task)

        self._load(list(range(len(made.states))), load)


def sound(*, episodes: int = 6, relative: bool = False) -> Made:
    """Smooth motions between random places, a gripper that closes and opens, short pauses."""
    made = Made()
    for number in range(episodes):
        rng = np.random.default_rng(number)
        places = np.cumsum(rng.normal(size=(7, 2)), axis=0)
        along = np.linspace(0, 6, LENGTH + LEAD)
        target = np.stack([np.interp(along, range(7), places[:, d]) for d in (0, 1)], axis=1)
        target += np.sin(along * rng.uniform(0.8, 1.2))[:, None] * 0.3 + rng.normal(size=target.shape) * 0.01
        gripper = ((along > 2) & (along < 4)).astype(float)
        path = np.concatenate([target, gripper[:, None]], axis=1)
        actions = path[LEAD:].copy()
        if relative:
            actions[:, :2] -= path[:-LEAD, :2]
        made.states.append(path[:-LEAD])
        made.actions.append(actions)
        made.tasks.append(f"task {number % 2}")
    return made


def found(made: Made, *, action_horizon: int = 10, **options) -> list[QualityIssue]:
    dataset = InMemory(made, action_horizon=action_horizon)
    names = {"state_names": NAMES, "action_names": NAMES} | options
    return find_quality_issues(dataset, **names)


def only(made: Made, check: str, **options) -> QualityIssue:
    """The one suspicion about `made`, of the kind that was made."""
    issues = found(made, **options)
    assert [s.check for s in issues] == [check], issues
    assert check in CHECKS and issues[0].remedy
    return issues[0]


@pytest.mark.parametrize("relative", [False, True])
def test_a_sound_set_has_none(relative):
    times = np.tile(np.arange(LENGTH) / FPS, 6)
    assert found(sound(relative=relative), control_hz=FPS, timestamps=times) == []


def test_constant_dims():
    made = sound()
    for state in made.states:
        state[:, 1] = 0.25
    assert only(made, "constant dims").what == "state 'y' is 0.25 in all 360 frames"


def test_jumps():
    made = sound()
    made.states[3][20:, 0] += 40
    issue = only(made, "jumps")
    assert "state 'x' leaps from" in issue.what and "episode 3, frame 20" in issue.what
    assert issue.episodes == (3,)


def test_an_angle_that_wraps_is_told_from_a_glitch():
    made = sound()
    for values in (*made.states, *made.actions):
        values[:, 1] *= 0.01
    turned = (np.cumsum(np.full(LENGTH, 0.1)) + 1) % (2 * np.pi)
    made.states[0][:, 0] = turned
    for state in made.states[1:]:
        state[:, 0] = np.linspace(0, 2, LENGTH)
    jumps = [s for s in found(made) if s.check == "jumps"]
    assert len(jumps) == 1 and "wraps at a full turn" in jumps[0].remedy


def test_clipped_values():
    made = sound(relative=True)
    limit = float(np.quantile(np.concatenate(made.actions)[:, 0], 0.8))
    for actions in made.actions:
        actions[:, 0] = np.minimum(actions[:, 0], limit)
    issue = only(made, "clipped values")
    assert f"action 'x' is exactly {limit:.4g}, its highest value, in 20% of frames" in issue.what


@pytest.mark.parametrize(
    ("times", "message"),
    [
        (np.arange(LENGTH) / 15, "timestamps run at 15 frames per second, the set says 10"),
        (np.zeros(LENGTH), "timestamps run at no rate at all"),
        (np.delete(np.arange(LENGTH + 3), [30, 31, 32]) / FPS, "6 gaps in the timestamps, the first of 4.0 frames"),
    ],
    ids=["rate", "none", "gap"],
)
def test_wrong_fps(times, message):
    assert message in only(sound(), "frame rate", timestamps=np.tile(times, 6)).what


def test_another_rate_than_the_robots():
    issue = only(sound(), "frame rate", control_hz=50.0)
    assert issue.what == "recorded at 10 frames per second, but the robot is controlled at 50 Hz"


def test_duplicated_episodes():
    made = sound()
    made.states.append(made.states[2].copy())
    made.actions.append(made.actions[2].copy())
    made.tasks.append("another name")
    issue = only(made, "duplicated episodes")
    assert issue.what == "1 episode is a copy of another: 2 = 6" and issue.episodes == (6,)


@pytest.mark.parametrize("relative", [False, True])
@pytest.mark.parametrize(("late", "message"), [(1, "seen in the same frame"), (3, "seen 2 frames earlier")])
def test_actions_that_lag_state(relative, late, message):
    made = sound(relative=relative)
    made.states = [state[late:] for state in made.states]
    made.actions = [actions[:-late] for actions in made.actions]
    issue = only(made, "actions lag state")
    assert message in issue.what and f"shift actions by {late} frame" in issue.remedy


def test_dims_that_have_nothing_to_do_with_each_other_say_nothing():
    made = sound()
    rng = np.random.default_rng(0)
    made.actions = [rng.normal(size=actions.shape) for actions in made.actions]
    assert "actions lag state" not in [s.check for s in found(made)]
    assert "actions lag state" not in [s.check for s in found(sound(), state_names=("a", "b", "c"), action_names=NAMES)]


def test_idle_episodes():
    made = sound()
    for values in (made.states, made.actions):
        values[4] = np.concatenate([values[4][:20], np.repeat(values[4][20:21], 60, axis=0)])
    issue = only(made, "idle episodes")
    assert "in 1 of 6 episodes: 4" in issue.what


def test_short_episodes():
    made = sound()
    made.states[1], made.actions[1] = made.states[1][:5], made.actions[1][:5]
    assert "1 of 6 episodes are shorter than a chunk of 10 actions: 1" in only(made, "short episodes").what


def test_missing_words():
    made = sound()
    made.tasks[2] = " "
    assert "1 of 6 episodes have no instruction: 2" in only(made, "no words").what
