"""What each source of data is worth (π0.5, figures 10 and 11)."""

from pilot.eval.studies._recipe import ALL, EQUAL, FOLLOWING, FOLLOWING_NEW, SEVERAL_MOVES, full, without
from pilot.eval.study.declare import Condition, Study

LEFT_OUT = {
    "no WD": ("web",),
    "no ME": ("homes",),
    "no CE": ("lab",),
    "no ME and CE": ("homes", "lab"),
    "no VI": ("verbal",),
    "MM only": ("homes", "lab", "web", "verbal"),
}
WHAT = {
    "no WD": "without web rows",
    "no ME": "without single moves in 1,000 other homes",
    "no CE": "without the laboratory's simple moves",
    "no ME and CE": "the target's tasks, web rows and the supervisor",
    "no VI": "without a supervisor who names each next step",
    "MM only": "several moves in 500 homes, nothing else",
}


def left_out(label: str) -> Condition:
    """Return the recipe without some sources, in every stage behind the base."""
    names = LEFT_OUT[label]
    actions = without(*(name for name in names if name != "web"))  # which have no actions
    return Condition(name=label, what=WHAT[label], trainings=full(words=without(*names), actions=actions))


STUDY = Study(
    question="What is each source of data worth?",
    source="π0.5, figures 10 and 11",
    conditions=(Condition(name="full", trainings=full()), *map(left_out, LEFT_OUT)),
    trials=(SEVERAL_MOVES, FOLLOWING, FOLLOWING_NEW),
    measures=("success", "progress", "follow"),
    data=ALL,
    equal=EQUAL,
    notes="On the table-top all sources have one body: MM are several moves, ME single moves in many homes, CE simple "
    "moves beside two objects. Shares of sources that are left out go to the others. The base stands in for "
    "released weights and has seen web rows in every condition.",
)
