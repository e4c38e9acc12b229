"""The recipes that are compared: as many rows of the same sets each, and what each acts like."""

import pytest
import torch

from pilot import configs
from pilot.configs import compared
from pilot.models.build import build_model
from pilot.models.pi import Pi
from pilot.models.pi_config import pi05
from pilot.train.warm_start import transfer_weights

RUNS = {name: configs.get(name) for name in configs.names() if name.startswith("compared_")}


def test_all_see_as_many_rows_of_the_same_demonstrations():
    assert len(RUNS) == 10
    for run in RUNS.values():
        assert run.steps * run.batch_size == compared.ROWS and run.seed == 0
        robot = {source.path: source.weight for source in run.data.sources if source.kind == "robot"}
        total = sum(robot.values())
        assert {path.rpartition("/")[2]: weight / total for path, weight in robot.items()} == pytest.approx(
            compared.HOMES
        )


def test_each_acts_as_its_paper_says():
    with torch.device("meta"):
        models = {name.removeprefix("compared_"): build_model(run.model) for name, run in RUNS.items()}
    found = {name: (m.default_num_steps, m.default_replan_steps, m.default_executor) for name, m in models.items()}
    assert found["act"] == (10, 1, "ensemble")
    assert found["diffusion_policy"] == (10, 8, "open-loop") and found["octo"] == (20, 4, "open-loop")
    assert found["pi05"] == found["pi0"] == (10, None, "open-loop")
    assert models["bins"].config.action_horizon == 1 and models["pi0_fast"].config.action_expert is None


@pytest.mark.parametrize("name", [name for name, run in RUNS.items() if run.init_from])
def test_those_that_start_from_the_vision_tower_can(name):
    run, generator = RUNS[name], torch.Generator().manual_seed(0)
    base = Pi(pi05("nano")).initialize(generator)
    model = transfer_weights(base, run.model, fresh=run.init_from.fresh, generator=generator)
    for own, theirs in zip(model.vision.parameters(), base.vision.parameters(), strict=True):
        assert own is theirs or torch.equal(own, theirs)
