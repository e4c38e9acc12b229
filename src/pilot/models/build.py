"""From a config to its model: the one place that knows the class of every kind (`registry.py`)."""

from pilot.models.base import Model
from pilot.models.baselines.act import Act
from pilot.models.baselines.configs import ActConfig, DiffusionPolicyConfig, OctoConfig
from pilot.models.baselines.diffusion_policy import DiffusionPolicy
from pilot.models.baselines.octo import Octo
from pilot.models.pi import Pi
from pilot.models.pi_config import PiConfig
from pilot.models.registry import ModelConfig

MODELS: dict[type[ModelConfig], type[Model]] = {
    PiConfig: Pi,
    ActConfig: Act,
    DiffusionPolicyConfig: DiffusionPolicy,
    OctoConfig: Octo,
}


def build_model(config: ModelConfig) -> Model:
    """Build the model of a config; its weights are torch's, and are to be initialised or loaded."""
    return MODELS[type(config)](config)
