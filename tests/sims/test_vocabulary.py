"""The text model of rooms: every word that is spoken there is one token, and so is a control mode."""

import pytest

from pilot.sims import vocabulary
from pilot.tokenizers.prompts import format_prompt
from pilot.tokenizers.text import ROOMS_MODEL, TextTokenizer


@pytest.fixture(scope="module")
def rooms():
    return TextTokenizer(ROOMS_MODEL)


def test_every_spoken_word_is_one_token(rooms):
    words = vocabulary.spoken_words()
    assert len(words) > 500 and {"teapot", "please", "towel", "carton"} <= set(words)
    broken = [word for word in words if len(rooms.encode(word)) > 1 or len(rooms.encode(f" {word}")) > 1]
    assert broken == [], "build it anew: python -m pilot.sims.vocabulary"


def test_the_next_model_gets_other_names_too(monkeypatch):
    monkeypatch.setattr(vocabulary, "_scene_texts", lambda: iter(()))
    assert {"dustbin", "icebox", "bureau", "flip", "shut", "fetch"} <= set(vocabulary.all_words())


def test_a_prompt_with_its_state_and_control_mode_is_short(rooms):
    ids = rooms.encode(
        format_prompt("subtask", "put the red toy rocket in the sink", bins=range(11), control_mode="joint")
    )
    assert len(ids) <= 8 + 1 + 11 + 8


def test_any_text_survives(rooms):
    for text in ("Ünïcode 12 345", " x ", "<loc0003> <control mode>", "antidisestablishment"):
        assert rooms.decode(rooms.encode(text)) == text
