"""One policy for several bodies against one each, in rooms (π0, figure 6; Octo; cross-embodiment)."""

from pilot.eval.study.declare import Condition, Study, StudyData, Training, Trial

FOLDER = "data/study"
BODIES = {"arm": "arm_ee", "bimanual": "bimanual", "mobile": "mobile_ee"}
"""The robot that each body is: by the pose of its hand, but for two arms."""


def body_set(body: str, *, name: str, first_scene: int, scenes: int) -> StudyData:
    """Return demonstrations of one body, with pictures as the rooms' model takes them."""
    return StudyData(
        path=f"{FOLDER}/{name}",
        suite=f"rooms-move-l1@{BODIES[body]}",
        first_scene=first_scene,
        scenes=scenes,
        image_size=128,
        picture_every=5,
        seed=9,
    )


SETS = {body: body_set(body, name=f"body_{body}", first_scene=1000 + 1000 * k, scenes=300)
        for k, body in enumerate(BODIES)}  # fmt: skip
FEW = {count: body_set("arm", name=f"new_arm_{count}", first_scene=8000, scenes=count) for count in (10, 50, 200)}


def only(*bodies: str) -> tuple[str, ...]:
    """Return the changes that leave out all other bodies."""
    return tuple(f"data.sources.body_{body}.weight=0" for body in BODIES if body not in bodies)


def new_arm(count: int) -> Training:
    """Return the training on so many demonstrations of the arm."""
    path = f"data.sources.body_arm.path={FOLDER}/new_arm_{count}"
    return Training(run="study_bodies", changes=(path, *only("arm"), "steps=400"))


OTHERS = Training(run="study_bodies", changes=(*only("bimanual", "mobile"), "robot=mobile_ee"))

STUDY = Study(
    question="One policy for all bodies, or one each?",
    source="π0 (2410.24164), §V; Open X-Embodiment (2310.08864), table I",
    conditions=(
        Condition(name="all bodies", trainings=(Training(run="study_bodies"),)),
        Condition(name="the arm alone", trainings=(Training(run="study_bodies", changes=only("arm")),)),
        *(
            Condition(name=f"new arm, {count}, pre-trained", what="on others", trainings=(OTHERS, new_arm(count)))
            for count in FEW
        ),
        *(Condition(name=f"new arm, {count}, from scratch", trainings=(new_arm(count),)) for count in FEW),
    ),
    trials=(Trial(suite="rooms-move-l1@arm_ee", title="one move with the arm, in unseen rooms", episodes=100),),
    measures=("success", "progress"),
    data=(*SETS.values(), *FEW.values()),
    equal="rows of training, but that new arms take 400 steps; rooms and starts",
    notes="Rooms are harder than the table-top, and this size has not been shown to reach 70 % there: read it as a "
    "comparison, and expect low rates.",
)
