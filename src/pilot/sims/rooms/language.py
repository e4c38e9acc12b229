"""The words of rooms: instructions, the subtasks that a robot says, and the many ways in which people ask for them.

A request is a name and what fills its gaps: `say("put_in", rng, thing="red mug", place="sink")`. Each has at least 20
phrasings that training hears, and others that only the test split may hear (`held_out`).
"""

from collections.abc import Sequence

import numpy as np

from pilot.names import check_name
from pilot.sims.base import DONE
from pilot.sims.world.phrases import Phrasings

_ASK = "{|please |can you |could you |now }"
_NEW = "{I would like you to |your job is to |do me a favour and |next, }"

REQUESTS: dict[str, Phrasings] = {
    "pick": Phrasings.of(
        [_ASK + "{pick up|grab|take|lift|get} the <thing>", "pick the <thing> up", "take hold of the <thing>"],
        held_out=[_NEW + "{fetch|raise} the <thing>", "the <thing>, in your hand please"],
    ),
    "put_in": Phrasings.of(
        [
            _ASK + "{put|place} the <thing> {in|into} the <place>",
            _ASK + "move the <thing> to the <place>",
            "{drop|set} the <thing> in the <place>",
            "the <thing> goes {in|into} the <place>",
        ],
        held_out=[
            _NEW + "{stow|deposit} the <thing> in the <place>",
            "the <place> is where the <thing> belongs",
            "let the <place> have the <thing>",
        ],
    ),
    "put_on": Phrasings.of(
        [
            _ASK + "{put|place|set} the <thing> {on|onto} the <place>",
            _ASK + "move the <thing> to the <place>",
            "lay the <thing> on the <place>",
            "the <thing> goes on the <place>",
        ],
        held_out=[
            _NEW + "{leave|deposit} the <thing> on the <place>",
            "the <place> is where the <thing> belongs",
            "let the <thing> rest on the <place>",
        ],
    ),
    "put_two": Phrasings.of(
        [
            _ASK + "{put|place} the <thing> and the <other> {in|into} the <place>",
            _ASK + "move the <thing> and the <other> to the <place>",
            "the <thing> and the <other> go in the <place>",
        ],
        held_out=[_NEW + "{stow|deposit} both the <thing> and the <other> in the <place>"],
    ),
    # "Things" may be "dishes" or "rubbish": no verb agrees with them.
    "all_in": Phrasings.of(
        [
            _ASK + "{put|place} all {|of }the <things> {in|into} the <place>",
            _ASK + "clear the <things> into the <place>",
            "{bring|move} all the <things> to the <place>",
            "I want all the <things> in the <place>",
        ],
        held_out=[
            _NEW + "{gather|collect} the <things> in the <place>",
            "see to it that all the <things> end up in the <place>",
        ],
    ),
    "all_on": Phrasings.of(
        [
            _ASK + "{put|place} all {|of }the <things> {on|onto} the <place>",
            "{bring|move} all the <things> to the <place>",
            "I want all the <things> on the <place>",
        ],
        held_out=[
            _NEW + "{gather|collect} the <things> on the <place>",
            "see to it that all the <things> end up on the <place>",
        ],
    ),
    "put_away": Phrasings.of(  # into a drawer or a box that has to be opened, and closed again
        [
            _ASK + "put the <things> {away in|in|into} the <place>{| and close it}",
            _ASK + "open the <place>, put the <things> in and close it",
        ],
        held_out=[_NEW + "{stow|store} the <things> in the <place>", "the <place> should hold the <things>, closed"],
    ),
    "open": Phrasings.of(
        [
            _ASK + "{open|open up} the <place>",
            _ASK + "get the <place> open",
            "{pull|get} open the <place>",
            "the <place> should be open",
            "leave the <place> open",
            "open the <place> {all the way|for me|wide}",
        ],
        held_out=[
            _NEW + "make sure that one can look into the <place>",
            "the inside of the <place> should be in sight",
        ],
    ),
    "close": Phrasings.of(
        [
            _ASK + "{close|shut} the <place>",
            _ASK + "get the <place> closed",
            "push the <place> {shut|closed}",
            "the <place> should be {closed|shut}",
            "close the <place> {again|for me}",
            "close up the <place>",
        ],
        held_out=[_NEW + "make sure that the <place> is not open", "do not leave the <place> open"],
    ),
    "close_all": Phrasings.of(
        [
            _ASK + "{close|shut} {everything that is open|whatever stands open|all that is open}",
            _ASK + "close all {|the }drawers and doors",
        ],
        held_out=[_NEW + "leave nothing open in here", "nothing should stand open"],
    ),
    "wipe": Phrasings.of(
        [
            _ASK + "wipe {|up |away }the spill{| on the <place>}",
            _ASK + "{clean|wipe} the <place>{| with the sponge}",
            _ASK + "clean {|up }the spill",
            "{mop|dry} up the spill",
        ],
        held_out=[_NEW + "get rid of the stain{| on the <place>}", "somebody spilled something"],
    ),
    "wipe_and_put": Phrasings.of(
        [
            _ASK + "{wipe|clean} up the spill and put the <thing> in the <into>",
            _ASK + "wipe the <place> and put the <thing> in the <into>",
            "wipe up the spill, then {put|drop} the <thing> {in|into} the <into>",
            "clean the <place> with the <thing>, then put it in the <into>",
        ],
        held_out=[_NEW + "get rid of the spill and leave the <thing> in the <into>"],
    ),
    "pull_blanket": Phrasings.of(
        [
            _ASK + "{pull up|draw up} the blanket",
            _ASK + "{pull|draw} the blanket {up|to the pillow}",
            "cover the bed with the blanket",
        ],
        held_out=[_NEW + "{straighten|spread} the blanket"],
    ),
    "make_bed": Phrasings.of(
        [
            _ASK + "make {the|my} bed",
            _ASK + "get the bed {ready|tidy|made}",
            "the bed {has to|should|needs to} be made",
            "tidy {up |}the bed",
        ],
        held_out=[_NEW + "put the bed in order", "nobody has made the bed yet"],
    ),
    "clean_room": Phrasings.of(
        [
            _ASK + "{clean|tidy|clean up|tidy up} the <room>",
            _ASK + "make the <room> tidy",
            "the <room> {has to|needs to} be {cleaned|tidied}",
        ],
        held_out=[_NEW + "put the <room> in order", "the <room> is a mess", "what a mess in the <room>"],
    ),
    "clear_surface": Phrasings.of(
        [
            _ASK + "{clear|tidy|clear off|tidy up|clean up} the <place>",
            "{sort|put away} everything on the <place>",
            "the <place> {has to|needs to} be cleared",
        ],
        held_out=[_NEW + "free the <place> of all that lies on it", "put order on the <place>"],
    ),
}  # fmt: skip
"""Phrasings by the name of the request; `<thing>`, `<other>`, `<things>`, `<place>` and `<room>` are the gaps."""

PLACES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "bin": (("rubbish bin", "trash can"), ("waste bin", "dustbin")),
    "sink": (("kitchen sink",), ("basin",)),
    "counter": (("kitchen counter", "worktop"), ("work surface",)),
    "fridge": (("refrigerator",), ("icebox",)),
    "microwave": (("microwave oven",), ("microwave door",)),
    "cupboard": (("kitchen cupboard",), ("cupboard door",)),
    "top drawer": (("upper drawer", "highest drawer"), ("uppermost drawer",)),
    "middle drawer": (("second drawer",), ("drawer in the middle",)),
    "bottom drawer": (("lowest drawer", "lower drawer"), ("drawer at the bottom",)),
    "desk drawer": (("drawer of the desk",), ("drawer under the desk",)),
    "chest of drawers": (("dresser",), ("bureau",)),
    "cabinet": (("TV cabinet", "sideboard"), ("low cupboard",)),
    "sofa": (("couch",), ("settee",)),
    "shelf": (("bookshelf", "bookcase"), ("top of the bookcase",)),
    "laundry basket": (("laundry hamper",), ("washing basket",)),
    "toy box": (("toy chest",), ("box for toys",)),
    "basket": (("wicker basket",), ("woven basket",)),
    "tray": (("serving tray",), ("flat tray",)),
    "crate": (("wooden crate",), ("timber crate",)),
    "desk": (("writing desk",), ("office desk",)),
}
"""Other names of fixtures: those that training hears, and those that only the test split may hear."""


def place_names(place: str, *, held_out: bool = False) -> tuple[str, ...]:
    """Return what a fixture may be called; held-out names where there are some, else its usual one first."""
    known, new = PLACES.get(place, ((), ()))
    return new if held_out and new else (place, *known)


def say(request: str, rng: np.random.Generator, *, held_out: bool = False, **words: str) -> str:
    """Draw a phrasing of a request and fill its gaps with `words`.

    Raises:
        ValueError: there is no such request; the message has the nearest.
    """
    phrasings = REQUESTS[check_name("request", request, REQUESTS)]
    return fill(phrasings.draw(rng, held_out=held_out), **words)


def fill(template: str, **words: str) -> str:
    """Put words into the gaps of a template."""
    for gap, word in words.items():
        template = template.replace(f"<{gap}>", word)
    assert "<" not in template, template
    return template


# What the robot says to itself: one wording each, so that the text that it learns to produce is easy to read back.
def pick_subtask(thing: str) -> str:
    """Return the subtask of picking up: "pick up the red mug"."""
    return f"pick up the {thing}"


def put_subtask(thing: str, place: str, *, on: bool = False) -> str:
    """Return the subtask of putting down: "put the red mug in the sink"."""
    return f"put the {thing} {'on' if on else 'in'} the {place}"


def open_subtask(place: str) -> str:
    """Return the subtask "open the top drawer"."""
    return f"open the {place}"


def close_subtask(place: str) -> str:
    """Return the subtask "close the top drawer"."""
    return f"close the {place}"


WIPE_SUBTASK, BLANKET_SUBTASK = "wipe up the spill", "pull the blanket up"


def utterances(subtask: str, *, held_out: bool = False) -> tuple[str, ...]:
    """Return what a supervisor may say to ask for a subtask; nothing for "done".

    Raises:
        ValueError: it is not a subtask of rooms.
    """
    if subtask == DONE:
        return ()
    request, words = parse_subtask(subtask)
    phrasings = REQUESTS[request]
    sentences = (fill(s, **words) for s in (phrasings.held_out if held_out else phrasings.known) if _fits(s, words))
    return tuple(s for s in dict.fromkeys(sentences) if s != subtask)


def _fits(template: str, words: dict[str, str]) -> bool:
    return all(f"<{gap}>" not in template or gap in words for gap in ("thing", "place"))


def parse_subtask(subtask: str) -> tuple[str, dict[str, str]]:
    """Return the request that a subtask is, and its words.

    Raises:
        ValueError: it is not a subtask of rooms.
    """
    whole = {WIPE_SUBTASK: "wipe", BLANKET_SUBTASK: "pull_blanket"}
    if subtask in whole:
        return whole[subtask], {}
    starts = (("pick up the ", "pick", "thing"), ("open the ", "open", "place"), ("close the ", "close", "place"))
    for start, request, gap in starts:
        if subtask.startswith(start):
            return request, {gap: subtask.removeprefix(start)}
    for word, request in ((" in the ", "put_in"), (" on the ", "put_on")):
        thing, found, place = subtask.removeprefix("put the ").partition(word)
        if subtask.startswith("put the ") and found:
            return request, {"thing": thing, "place": place}
    raise ValueError(
        f"'{subtask}' is not a subtask of rooms; they are 'pick up the X', 'put the X in the Y', 'put the X on the Y', "
        f"'open the X', 'close the X', '{WIPE_SUBTASK}', '{BLANKET_SUBTASK}' and '{DONE}'"
    )


def list_words(names: Sequence[str]) -> str:
    """Return names as a list in words: "spoons", "forks and spoons", "forks, knives and spoons"."""
    if len(names) == 1:
        return names[0]
    return f"{', '.join(names[:-1])} and {names[-1]}"
