"""Generated homes in MuJoCo: pick things up, put them where they belong, in homes never seen before."""

from pilot.sims.homes.env import HomesEnv
from pilot.sims.homes.expert import Expert

__all__ = ["Expert", "HomesEnv"]
