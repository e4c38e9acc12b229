"""What a supervisor may say to ask for a subtask of the lab: politely or curtly, and with other verbs."""

from pilot.sims.base import DONE
from pilot.sims.world.phrases import expand

_ASKS = "{|please |can you |could you |now |next, |go on and |and then }"
_NEW_ASKS = "{I would like you to |your next job is to |it is time to |be so kind as to |would you }"
VERBS: dict[str, tuple[str, ...]] = {
    "pick up": ("pick up", "grab", "take", "lift"),
    "put": ("put", "place", "set"),
    "take": ("take", "get", "fetch"),
    "lay": ("lay", "put", "place"),
    "open": ("open", "pull open", "open up"),
    "close": ("close", "shut", "close up"),
    "fold": ("fold", "turn", "flip"),
}
"""The verbs that subtasks begin with, and what people say for them."""


def utterances(subtask: str, *, held_out: bool = False) -> tuple[str, ...]:
    """Return what a supervisor may say to ask for a subtask; nothing for "done". `held_out` ones only tests hear.

    Raises:
        ValueError: the subtask begins with none of `VERBS`.
    """
    if subtask == DONE:
        return ()
    verb = next((verb for verb in VERBS if subtask.startswith(f"{verb} ")), None)
    if verb is None:
        raise ValueError(f"the subtask '{subtask}' begins with none of the verbs {', '.join(VERBS)}")
    rest = subtask.removeprefix(verb)
    return expand((_NEW_ASKS if held_out else _ASKS) + "{" + "|".join(VERBS[verb]) + "}" + rest)
