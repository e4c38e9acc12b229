"""Questions about pictures of rooms, with many more kinds of things in them than any robot touches.

The rooms are those of robot data; on their surfaces also stand things that are only looked at, and handled ones whose
kinds and colours robot data never has: what they are called can be learned from here alone. Half of the pictures are
taken by the robot's own front camera, half by a visitor's who looks at a surface from somewhere.
"""

import numpy as np

from pilot.data.formats.writer import encode_png
from pilot.sims import questions
from pilot.sims.base import DONE, Box, Question
from pilot.sims.gl import mujoco
from pilot.sims.questions import AskFn, Note, Words
from pilot.sims.rooms.draw import SceneDraw
from pilot.sims.world.env import WorldEnv
from pilot.sims.world.physics import look_at, rotation_of
from pilot.sims.world.scene import Scene, in_region
from pilot.sims.world.things import FAMILIES, KINDS, handled_kinds, looked_at_kinds
from pilot.sims.world.things.looks import PAINTS

QUESTIONS_PER_PICTURE = 6
PICTURES_PER_EPISODE = 3
VISITOR = "visitor"  # the camera of one who looks around
CATEGORIES = {family: [kind.name for kind in KINDS.values() if kind.family == family] for family in FAMILIES}
KINDS_OF_QUESTIONS: tuple[tuple[float, AskFn], ...] = (
    (0.24, questions.detect_one), (0.08, questions.detect_category), (0.16, questions.name_at_box),
    (0.08, questions.caption), (0.08, questions.colour_of), (0.06, questions.count_of), (0.06, questions.is_in),
    (0.06, questions.where_is), (0.06, questions.left_or_right), (0.06, questions.grasp_at), (0.06, questions.do_next),
)  # fmt: skip
GLANCES = 5  # before a picture is taken, whatever there is to see
_GRASP = 0.02  # half the side of the box that stands for a place to grasp [m]


def pictures_of_home(
    draw: SceneDraw, scene: int, *, rows: int, seed: int, image_size: int = 64
) -> list[tuple[bytes, list[Question]]]:
    """Return about `rows` questions on pictures of one home, as (PNG, questions with answers)."""
    from pilot.robots import load_robot

    rng = np.random.default_rng((seed, scene, 1))
    env = WorldEnv(
        lambda *numbers: _with_visitor(draw(*numbers), rng), robot=load_robot(draw.body), image_size=image_size
    )
    pictures = []
    try:
        for episode in range(-(-rows // (QUESTIONS_PER_PICTURE * PICTURES_PER_EPISODE))):
            env.reset_to(scene, episode=100_000 + episode, seed=int(rng.integers(2**31)))
            for number in range(PICTURES_PER_EPISODE):
                camera = VISITOR if number % 2 == 0 else env.robot.cameras[0]
                notes = _look_around(env, camera, rng)
                subtask = env.subtask_of(env.next_step())[0]
                task = env.scene.task
                words = Words(
                    categories=CATEGORIES,
                    colours=PAINTS,
                    ground="room",
                    next=None if subtask == DONE or task.length == "skill" else (task.prompt, subtask),
                )
                assert env.pictures is not None
                png = encode_png(env.pictures.render(camera))
                asked = questions.ask(notes, rng, words, count=QUESTIONS_PER_PICTURE, kinds=KINDS_OF_QUESTIONS)
                pictures.append((png, asked))
    finally:
        env.close()
    return pictures


def _look_around(env: WorldEnv, camera: str, rng: np.random.Generator) -> list[Note]:
    """Turn the visitor's camera to where there is something to see, and return what the camera sees."""
    for _ in range(GLANCES):
        _look_elsewhere(env, rng)
        notes = annotate(env, camera)
        if sum(note["box"] is not None for note in notes) > 1:
            break
    return notes


def extra_kinds() -> tuple[str, ...]:
    """Return the kinds that only pictures with questions have: those without grasps, and those held out."""
    return tuple(kind.name for kind in (*looked_at_kinds(), *handled_kinds(held_out=True)))


def annotate(env: WorldEnv, camera: str) -> list[Note]:
    """Return what a camera sees: things and containers, each with its box; what something hides has none."""
    assert env.pictures is not None
    notes: list[Note] = []
    containers = {name: fixture for name, fixture in env.scene.fixtures.items() if fixture.role == "container"}
    for name, item in env.scene.items.items():
        middle = env.world.centre(item.body)
        inside = [container for container, fixture in containers.items() if in_region(env.world, fixture, middle)]
        notes.append(
            {
                "name": name,
                "kind": item.kind.name,
                "colour": item.look.colour if len(item.kind.colours) > 1 else None,
                "is_receptacle": False,
                "in": inside[0] if inside else None,
                "box": env.pictures.box_of(item.body, camera=camera)
                if _is_seen(env, middle, item.body, camera)
                else None,
                "grasp": _grasp_box(env, item, camera),
            }
        )
    for name, fixture in containers.items():
        notes.append(
            {
                "name": name, "kind": name, "colour": None, "is_receptacle": True, "in": None,
                "box": env.pictures.box_of_fixture(fixture, camera=camera),
            }
        )  # fmt: skip
    return notes


def _with_visitor(scene: Scene, rng: np.random.Generator) -> Scene:
    """Add the camera of a visitor; where it looks from is set for each picture."""
    scene.spec.worldbody.add_camera(name=VISITOR, pos=(0, 0, 1.5), fovy=float(rng.uniform(45, 65)))
    return scene


def _look_elsewhere(env: WorldEnv, rng: np.random.Generator) -> None:
    """Point the visitor's camera at a thing that is drawn, from the free floor's side."""
    world, names = env.world, list(env.scene.items)
    target = world.centre(env.scene.items[names[rng.integers(len(names))]].body)
    towards = -target[:2] / max(float(np.linalg.norm(target[:2])), 1e-6)  # the middle of the room is free
    turn, far = rng.uniform(-0.6, 0.6), rng.uniform(0.45, 1.2)
    c, s = np.cos(turn), np.sin(turn)
    side = np.array([c * towards[0] - s * towards[1], s * towards[0] + c * towards[1]])
    eye = np.array([*(target[:2] + far * side), target[2] + far * rng.uniform(0.5, 1.1)])
    number, rotation = world.id_of("camera", VISITOR), rotation_of(look_at(eye, target + rng.uniform(-0.08, 0.08, 3)))
    # Where it is now, not in the model: what does not move is asleep, and its camera with it.
    world.data.cam_xpos[number], world.data.cam_xmat[number] = eye, rotation.ravel()


def _is_seen(env: WorldEnv, point: np.ndarray, body: str, camera: str) -> bool:
    """Whether nothing that is drawn stands between a camera and a point, which is within a body."""
    world = env.world
    eye = world.data.cam_xpos[world.id_of("camera", camera)]
    way = point - eye
    distance, geom = float(np.linalg.norm(way)), np.zeros(1, np.int32)
    drawn = np.array([1, 1, 1, 0, 0, 0], np.uint8)
    hit = mujoco.mj_ray(world.model, world.data, eye, way / distance, drawn, 1, -1, geom)
    if hit < 0 or hit > distance - 0.01:
        return True
    root = world.model.body_rootid[world.model.geom_bodyid[geom[0]]]
    return bool(root == world.id_of("body", body))


def _grasp_box(env: WorldEnv, item: object, camera: str) -> Box | None:
    """Return the small box around the first place where a gripper could hold an item, if it has one."""
    kind, look, body = item.kind, item.look, item.body  # type: ignore[attr-defined]
    rotation = env.world.rot(body)
    grasps = kind.grasps_as_it_lies(look, rotation)
    if not grasps:
        return None
    assert env.pictures is not None
    corners = np.array([(x, y, z) for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]) * _GRASP
    return env.pictures.box_of_points(env.world.pos(body) + rotation @ grasps[0].tcp + corners, camera=camera)
