"""A run that cannot work is refused before its first batch, with what is wrong and what to do."""

from dataclasses import replace

import pytest

from pilot import configs
from pilot.models.pi import pi0, pi0_fast, pi05
from pilot.nn.lora import LoraConfig
from pilot.train.check import check_config, shared_ids
from pilot.train.config import OptimConfig, Source, TrainConfig

RUN = TrainConfig(
    name="toy", model=pi05("debug"), sources=(Source(path="data/toy"),), robot="homes", steps=4, batch_size=8
)
ARM, WEB = Source(path="data/arm"), Source(path="data/web", kind="web")
WRONG = {
    "steps is at least 1, got 0": {"steps": 0},
    "batch_size is at least 1, got 0": {"batch_size": 0},
    r"optim\.warmup_steps is at least 0": {"optim": OptimConfig(warmup_steps=-1)},
    r"peak_lr and optim\.clip_norm are above 0, got 0": {"optim": OptimConfig(peak_lr=0.0)},
    "ema_decay is from 0": {"ema_decay": 1.0},
    "time_s is above 0": {"time_s": 0.0},
    "8 rows does not split over 1 ranks of 3 passes each; make batch_size a multiple of 3": {"accumulate": 3},
    "has no sources": {"sources": ()},
    "the same folder name": {"sources": (ARM, Source(path="elsewhere/arm"))},
    "to every source or to none": {"sources": (replace(ARM, weight=1.0), WEB)},
    r"'data/arm' teaches \['flows'\]": {"sources": (replace(ARM, teaches=("flows",)),)},
    "robot 'aloha' has 14 state dims, the model's action_dim is 8; raise it": {"robot": "aloha"},
    "robot 'droidd'; did you mean 'droid'": {"sources": (ARM, Source(path="data/b", robot="droidd"))},
    "alpha is 10, but the model has no action expert": {"model": pi0_fast("debug")},
    r"teaches 'flow', whose weight is 10; set it to 0 \(alpha\)": {
        "sources": (replace(ARM, teaches=("text", "fast")),)
    },
    r"teaches 'text', whose weight is 1; set it to 0 \(text_weight\)": {
        "sources": (replace(ARM, teaches=("fast", "flow")),)
    },
    r"1024 FAST ids are also <loc> tokens.*such as 1152": {"model": pi05(), "robot": "droid"},
    "freeze names 'vlmm', which the model has not; did you mean 'vlm'": {"freeze": ("vlmm",)},
    "fresh names 'experts'": {"fresh": ("experts",)},
    "nothing is left to learn": {"freeze": ("vision", "language", "expert")},
    "among the LoRA targets qvk": {"lora": LoraConfig(targets=("qvk",))},
}


@pytest.mark.parametrize("message", WRONG)
def test_what_cannot_work_is_said(message):
    check_config(RUN)
    with pytest.raises(ValueError, match=message):
        check_config(replace(RUN, **WRONG[message]))


def test_a_batch_splits_over_ranks_and_passes():
    check_config(replace(RUN, accumulate=2), ranks=4)
    with pytest.raises(ValueError, match="over 3 ranks of 1 passes each; make batch_size a multiple of 3"):
        check_config(RUN, ranks=3)


def test_a_model_that_does_not_speak_needs_no_words():
    check_config(
        replace(RUN, model=pi0("debug", prompt="pi0"), sources=(replace(ARM, teaches=("text", "fast", "flow")),))
    )


def test_places_and_action_tokens_may_not_be_the_same_words():
    assert len(shared_ids(pi05())) == 1024 and not shared_ids(pi05(fast_offset=1152)) and not shared_ids(pi05("nano"))


@pytest.mark.parametrize("name", configs.names())
def test_every_run_of_the_folder_can_work(name):
    check_config(configs.get(name))
