"""How success grows with the number of homes (π0.5, figures 8 and 9)."""

from dataclasses import replace

from pilot.eval.studies._recipe import FOLDER, FOLLOWING, FOLLOWING_NEW, LAB, WEB, base, without
from pilot.eval.study.declare import Condition, Study, StudyData, Training

EPISODES = {1: 624, 3: 208, 12: 52, 22: 28, 53: 12, 82: 8, 104: 6}
"""Episodes in each of so many homes: about as many in all."""
TESTS = 200  # homes 0 to 199 of the train split, where no set but the upper bound's is

PRETRAINING = (*base(), Training(run="study_words", changes=without("homes", "tasks", "silent", "verbal")))


def homes_set(name: str, *, first_scene: int, scenes: int, episodes: int) -> StudyData:
    """Return a set of single moves, in homes of which those of smaller sets are the first."""
    return StudyData(
        path=f"{FOLDER}/{name}", suite="homes-l2", first_scene=first_scene, scenes=scenes, episodes=episodes, seed=7
    )


def post_training(name: str, *, web: bool = True) -> tuple[Training, Training]:
    """Return post-training on a set: words, with web rows beside them, then actions."""
    where = f"data.sources.homes_104.path={FOLDER}/{name}"
    words = Training(run="study_home_words", changes=(where, *(() if web else without("web"))))
    return words, Training(run="study_home", changes=(where,))


SETS = {n: homes_set(f"homes_{n}", first_scene=6000, scenes=n, episodes=episodes) for n, episodes in EPISODES.items()}
TEST_HOMES = homes_set("test_homes", first_scene=0, scenes=TESTS, episodes=3)
TRIAL = replace(FOLLOWING, split="train", title="one move among look-alikes, in homes of no set")

STUDY = Study(
    question="How does success grow with the number of homes?",
    source="π0.5, figures 8 and 9",
    conditions=(
        Condition(name="104 homes", trainings=(*PRETRAINING, *post_training("homes_104")), x=104),
        *(
            Condition(
                name=f"{n} home{'s' if n > 1 else ''}",
                trainings=(*PRETRAINING, *post_training(f"homes_{n}")),
                x=n,
            )
            for n in (1, 12, 53, 3, 22, 82)
        ),
        Condition(
            name="the test homes",
            what="upper bound: learns in the homes that it is tried in, from other starts",
            trainings=(*PRETRAINING, *post_training("test_homes")),
            sees_tests=True,
        ),
        Condition(
            name="104 homes alone",
            what="no pre-training of words, no web rows",
            trainings=(*base(), *post_training("homes_104", web=False)),
        ),
    ),
    trials=(
        TRIAL,
        replace(FOLLOWING_NEW, split="train", title="the same with hats, which are in no set"),
    ),
    measures=("success", "progress", "follow"),
    data=(LAB, WEB, TEST_HOMES, *SETS.values()),
    plot="curve",
    x_label="homes in post-training",
    equal="pre-training, rows and steps of post-training, about 624 demonstrations in each set",
    notes="Homes here differ in table, light, colours and where things stand. Pre-training has the laboratory and web "
    "rows; the base has seen pictures of 3,000 other homes, hats too, as released weights have seen the web.",
)
