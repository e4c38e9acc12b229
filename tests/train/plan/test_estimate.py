"""`pilot plan`: what fits, what would, how long it takes, and what people are told."""

import json
from dataclasses import replace

import pytest

from pilot import configs
from pilot.cli import main
from pilot.cli.settings import override
from pilot.models.pi import pi05
from pilot.train.config import ObjectiveConfig, TrainConfig
from pilot.train.plan.estimate import RunPlan
from pilot.train.plan.gpus import GIB, GPUS, find_gpu, parse_gpus
from pilot.train.plan.report import table, to_text
from train.toy import changed

FULL = TrainConfig(
    name="full",
    model=pi05("2b"),
    robot="aloha",
    steps=1000,
    batch_size=64,
    objective=ObjectiveConfig(alpha=1.0, flow_draws=1),
)


def test_gpus_by_name():
    assert parse_gpus("8xH100") == (8, "H100")
    assert parse_gpus("4 x A100") == (4, "A100-80") and parse_gpus("a100-40gb") == (1, "A100-40")
    assert parse_gpus("RTX 4090") == parse_gpus("1x4090") == (1, "RTX4090")
    for wrong, message in {"8xH10": "did you mean 'H100'", "8:H100": "COUNTxNAME", "0xH100": "COUNTxNAME"}.items():
        with pytest.raises(ValueError, match=message):
            parse_gpus(wrong)


@pytest.mark.parametrize(
    ("device", "name"),
    [("NVIDIA H200", "H200"), ("NVIDIA A100-SXM4-40GB", "A100-40"), ("NVIDIA A100-SXM4-80GB", "A100-80"),
     ("NVIDIA GeForce RTX 4090", "RTX4090"), ("Tesla T4", None)],
)  # fmt: skip
def test_a_device_is_found_in_the_table(device, name):
    assert find_gpu(device) == name


def test_numbers_that_no_run_has_are_refused():
    with pytest.raises(ValueError, match="1 step of 1 row or more, got 1000 of 0"):
        RunPlan(replace(FULL, batch_size=0), gpus="1xH200")
    with pytest.raises(ValueError, match="of 10 text tokens 11 cannot be said"):
        RunPlan(FULL, gpus="1xH200", text=10, spoken=11)


def test_what_fits_is_left_as_it_is():
    made = RunPlan(replace(FULL, batch_size=8), gpus="1xH200")
    assert made.requested.fits and made.best == made.requested and made.requested.settings == []
    assert "It fits, with " in to_text(made)


def test_several_gpus_need_a_way_to_share():
    made = RunPlan(configs.get("nano_stage2"), gpus="2xH100")
    assert made.best == made.requested and made.requested.settings == ["parallel.strategy=ddp"]
    assert "GiB to spare: --set parallel.strategy=ddp" in to_text(made)


def test_the_smallest_change_is_one_setting_and_changes_no_result():
    made = RunPlan(FULL, gpus="8xH100")
    assert not made.requested.fits and made.best is not None and made.best.fits
    assert made.best.settings == ["parallel.strategy=fsdp"]
    assert made.best.memory["peak"] <= GPUS["H100"].memory < made.requested.memory["peak"]
    assert "--set parallel.strategy=fsdp" in to_text(made)


def test_the_change_works_when_it_is_made():
    made = RunPlan(FULL, gpus="8xA100-40")
    assert made.best is not None and made.best.changed and "lora" not in made.best.changed
    changed = override(FULL, made.best.settings)
    assert RunPlan(changed, gpus="8xA100-40").requested.memory == made.best.memory


def test_lora_comes_last_and_is_said():
    made = RunPlan(replace(FULL, batch_size=1), gpus="1xL40S")
    assert made.best is not None and "lora" in made.best.changed
    assert made.best.settings[-1] == "lora=true" and "--set lora=true" in to_text(made)
    changed = override(replace(FULL, batch_size=1), made.best.settings)
    assert RunPlan(changed, gpus="1xL40S").requested.memory == made.best.memory


@pytest.mark.parametrize("name", ["debug", "nano_vision", "nano_expert", "pi05_libero_lora", "pi0_fast_libero"])
def test_runs_of_every_kind_have_a_plan(name):
    made = RunPlan(changed(configs.get(name), batch_size=2, parallel={"accumulate": 1}), gpus="2xH200")
    assert to_text(made) and json.loads(json.dumps(made.to_json()))["asked"]["fits"]


def test_another_model_is_refused():
    with pytest.raises(ValueError, match="models of the π0 family; 'act_nano' trains another"):
        RunPlan(configs.get("act_nano"), gpus="1xH200")


def test_what_cannot_fit_is_said_with_the_least():
    made = RunPlan(replace(FULL, batch_size=1, model=pi05("2b", max_tokens=16_000)), gpus="1xRTX4090", text=16_000)
    assert made.best is None
    assert "Nothing that was tried fits" in to_text(made)


def test_fewer_changes_come_before_faster_ones():
    made = RunPlan(FULL, gpus="8xA100-40")
    assert made.best is not None and made.fastest is not None
    assert made.best.smallest_change() <= made.fastest.smallest_change()
    assert made.fastest.time["total"] <= made.best.time["total"]


def test_time_and_price_follow_from_samples():
    made = RunPlan(FULL, gpus="8xH200", samples=1_000_000, price=2.0)
    predicted = made.speed(made.chosen)
    assert predicted["samples_per_s"] == pytest.approx(64 / predicted["step_s"])
    assert predicted["hours"] == pytest.approx(1e6 / predicted["samples_per_s"] / 3600)
    assert predicted["dollars"] == pytest.approx(16 * predicted["hours"])
    assert 0.3 < predicted["mfu"] < 0.6


def test_two_nodes_are_faster_where_their_network_is_spared():
    runs = {way: changed(FULL, batch_size=64 * n, parallel={"strategy": way}) for way, n in (("fsdp", 2), ("hsdp", 2))}
    across, within = (RunPlan(run, gpus="16xH100").requested for run in runs.values())
    node = RunPlan(changed(FULL, parallel={"strategy": "fsdp"}), gpus="8xH100").requested
    assert across.time["sending"] > within.time["sending"] > node.time["sending"]
    assert 64 / node.time["total"] < 128 / within.time["total"] < 2 * 64 / node.time["total"]


def test_checkpointing_trades_time_for_memory():
    none, blocks = (
        RunPlan(changed(FULL, compute={"checkpointing": way}), gpus="8xH100").requested for way in ("none", "blocks")
    )
    assert blocks.memory["activations"] < 0.4 * none.memory["activations"]
    assert blocks.time["products"] > none.time["products"]
    assert blocks.counts.flops == none.counts.flops, "what is done again is not the model's work"


def test_a_batch_that_does_not_split_is_refused():
    with pytest.raises(ValueError, match="does not split over 7 GPUs"):
        RunPlan(FULL, gpus="7xH100")


def test_the_command_says_the_same_to_people_and_machines(capsys):
    arguments = ["plan", "nano_stage2", "--gpus", "2xH100", "--samples", "1e6", "--price", "3"]
    assert main.main(arguments) == 0
    text = capsys.readouterr().out
    assert main.main([*arguments, "--json"]) == 0
    predicted = json.loads(capsys.readouterr().out)
    assert predicted["samples"] == 1_000_000 and predicted["price_per_hour"] == 3 and predicted["asked"]["fits"]
    assert f"{predicted['asked']['bytes']['peak'] / GIB:.1f}" in text
    assert "nano_stage2 on 2 × H100, 64 rows per step" in text
    assert max(len(line) for line in text.splitlines()) <= 120


def test_columns_are_aligned():
    assert table([["Part", "all"], ["a", "1.0"], ["bcd", "22.0"]]) == "Part    all\n  a     1.0\n  bcd  22.0"
