"""Every model in `models/` keeps the contract of models."""

import importlib
import pkgutil

import pytest
import torch

import pilot.models
from pilot.contracts import model as contract
from pilot.contracts.model import Constructor


def constructors() -> dict[str, Constructor]:
    found = {}
    for info in pkgutil.walk_packages(pilot.models.__path__, "pilot.models."):
        found |= contract.find_in(importlib.import_module(info.name))
    return found


CONSTRUCTORS = constructors()


def test_there_are_models():
    assert {"pi0", "pi05", "pi0_fast", "pi0_small", "act", "diffusion_policy", "octo"} <= set(CONSTRUCTORS)


@pytest.mark.parametrize("check", contract.CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", CONSTRUCTORS)
def test_model(name, check, request):
    if check is contract.check_learning:
        request.getfixturevalue("no_shape_checks")  # so many steps are slow with them
    check(CONSTRUCTORS[name])


def test_a_weight_that_no_loss_reaches_is_named(monkeypatch):
    constructor = CONSTRUCTORS["act"]
    model = constructor.debug_model()
    model.idle = torch.nn.Linear(2, 2)
    monkeypatch.setattr(Constructor, "debug_model", lambda self: model)
    with pytest.raises(ValueError, match=r"no loss reaches \['idle.weight', 'idle.bias'\]"):
        contract.check_gradients(constructor)
