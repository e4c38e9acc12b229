"""`pilot plan`: what fits, what would, how long it takes, and what people are told."""

import json
import re
from dataclasses import replace

import pytest

from pilot import configs
from pilot.cli import main
from pilot.cli.settings import override
from pilot.models.pi import pi05
from pilot.train.config import ObjectiveConfig, TrainConfig
from pilot.train.plan.estimate import plan_run
from pilot.train.plan.gpus import GIB, GPUS, find_gpu, parse_gpus
from pilot.train.plan.report import to_text
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
        plan_run(replace(FULL, batch_size=0), gpus="1xH200")
    with pytest.raises(ValueError, match="of 10 text tokens 11 cannot be said"):
        plan_run(FULL, gpus="1xH200", text=10, spoken=11)


def test_what_fits_is_left_as_it_is():
    made = plan_run(replace(FULL, batch_size=8), gpus="1xH200")
    assert made["asked"]["fits"] and made["best"] == made["asked"] and made["asked"]["settings"] == []
    assert "It fits, with " in to_text(made)


def test_several_gpus_need_a_way_to_share():
    made = plan_run(configs.get("nano_stage2"), gpus="2xH100")
    assert made["best"] == made["asked"] and made["asked"]["settings"] == ["parallel.strategy=ddp"]
    assert "GiB to spare: --set parallel.strategy=ddp" in to_text(made)


def test_the_smallest_change_is_one_setting_and_changes_no_result():
    made = plan_run(FULL, gpus="8xH100")
    assert not made["asked"]["fits"] and made["best"] is not None and made["best"]["fits"]
    assert made["best"]["settings"] == ["parallel.strategy=fsdp"]
    assert made["best"]["bytes"]["peak"] <= GPUS["H100"].memory < made["asked"]["bytes"]["peak"]
    assert "--set parallel.strategy=fsdp" in to_text(made)


def test_the_change_works_when_it_is_made():
    made = plan_run(FULL, gpus="8xA100-40")
    assert made["best"] is not None and made["best"]["settings"] and not made["best"]["layout"]["lora"]
    changed = override(FULL, made["best"]["settings"])
    assert plan_run(changed, gpus="8xA100-40")["asked"]["bytes"] == made["best"]["bytes"]


def test_lora_comes_last_and_is_said():
    made = plan_run(replace(FULL, batch_size=1), gpus="1xL40S")
    assert made["best"] is not None and made["best"]["layout"]["lora"]
    assert made["best"]["settings"][-1] == "lora=true" and "--set lora=true" in to_text(made)
    changed = override(replace(FULL, batch_size=1), made["best"]["settings"])
    assert plan_run(changed, gpus="1xL40S")["asked"]["bytes"] == made["best"]["bytes"]


@pytest.mark.parametrize("name", ["debug", "nano_vision", "nano_expert", "pi05_libero_lora", "pi0_fast_libero"])
def test_runs_of_every_kind_have_a_plan(name):
    made = plan_run(changed(configs.get(name), batch_size=2, parallel={"accumulate": 1}), gpus="2xH200")
    assert to_text(made) and json.loads(json.dumps(made))["asked"]["fits"]


def test_another_model_is_refused():
    with pytest.raises(ValueError, match="models of the π0 family; 'act_nano' trains another"):
        plan_run(configs.get("act_nano"), gpus="1xH200")


def test_what_cannot_fit_is_said_with_the_least():
    made = plan_run(replace(FULL, batch_size=1, model=pi05("2b", max_tokens=16_000)), gpus="1xRTX4090", text=16_000)
    assert made["best"] is None
    assert "Nothing that was tried fits" in to_text(made)


def test_fewer_changes_come_before_faster_ones():
    made = plan_run(FULL, gpus="8xA100-40")
    assert made["best"] is not None and made["fastest"] is not None
    assert len(made["best"]["settings"]) <= len(made["fastest"]["settings"])
    assert made["fastest"]["step_s"] <= made["best"]["step_s"]


def test_time_and_price_follow_from_samples():
    made = plan_run(FULL, gpus="8xH200", samples=1_000_000, price=2.0)
    predicted = made["best"]
    assert predicted["samples_per_s"] == pytest.approx(64 / predicted["step_s"])
    assert predicted["hours"] == pytest.approx(1e6 / predicted["samples_per_s"] / 3600)
    assert predicted["dollars"] == pytest.approx(16 * predicted["hours"])
    assert 0.3 < predicted["mfu"] < 0.6


def test_two_nodes_are_faster_where_their_network_is_spared():
    runs = {way: changed(FULL, batch_size=64 * n, parallel={"strategy": way}) for way, n in (("fsdp", 2), ("hsdp", 2))}
    across, within = (plan_run(run, gpus="16xH100")["asked"] for run in runs.values())
    node = plan_run(changed(FULL, parallel={"strategy": "fsdp"}), gpus="8xH100")["asked"]
    assert across["seconds"]["sending"] > within["seconds"]["sending"] > node["seconds"]["sending"]
    assert 64 / node["step_s"] < 128 / within["step_s"] < 2 * 64 / node["step_s"]


def test_checkpointing_trades_time_for_memory():
    none, blocks = (
        plan_run(changed(FULL, compute={"checkpointing": way}), gpus="8xH100")["asked"] for way in ("none", "blocks")
    )
    assert blocks["bytes"]["activations"] < 0.4 * none["bytes"]["activations"]
    assert blocks["seconds"]["products"] > none["seconds"]["products"]
    assert blocks["flops_per_sample"] == none["flops_per_sample"], "what is done again is not the model's work"


def test_a_batch_that_does_not_split_is_refused():
    with pytest.raises(ValueError, match="does not split over 7 GPUs"):
        plan_run(FULL, gpus="7xH100")


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


def test_numbers_stand_below_each_other():
    lines = to_text(plan_run(FULL, gpus="8xH100")).splitlines()
    assert len({len(line) for line in lines if line.endswith(" M")}) == 1
    kinds = r"  (?:weights|gradients|optimizer|peak) +[\d.]+ +[\d.]+"
    assert len({match.end() for line in lines if (match := re.match(kinds, line))}) == 1
