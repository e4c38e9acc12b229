"""Set before torch and mujoco are imported: two cores, no spinning threads, no screen."""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("LP_NUM_THREADS", "1")
os.environ.setdefault("PILOT_DEBUG", "")

import jaxtyping
import pytest
import torch

torch.set_num_threads(min(2, os.cpu_count() or 1))


@pytest.fixture
def no_shape_checks():
    """For compiled modules, which the checks of the import hook would break."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
