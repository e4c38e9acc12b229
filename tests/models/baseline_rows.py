"""Rows that the tests of the baselines share."""

from pilot.contracts import examples
from pilot.data.layout import Batch
from pilot.data.pipeline import collate
from pilot.models.baselines.configs import BaselineConfig
from pilot.robots.homes import ROBOT


def rows(config: BaselineConfig, *, count: int = 3) -> Batch:
    """Examples of the homes' robot; the last step of each chunk is padding, and so are the dims that it has not."""
    pipeline = examples.make_pipeline(ROBOT, config)
    samples = [examples.make_sample(ROBOT, horizon=config.action_horizon, seed=seed) for seed in range(count)]
    return collate([pipeline.encode(sample) for sample in samples])
