"""From frames to words: boxes in front of subtasks, utterances drawn anew."""

import numpy as np
import pytest

from pilot.data.language import format_subtask, snap_locs, to_sample

FRAME = {
    "images": {},
    "state": np.zeros(3, np.float32),
    "actions": np.zeros((4, 2), np.float32),
    "action_is_pad": np.zeros(4, bool),
    "task": "put the red cup in the sink",
    "subtask": "pick up the red cup",
    "box": (0.25, 0.5, 0.3751, 1.0),
    "utterance": None,
    "rephrasings": (),
}


def test_the_box_comes_first_and_snaps():
    sample = to_sample(FRAME, rng=np.random.default_rng(0), loc_stride=16, source="homes")
    assert sample.subtask == "<loc0256><loc0512><loc0384><loc1023>pick up the red cup"
    assert (sample.prompt, sample.source, sample.answer) == ("put the red cup in the sink", "homes", None)


def test_without_box_or_subtask():
    assert format_subtask("done", None) == "done"
    assert format_subtask(None, (0, 0, 1, 1)) is None
    assert to_sample(FRAME, rng=np.random.default_rng(0), with_subtask=False).subtask is None


def test_utterances_are_drawn_anew():
    rng, frame = np.random.default_rng(0), FRAME | {"utterance": "grab the red cup"}
    prompts = [to_sample(frame, rng=rng).prompt for _ in range(400)]
    assert set(prompts) == {"grab the red cup", FRAME["task"]}
    assert 150 < prompts.count("grab the red cup") < 250


def test_any_wording_of_the_task_is_the_prompt():
    rng, frame = np.random.default_rng(0), FRAME | {"rephrasings": ("the red cup goes into the sink",)}
    prompts = [to_sample(frame, rng=rng).prompt for _ in range(400)]
    assert set(prompts) == {FRAME["task"], "the red cup goes into the sink"}
    assert 150 < prompts.count(FRAME["task"]) < 250


def test_snapping_text():
    assert snap_locs("what is at <loc0100><loc0200><loc0300><loc0400>", stride=16).endswith(
        "<loc0096><loc0208><loc0304><loc0400>"
    )
    assert snap_locs("<loc0100> alone", stride=16) == "<loc0100> alone"
    with pytest.raises(ValueError, match=r"not a box"):
        snap_locs("<loc0500><loc0200><loc0300><loc0400>", stride=16)
