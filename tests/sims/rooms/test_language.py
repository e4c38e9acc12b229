import numpy as np
import pytest

from pilot.sims.rooms import language

WORDS = {
    "thing": "red mug",
    "other": "blue bowl",
    "things": "dishes",
    "place": "sink",
    "into": "tray",
    "room": "kitchen",
}
SUBTASKS = (
    language.pick_subtask("red mug"),
    language.put_subtask("red mug", "sink"),
    language.put_subtask("red mug", "table", on=True),
    language.open_subtask("top drawer"),
    language.close_subtask("top drawer"),
    language.WIPE_SUBTASK,
    language.BLANKET_SUBTASK,
)


@pytest.mark.parametrize("request_name", language.REQUESTS)
def test_every_request_has_twenty_phrasings_and_others_that_training_never_hears(request_name):
    phrasings = language.REQUESTS[request_name]
    assert len(set(phrasings.known)) >= 20
    assert len(set(phrasings.held_out)) >= 4
    assert not set(phrasings.known) & set(phrasings.held_out)
    for sentence in (*phrasings.known, *phrasings.held_out):
        assert sentence == " ".join(sentence.split()).strip()
        assert "<" not in language.fill(sentence, **WORDS)


@pytest.mark.parametrize("subtask", SUBTASKS)
def test_a_supervisor_has_twenty_ways_to_ask_for_a_subtask(subtask):
    said = language.utterances(subtask)
    assert len(said) >= 20
    assert subtask not in said
    assert not set(said) & set(language.utterances(subtask, held_out=True))
    assert language.utterances(subtask, held_out=True)


def test_places_have_other_names_some_of_them_for_tests_alone():
    for place, (known, new) in language.PLACES.items():
        assert not {place, *known} & set(new)
        assert language.place_names(place) == (place, *known)
        assert language.place_names(place, held_out=True) == new
    everything = [name for place, (known, new) in language.PLACES.items() for name in (place, *known, *new)]
    assert len(everything) == len(set(everything)), "two places with one name"
    assert language.place_names("bed", held_out=True) == ("bed",)


def test_subtasks_are_read_back():
    assert language.parse_subtask("put the red mug in the top drawer") == (
        "put_in",
        {"thing": "red mug", "place": "top drawer"},
    )
    assert language.parse_subtask("put the pillow on the head of the bed") == (
        "put_on",
        {"thing": "pillow", "place": "head of the bed"},
    )
    assert language.utterances("done") == ()


def test_what_is_no_subtask_is_refused():
    with pytest.raises(ValueError, match="'fly to the moon' is not a subtask of rooms; they are"):
        language.utterances("fly to the moon")


def test_an_unknown_request_is_answered_with_the_nearest():
    with pytest.raises(ValueError, match="pick"):
        language.say("pik", np.random.default_rng(0), thing="x")
