"""Words for what the expert does next, from LIBERO's names of things and regions."""

import re

from pilot.sims.experts.libero.scene import Goal

NICKNAMES = {
    "akita black bowl": "black bowl",
    "flat stove": "stove",
    "glazed rim porcelain ramekin": "ramekin",
    "wooden cabinet": "cabinet",
    "white cabinet": "cabinet",
}
_PLACES = (  # what the name of a region, without its number, says
    (r"(.+)_contain_region", "in the {}"),
    (r".+_cabinet_(top|middle|bottom)_region", "in the {} drawer"),
    (r"(.+_cabinet)_top_side", "on top of the {}"),
    (r"(.+)_cook_region", "on the {}"),
    (r"main_table_(.+)_front_region", "to the front of the {}"),
    (r"(wine_rack)_top_region", "on the {}"),
    (r"(.*bowl)", "in the {}"),
    (r"(.+)", "on the {}"),
)
_PICK_AND_PLACE = re.compile(r"(pick up the .+) and place it ((?:in|on) the .+)")


def name_of(thing: str) -> str:
    """Return what people call a thing: "black bowl" for "akita_black_bowl_1"."""
    words = re.sub(r"_\d+(?=_|$)", "", thing).replace("_", " ")
    return NICKNAMES.get(words, words)


def place_of(region: str) -> str:
    """Return where something goes in words: "in the basket" for "basket_1_contain_region"."""
    region = re.sub(r"_\d+(?=_|$)", "", region)
    for pattern, words in _PLACES:
        if match := re.fullmatch(pattern, region):
            return words.format(name_of(match[1]))
    raise AssertionError("the last pattern matches any region")


def drawer_of(region: str) -> str:
    """Return what a drawer is called: "top drawer"."""
    return place_of(region).removeprefix("in the ")


def pick_words(goal: Goal, prompt: str) -> str:
    """Return the words for picking up what a goal is about; the instruction says which one, if there are several."""
    match = _PICK_AND_PLACE.fullmatch(prompt)
    return match[1] if match else f"pick up the {name_of(goal[1])}"


def put_words(goal: Goal, prompt: str) -> str:
    """Return the words for bringing what a goal is about to where it belongs."""
    match = _PICK_AND_PLACE.fullmatch(prompt)
    return f"put the {name_of(goal[1])} {match[2] if match else place_of(goal[2])}"
