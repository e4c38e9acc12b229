"""Stand-ins for LIBERO's world and for the renderer, which record what they are asked."""

import math
from types import SimpleNamespace

import numpy as np


class FakeArm:
    """LIBERO's world: remembers actions; pictures are numbered by place."""

    def __init__(self, path, **options):
        self.options, self.actions = options, []
        self.sim = SimpleNamespace(model=SimpleNamespace(_model="model"), data=SimpleNamespace(_data="data"))

    def seed(self, seed):
        self.drawn_from = seed

    def reset(self):
        self.state = None
        return self._observation()

    def set_init_state(self, state):
        self.state = state
        return self._observation()

    def step(self, action):
        self.actions.append(action)
        return self._observation(), 0.0, False, {}

    def check_success(self):
        return False

    def close(self):
        pass

    def _observation(self):
        half = math.sqrt(0.5)
        return {
            "robot0_eef_pos": np.array([0.1, 0.2, 0.3]),
            "robot0_eef_quat": np.array([0, 0, half, half]),
            "robot0_gripper_qpos": np.array([0.04, -0.04]),
        }


class FakeRenderer:
    def __init__(self, model, size, **options):
        self.options = options

    def render(self, data, camera):
        picture = np.zeros((2, 2, 3), np.uint8)
        picture[0, 0] = 1 if camera == "agentview" else 2
        return picture

    def close(self):
        pass
