"""The suites of the generated homes, and what they offer; free of physics, which is imported when it is used.

A suite fixes level, task and words. A home of the test split is never a home of the train split.
"""

from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

import numpy as np

from pilot.robots.homes import ROBOT
from pilot.sims.base import DONE, Disturbance, Lesson, Question, ScriptedExpert, SimEnv, Suite
from pilot.sims.homes import language
from pilot.sims.homes.disturbances import HomesDisturbance, Noise
from pilot.sims.homes.episodes import SECONDS_PER_MOVE, TASKS, draw_episode
from pilot.sims.homes.rooms import draw_home, home_seed
from pilot.types import Robot


@dataclass(frozen=True, kw_only=True)
class HomesSuite(Suite):
    """Tasks of one level in generated homes; without `kinds` or `receptacles`, all those of training are there."""

    scene: ClassVar[str] = "home"
    has_expert: ClassVar[bool] = True
    has_subtasks: ClassVar[bool] = True
    has_supervisor: ClassVar[bool] = True
    has_questions: ClassVar[bool] = True
    has_affordances: ClassVar[bool] = True

    # Fields with a help text are options of `pilot collect`.
    level: int = field(default=1, metadata={"help": "1: two objects; 2: more objects, some alike", "choices": (1, 2)})
    task: str = field(default="single", metadata={"help": "one move, or several", "choices": TASKS})
    kinds: tuple[str, ...] | None = field(default=None, metadata={"help": "only these kinds of object", "nargs": "+"})
    receptacles: tuple[str, ...] | None = field(default=None, metadata={"help": "only these receptacles", "nargs": "+"})
    seconds_per_move: float = SECONDS_PER_MOVE  # until an episode is cut off
    noise: Noise = field(default_factory=Noise)  # what goes wrong in demonstrations

    @property
    def robot(self) -> Robot:
        return ROBOT

    def make_env(self, *, image_size: int = 64) -> SimEnv:
        from pilot.sims.homes.env import HomesEnv

        return HomesEnv(
            level=self.level,
            task=self.task,
            split=self.split,
            image_size=image_size,
            kinds=self.kinds,
            receptacles=self.receptacles,
            seconds_per_move=self.seconds_per_move,
        )

    def prompt(self, scene: int, *, seed: int = 0) -> str:
        kinds, receptacles = self.kinds or language.KINDS, self.receptacles or language.RECEPTACLES
        home = draw_home(home_seed(self.split, scene), self.level, kinds=kinds, receptacles=receptacles)
        return draw_episode(home, 0, task=self.task, seed=seed).prompt

    def instructions(self, env: Any) -> tuple[str, ...]:
        moves = [
            language.single_instructions(thing.name, receptacle.name)[0]
            for thing in env.episode.things
            for receptacle in env.world.home.receptacles
            if not env.is_inside(thing.index, receptacle)
        ]
        return tuple(dict.fromkeys([env.episode.prompt, *moves]))

    def expert(self, env: Any, rng: np.random.Generator, *, shuffle: bool = False) -> ScriptedExpert:
        from pilot.sims.homes.expert import Expert

        return Expert(env, rng, order="random" if shuffle else "nearest")

    def disturb(self, env: Any, rng: np.random.Generator) -> Disturbance:
        from pilot.sims.homes.odd_starts import odd_start

        odd_start(env, rng, noise=self.noise)
        return HomesDisturbance(rng, self.noise)

    def utterances(self, subtask: str) -> tuple[str, ...]:
        return language.utterances(subtask)

    def known_subtasks(self) -> tuple[str, ...]:
        kinds, receptacles = self.kinds or language.KINDS, self.receptacles or language.RECEPTACLES
        things = [language.phrase(colour, kind) for kind in kinds for colour in language.COLOURS]
        return (*map(language.pick_subtask, things), *map(language.put_subtask, receptacles), DONE)

    def feasible_subtasks(self, env: Any) -> dict[str, float]:
        return env.feasible_subtasks()

    def web_rows(self, scene: int, *, rows: int, seed: int, image_size: int = 64) -> list[tuple[bytes, list[Question]]]:
        from pilot.sims.homes.questions import pictures_of_home

        env: Any = self.make_env(image_size=image_size)
        try:
            return pictures_of_home(env, scene, rows=rows, seed=seed)
        finally:
            env.close()

    def labels(self, *, scene: int, episode: int) -> dict[str, Any]:
        return {"group": self.task, "level": self.level, "home": scene, "episode": episode}

    def settings(self) -> dict[str, Any]:
        options = asdict(self)
        return {name: options[name] for name in ("level", "task", "split", "kinds", "receptacles", "noise")}


SUITES = (
    HomesSuite(name="homes-l1", title="one move", level=1, task="single"),
    HomesSuite(name="homes-l2", title="one move among look-alikes", level=2, task="single"),
    HomesSuite(name="homes-l2-multi", title="several moves", level=2, task="multi"),
)
_HATS, _CRATES = language.HELD_OUT_KINDS, language.HELD_OUT_RECEPTACLES
LESSON = Lesson(
    new=HomesSuite(name="homes-new", title="hats into crates", level=1, kinds=_HATS, receptacles=_CRATES),
    known=SUITES[0],
    questions=HomesSuite(
        name="homes-new-questions",
        title="everything, hats and crates too",
        level=2,
        task="multi",
        kinds=language.KINDS + _HATS,
        receptacles=language.RECEPTACLES + _CRATES,
    ),
)
