"""Set before torch and mujoco are imported: one thread, none that spins, no screen."""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("LP_NUM_THREADS", "1")
os.environ.setdefault("PILOT_DEBUG", "")

import hypothesis
import jaxtyping
import pytest
import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # kernels on tensors of the CPU; read when Triton is imported
# The same examples in every run: what fails, fails for everybody. `--hypothesis-profile default` looks for new ones.
hypothesis.settings.register_profile("repeatable", derandomize=True)
hypothesis.settings.load_profile("repeatable")
torch.set_num_threads(1)  # what is computed here is small: two would mostly wait for each other


@pytest.fixture
def no_shape_checks():
    """For compiled modules, which the checks of the import hook would break."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture
def no_manifests(monkeypatch):
    """For tests that change files by hand: what readers make of a folder from before there were checksums."""
    monkeypatch.setattr("pilot.data.storage.manifest.read_manifest", lambda folder, **_: None)
