"""One demonstration: a scripted expert solves an episode, in any simulator, while things go wrong on purpose.

A policy trained on flawless demonstrations never sees what its own mistakes lead to. So the suite disturbs the episode,
or a policy drives the first steps; the expert, which answers any state, recovers. The recorded action is always the
expert's answer to the recorded state, even where something else was executed: those steps are marked `perturbed`, and
readers end a chunk's supervision there (`EpisodeDataset.action_chunks`).
"""

from dataclasses import dataclass, field

import numpy as np

from pilot.sims.base import DONE, Box, DriveFn, Observation, SimEnv, Suite

REST_STEPS = 4  # after the goal is reached, before the recording ends
DRIVEN_STEPS = 24  # a policy drives at most so many, if nothing else is said
EXPERT_SECONDS = (0.5, 3.0)  # how long the expert drives before the policy's next turn
OUT_OF_TIME, BROKEN = "the expert ran out of time", "the physics broke"


@dataclass(kw_only=True)
class Demonstration:
    """The recorded columns of one episode, one entry per frame."""

    prompt: str = ""
    task: str | None = None  # its name, where the suite has several
    images: dict[str, list[np.ndarray]] = field(default_factory=dict)
    states: list[np.ndarray] = field(default_factory=list)
    actions: list[np.ndarray] = field(default_factory=list)
    boxes: list[np.ndarray] = field(default_factory=list)
    perturbed: list[bool] = field(default_factory=list)
    fresh: list[bool] = field(default_factory=list)  # the pictures were taken at this frame, not held from before
    subtasks: list[tuple[int, str]] = field(default_factory=list)  # (first frame, text), one per change
    events: list[tuple[int, str]] = field(default_factory=list)  # (frame, what a supervisor says)

    def add(
        self, observation: Observation, action: np.ndarray, *, subtask: str | None, box: Box | None, fresh: bool = True
    ) -> None:
        """Record one frame: the observation, the expert's answer, and what the expert is doing."""
        if subtask is not None and (not self.subtasks or self.subtasks[-1][1] != subtask):
            self.subtasks.append((len(self.states), subtask))
        self.prompt = observation["prompt"]
        self.fresh.append(fresh)
        for camera, picture in observation["images"].items():
            self.images.setdefault(camera, []).append(picture)
        self.states.append(np.asarray(observation["state"], np.float32))
        self.actions.append(action)
        self.boxes.append(np.full(4, np.nan, np.float32) if box is None else np.asarray(box, np.float32))


@dataclass(frozen=True)
class Dropped:
    """An episode that belongs in no data set."""

    reason: str  # OUT_OF_TIME or BROKEN


def demonstrate(
    suite: Suite,
    env: SimEnv,
    *,
    scene: int,
    episode: int,
    seed: int,
    verbal: bool = False,
    policy: DriveFn | None = None,
    driven_steps: int = DRIVEN_STEPS,
    takeovers: int = 1,
    picture_every: int = 1,
) -> Demonstration | Dropped:
    """Record one episode of a scene, or say why it is no demonstration.

    `verbal`: a supervisor asks for each next subtask, in an order drawn at random, and says so when something slipped
    and has to be done again.
    `picture_every`: pictures are taken at every so many frames, and held in between; `env` then has a `state()`.
    `policy`: drives the first 4 to `driven_steps` steps from what it observes; the expert finishes (DAgger, 1011.0686).
    `takeovers`: the policy has so many turns, each as long, before the expert finishes.
    """
    rng = np.random.default_rng((seed, scene, episode))
    info = env.reset_to(scene, episode=episode, seed=int(rng.integers(2**31)))[1]
    expert = suite.expert(env, rng, shuffle=verbal)
    disturbance = suite.disturb(env, rng)
    turns = _draw_turns(rng, driven_steps, takeovers, hz=env.robot.control_hz) if policy else []
    record, resting = Demonstration(task=info.get("task")), 0
    observation: Observation = {}
    placed_when: dict[str, int] = {}  # how many goals were reached when a supervisor asked for a subtask
    for step in range(env.max_steps):
        driver = policy if any(step in turn for turn in turns) else None
        if hasattr(driver, "reset") and any(step == turn.start for turn in turns):
            driver.reset()  # type: ignore[union-attr]
        fresh = step % picture_every == 0 or (driver is not None and getattr(driver, "looks", True))
        observation = env.observe() if fresh else {**observation, "state": env.state()}  # type: ignore[attr-defined]
        action = np.asarray(expert.act(), np.float32)
        subtask, box = expert.subtask
        record.add(observation, action, subtask=subtask, box=box, fresh=fresh)
        if verbal and subtask not in (None, DONE) and record.subtasks[-1] == (step, subtask):  # it has just begun
            asked = record.subtasks[-1][1]
            slipped = placed_when.get(asked, -1) == info.get("placed", 0)  # said before, and nothing achieved since
            words = suite.corrections(asked) if slipped else suite.utterances(asked)
            placed_when[asked] = info.get("placed", 0)
            record.events.append((step, str(rng.choice(words))))
        if driver is not None:
            executed, perturbed = np.asarray(driver(observation), np.float32), True
        else:
            executed, perturbed = disturbance.apply(observation["state"], action)
        record.perturbed.append(perturbed)
        info = env.advance(executed)
        if info.get("broken"):
            return Dropped(BROKEN)
        resting = resting + 1 if info["success"] and expert.subtask[0] in (DONE, None) else 0
        if resting > REST_STEPS:
            return record
    return Dropped(OUT_OF_TIME)


def _draw_turns(rng: np.random.Generator, driven_steps: int, takeovers: int, *, hz: float) -> list[range]:
    """Return the steps of each turn of a policy; the first begins at once, the expert drives between them."""
    turns, start = [], 0
    for _ in range(takeovers):
        turns.append(range(start, start + int(rng.integers(4, driven_steps + 1))))
        start = turns[-1].stop + max(1, round(float(rng.uniform(*EXPERT_SECONDS)) * hz))
    return turns
