"""The words of `homes`: names of things, instructions, and the subtasks that the robot says.

The whole grammar is here; the text model learns exactly these sentences. Held-out words belong to the grammar, but no
home has such things unless a suite names them.
"""

from pilot.sims.base import DONE

COLOURS = ("red", "green", "blue", "yellow", "purple", "orange")
KINDS = ("cup", "bowl", "plate", "block", "ball", "bottle", "book")
HELD_OUT_KINDS = ("hat",)
CATEGORIES = {"dishes": ("cup", "bowl", "plate"), "toys": ("block", "ball")}
RECEPTACLES = ("sink", "basket", "tray", "bin")
HELD_OUT_RECEPTACLES = ("crate",)

_PICK, _PUT = "pick up the ", "put it in the "


def phrase(colour: str, kind: str) -> str:
    """Name an object, as in "red cup"; the name is unique within an episode."""
    return f"{colour} {kind}"


def single_instructions(thing: str, receptacle: str) -> tuple[str, ...]:
    """Return the ways to ask for one move."""
    return (
        f"put the {thing} in the {receptacle}",
        f"place the {thing} in the {receptacle}",
        f"move the {thing} to the {receptacle}",
    )


def category_instruction(category: str, receptacle: str) -> str:
    """Ask for a category, as in "put all the dishes in the sink"."""
    return f"put all the {category} in the {receptacle}"


def list_instruction(things: tuple[str, str], receptacle: str) -> str:
    """Ask for two things, as in "put the red cup and the blue ball in the tray"."""
    return f"put the {things[0]} and the {things[1]} in the {receptacle}"


def everything_instruction(receptacle: str) -> str:
    """Ask for everything, as in "clear everything into the bin"."""
    return f"clear everything into the {receptacle}"


def pick_subtask(thing: str) -> str:
    """Say the subtask "pick up the red cup"."""
    return _PICK + thing


def put_subtask(receptacle: str) -> str:
    """Say the subtask "put it in the sink"."""
    return _PUT + receptacle


def utterances(subtask: str) -> tuple[str, ...]:
    """Return what a person may say instead of a subtask; nothing for "done"."""
    if subtask.startswith(_PICK):
        thing = subtask.removeprefix(_PICK)
        return f"grab the {thing}", f"take the {thing}"
    if subtask.startswith(_PUT):
        receptacle = subtask.removeprefix(_PUT)
        return f"drop it in the {receptacle}", f"now into the {receptacle}"
    if subtask == DONE:
        return ()
    raise ValueError(f"'{subtask}' is not a subtask of homes; subtasks are '{_PICK}X', '{_PUT}Y' or '{DONE}'")
