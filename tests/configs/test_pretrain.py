"""The stages of π0.5 as the configs have them: what the papers say of them, and a toy that takes both."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pilot import configs
from pilot.configs import pretrain
from pilot.infer.policy import load_policy
from pilot.models.bundle import load_bundle
from pilot.models.pi import PiConfig, pi05
from pilot.train.config import InitFrom, TrainConfig
from pilot.train.loop import train
from pilot.train.metrics import read_metrics
from train.toy import changed, record, record_web

RUNS = ("pi0_pretrain", "pi0_fast_pretrain", "pi05_stage1", "pi05_stage2", "pi05_insulated")


def folders(run: TrainConfig) -> set[str]:
    return {Path(source.path).name for source in run.data.sources}


def losses(run: TrainConfig) -> set[str]:
    return {name for name in ("text", "fast", "flow") if run.objective.weight_of(name) > 0}


def test_the_stages_are_those_of_the_papers():
    one, two, insulated = (configs.get(name) for name in ("pi05_stage1", "pi05_stage2", "pi05_insulated"))
    assert (one.objective.alpha, two.objective.alpha, insulated.objective.alpha) == (0.0, 10.0, 1.0)
    assert (one.steps, two.steps) == (280_000, 80_000)
    assert {run.model.action_horizon for run in (one, two, insulated)} == {50}
    assert one.model.action_expert is None and two.init_from.fresh == ("expert",)
    assert not two.model.insulate and insulated.model.insulate
    assert losses(one) == {"text", "fast"} and losses(two) == losses(insulated) == {"text", "fast", "flow"}
    labs, verbal = set(pretrain.LABS), set(pretrain.VERBAL)
    assert labs <= folders(one) and not labs & folders(two)
    assert not verbal & folders(one) and verbal <= folders(two)
    share = {Path(source.path).name: source.weight for source in two.data.sources}
    assert share["droid_verbal"] / (share["droid_verbal"] + share["droid_subtasks"]) == pytest.approx(0.11)


def test_the_first_models_of_the_family_learn_one_thing():
    flow, fast = configs.get("pi0_pretrain"), configs.get("pi0_fast_pretrain")
    assert losses(flow) == {"flow"} and losses(fast) == {"fast"} and fast.model.action_expert is None
    assert (flow.model.action_horizon, fast.model.action_horizon) == (50, 16), "50 steps, and a second of DROID"
    assert flow.steps == 700_000 and flow.data.mixture_power == 0.43 and not any(s.weight for s in flow.data.sources)


@pytest.mark.parametrize("name", RUNS)
def test_all_start_from_paligemma_or_the_stage_before(name):
    run = configs.get(name)
    stage1 = InitFrom("outputs/pi05_stage1/policy", fresh=("expert",))
    before = stage1 if name == "pi05_stage2" else pretrain.PALIGEMMA
    assert run.init_from == before


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("data")
    record(path / "robot")
    record_web(path / "web")
    return path


def small(run: TrainConfig, data: Path, model: PiConfig, **changes: object) -> TrainConfig:
    """The run with a small model, on two toy sources that teach what its own teach."""
    teaches = tuple({loss: None for source in run.data.sources if source.kind == "robot" for loss in source.teaches})
    robot = replace(run.data.sources[0], path=str(data / "robot"), robot="homes", teaches=teaches, weight=0.5)
    web = replace(run.data.sources[-1], path=str(data / "web"), weight=0.5)
    optim = replace(run.optim, warmup_steps=1, peak_lr=1e-3, final_lr=1e-3)
    sources = {"sources": (robot, web), "action_tokenizer": "fast", "workers": 0, "loc_stride": 64}
    base = changed(run, model=model, robot="homes", steps=3, batch_size=4, optim=optim, data=sources)
    return changed(base, logging={"log_every": 1}, checkpoints={"keep_every": None}, **changes)


@pytest.mark.usefixtures("no_shape_checks")
@pytest.mark.filterwarnings("ignore:constant dims", "ignore:rarely moving")
def test_the_second_stage_goes_on_from_the_first_with_an_expert_from_nothing(data, tmp_path):
    model = pi05("debug", max_tokens=80, insulate=False)
    spoken = replace(model, action_expert=None)
    one = train(small(configs.get("pi05_stage1"), data, spoken, init_from=None), out=tmp_path / "1", progress=False)
    assert {"loss/text", "loss/fast"} <= read_metrics(tmp_path / "1")[-1].keys()
    assert load_policy(one, verify=True).action_grammars, "before it has an expert it acts by tokens"
    run = small(configs.get("pi05_stage2"), data, model, init_from=InitFrom(str(one), fresh=("expert",)))
    two = train(run, out=tmp_path / "2", progress=False)
    last = read_metrics(tmp_path / "2")[-1]
    assert all(last[f"loss/{name}"] > 0 for name in ("text", "fast", "flow"))
    before, after = (load_bundle(path).model for path in (one, two))
    assert after.config == model and not torch.equal(before.vlm.blocks[0].qkv.weight, after.vlm.blocks[0].qkv.weight)
