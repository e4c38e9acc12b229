"""Plans of runs on one H100 lie within 10 % of what was measured there (`bench/gpu_training.py`)."""

from typing import Any

import pytest

from pilot.models.pi import pi05
from pilot.nn.configs import LoraConfig, LoraGroup
from pilot.train.config import ComputeConfig, ObjectiveConfig, TrainConfig
from pilot.train.plan.estimate import Choice, plan_run
from pilot.train.plan.gpus import GPUS
from pilot.train.plan.memory import CONTEXT
from pilot.train.plan.time import BANDWIDTH, TRAFFIC


def requested(rows: int, *, text: int = 344, spoken: int | None = 140, keeps: str = "none", **changes: Any) -> Choice:
    """The plan's forecast of a compiled run of π0.5 at `2b` with three cameras."""
    config = TrainConfig(
        name="run", model=pi05("2b", max_tokens=text), robot="aloha", steps=1000, batch_size=rows,
        compute=ComputeConfig(device="cuda", compile=True, checkpointing=keeps), **changes,
    )  # fmt: skip
    return plan_run(config, gpus="1xH100", text=text, spoken=spoken)["asked"]


FLOW_ONLY = ObjectiveConfig(text_weight=0.0, fast_weight=0.0)
LORA = LoraConfig(vision=LoraGroup(rank=16, alpha=16.0))
MEASURED = {  # what is asked for, milliseconds of kernels in a step, gigabytes that tensors took at most
    "flow alone, insulated, 32 rows": (requested(32, text=200, spoken=None, objective=FLOW_ONLY), 283.2, 17.91),
    "all losses, 16 rows, selective": (requested(16, keeps="selective"), 647.5, 75.87),
    "LoRA, 8 rows, blocks recomputed": (requested(8, keeps="blocks", lora=LORA), 336.9, 14.00),
}


@pytest.mark.parametrize("name", MEASURED)
def test_time_and_memory_are_those_that_an_h100_took(name):
    choice, ms, gigabytes = MEASURED[name]
    assert choice["step_s"] == pytest.approx(ms / 1e3, rel=0.1)
    assert (choice["bytes"]["peak"] - CONTEXT) / 1e9 == pytest.approx(gigabytes, rel=0.1)


def test_what_an_h100_had_no_room_for_is_said():
    assert not requested(8)["fits"], "8 rows of all losses, all activations kept: out of memory"
    assert requested(8, keeps="selective")["fits"]


def test_logits_go_through_memory_as_what_is_saved_does():
    silent, spoken = requested(1, spoken=0), requested(1, spoken=100)
    saved = 100 * (4 * 257_152 + 2 * 2048)  # fp32 scores of the vocabulary, and what the head takes in bf16
    behind_attention = 344 * (2048 * 4 + 8 * 256 * 2 + 4 * 8 + 4 + 3 * 2 * 16_384)  # the text in the last layer
    moved = BANDWIDTH * GPUS["H100"].bandwidth * (spoken["seconds"]["traffic"] - silent["seconds"]["traffic"])
    assert moved == pytest.approx(TRAFFIC * (saved + behind_attention), rel=0.02)
