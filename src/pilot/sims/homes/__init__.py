"""Generated homes in MuJoCo: pick things up, put them where they belong, in homes never seen before."""

import importlib
from typing import Any

from pilot.sims.homes.suites import LESSON, SUITES, HomesSuite

__all__ = ["LESSON", "SUITES", "HomesSuite"]  # and, once they are used, `HomesEnv` and `Expert`
_PHYSICS = {"HomesEnv": "pilot.sims.homes.env", "Expert": "pilot.sims.homes.expert"}


def __getattr__(name: str) -> Any:
    """Import MuJoCo when the environment or its expert is used, so that names of suites are known at once."""
    if name not in _PHYSICS:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(importlib.import_module(_PHYSICS[name]), name)
