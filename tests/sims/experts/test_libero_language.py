"""What the expert of LIBERO says about its steps."""

import pytest

from pilot.sims.experts.libero.language import drawer_of, name_of, pick_words, place_of, put_words


@pytest.mark.parametrize(
    ("region", "words"),
    [
        ("basket_1_contain_region", "in the basket"),
        ("plate_1", "on the plate"),
        ("akita_black_bowl_1", "in the black bowl"),
        ("wooden_cabinet_1_top_region", "in the top drawer"),
        ("wooden_cabinet_1_top_side", "on top of the cabinet"),
        ("flat_stove_1_cook_region", "on the stove"),
        ("wine_rack_1_top_region", "on the wine rack"),
        ("main_table_stove_front_region", "to the front of the stove"),
    ],
)
def test_places_have_names(region, words):
    assert place_of(region) == words


def test_things_have_names():
    assert name_of("bbq_sauce_1") == "bbq sauce" and name_of("akita_black_bowl_2") == "black bowl"
    assert drawer_of("wooden_cabinet_1_middle_region") == "middle drawer"


def test_the_instruction_says_which_of_two_bowls():
    goal = ("on", "akita_black_bowl_1", "plate_1")
    prompt = "pick up the black bowl on the ramekin and place it on the plate"
    assert pick_words(goal, prompt) == "pick up the black bowl on the ramekin"
    assert put_words(goal, prompt) == "put the black bowl on the plate"


def test_other_instructions_leave_it_to_the_names():
    goal = ("in", "akita_black_bowl_1", "wooden_cabinet_1_top_region")
    prompt = "open the top drawer and put the bowl inside"
    assert pick_words(goal, prompt) == "pick up the black bowl"
    assert put_words(goal, prompt) == "put the black bowl in the top drawer"
