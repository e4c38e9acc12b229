"""The exact sentences: the text model and every published number hang on them."""

import pytest

from pilot.sims.homes import language


def test_the_sentences():
    thing = language.phrase("red", "cup")
    assert language.single_instructions(thing, "sink") == (
        "put the red cup in the sink",
        "place the red cup in the sink",
        "move the red cup to the sink",
    )
    assert language.category_instruction("dishes", "sink") == "put all the dishes in the sink"
    pair = language.list_instruction(("red cup", "blue ball"), "tray")
    assert pair == "put the red cup and the blue ball in the tray"
    assert language.everything_instruction("bin") == "clear everything into the bin"
    assert language.pick_subtask(thing) == "pick up the red cup"
    assert language.put_subtask("sink") == "put it in the sink"


def test_what_a_person_says_instead():
    assert language.utterances("pick up the red cup") == ("grab the red cup", "take the red cup")
    assert language.utterances("put it in the sink") == ("drop it in the sink", "now into the sink")
    assert language.utterances("done") == ()


def test_no_subtask_is_an_error():
    with pytest.raises(ValueError, match="dance"):
        language.utterances("dance")


def test_held_out_words_are_no_ordinary_words():
    assert not set(language.KINDS) & set(language.HELD_OUT_KINDS)
    assert not set(language.RECEPTACLES) & set(language.HELD_OUT_RECEPTACLES)
    assert all(set(members) <= set(language.KINDS) for members in language.CATEGORIES.values())
