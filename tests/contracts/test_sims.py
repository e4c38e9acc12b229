"""Every simulator in `sims/` keeps the contract of simulators."""

import importlib
import pkgutil

import pytest

import pilot.sims
from pilot.contracts import sim as contract


def environments() -> dict[str, type]:
    """What can be played in, by the file or folder that defines it."""
    modules = [importlib.import_module(f"pilot.sims.{info.name}") for info in pkgutil.iter_modules(pilot.sims.__path__)]
    found = {module.__name__: list(contract.find_in(module).values()) for module in modules}
    return {name: makes[0] for name, makes in found.items() if makes and name != "pilot.sims.base"}


ENVIRONMENTS = environments()


def test_there_are_simulators():
    assert "pilot.sims.homes" in ENVIRONMENTS


@pytest.mark.parametrize("check", contract.CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_simulator(name, check):
    check(ENVIRONMENTS[name])


def test_a_simulator_that_forgets_its_seed_is_named():
    class Forgetful(ENVIRONMENTS["pilot.sims.homes"]):
        def reset(self, *, seed=None, options=None):
            return super().reset(seed=0, options=options)

    with pytest.raises(ValueError, match="seeds 3 and 4 gave the same start"):
        contract.check_seed(Forgetful)
