"""Processors that pass everything on: pilot's own pipeline normalises, resizes and writes the prompt."""

from typing import Any

from lerobot.processor import PolicyProcessorPipeline
from lerobot.processor.converters import policy_action_to_transition, transition_to_policy_action

from lerobot_policy_pilot.configuration_pilot import PilotConfig


def make_pilot_pre_post_processors(config: PilotConfig, dataset_stats: Any = None) -> tuple[Any, Any]:
    """Return the pipelines before and after the policy. LeRobot finds this function by its name."""
    before = PolicyProcessorPipeline(steps=[], name="policy_preprocessor")
    after = PolicyProcessorPipeline(
        steps=[],
        name="policy_postprocessor",
        to_transition=policy_action_to_transition,
        to_output=transition_to_policy_action,
    )
    return before, after
