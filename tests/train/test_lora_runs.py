"""Runs with LoRA: only adapters learn, what is saved of them is small, and the policy has them merged."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pilot.infer.policy import load_policy
from pilot.models.bundle import load_bundle
from pilot.nn.configs import LoraConfig, LoraGroup
from pilot.nn.lora import DESCRIPTION, WEIGHTS
from pilot.train.config import InitFrom, OptimConfig, TrainConfig
from pilot.train.loop import train
from pilot.train.metrics import read_metrics
from train import ranks
from train.toy import config, record, same, weights

pytestmark = pytest.mark.usefixtures("no_shape_checks")
LORA = LoraConfig(language=LoraGroup(rank=2, alpha=4.0), expert=LoraGroup(rank=3, alpha=3.0))
PLAIN = OptimConfig(peak_lr=3e-3, warmup_steps=2, eps=1e-3)  # a large eps: no step hangs on the sign of a zero


def tuned(data: Path, base: Path, **changes: object) -> TrainConfig:
    whole = {
        "lora": LORA,
        "init_from": InitFrom(str(base)),
        "freeze": ("vision",),
        "optim": PLAIN,
        "ema": {"decay": 0.5},
    }
    return config(data, **(whole | changes))


def train_in(data: Path, base: Path, out: Path, changes: dict) -> None:
    train(tuned(data, base, **changes), out=out, progress=False)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return record(tmp_path_factory.mktemp("data") / "toy")


@pytest.fixture(scope="module")
def base(data, tmp_path_factory) -> Path:
    return train(config(data, steps=2), out=tmp_path_factory.mktemp("base"), progress=False)


@pytest.fixture(scope="module")
def out(data, base, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("tuned")
    train(tuned(data, base), out=path, progress=False)
    return path


def test_only_adapters_and_the_way_in_and_out_learn(out, base):
    before, after = dict(load_bundle(base).model.state_dict()), weights(out)
    moved = {name for name, weight in after.items() if name not in before or not torch.equal(weight, before[name])}
    others = {name for name in moved if "lora_" not in name}
    assert others == {"action_in.weight", "action_in.bias", "action_out.weight", "action_out.bias"}
    assert all(f"vlm.blocks.{i}.{part}.lora_b" in moved for i in (0, 1) for part in ("qkv", "out", "gate_up"))
    assert {"action_expert.blocks.1.down.lora_b", "time_mlp_in.lora_b", "time_mlp_out.lora_a"} <= moved


def test_the_first_loss_is_that_of_the_base_model(data, base, out, tmp_path):
    train(tuned(data, base, lora=None, freeze=(), steps=1), out=tmp_path, progress=False)
    first, plain = read_metrics(out)[0], read_metrics(tmp_path)[0]
    for name in ("loss/text", "loss/fast", "loss/flow"):
        assert first[name] == pytest.approx(plain[name], rel=1e-5)


def test_the_policy_is_the_average_with_its_adapters_merged(out):
    policy, average = load_policy(out / "policy", verify=True).model, weights(out, "ema")
    own = policy.state_dict()
    assert not any("lora_" in name for name in own)
    assert torch.equal(own["action_in.weight"], average["action_in.weight"])
    a, b = (average[f"vlm.blocks.0.down.lora_{half}"] for half in "ab")
    detour = (own["vlm.blocks.0.down.weight"] - weights(out)["vlm.blocks.0.down.weight"]) / 2.0  # alpha 4, rank 2
    torch.testing.assert_close(detour, b @ a, rtol=1e-4, atol=1e-6)


@pytest.mark.usefixtures("no_manifests")
def test_a_small_checkpoint_is_the_same_policy_as_long_as_its_base_is_there(out, base, tmp_path):
    small, whole = load_policy(out / "adapters"), load_policy(out / "policy")
    assert same(dict(small.model.state_dict()), dict(whole.model.state_dict()))
    assert small.bundle.robot == whole.bundle.robot and small.bundle.norm_stats.keys() == whole.bundle.norm_stats.keys()
    sizes = [(out / name).stat().st_size for name in (f"adapters/{WEIGHTS}", "policy/model.safetensors")]
    assert sizes[0] < sizes[1] / 4
    moved = tmp_path / "adapters"
    shutil.copytree(out / "adapters", moved)
    note = json.loads((moved / DESCRIPTION).read_text())
    (moved / DESCRIPTION).write_text(json.dumps(note | {"base": str(tmp_path / "gone")}))
    with pytest.raises(FileNotFoundError, match="gone"):
        load_policy(moved)
    (moved / DESCRIPTION).write_text(json.dumps(note | {"scales": {"vlm.blocks.9.qkv": 1.0}}))
    with pytest.raises(ValueError, match=r"adapters of vlm\.blocks\.9\.qkv do not fit their base"):
        load_policy(moved)


def test_an_expert_from_nothing_is_in_the_small_checkpoint_too(data, base, tmp_path):
    train(tuned(data, base, steps=1, init_from=InitFrom(str(base), fresh=("expert",))), out=tmp_path, progress=False)
    small, whole = (dict(load_policy(tmp_path / name).model.state_dict()) for name in ("adapters", "policy"))
    assert same(small, whole)
    assert not torch.equal(
        small["action_expert.blocks.0.qkv.weight"], load_bundle(base).pi.action_expert.blocks[0].qkv.weight
    )


def test_a_resumed_run_is_the_same_run_to_the_bit(data, base, out, tmp_path):
    train(tuned(data, base), out=tmp_path, until=5, progress=False)
    train(tuned(data, base), out=tmp_path, progress=False)
    assert same(weights(out), weights(tmp_path)) and same(weights(out, "ema"), weights(tmp_path, "ema"))


def test_two_ranks_that_share_the_model_train_the_same_adapters(data, base, out, tmp_path):
    options = {"data": data, "base": base, "out": tmp_path / "two", "changes": {"parallel": {"strategy": "fsdp"}}}
    ranks.run(train_in, ranks=2, folder=tmp_path / "meet", options=options)
    for of in ("model", "ema", "optimizer"):
        mine, theirs = weights(tmp_path / "two", of), weights(out, of)
        assert mine.keys() == theirs.keys()
        for name, weight in mine.items():
            torch.testing.assert_close(weight, theirs[name], rtol=2e-4, atol=2e-5, msg=name)
    mine, theirs = (load_policy(path / "policy", verify=True).model.state_dict() for path in (tmp_path / "two", out))
    for name, weight in mine.items():
        torch.testing.assert_close(weight, theirs[name], rtol=2e-4, atol=2e-5, msg=name)


def test_adapters_of_openpi_leave_the_vision_tower_to_learn_whole(data, base, tmp_path):
    lora = replace(LORA, targets=("qkv", "out"), whole=("action_in", "action_out", "time_mlp_in", "time_mlp_out"))
    train(tuned(data, base, lora=lora, freeze=(), steps=1), out=tmp_path, progress=False)
    before, after = dict(load_bundle(base).model.state_dict()), weights(tmp_path)
    moved = {n.split(".")[0] for n, w in after.items() if n in before and not torch.equal(w, before[n])}
    assert moved == {"vision", "action_in", "action_out", "time_mlp_in", "time_mlp_out"}


def test_in_bf16_what_is_frozen_is_kept_in_bf16_and_the_policy_is_in_fp32(data, base, out, tmp_path):
    train(tuned(data, base, steps=2, compute={"precision": "bf16"}), out=tmp_path, progress=False)
    kept = {name: weight.dtype for name, weight in weights(tmp_path).items()}
    assert {kept[name] for name in kept if "lora_" in name or name.startswith("action_in")} == {torch.float32}
    assert {kept["embedding.weight"], kept["vlm.blocks.0.qkv.weight"], kept["vision.patch.weight"]} == {torch.bfloat16}
    policy = load_policy(tmp_path / "policy", verify=True).model
    assert {weight.dtype for weight in policy.state_dict().values()} == {torch.float32}
    torch.testing.assert_close(policy.embedding.weight, load_bundle(base).model.embedding.weight, rtol=1e-2, atol=1e-2)
    assert read_metrics(tmp_path)[0]["loss/flow"] == pytest.approx(read_metrics(out)[0]["loss/flow"], rel=0.05)
