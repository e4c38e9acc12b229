"""A run that cannot work is refused before its first batch, with what is wrong and what to do."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pilot import configs
from pilot.data.formats import lerobot_layout as fmt
from pilot.data.formats.writer import LeRobotWriter
from pilot.models.pi import pi0, pi0_fast, pi05
from pilot.nn.configs import LoraConfig
from pilot.robots.homes import ROBOT
from pilot.train.checks import check_config, overlapping_ids
from pilot.train.config import DataConfig, InitFrom, OptimConfig, Source, TrainConfig
from pilot.train.setup import prepare
from train.toy import changed

RUN = TrainConfig(
    name="toy",
    model=pi05("debug"),
    data=DataConfig(sources=(Source(path="data/toy"),)),
    robot="homes",
    steps=4,
    batch_size=8,
)
ARM, WEB = Source(path="data/arm"), Source(path="data/web", kind="web")
WRONG = {
    "steps is at least 1, got 0": {"steps": 0},
    "batch_size is at least 1, got 0": {"batch_size": 0},
    r"optim\.warmup_steps is at least 0": {"optim": OptimConfig(warmup_steps=-1)},
    r"optim\.peak_lr is above 0, got 0": {"optim": OptimConfig(peak_lr=0.0)},
    r"optim\.clip_norm is above 0, got nan": {"optim": OptimConfig(clip_norm=math.nan)},
    r"optim\.final_lr is at least 0, got -1": {"optim": OptimConfig(final_lr=-1.0)},
    r"optim\.decay_steps is at least 1, got 0": {"optim": OptimConfig(decay_steps=0)},
    r"optim\.betas are at least 0 and below 1": {"optim": OptimConfig(betas=(1.5, 0.9))},
    r"objective\.text_weight is at least 0, got -1": {"objective": {"text_weight": -1.0}},
    r"objective\.alpha is at least 0, got nan": {"objective": {"alpha": math.nan}},
    r"unknown loss in objective\.loss_weights 'txet'; did you mean 'text'": {
        "objective": {"loss_weights": {"txet": 0.0}}
    },
    "the weight of 'kl' is at least 0, got -1": {"objective": {"loss_weights": {"kl": -1.0}}},
    r"data\.fast_scale is above 0, got 0": {"data": {"fast_scale": 0.0}},
    r"evaluation\.validate_rows is at least 1, got -3": {"evaluation": {"validate_rows": -3}},
    "seed is at least 0, got -1": {"seed": -1},
    r"parallel\.threads is at least 0, got -1": {"parallel": {"threads": -1}},
    "point_layer looks into a block from outside": {"model": pi05("nano"), "compute": {"precision": "bf16"}},
    "with parallel.strategy=none": {"model": pi05("nano"), "parallel": {"strategy": "ddp"}},
    r"logging\.log_every is at least 1, got 0": {"logging": {"log_every": 0}},
    r"checkpoints\.save_every is at least 1, got 0": {"checkpoints": {"save_every": 0}},
    r"checkpoints\.keep is at least 1, got 0": {"checkpoints": {"keep": 0}},
    r"checkpoints\.keep_every is at least 1, got 0": {"checkpoints": {"keep_every": 0}},
    "ema.decay is at least 0": {"ema": {"decay": 1.0}},
    "time_s is above 0": {"objective": {"time_s": 0.0}},
    "8 rows does not split over 1 ranks of 3 passes each; make batch_size a mult": {"parallel": {"accumulate": 3}},
    "has no sources": {"data": {"sources": ()}},
    "two sources are called": {"data": {"sources": (ARM, Source(path="elsewhere/arm"))}},
    "is a source twice": {"data": {"sources": (ARM, replace(ARM, name="again")), "held_out": 0.1}},
    "/data/arm'. is a source twice": {
        "data": {"sources": (ARM, Source(path="./data/arm/", name="again")), "held_out": 0.1}
    },
    "the weight of a source is at least 0": {"data": {"sources": (replace(ARM, weight=-1.0),)}},
    "zoom of web rows is above 0": {"data": {"sources": (ARM, replace(WEB, zoom=0.0))}},
    "of others 1; data/arm has 0.5": {"data": {"sources": (replace(ARM, zoom=0.5),)}},
    "first_seconds of demonstrations is above 0": {"data": {"sources": (replace(ARM, first_seconds=0.0),)}},
    "web rows have none": {"data": {"sources": (ARM, replace(WEB, first_seconds=1.0))}},
    "to every source or to none": {"data": {"sources": (replace(ARM, weight=1.0), WEB)}},
    "unknown loss 'flows'; did you mean 'flow'.*'data/arm' teaches it": {
        "data": {"sources": (replace(ARM, teaches=("flows",)),)}
    },
    "robot 'aloha' has 14 state dims, the model's action_dim is 8; raise it": {"robot": "aloha"},
    "robot 'droidd'; did you mean 'droid'": {"data": {"sources": (ARM, Source(path="data/b", robot="droidd"))}},
    "alpha is 10, but the model has no action expert": {"model": pi0_fast("debug")},
    r"teaches 'flow', whose weight is 10; set it to 0 \(alpha\)": {
        "data": {"sources": (replace(ARM, teaches=("text", "fast")),)}
    },
    r"teaches 'text', whose weight is 1; set it to 0 \(text_weight\)": {
        "data": {"sources": (replace(ARM, teaches=("fast", "flow")),)}
    },
    r"1024 FAST ids are also <loc> tokens.*such as 1152": {"model": pi05(), "robot": "droid"},
    "freeze names 'vlmm', which the model has not; did you mean 'vlm'": {"freeze": ("vlmm",)},
    "fresh names 'experts'": {"init_from": InitFrom("checkpoints/x", fresh=("experts",))},
    "fresh names vlm; only parts of the expert": {"init_from": InitFrom("checkpoints/x", fresh=("expert", "vlm"))},
    "nothing is left to learn": {"freeze": ("vision", "language", "expert")},
    "among the LoRA targets qvk": {"lora": LoraConfig(targets=("qvk",))},
}


@pytest.mark.parametrize("message", WRONG)
def test_what_cannot_work_is_said(message):
    check_config(RUN)
    with pytest.raises(ValueError, match=message):
        check_config(changed(RUN, **WRONG[message]))


def test_a_batch_splits_over_ranks_and_passes():
    check_config(changed(RUN, parallel={"accumulate": 2}), ranks=4)
    with pytest.raises(ValueError, match="over 3 ranks of 1 passes each; make batch_size a multiple of 3"):
        check_config(RUN, ranks=3)


def test_a_model_that_does_not_speak_needs_no_words():
    check_config(
        changed(
            RUN, model=pi0("debug", prompt="pi0"), data={"sources": (replace(ARM, teaches=("text", "fast", "flow")),)}
        )
    )


def test_places_and_action_tokens_may_not_be_the_same_words():
    assert (
        len(overlapping_ids(pi05())) == 1024
        and not overlapping_ids(pi05(fast_offset=1152))
        and not overlapping_ids(pi05("nano"))
    )


def test_models_that_are_looked_into_compute_in_fp32_on_a_gpu_too():
    words = changed(RUN, model=pi05("nano"))
    assert RUN.computes_in_bf16("cuda") and not words.computes_in_bf16("cuda")
    flow = changed(words, objective={"text_weight": 0.0, "fast_weight": 0.0}, compute={"precision": "bf16"})
    check_config(flow)


@pytest.mark.parametrize("name", configs.names())
def test_every_run_of_the_folder_can_work(name):
    check_config(configs.get(name))


# --- with the data open ----------------------------------------------------------------------------------------------


def recording(path: Path, *, subtask: bool) -> Path:
    rng = np.random.default_rng(0)
    with LeRobotWriter(path, ROBOT, ROBOT.control_hz) as writer:
        frames = {
            fmt.STATE: rng.normal(size=(9, 5)).astype(np.float32),
            fmt.ACTION: rng.normal(size=(9, 4)).astype(np.float32),
            fmt.IMAGES + "room": rng.integers(0, 256, (9, 16, 16, 3), dtype=np.uint8),
            fmt.IMAGES + "wrist": rng.integers(0, 256, (9, 16, 16, 3), dtype=np.uint8),
        }
        said = [(0.0, "subtask", "assistant", "pick up the cup")] if subtask else []
        writer.add_episode(frames, task="put the cup in the sink", persistent=said, events=[])
    return path


@pytest.mark.filterwarnings("ignore:constant dims", "ignore:rarely moving")
def test_data_that_cannot_teach_what_is_asked_of_it_is_refused(tmp_path):
    told, mute = recording(tmp_path / "told", subtask=True), recording(tmp_path / "mute", subtask=False)

    def run(out: str, **changes: object) -> None:
        both = (Source(path=str(told)), Source(path=str(mute)))
        base = changed(RUN, model=pi05("debug", max_tokens=80), data={"frame_cache": False, "sources": both})
        prepare(changed(base, **changes), tmp_path / out, resume=True, progress=False)

    with pytest.raises(
        ValueError, match=r"sources \['mute'\] have no subtasks to say.*pilot data annotate.*text_weight=0"
    ):
        run("words")
    run("flow", data={"sources": (Source(path=str(told)), Source(path=str(mute), teaches=("fast", "flow")))})
    run("quiet", objective={"text_weight": 0.0})
    long = pi05("debug", max_tokens=80, action_horizon=10)
    with pytest.raises(
        ValueError, match="the longest episode of 'told' has 9 steps and a chunk has 10: no chunk is whole"
    ):
        run("long", model=long, data={"sources": (Source(path=str(told)),)})
    with pytest.raises(ValueError, match="a batch of 8 rows does not split over 1 ranks of 3 passes each"):
        run("passes", parallel={"accumulate": 3})
    assert not (tmp_path / "passes").exists(), "nothing is written for a run that cannot work"
