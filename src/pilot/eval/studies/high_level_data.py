"""What the high level learns from, and what it is worth (π0.5, figure 12), at the size `study`."""

from pilot.eval.studies._recipe import ALL, EQUAL, SEVERAL_MOVES, full, without
from pilot.eval.study.declare import Condition, Study

MUTE = tuple(f"data.sources.{name}.teaches=fast,flow" for name in ("lab", "homes", "tasks", "verbal"))

STUDY = Study(
    question="Does thinking before acting help, and what does it learn from?",
    source="π0.5, figure 12",
    conditions=(
        Condition(name="own", what="the model writes the subtask", trainings=full()),
        Condition(name="implicit", what="the same weights on the prompt", trainings=full(), high_level="implicit"),
        Condition(
            name="none",
            what="learned without subtasks, acts on the prompt",
            trainings=full(words=MUTE, actions=MUTE),
            high_level="none",
        ),
        Condition(
            name="no WD",
            what="own, learned without web rows",
            trainings=full(words=without("web")),
        ),
        Condition(
            name="no VI",
            what="own, learned without a supervisor",
            trainings=full(words=without("verbal"), actions=without("verbal")),
        ),
        Condition(name="oracle", what="the true subtask with its box", trainings=full(), high_level="oracle"),
        Condition(
            name="person who points",
            what="the truth with its box, a second late",
            trainings=full(),
            high_level="person-1s-pointing",
        ),
        Condition(name="VLM", what="a vision-language model behind an endpoint", trainings=full(), high_level="vlm"),
    ),
    trials=(SEVERAL_MOVES,),
    measures=("success", "progress", "wrong", "steps"),
    data=ALL,
    equal=EQUAL,
    notes="A share of the rows says no subtask, so that the low level has learned to act without one.",
)
