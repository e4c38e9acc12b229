"""High levels that an evaluation can try without the real thing: they read the simulator, and say so.

| name             | stands for                                                                                   |
|------------------|----------------------------------------------------------------------------------------------|
| `person-1s`      | a person who says the true subtask in words, and notices a change after a second (any number) |
| `vlm-stub`       | a vision-language model: every second a question about the picture, every fifth answer wrong  |
| `saycan`         | SayCan whose affordance is the simulator's: what the hand can do now, whatever the task is    |

Person and stub take the place of the model's own high level: their words are the subtask. Two endings change what is
done with them: `-pointing` (`person-1s-pointing`) also gives the box of what is meant, and with `-prompt` they are a
new instruction below which the model's own high level decides, as `as_prompt` of the real ones.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np

from pilot.data.tools.vlm_endpoint import VlmEndpoint
from pilot.infer.high_level import HighLevel, SayCan, Vlm, make_high_level
from pilot.infer.high_level.base import Advisor, Subtask
from pilot.infer.high_level.external import ExternalHighLevel
from pilot.names import check_name
from pilot.sims.base import Info, Observation, SimEnv, Suite
from pilot.tokenizers.text import box_to_locs
from pilot.types import Sample

WATCHER = re.compile(r"(person-(?P<seconds>\d+(\.\d+)?)s|vlm-stub)(?P<manner>-pointing|-prompt)?")
NAMES = ("model", "none", "implicit", "oracle", "vlm", "person-1s", "vlm-stub", "saycan")
STUB_ACCURACY, STUB_SECONDS = 0.8, 1.0
SAYCAN_BOXES = 2


class WatchedEnv:
    """An environment that remembers what was true at each step of the episode, and shows what is feasible."""

    def __init__(self, env: SimEnv, suite: Suite, *, loc_stride: int) -> None:
        self.env, self.suite, self.robot, self.loc_stride = env, suite, env.robot, loc_stride
        self.infos: list[Info] = []
        self.scene = 0

    @property
    def max_steps(self) -> int:
        """Control steps until the episode is cut off."""
        return self.env.max_steps

    def reset_to(self, scene: int, *, episode: int = 0, seed: int = 0) -> tuple[Observation, Info]:
        observation, info = self.env.reset_to(scene, episode=episode, seed=seed)
        self.scene, self.infos = scene, [info]
        return self._with_feasible(observation), info

    def advance(self, action: np.ndarray) -> Info:
        info = self.env.advance(action)
        self.infos.append(info)
        return info

    def observe(self) -> Observation:
        return self._with_feasible(self.env.observe())

    def render(self) -> np.ndarray:
        return self.env.render()

    def close(self) -> None:
        self.env.close()

    def steps(self, seconds: float) -> int:
        """Return a time in control steps."""
        return round(seconds * self.robot.control_hz)

    def feasible(self) -> dict[str, float]:
        """Return how feasible each subtask of this scene is now; empty where the suite does not say."""
        return self.suite.feasible_subtasks(self.env) if self.suite.has_affordances else {}

    def _with_feasible(self, observation: Observation) -> Observation:
        return {**observation, "feasible": self.feasible()}


@runtime_checkable
class StandIn(Protocol):
    """A high level that reads the simulator. The session of an episode gets its own, which watches its environment."""

    def for_episode(self) -> HighLevel:
        """Return the high level of one episode, which watches nothing yet."""
        ...

    def watch(self, env: SimEnv, suite: Suite, *, loc_stride: int) -> SimEnv:
        """Watch an environment from now on; return it as the episode has to use it."""
        ...


class CurrentEnv:
    """The environment that the high level of an episode watches: another one if the simulator had to be restarted."""

    env: WatchedEnv | None = None


@dataclass(frozen=True, kw_only=True)
class Watcher(ExternalHighLevel):
    """A high level outside of the model that sees one environment."""

    points: bool = False  # gives the box of what is meant, too
    current: CurrentEnv = field(default_factory=CurrentEnv, repr=False, compare=False)

    def for_episode(self) -> HighLevel:
        """Return the same for another environment."""
        return replace(self, current=CurrentEnv())

    def watch(self, env: SimEnv, suite: Suite, *, loc_stride: int) -> SimEnv:
        """Watch an environment from now on."""
        self.current.env = WatchedEnv(env, suite, loc_stride=loc_stride)
        return self.current.env

    def advisor(self) -> Advisor:
        return _Speaker(self)

    def say(self, env: WatchedEnv) -> str | None:
        """Return what is said now; None if nothing has been said yet."""
        raise NotImplementedError

    def tell(self, env: WatchedEnv, info: Info) -> str | None:
        """Return how it says what was true then."""
        words = info["subtask"]
        if self.as_prompt:
            return next(iter(env.suite.utterances(words)), None)
        return box_to_locs(info["box"], stride=env.loc_stride) + words if self.points and info["box"] else words


class _Speaker:
    trouble = None

    def __init__(self, level: Watcher) -> None:
        self.level = level

    def advise(self, sample: Sample, *, now: float, event: bool, history: Sequence[Subtask]) -> str | None:
        if self.level.current.env is None:
            raise ValueError(f"high level '{self.level.name}' reads the simulator, so it works in evaluations only")
        return self.level.say(self.level.current.env)


@dataclass(frozen=True, kw_only=True)
class ScriptedPerson(Watcher):
    """A person who watches, and says what has been to be done for most of the last while.

    So a change that lasts is noticed after `reaction` seconds, and one that comes and goes counts by its share: the
    simulator names the nearest object, which changes with every move of the hand, and a grasp may be lost and found.
    """

    name: ClassVar[str] = "person"
    reaction: float = 1.0

    def say(self, env: WatchedEnv) -> str | None:
        needed = env.steps(self.reaction)
        if len(env.infos) <= needed:
            return None
        watched = env.infos[-max(1, 2 * needed) :]
        (subtask, _), *_ = Counter(info["subtask"] for info in watched).most_common()
        return self.tell(env, next(info for info in reversed(watched) if info["subtask"] == subtask))


@dataclass(frozen=True, kw_only=True)
class VlmStub(Watcher):
    """No vision-language model, but the truth with faults: asked every `seconds`, answered `seconds` later.

    An answer is right with probability `accuracy`, else another subtask that the scene has.
    """

    name: ClassVar[str] = "vlm-stub"
    accuracy: float = STUB_ACCURACY
    seconds: float = STUB_SECONDS

    def say(self, env: WatchedEnv) -> str | None:
        period = max(1, env.steps(self.seconds))
        asked = ((len(env.infos) - 1) // period - 1) * period  # the last question with an answer
        if asked < 0:
            return None
        truth, rng = env.infos[asked], np.random.default_rng([env.scene, asked])
        others = sorted(set(env.feasible()) - {truth["subtask"]})
        is_wrong = rng.random() >= self.accuracy and others
        return self.tell(env, {"subtask": str(rng.choice(others)), "box": None} if is_wrong else truth)


@dataclass(frozen=True)
class SimulatedAffordance:
    """How feasible labels are by the simulator; those that the scene does not have are not."""

    def __call__(self, observation: Mapping[str, Any], labels: Sequence[str]) -> np.ndarray:
        return np.array([observation["feasible"].get(label, 0.0) for label in labels])


@dataclass(frozen=True, kw_only=True)
class SimulatedSayCan(SayCan):
    """SayCan over all words of a suite, with the simulator's affordance."""

    def for_episode(self) -> HighLevel:
        """Return the same: it keeps nothing of an episode."""
        return self

    def watch(self, env: SimEnv, suite: Suite, *, loc_stride: int) -> SimEnv:
        """Let observations say what is feasible."""
        return WatchedEnv(env, suite, loc_stride=loc_stride)


def study_high_level(name: str, *, suite: Suite, endpoint: tuple[str, str] | None) -> HighLevel | None:
    """Return the high level that a condition names; None, the policy's own, for "".

    `endpoint` is the address and the model of a vision-language model.

    Raises:
        ValueError: an unknown name, a suite that cannot give what it needs, or no endpoint.
    """
    if not name:
        return None
    if not suite.has_affordances and name.startswith(("vlm-stub", "saycan")):
        raise ValueError(f"suite '{suite.name}' does not say what is feasible, which '{name}' needs")
    if match := WATCHER.fullmatch(name):
        as_prompt, points = match["manner"] == "-prompt", match["manner"] == "-pointing"
        if match["seconds"]:
            return ScriptedPerson(reaction=float(match["seconds"]), as_prompt=as_prompt, points=points)
        return VlmStub(as_prompt=as_prompt, points=points)
    check_name("high level", name, NAMES)
    if name == "saycan":
        return SimulatedSayCan(labels=suite.known_subtasks(), affordance=SimulatedAffordance(), boxes=SAYCAN_BOXES)
    if name == "vlm":
        if endpoint is None:
            raise ValueError("a vision-language model needs its address: --vlm URL --vlm-model NAME")
        return Vlm(endpoint=VlmEndpoint(url=endpoint[0], model=endpoint[1]))
    return make_high_level(name)
