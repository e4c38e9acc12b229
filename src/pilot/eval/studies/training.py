"""How to train: flow, tokens or both, in one stage or two, insulated or not (π0.5, figure 13)."""

from pilot.eval.studies._recipe import ALL, EQUAL, ONE_MOVE, QUESTIONS, SEVERAL_MOVES, full, joint, tokens, without
from pilot.eval.study.declare import Condition, Study, Training, Trial

FLOW_ONLY = ("objective.text_weight=0", "objective.fast_weight=0", *without("web"))
A_THIRD = "steps=866"
ROBOT = ("lab", "homes", "tasks", "silent", "verbal")
FLOW_ROWS = tuple(f"data.sources.{name}.teaches=flow" for name in ROBOT)

STUDY = Study(
    question="Do discrete pre-training and insulation pay?",
    source="π0.5, figure 13; knowledge insulation (2505.23705), figures 4 to 6",
    conditions=(
        Condition(name="two stages", what="tokens, then flow, insulated (π0.5)", trainings=full()),
        Condition(name="one stage", what="flow and tokens together, insulated", trainings=joint()),
        Condition(
            name="one stage, not insulated",
            what="the flow's gradient reaches the backbone",
            trainings=joint("model.insulate=false"),
        ),
        Condition(
            name="flow only",
            what="no tokens, not insulated (π0's objective)",
            trainings=joint("model.insulate=false", *FLOW_ONLY, *FLOW_ROWS),
        ),
        Condition(name="FAST only", what="no flow: actions are tokens", trainings=tokens("fast")),
        Condition(
            name="no adaptive norm",
            what="one stage, the flow time beside each action",
            trainings=(
                Training(run="study_concat_vision", one_for_all_seeds=True),
                Training(run="study_concat_base", one_for_all_seeds=True),
                Training(run="study_concat"),
            ),
        ),
        Condition(name="state as text", what="one stage (π0.5)", trainings=joint(model=("model.state_input=text",))),
        Condition(name="state as a token", what="one stage (π0)", trainings=joint(model=("model.state_input=token",))),
        Condition(name="no state", what="one stage", trainings=joint(model=("model.state_input=none",))),
        Condition(name="one stage, a third of the steps", trainings=joint(A_THIRD)),
        Condition(name="not insulated, a third of the steps", trainings=joint(A_THIRD, "model.insulate=false")),
        Condition(
            name="two stages, a third of the steps", trainings=full(words=("steps=216",), actions=("steps=866",))
        ),
    ),
    trials=(
        ONE_MOVE,
        SEVERAL_MOVES,
        Trial(questions=QUESTIONS.path, title="what is left of question answering", episodes=500),
    ),
    measures=("success",),
    data=(*ALL, QUESTIONS),
    equal=f"{EQUAL}, but for those that say fewer steps",
    notes="All begin from the same base; those with another shape of model have their own, trained alike. "
    "Without words (flow only) nothing is asked of the high level. Whoever cannot write is not asked questions.",
)
