"""The plug-in for LeRobot, against a stand-in for the few parts of LeRobot that it uses."""

import importlib
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch

import pilot

ROOT = Path(__file__).parents[2]
PACKAGE = "lerobot_policy_pilot"


class PreTrainedConfig:
    choices: dict[str, type] = {}  # noqa: RUF012 (LeRobot's registry is one for all)
    device = "cpu"

    @classmethod
    def register_subclass(cls, name):
        return lambda subclass: cls.choices.setdefault(name, subclass)


class PreTrainedPolicy(torch.nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config


class PolicyProcessorPipeline:
    def __init__(self, steps, name, **converters):
        self.steps, self.name = steps, name


@pytest.fixture
def plugin(monkeypatch):
    parts = {
        "lerobot": {},
        "lerobot.configs": {"PreTrainedConfig": PreTrainedConfig},
        "lerobot.policies": {"PreTrainedPolicy": PreTrainedPolicy},
        "lerobot.processor": {"PolicyProcessorPipeline": PolicyProcessorPipeline},
        "lerobot.processor.converters": {"policy_action_to_transition": None, "transition_to_policy_action": None},
    }
    for name, values in parts.items():
        module = types.ModuleType(name)
        vars(module).update(values)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.syspath_prepend(str(ROOT / "integrations" / PACKAGE / "src"))
    yield importlib.import_module(PACKAGE)
    for name in [name for name in sys.modules if name.startswith(PACKAGE)]:
        del sys.modules[name]


def batch_of(rows):
    generator = torch.Generator().manual_seed(0)
    pictures = torch.randint(0, 256, (2, rows, 3, 64, 64), generator=generator) / 255
    state = torch.tensor([[0.0, 0.0, 0.2, 0.0, 0.0]]).repeat(rows, 1)
    return {
        "observation.images.top": pictures[0],
        "observation.images.wrist": pictures[1],
        "observation.state": state,
        "task": ["put the red cup in the sink"] * rows,
    }


def test_lerobot_finds_the_names_that_its_convention_asks_for(plugin):
    assert PreTrainedConfig.choices["pilot"] is plugin.PilotConfig
    assert plugin.PilotConfig.__module__.endswith(".configuration_pilot")
    modeling = importlib.import_module(f"{PACKAGE}.modeling_pilot")
    assert modeling.PilotPolicy is plugin.PilotPolicy and plugin.PilotPolicy.name == "pilot"
    before, after = plugin.make_pilot_pre_post_processors(plugin.PilotConfig(checkpoint="x"))
    assert before.steps == after.steps == []


def test_it_acts_as_pilot_does(plugin):
    config = plugin.PilotConfig(checkpoint=str(ROOT / "checkpoints" / "nano"), cameras={"top": "room"}, replan_steps=3)
    policy, batch = plugin.PilotPolicy(config), batch_of(2)
    actions = torch.stack([policy.select_action(batch) for _ in range(3)])
    assert actions.shape == (3, 2, 4) and not policy._action_queue
    own = pilot.load_policy(ROOT / "checkpoints" / "nano", device="cpu")
    pictures = {name: (batch[f"observation.images.{key}"][0] * 255).round().byte().permute(1, 2, 0).numpy()
                for name, key in (("room", "top"), ("wrist", "wrist"))}  # fmt: skip
    shown = {"images": pictures, "state": batch["observation.state"][0].numpy(), "prompt": batch["task"][0]}
    expected = own.session(replan_steps=3).infer(shown)["actions"][:3]
    assert np.allclose(actions[:, 0].numpy(), expected, atol=1e-4)
    sessions = policy.sessions
    policy.select_action(batch)
    assert policy.sessions is sessions, "the episode goes on"
    policy.reset()
    assert policy.sessions == []


def test_one_of_several_robots_is_named(plugin):
    policy = plugin.PilotPolicy(plugin.PilotConfig(checkpoint=str(ROOT / "checkpoints" / "homes"), robot="bimanual"))
    assert policy.steps == policy.policy.replan_steps_of("bimanual")


def test_mistakes_say_what_to_do(plugin):
    with pytest.raises(ValueError, match=r"--policy\.checkpoint=FOLDER"):
        plugin.PilotPolicy(plugin.PilotConfig())
    with pytest.raises(NotImplementedError, match="pilot train"):
        plugin.PilotConfig(checkpoint="x").get_optimizer_preset()
    modeling = importlib.import_module(f"{PACKAGE}.modeling_pilot")
    with pytest.raises(ValueError, match="'task', the instruction"):
        modeling.read_batch({"observation.state": torch.zeros(1, 5)}, cameras={})
