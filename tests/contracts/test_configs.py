"""Every run in `configs/` keeps the contract of runs."""

import dataclasses

import pytest

from pilot import configs
from pilot.contracts import run as contract
from pilot.train.config import TrainConfig


@pytest.mark.parametrize("check", contract.CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", configs.names())
def test_run(name, check):
    def run() -> TrainConfig:
        return configs.get(name)

    run.__name__ = name
    check(run)


def test_a_loss_that_no_source_teaches_is_named():
    config = configs.get("nano_finetune")
    only_flow = tuple(dataclasses.replace(source, kind="robot", teaches=("flow",)) for source in config.data.sources)
    data = dataclasses.replace(config.data, sources=only_flow)
    with pytest.raises(ValueError, match="no source teaches"):
        contract.check_losses(lambda: dataclasses.replace(config, data=data))


def test_an_unknown_run_suggests_the_nearest():
    with pytest.raises(ValueError, match="did you mean 'nano_stage1'"):
        configs.get("nano_stage_1")
