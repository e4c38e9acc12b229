"""π0's questions (2410.24164, figures 7 to 13): out of the box, language, something new, several moves."""

from dataclasses import replace

from pilot.eval.studies._recipe import ALL, FOLDER, FOLLOWING, ONE_MOVE, SEVERAL_MOVES, TIME, base, full, without
from pilot.eval.study.declare import Condition, Study, StudyData, Training

MINUTES = {1: 26, 5: 130, 20: 520}
"""Demonstrations in so many minutes: one takes 2.3 s."""
NEW = {"kinds": ("hat",), "receptacles": ("crate",)}
SETS = {
    minutes: StudyData(
        path=f"{FOLDER}/new_{minutes}", suite="homes-l1", first_scene=7000, scenes=scenes, seed=8, options=NEW
    )
    for minutes, scenes in MINUTES.items()
}


def few_shot(minutes: int, *before: Training) -> tuple[Training, ...]:
    """Return fine-tuning on so many minutes of what is new, behind other trainings."""
    path = f"data.sources.new_20.path={FOLDER}/new_{minutes}"
    return (*before, Training(run="study_finetune", changes=(path,)))


SCRATCH = base()

STUDY = Study(
    question="What does pre-training give when there are minutes of something new?",
    source="π0 (2410.24164), figures 7 to 13",
    conditions=(
        Condition(name="out of the box", what="pre-trained, shown nothing new", trainings=full()),
        *(
            Condition(name=f"pre-trained, {minutes} min", trainings=few_shot(minutes, *full()))
            for minutes in (5, 1, 20)
        ),
        *(
            Condition(
                name=f"from scratch, {minutes} min",
                what="behind the base alone",
                trainings=few_shot(minutes, *SCRATCH),
            )
            for minutes in (5, 1, 20)
        ),
        Condition(
            name="without web rows",
            what="out of the box, no web rows behind the base",
            trainings=full(words=without("web")),
        ),
    ),
    trials=(
        replace(ONE_MOVE, options={**NEW, **TIME}, title="something new: hats into crates"),
        replace(ONE_MOVE, title="what is known: one move"),
        FOLLOWING,
        SEVERAL_MOVES,
    ),
    measures=("success", "progress", "follow"),
    data=(*ALL, *SETS.values()),
    equal="rows of fine-tuning and the number of its steps, homes and starts of the trials",
    notes="Fine-tuning takes 600 steps, whatever it learns from. The laboratory of the table-top stands in for the "
    "lab's tasks; a larger model is not sized for two cores yet.",
)
