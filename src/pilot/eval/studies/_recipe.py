"""What studies at the size `study` share: their sets, and the chain of the full recipe.

Homes 0 to 199 of the train split are in no set: trials that need scenes of the train split are held there.
"""

from pilot.eval.study.declare import StudyData, Training

FOLDER = "data/study"

LAB = StudyData(path=f"{FOLDER}/lab", suite="homes-l1", first_scene=1000, scenes=160, episodes=4)
HOMES = StudyData(path=f"{FOLDER}/homes", suite="homes-l2", first_scene=2000, scenes=500, episodes=2, seed=1)
TASKS = StudyData(path=f"{FOLDER}/tasks", suite="homes-l2-multi", first_scene=3000, scenes=250, episodes=2, seed=2)
VERBAL = StudyData(
    path=f"{FOLDER}/verbal", suite="homes-l2-multi", first_scene=4000, scenes=60, episodes=2, seed=3, verbal=True
)
SILENT = StudyData(path=f"{FOLDER}/silent", suite="homes-l2-multi", first_scene=4500, scenes=60, episodes=2, seed=4)
WEB = StudyData(path=f"{FOLDER}/web", suite="homes-l2-multi", first_scene=5000, scenes=800, web_rows=16_000, seed=5)
QUESTIONS = StudyData(
    path=f"{FOLDER}/questions", suite="homes-l2-multi", first_scene=800, scenes=100, web_rows=1_000, seed=6
)
ALL = (LAB, HOMES, TASKS, VERBAL, SILENT, WEB)

EQUAL = "rows of training, model, homes and starts of the trials"


def full(
    *, words: tuple[str, ...] = (), actions: tuple[str, ...] = (), model: tuple[str, ...] = ()
) -> tuple[Training, ...]:
    """Return the full recipe, vision, words, actions, with changes to a stage, or to the model of all three."""
    return (
        Training(run="study_vision", changes=model),
        Training(run="study_words", changes=(*words, *model)),
        Training(run="study_actions", changes=(*actions, *model)),
    )


def joint(*changes: str, model: tuple[str, ...] = (), vision: tuple[str, ...] = ()) -> tuple[Training, ...]:
    """Return the recipe in one stage behind the vision tower, with changes to it, to the tower, or to both's model."""
    return (
        Training(run="study_vision", changes=(*vision, *model)),
        Training(run="study_joint", changes=(*changes, *model)),
    )


def tokens(kind: str) -> tuple[Training, ...]:
    """Return a policy whose actions are tokens of a kind, which its tower fits already, since a chain keeps it."""
    model = ("model.action_expert=none", "model.insulate=false", f"data.action_tokenizer={kind}")
    return joint("objective.alpha=0", model=model, vision=("freeze=vlm",))


def without(*sources: str) -> tuple[str, ...]:
    """Return the changes that leave sources out of a stage that has them."""
    return tuple(f"data.sources.{name}.weight=0" for name in sources)
