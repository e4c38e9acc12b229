"""High levels: what decides on the next subtask. Chosen by name, or made with options of their own.

| name       | who decides                                                                                         |
|------------|-----------------------------------------------------------------------------------------------------|
| `model`    | the model itself: from what it has read of pictures and prompt it says the subtask                  |
| `none`     | nobody: the low level acts on the prompt                                                            |
| `implicit` | nobody, though the model has learned to (π0.5's ablation: trained with subtasks, run without)       |
| `saycan`   | the model says how likely each of some labels is, an affordance how feasible; the product decides   |
| `oracle`   | whoever sends the observations: each holds the true `subtask`                                       |
| `human`    | a person at the keyboard                                                                            |
| `vlm`      | a vision-language model elsewhere                                                                   |

A high level is shared by sessions and holds nothing of any robot. One that works on what the model has read *decides*,
for a batch of robots at once. One outside of the model *advises*: each session has an `Advisor` of it, which is asked
at every turn and never keeps it waiting. Advice in plain words is a verbal instruction: it takes the place of the
prompt, and the model decides on a subtask below it, with its box. `verbatim` advice is acted on as it stands, for
models whose subtasks are bare words. A new high level is one more class with these few methods.
"""

from collections.abc import Sequence

from pilot.data.tools.vlm_endpoint import VlmEndpoint
from pilot.infer.high_level.advising import Human, Oracle, Vlm
from pilot.infer.high_level.base import SUBTASK_TOKENS, Advisor, HighLevel, Implicit, Silent
from pilot.infer.high_level.deciding import Affordance, Model, SayCan
from pilot.names import suggest_names

__all__ = [
    "NAMED",
    "SUBTASK_TOKENS",
    "Advisor",
    "Affordance",
    "HighLevel",
    "Human",
    "Implicit",
    "Model",
    "Oracle",
    "SayCan",
    "Silent",
    "Vlm",
    "named",
]

NAMED = {level.name: level for level in (Model, Silent, Implicit, SayCan, Oracle, Human, Vlm)}
OPTIONS: dict[str, tuple[str, ...]] = {
    "model": ("labels", "keep_margin"),
    "saycan": ("labels",),
    "vlm": ("url", "model", "labels"),
}
NEEDED: dict[str, tuple[str, ...]] = {"saycan": ("labels",), "vlm": ("url", "model")}


def named(
    name: str,
    *,
    labels: Sequence[str] = (),
    keep_margin: float | None = None,
    url: str | None = None,
    model: str | None = None,
) -> HighLevel:
    """The high level of that name, with those options that it has: see `Model`, `SayCan`, and for `url` `Vlm`.

    Raises:
        ValueError: there is none, it needs an option that is missing, or does not have one that is given.
    """
    if name not in NAMED:
        raise ValueError(f"no high level '{name}'; {suggest_names(name, NAMED, listed='there are')}")
    values = {"labels": tuple(labels) or None, "keep_margin": keep_margin, "url": url, "model": model}
    given = {option: value for option, value in values.items() if value is not None}
    if wrong := sorted(given.keys() - set(OPTIONS.get(name, ()))):
        has = ", ".join(OPTIONS.get(name, ())) or "no options"
        raise ValueError(f"high level '{name}' has no option {', '.join(wrong)}; it has {has}")
    if missing := [option for option in NEEDED.get(name, ()) if option not in given]:
        raise ValueError(f"high level '{name}' needs {' and '.join(missing)}")
    if name == Vlm.name:
        given["endpoint"] = VlmEndpoint(url=given.pop("url"), model=given.pop("model"))
    return NAMED[name](**given)
