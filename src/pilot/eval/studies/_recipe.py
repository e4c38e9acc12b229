"""What studies at the size `study` share: their sets, and the chain of the full recipe.

Homes 0 to 199 of the train split are in no set: trials that need scenes of the train split are held there.
"""

from dataclasses import replace

from pilot.eval.study.declare import StudyData, Training, Trial

FOLDER = "data/study"

# One episode in each home: pictures of many homes are what words and boxes need most.
LAB = StudyData(path=f"{FOLDER}/lab", suite="homes-l1", first_scene=10_000, scenes=640)
HOMES = StudyData(path=f"{FOLDER}/homes", suite="homes-l2", first_scene=20_000, scenes=1_000, seed=1)
TASKS = StudyData(path=f"{FOLDER}/tasks", suite="homes-l2-multi", first_scene=30_000, scenes=500, seed=2)
VERBAL = StudyData(path=f"{FOLDER}/verbal", suite="homes-l2-multi", first_scene=40_000, scenes=120, seed=3, verbal=True)
SILENT = StudyData(path=f"{FOLDER}/silent", suite="homes-l2-multi", first_scene=45_000, scenes=120, seed=4)
WEB = StudyData(path=f"{FOLDER}/web", suite="homes-l2-multi", first_scene=50_000, scenes=3_000, web_rows=48_000, seed=5)
QUESTIONS = StudyData(
    path=f"{FOLDER}/questions", suite="homes-l2-multi", first_scene=800, scenes=100, web_rows=1_000, seed=6
)
ALL = (LAB, HOMES, TASKS, VERBAL, SILENT, WEB)

TIME = {"seconds_per_move": 16.0}
"""Twice the time of the suites: what has learned for minutes gets there, but tries more than once."""
ONE_MOVE = Trial(suite="homes-l1", options=TIME, replan_steps=5, title="one move")
FOLLOWING = replace(ONE_MOVE, suite="homes-l2", title="language following, known things")
FOLLOWING_NEW = replace(
    FOLLOWING, options={**TIME, "kinds": ("hat",)}, title="language following, hats, which are in no set"
)
SEVERAL_MOVES = replace(ONE_MOVE, suite="homes-l2-multi", title="several moves")

EQUAL = "rows of training, model, homes and starts of the trials"


def base(*, model: tuple[str, ...] = (), vision: tuple[str, ...] = ()) -> tuple[Training, ...]:
    """Return what stands in for released weights, with changes to the model, or to the tower's run alone."""
    return (
        Training(run="study_vision", changes=(*vision, *model), one_for_all_seeds=True),
        Training(run="study_base", changes=model, one_for_all_seeds=True),
    )


def full(*, words: tuple[str, ...] = (), actions: tuple[str, ...] = ()) -> tuple[Training, ...]:
    """Return the full recipe, words and actions behind the base, with changes to a stage."""
    return (*base(), Training(run="study_words", changes=words), Training(run="study_actions", changes=actions))


def joint(*changes: str, model: tuple[str, ...] = (), vision: tuple[str, ...] = ()) -> tuple[Training, ...]:
    """Return the recipe in one stage behind the base, with changes to it, to the tower, or to the model of all."""
    return (*base(model=model, vision=vision), Training(run="study_joint", changes=(*changes, *model)))


def tokens(kind: str) -> tuple[Training, ...]:
    """Return a policy whose actions are tokens of a kind, which its tower fits already, since a chain keeps it."""
    model = (
        "model.action_expert=none", "model.insulate=false", "model.state_input=text", f"data.action_tokenizer={kind}",
    )  # fmt: skip
    return joint("objective.alpha=0", model=model, vision=("freeze=vlm",))


def without(*sources: str) -> tuple[str, ...]:
    """Return the changes that leave sources out of a stage that has them; "web" stands for all sources of web rows."""
    names = [part for name in sources for part in (("web", "detect") if name == "web" else (name,))]
    return tuple(f"data.sources.{name}.weight=0" for name in names)
