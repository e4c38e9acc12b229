"""High levels: what decides on the next subtask. Chosen by name, or made with options of their own.

| name       | what decides                                                                            | file        |
|------------|-----------------------------------------------------------------------------------------|-------------|
| `model`    | the model itself: behind its prefill of pictures and prompt it writes the subtask       | `model.py`  |
| `none`     | nothing: the low level acts on the prompt                                               | `base.py`   |
| `implicit` | nothing, though the model could: π0.5's ablation, trained with subtasks, run without    | `base.py`   |
| `saycan`   | how likely each of some labels is by the model, times how feasible by an affordance     | `saycan.py` |
| `oracle`   | whoever sends the observations: each holds the true `subtask`                           | `oracle.py` |
| `human`    | a person at the keyboard                                                                | `human.py`  |
| `vlm`      | a vision-language model elsewhere                                                       | `vlm.py`    |

A high level is shared by sessions and holds nothing of any robot. One that works on what the model has prefilled
*decides*, for a batch of robots at once. One outside of the model *advises*: each session has an `Advisor` of it, which
is asked at every turn and never keeps it waiting (`external.py` says what becomes of advice). A new high level is one
more class with these few methods.
"""

from collections.abc import Sequence

from pilot.data.tools.vlm_endpoint import VlmEndpoint
from pilot.infer.high_level.base import Advisor, Decision, HighLevel, Implicit, NoHighLevel, Subtask, SubtaskRequest
from pilot.infer.high_level.external import ExternalHighLevel
from pilot.infer.high_level.human import Human
from pilot.infer.high_level.model import ModelHighLevel
from pilot.infer.high_level.oracle import Oracle
from pilot.infer.high_level.saycan import Affordance, SayCan
from pilot.infer.high_level.subtasks import SUBTASK_TOKENS, SubtaskCodec
from pilot.infer.high_level.vlm import Vlm
from pilot.names import suggest_names

__all__ = [
    "HIGH_LEVELS",
    "SUBTASK_TOKENS",
    "Advisor",
    "Affordance",
    "Decision",
    "ExternalHighLevel",
    "HighLevel",
    "Human",
    "Implicit",
    "ModelHighLevel",
    "NoHighLevel",
    "Oracle",
    "SayCan",
    "Subtask",
    "SubtaskCodec",
    "SubtaskRequest",
    "Vlm",
    "make_high_level",
]

HIGH_LEVELS = {level.name: level for level in (ModelHighLevel, NoHighLevel, Implicit, SayCan, Oracle, Human, Vlm)}
OPTIONS: dict[str, tuple[str, ...]] = {
    "model": ("labels", "keep_margin"),
    "saycan": ("labels",),
    "human": ("as_prompt",),
    "vlm": ("url", "model", "labels", "as_prompt"),
}
NEEDED: dict[str, tuple[str, ...]] = {"saycan": ("labels",), "vlm": ("url", "model")}


def make_high_level(
    name: str,
    *,
    labels: Sequence[str] = (),
    keep_margin: float | None = None,
    url: str | None = None,
    model: str | None = None,
    as_prompt: bool | None = None,
) -> HighLevel:
    """Make the high level of that name with those of the options that it has.

    `labels` and `keep_margin` as in `ModelHighLevel`, `url` and `model` as in `VlmEndpoint`, `as_prompt` as in
    `ExternalHighLevel`.

    Raises:
        ValueError: there is none, it needs an option that is missing, or does not have one that is given.
    """
    if name not in HIGH_LEVELS:
        raise ValueError(f"no high level '{name}'; {suggest_names(name, HIGH_LEVELS, listed='there are')}")
    values = {
        "labels": tuple(labels) or None, "keep_margin": keep_margin, "url": url, "model": model, "as_prompt": as_prompt,
    }  # fmt: skip
    given = {option: value for option, value in values.items() if value is not None}
    if wrong := sorted(given.keys() - set(OPTIONS.get(name, ()))):
        has = ", ".join(OPTIONS.get(name, ())) or "no options"
        raise ValueError(f"high level '{name}' has no option {', '.join(wrong)}; it has {has}")
    if missing := [option for option in NEEDED.get(name, ()) if option not in given]:
        raise ValueError(f"high level '{name}' needs {' and '.join(missing)}")
    if name == Vlm.name:
        given["endpoint"] = VlmEndpoint(url=given.pop("url"), model=given.pop("model"))
    return HIGH_LEVELS[name](**given)
