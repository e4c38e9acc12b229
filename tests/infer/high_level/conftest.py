"""The policy that all high levels are tried on."""

import pytest

from infer.policies import policy_of
from pilot.infer.policy import Policy
from pilot.models.pi import pi05


@pytest.fixture(scope="session")
def shared_policy() -> Policy:
    return policy_of(pi05("debug", max_tokens=80))


@pytest.fixture
def policy(shared_policy, monkeypatch) -> Policy:
    """Weights are shared by all tests, what tests put in their place is not."""
    monkeypatch.setattr(shared_policy, "_high_level", None)
    return shared_policy
