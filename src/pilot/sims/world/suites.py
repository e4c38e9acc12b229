"""What suites of all worlds share: a robot that can be exchanged, and an environment, expert and disturbances for it.

A simulator's own suites are subclasses that draw scenes. Free of physics, which is imported when it is used.
"""

from dataclasses import asdict, dataclass, field, replace
from typing import Any, ClassVar, Literal

import numpy as np

from pilot.names import check_name
from pilot.robots import load_robot
from pilot.sims.base import Disturbance, ScriptedExpert, SimEnv, Suite
from pilot.sims.world.mishaps import Mishaps
from pilot.types import Robot


@dataclass(frozen=True, kw_only=True)
class WorldSuite(Suite):
    """Tasks for one of several bodies. `body` names the robot that acts: `mobile`, or `mobile_ee` by its hand."""

    bodies: ClassVar[tuple[str, ...]] = ("arm", "bimanual", "mobile", "mobile_bimanual")
    has_expert: ClassVar[bool] = True
    has_subtasks: ClassVar[bool] = True

    body: str = "mobile"
    begins: Literal["at rest", "beside", "holding"] = (
        "at rest"  # the hand, beside the first thing to pick up or with it
    )
    mishaps: Mishaps = field(default_factory=Mishaps)  # what goes wrong in demonstrations

    @property
    def robot(self) -> Robot:
        return load_robot(self.body)

    @property
    def robots(self) -> tuple[str, ...]:
        return self.bodies + tuple(f"{body}_ee" for body in self.bodies)

    def with_robot(self, name: str) -> "WorldSuite":
        check_name(f"robot of suite '{self.name}'", name, self.robots)
        own = self.name.partition("@")[0]
        return self if name == self.body else replace(self, name=f"{own}@{name}", body=name)

    def draw(self, scene: int, episode: int, seed: int) -> Any:
        """Draw the `Scene` of these numbers.

        Raises:
            ImpossibleSceneError: they draw none that works; another seed may.
        """
        raise NotImplementedError

    def make_env(self, *, image_size: int = 64) -> SimEnv:
        from pilot.sims.world.env import WorldEnv
        from pilot.sims.world.starts import STARTS

        return WorldEnv(self.draw, robot=self.robot, image_size=image_size, begin=STARTS[self.begins])

    def expert(self, env: Any, rng: np.random.Generator, *, shuffle: bool = False) -> ScriptedExpert:
        from pilot.sims.world.expert import WorldExpert

        return WorldExpert(env, rng, shuffle=shuffle)

    def disturb(self, env: Any, rng: np.random.Generator) -> Disturbance:
        from pilot.sims.world.disturbances import WorldDisturbance, odd_start

        odd_start(env, rng, mishaps=self.mishaps)
        return WorldDisturbance(env, rng, self.mishaps)

    def settings(self) -> dict[str, Any]:
        options = asdict(self)
        return {name: value for name, value in options.items() if name not in ("name", "title", "is_part")}
