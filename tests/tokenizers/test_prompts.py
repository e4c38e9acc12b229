"""Every prompt format byte by byte, against what openpi's tokenisers produced."""

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from pilot.tokenizers.prompts import (
    FORMATS,
    encode_actions,
    encode_prompt,
    encode_target,
    extract_action_ids,
    format_prompt,
    state_bins,
)
from pilot.tokenizers.text import TextTokenizer

GOLDEN = Path(__file__).parents[1] / "data_golden"
CASES = json.loads((GOLDEN / "tokenizers.json").read_text())
ARRAYS = load_file(GOLDEN / "tokenizers.safetensors")
GOLDEN_BINS = [178, -1, 137, 255, 146, 255, 80]
PALIGEMMA = 257152


class ByteTokenizer(TextTokenizer):
    """The goldens' stand-in for PaliGemma's model: byte b is id b + 3."""

    def __init__(self):
        self.bos_id, self.eos_id, self.vocab_size = 2, 1, PALIGEMMA

    def encode(self, text, *, add_bos=False, add_eos=False):
        return [2] * add_bos + [byte + 3 for byte in text.encode()] + [1] * add_eos

    def decode(self, ids):
        return bytes(i - 3 for i in ids if i >= 3).decode(errors="replace")


@pytest.fixture(scope="module")
def nano():
    return TextTokenizer()


@pytest.mark.filterwarnings("ignore:the prompt has")
@pytest.mark.parametrize("name", ["pi0", "pi05"])
@pytest.mark.parametrize("case", [c for c in CASES["prompts"] if c["prompt"]], ids=lambda c: f"{c['prompt']!r}")
def test_prompts_are_openpis(case, name):
    bins = GOLDEN_BINS if name == "pi05" else None
    ids = encode_prompt(ByteTokenizer(), name, text=case["prompt"], bins=bins, max_tokens=case["max_len"])
    assert ids == case[name]


@pytest.mark.parametrize("case", CASES["fast"]["tokenize"])
def test_fast_sequences_are_openpis(case):
    ids = encode_prompt(ByteTokenizer(), "pi0_fast", text=case["prompt"], bins=GOLDEN_BINS)
    if case["action_index"] is not None:
        fast_ids = CASES["fast"]["tokens"][case["action_index"]]
        ids += encode_actions(ByteTokenizer(), fast_ids, vocab_size=PALIGEMMA, offset=128)
    assert ids[: case["max_len"]] == case["tokens"]


def test_actions_are_found_in_what_a_model_said():
    said = ARRAYS["fast/extract/generated_tokens"]
    assert extract_action_ids(ByteTokenizer(), said, vocab_size=PALIGEMMA, offset=128) == CASES["fast"]["tokens"][2]
    assert extract_action_ids(ByteTokenizer(), said[3:], vocab_size=PALIGEMMA, offset=128) is None


def test_actions_survive_beside_the_small_model(nano):
    ids = [0, 7, 511]
    said = encode_actions(nano, ids, vocab_size=nano.vocab_size + 512)
    assert min(said[1:-2]) >= nano.vocab_size
    assert extract_action_ids(nano, said, vocab_size=nano.vocab_size + 512) == ids
    assert extract_action_ids(nano, said[:-2], vocab_size=nano.vocab_size + 512) == ids, "cut off at the token limit"


@pytest.mark.parametrize(
    ("name", "bins", "prompt"),
    [
        ("pi0", None, "put the Red cup away\n"),
        ("pi05", [1, 255], "Task: put the Red cup away, State: 1 255;\nAction: "),
        ("pi0_fast", [1, 255], "Task: put the red cup away, State: 1 255;\n"),
        ("openvla", None, "In: What action should the robot take to put the red cup away?\nOut:"),
        ("subtask", [1, 255], "Task: put the Red cup away, State: 1 255;\nSubtask: "),
        ("subtask_stateless", None, "Task: put the Red cup away;\nSubtask: "),
        ("web", None, "Question: put the Red cup away\nAnswer: "),
    ],
)
def test_formats_byte_by_byte(name, bins, prompt):
    assert format_prompt(name, " put the_Red cup away\n", bins=bins) == prompt


@pytest.mark.parametrize(
    ("name", "bins", "prompt"),
    [
        ("pi05", [7], "Task: fold <control mode> end effector <control mode>, State: 7;\nAction: "),
        ("subtask", [7], "Task: fold <control mode> end effector <control mode>, State: 7;\nSubtask: "),
        ("subtask_stateless", None, "Task: fold <control mode> end effector <control mode>;\nSubtask: "),
        ("pi0", None, "fold\n"),
        ("pi0_fast", [7], "Task: fold, State: 7;\n"),
        ("openvla", None, "In: What action should the robot take to fold?\nOut:"),
    ],
)
def test_the_control_mode_is_said_as_in_pi05_and_nowhere_else(name, bins, prompt):
    assert format_prompt(name, "fold", bins=bins, control_mode="end_effector") == prompt


def test_only_fast_keeps_inner_newlines():
    assert format_prompt("pi0_fast", "a\nb", bins=[0]) == "Task: a\nb, State: 0;\n"
    assert format_prompt("pi05", "a\nb", bins=[0]) == "Task: a b, State: 0;\nAction: "


def test_braces_in_a_prompt_are_only_text():
    assert format_prompt("pi0", "put {bins} away") == "put {bins} away\n"


def test_targets_end_where_the_model_should_stop(nano):
    assert nano.decode(encode_target(nano, "subtask", text="done")) == "done;\n"
    assert encode_target(nano, "web", text="yes") == [*nano.encode("yes"), nano.eos_id]
    with pytest.raises(ValueError, match="no target text; those that have one: subtask"):
        encode_target(nano, "pi05", text="done")
    with pytest.raises(ValueError, match="empty"):
        encode_target(nano, "web", text=" ")


def test_a_long_prompt_is_cut_with_a_warning_where_openpi_cuts_it():
    with pytest.warns(UserWarning, match="cut off: 'ction: '"):
        encode_prompt(ByteTokenizer(), "pi05", text="fold", bins=[1], max_tokens=24)


def test_a_long_prompt_of_ours_is_an_error(nano):
    with pytest.raises(ValueError, match="tokens and the budget is 8"):
        encode_prompt(nano, "subtask", text="put all the dishes in the sink", bins=[1, 2], max_tokens=8)


@pytest.mark.parametrize("text", ["", "  \n", "_"])
def test_an_empty_prompt_is_an_error(text):
    with pytest.raises(ValueError, match="empty prompt"):
        format_prompt("pi0", text)


def test_unknown_formats_and_stray_bins_are_errors():
    with pytest.raises(ValueError, match="did you mean 'pi05'"):
        format_prompt("pi5", "fold", bins=[1])
    with pytest.raises(ValueError, match="needs state bins"):
        format_prompt("pi05", "fold")
    with pytest.raises(ValueError, match="takes no state bins"):
        format_prompt("pi0", "fold", bins=[1])


@pytest.mark.filterwarnings("ignore:state dim")
@pytest.mark.parametrize("case", ["edges", "edges_f32", "random"])
def test_state_bins_are_openpis(case):
    state, bins = ARRAYS[f"state_bins/{case}/in"], ARRAYS[f"state_bins/{case}/out"]
    np.testing.assert_array_equal(state_bins(state, clip=False), bins)
    np.testing.assert_array_equal(state_bins(state), np.clip(bins, 0, 255))


def test_a_state_with_nan_is_an_error():
    with pytest.raises(ValueError, match="NaN"):
        state_bins(np.array([0.0, np.nan]))


def test_the_released_weights_formats_have_openpis_rule_below_minus_one():
    assert {name for name, prompt_format in FORMATS.items() if not prompt_format.clips_state} == {"pi05", "pi0_fast"}
    bins = state_bins(np.array([-1.5, 0.0]), clip=FORMATS["pi05"].clips_state)
    assert format_prompt("pi05", "fold", bins=bins) == "Task: fold, State: -1 128;\nAction: "


def test_a_state_far_outside_its_range_is_cut_with_a_warning_per_dim():
    with pytest.warns(UserWarning) as caught:
        assert state_bins(np.array([0.0, 2.1, -7.0, 1.0, -1.0])).tolist() == [128, 255, 0, 255, 0]
    said = [str(warning.message) for warning in caught]
    assert [words.split(":")[0] for words in said] == [
        "state dim 1 is far above what it was in training and becomes bin 255",
        "state dim 2 is far below what it was in training and becomes bin 0",
    ]
    assert all("norm_stats" in words for words in said)


def test_a_state_in_its_range_or_a_little_outside_is_no_news():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        state_bins(np.linspace(-1.5, 1.5, 33))
