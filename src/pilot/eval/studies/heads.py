"""Heads: flow, tokens of three kinds, a regressed chunk, at the size `study` (π0, FAST 2501.09747, ACT)."""

from pilot.eval.studies._recipe import ALL, EQUAL, ONE_MOVE, joint, tokens
from pilot.eval.study.declare import Condition, Study, Training

STUDY = Study(
    question="Which head?",
    source="FAST (2501.09747), figure 6; knowledge insulation (2505.23705), figure 4",
    conditions=(
        Condition(name="flow", what="with tokens beside it, insulated", trainings=joint()),
        Condition(name="FAST", what="compressed tokens, one after the other", trainings=tokens("fast")),
        Condition(name="VQ", what="tokens of a learned codebook", trainings=tokens("vq")),
        Condition(name="bins", what="a token for each dim and step", trainings=tokens("bins")),
        Condition(name="regressed chunk", what="ACT, no base before it", trainings=(Training(run="study_act"),)),
    ),
    trials=(ONE_MOVE,),
    measures=("success", "steps", "ms"),
    data=ALL,
    equal=f"{EQUAL}, but for ACT, which has a model of its own",
    notes="Milliseconds are of a whole answer in an evaluation with eight robots at once, the subtask included.",
)
