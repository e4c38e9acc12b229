"""Baselines go through the same command: trained, saved, gone on with, loaded, asked one by one and together."""

import functools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from models.baseline_rows import rows
from pilot.configs import get as get_config
from pilot.configs.baselines import openvla_nano
from pilot.data.formats import lerobot_layout as fmt
from pilot.data.formats.lerobot import LeRobotDataset
from pilot.data.formats.writer import LeRobotWriter
from pilot.data.loading.loader import RobotRows
from pilot.infer.policy import load_policy
from pilot.models.baselines.act import Act
from pilot.models.baselines.configs import act, diffusion_policy, octo
from pilot.models.bundle import empty_model, load_bundle
from pilot.models.pi import pi0_fast
from pilot.models.registry import ModelConfig
from pilot.nn.configs import ResNetConfig
from pilot.nn.resnet import ResNet
from pilot.robots.homes import ROBOT
from pilot.tokenizers.bins import BinsTokenizer
from pilot.train.config import (
    DataConfig,
    InitFrom,
    LoggingConfig,
    ObjectiveConfig,
    OptimConfig,
    ParallelConfig,
    Source,
    TrainConfig,
)
from pilot.train.loop import train
from pilot.train.metrics import read_metrics
from train.toy import changed

pytestmark = pytest.mark.usefixtures("no_shape_checks")

BINNED = pi0_fast("debug", action_horizon=1, prompt="openvla", state_input="none", max_tokens=80)
MODELS: dict[str, ModelConfig] = {
    "act": act("debug"), "diffusion_policy": diffusion_policy("debug"), "octo": octo("debug"), "openvla": BINNED,
    "two_moments": diffusion_policy("debug", observation_steps=2),
}  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    path, rng = tmp_path_factory.mktemp("data") / "toy", np.random.default_rng(0)
    with LeRobotWriter(path, ROBOT, ROBOT.control_hz) as writer:
        for goal in (-1.0, 1.0):
            steps = np.linspace(0, 1, 12, dtype=np.float32)[:, None] * np.array([goal, 0.5, -goal], np.float32)
            frames = {
                fmt.STATE: np.concatenate((steps, rng.uniform(size=(12, 2))), 1).astype(np.float32),
                fmt.ACTION: np.concatenate((steps + 0.05, rng.uniform(size=(12, 1))), 1).astype(np.float32),
                fmt.IMAGES + "room": rng.integers(0, 256, (12, 16, 16, 3), dtype=np.uint8),
                fmt.IMAGES + "wrist": rng.integers(0, 256, (12, 16, 16, 3), dtype=np.uint8),
                fmt.BOX: np.tile(np.array([0.1, 0.2, 0.4, 0.6], np.float32), (12, 1)),
                fmt.PERTURBED: np.zeros(12, bool),
            }
            writer.add_episode(
                frames, task="put the red cup in the sink",
                persistent=[(0.0, "subtask", "assistant", "pick up the red cup")], events=[], labels={"group": "one"},
            )  # fmt: skip
    return path


def config(data: Path, model: ModelConfig, **changes) -> TrainConfig:
    binned = model is BINNED
    source = Source(path=str(data), teaches=("fast",) if binned else ("flow",))
    base = TrainConfig(
        name="toy", model=model, data=DataConfig(sources=(source,), action_tokenizer="bins"), robot="homes", steps=3,
        batch_size=4, optim=OptimConfig(peak_lr=3e-3, warmup_steps=1), parallel=ParallelConfig(threads=1),
        logging=LoggingConfig(log_every=1, log_to=()),
        objective=ObjectiveConfig(
            alpha=0.0 if binned else 1.0, text_weight=0.0, fast_weight=1.0 if binned else 0.0, loss_weights={"kl": 10.0}
        ),
    )  # fmt: skip
    return changed(base, **changes)


def observation(prompt: str = "put the red cup in the sink", *, seed: int = 0) -> dict:
    rng = np.random.default_rng(seed)
    images = {camera: rng.integers(0, 256, (20, 16, 3), dtype=np.uint8) for camera in ROBOT.cameras}
    return {"images": images, "state": rng.uniform(-1, 1, 5).astype(np.float32), "prompt": prompt}


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory) -> Callable[[str], Path]:
    """The folder of a run of three steps, by the name of its model; made when it is first asked for."""

    @functools.cache
    def run(name: str) -> Path:
        out = tmp_path_factory.mktemp(name)
        train(config(data, MODELS[name]), out=out, progress=False)
        return out

    return run


@pytest.mark.parametrize("name", MODELS)
def test_it_trains_and_acts(trained, name):
    model, out = MODELS[name], trained(name)
    logged = read_metrics(out)[-1]
    assert {n.removeprefix("loss/") for n in logged if n.startswith("loss/") and n.count("/") == 1} >= (
        {"act": {"l1", "kl"}, "openvla": {"fast"}}.get(name, {"noise"})
    )
    policy = load_policy(out / "policy", verify=True)
    assert policy.model.config == model and (policy.bundle.action_tokenizer is None) == (name != "openvla")
    seen = [observation(seed=seed) for seed in range(3)]
    alone = [policy.infer(one) for one in seen]
    together = policy.infer_many([policy.session() for _ in seen], seen)
    for one, other in zip(alone, together, strict=True):
        assert one["actions"].shape == (model.action_horizon, 4) and one["subtask"] is None
        assert np.allclose(one["actions"], other["actions"], atol=1e-4)
    with pytest.raises(ValueError, match="'previous' is for models with a flow"):
        policy.infer(seen[0] | {"previous": {"actions": alone[0]["actions"], "delay": 0}})


@pytest.mark.parametrize("name", ["act", "diffusion_policy", "octo"])
def test_in_bf16_with_blocks_computed_twice_it_learns_nearly_the_same(data, tmp_path, trained, name):
    """Weights stay fp32; blocks are spread and checkpointed as units."""
    low = config(data, MODELS[name], compute={"precision": "bf16", "checkpointing": "blocks"})
    out = train(low, out=tmp_path, progress=False)
    curves = [[sum(v for n, v in r.items() if n.count("/") == 1 and n.startswith("loss/")) for r in read_metrics(run)]
              for run in (trained(name), tmp_path)]  # fmt: skip
    assert curves[0] == pytest.approx(curves[1], rel=0.05) and curves[0] != curves[1]
    assert {p.dtype for p in load_bundle(out).model.parameters()} == {torch.float32}


def test_a_resumed_run_is_the_same_run(data, tmp_path, trained):
    run = config(data, MODELS["diffusion_policy"])
    train(run, out=tmp_path, until=2, progress=False)
    broken = train(run, out=tmp_path, progress=False)
    weights = [load_bundle(path).model.state_dict() for path in (trained("diffusion_policy") / "policy", broken)]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


def test_another_kind_in_the_same_folder_is_refused(data, tmp_path, trained):
    with pytest.raises(ValueError, match="unknown fields"):
        train(config(data, MODELS["act"]), out=trained("octo"), progress=False)
    with pytest.raises(ValueError, match="a model of another shape"):
        train(
            config(data, MODELS["act"], init_from=InitFrom(str(trained("octo") / "policy"))),
            out=tmp_path,
            progress=False,
        )


def test_act_looks_with_imagenets_resnet(data, tmp_path):
    shape = ResNetConfig(widths=(16, 32), blocks=1, pool=False, norm="frozen_batch")
    published = {n: torch.full(t.shape, 0.01) for n, t in ResNet(shape).state_dict().items()}
    torch.save(published | {"fc.weight": torch.zeros(10, 32)}, tmp_path / "resnet.pth")
    frozen = config(
        data,
        act("debug", resnet=shape),
        steps=1,
        init_from=InitFrom(str(tmp_path / "resnet.pth"), kind="torchvision"),
        freeze=("vision",),
    )
    model = load_bundle(train(frozen, out=tmp_path / "run", progress=False)).model
    assert isinstance(model, Act)
    assert all(torch.allclose(t, published[n]) for n, t in model.vision.state_dict().items())
    with pytest.raises(FileNotFoundError, match="it is published at https"):
        train(
            replace(frozen, init_from=InitFrom("nowhere.pth", kind="torchvision")),
            out=tmp_path / "none",
            progress=False,
        )
    with pytest.raises(ValueError, match="for ACT, which looks with a ResNet, not for Octo"):
        train(replace(frozen, model=octo("debug"), freeze=()), out=tmp_path / "octo", progress=False)


def test_binned_tokens_learn_their_papers_loss_alone():
    """Cross-entropy of bins and answers, and neither pointing nor naming, which pilot's own small model learns too."""
    batch = rows(get_config("nano_stage1").model)
    for name, losses in (("openvla_nano", {"text", "fast"}), ("nano_stage1", {"text", "fast", "point", "name"})):
        run = get_config(name)
        assert empty_model(run.model).loss_counts(batch, {}, losses=run.objective.losses).keys() == losses, name


def test_binned_rows_say_one_bin_for_each_action_dim(trained):
    policy = load_policy(trained("openvla") / "policy")
    bundle = policy.bundle
    bins = bundle.action_tokenizer
    assert isinstance(bins, BinsTokenizer) and bins.vocab_size == 256
    said = bins.encode(np.zeros((1, 4), np.float32))
    assert len(said) == 4 and openvla_nano().model.action_horizon == 1
    tokens = policy.pipeline.encode(policy.make_sample(observation("Put the RED cup away"))).tokens
    prompt = bundle.text.decode(tokens)
    assert prompt == "In: What action should the robot take to put the red cup away?\nOut:"
    ids = sorted(set(policy.action_grammars["homes"].ids))
    assert ids[-1] == BINNED.vocab_size - 1 and len(ids) == 256


def test_of_two_moments_the_earlier_one_counts_and_must_be_whole(trained):
    policy = load_policy(trained("two_moments") / "policy")
    now, earlier = observation(), observation(seed=1)
    past = {"images": earlier["images"], "state": earlier["state"]}
    alone, same, both = (
        policy.make_observation(policy.make_sample(seen)) for seen in (now, now | {"past": now}, now | {"past": past})
    )
    assert torch.equal(alone.images["room@-1"], alone.images["room"]) and torch.equal(alone.state, same.state)
    assert torch.equal(both.images["room"], alone.images["room"]) and torch.equal(both.state[:, :8], alone.state[:, :8])
    assert not torch.equal(both.images["room@-1"], alone.images["room"])
    assert not torch.equal(both.state[:, 8:], alone.state[:, 8:])
    assert policy.infer(now | {"past": past})["actions"].shape == (6, 4)
    with pytest.raises(ValueError, match="'past' is what the robot saw one control step earlier"):
        policy.infer(now | {"past": earlier["images"]})
    with pytest.raises(ValueError, match=r"cameras \['wrist'\] are missing"):
        policy.infer(now | {"past": past | {"images": {"room": earlier["images"]["room"]}}})


def test_training_rows_of_two_moments_hold_the_frame_before(data):
    rows = RobotRows("toy", LeRobotDataset(data, 6), loc_stride=1, moments=2)
    assert rows.sample(0, np.random.default_rng(0)).past is None, "an episode begins"
    later, before = rows.sample(5, np.random.default_rng(0)), rows.sample(4, np.random.default_rng(0))
    assert np.array_equal(later.past.state, before.state)
    assert all(np.array_equal(later.past.images[camera], before.images[camera]) for camera in ROBOT.cameras)
    assert rows.sample(12, np.random.default_rng(0)).past is None
