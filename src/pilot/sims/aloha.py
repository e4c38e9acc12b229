"""ALOHA's two simulated tasks (ACT, 2304.13705) on gym-aloha: hand over a cube, and put a peg into a socket.

Conventions: 50 Hz; joint positions; 400 steps, as ACT's own code (gym-aloha registers 300); the reward counts the
stages reached, 0 to 4, and success is the last one. `progress` is the share of stages. Scene `n` is the start of seed
`n`, in the validation split of seed 50,000 + `n`, in the test split of seed 100,000 + `n`; ACT draws its evaluation
starts without seeds.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from pilot.robots.aloha_sim import ROBOT
from pilot.sims.base import Info, Observation, ScriptedExpert, SimEnv, TaskSuite, check_action, import_extra, start_seed
from pilot.types import Robot

PROMPTS = {
    "transfer_cube": "pick up the cube with the right arm and transfer it to the left arm",
    "insertion": "insert the peg into the socket",
}
STAGES = 4


class AlohaSimEnv:
    """One of the tasks at a time; physics and pictures are apart, where gym-aloha draws three pictures a step."""

    robot = ROBOT
    max_steps = 400

    def __init__(self, suite: "AlohaSuite", *, image_size: int) -> None:
        self._suite, self._height = suite, image_size * 3 // 4  # its camera's pictures are 4 : 3
        self._task = ""
        import_extra("pilot.sims.gl", extra="sim")  # chooses how MuJoCo draws, before dm_control does
        self._module = import_extra("gym_aloha.env", extra="aloha")

    def reset_to(self, scene: int, *, episode: int = 0, seed: int = 0) -> tuple[Observation, Info]:
        """Begin a start of a task; later episodes of a scene, and other seeds, are other starts."""
        task, start = self._suite.locate(scene)
        if task != self._task:
            self._env, self._task = self._make(task), task
        self._env.reset(seed=start_seed(self._suite.split, start, episode=episode, seed=seed))
        self._best = 0
        return self.observe(), self._info(0)

    @property
    def physics(self) -> Any:
        """The simulation, for who reads its state: an expert."""
        return self._env._env.physics

    @property
    def task(self) -> str:
        """The name of the task."""
        return self._task

    def _make(self, task: str) -> Any:
        """Make gym-aloha's environment without the pictures of its steps."""
        env = self._module.AlohaEnv(task, obs_type="pixels_agent_pos")
        physics_task = env._env.task
        physics_task.get_observation = lambda physics: {
            "qpos": physics_task.get_qpos(physics),
            "images": {"top": np.empty(0)},
        }
        return env

    def advance(self, action: np.ndarray) -> Info:
        """Run one control step (0.02 s)."""
        _, reward, *_ = self._env.step(check_action(action, ROBOT))
        return self._info(int(reward or 0))

    def _info(self, stage: int) -> Info:
        self._best = max(self._best, stage)
        return {"success": stage == STAGES, "progress": self._best / STAGES, "placed": self._best, "targets": STAGES}

    def observe(self) -> Observation:
        """Return `{"images": {"cam_high"}, "state": joints [14], "prompt"}`."""
        return {"images": {"cam_high": self.render()}, "state": self.state(), "prompt": PROMPTS[self._task]}

    def state(self) -> np.ndarray:
        """Return the joints and grippers, float32 [14]."""
        return self._env._env.task.get_qpos(self.physics).astype(np.float32)

    def render(self) -> np.ndarray:
        """Return the picture from above the table."""
        size = {"height": self._height, "width": self._height * 4 // 3}
        return self.physics.render(camera_id="top", **size)

    def close(self) -> None:
        """Free the physics."""
        if self._task:
            self._env._env.close()
            self._task = ""


@dataclass(frozen=True, kw_only=True)
class AlohaSuite(TaskSuite):
    """One of ALOHA's tasks, or both."""

    scene: ClassVar[str] = "start"
    package: ClassVar[str] = "gym_aloha"
    extra: ClassVar[str] = "aloha"
    has_expert: ClassVar[bool] = True

    @property
    def robot(self) -> Robot:
        return ROBOT

    def make_env(self, *, image_size: int = 224) -> SimEnv:
        return AlohaSimEnv(self, image_size=image_size)

    def prompt(self, scene: int, *, seed: int = 0) -> str:
        return PROMPTS[self.task_of(scene)]

    def expert(self, env: Any, rng: np.random.Generator, *, shuffle: bool = False) -> ScriptedExpert:
        from pilot.sims.experts.aloha import AlohaExpert  # it needs MuJoCo

        return AlohaExpert(env, rng)


SUITES = (
    AlohaSuite(name="aloha-transfer-cube", title="hand over a cube", tasks=("transfer_cube",)),
    AlohaSuite(name="aloha-insertion", title="put a peg into a socket", tasks=("insertion",)),
)
