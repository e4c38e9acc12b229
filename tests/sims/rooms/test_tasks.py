"""Every task can begin, is not done then, and is done when somebody has put everything where it belongs."""

import numpy as np
import pytest

from pilot.robots import load_robot
from pilot.sims.rooms.choices import NOVELTIES
from pilot.sims.rooms.draw import SceneDraw
from pilot.sims.rooms.stage import VESSELS
from pilot.sims.rooms.suites import SUITES, RoomsSuite
from pilot.sims.rooms.tasks import TASKS
from pilot.sims.world.env import WorldEnv
from pilot.sims.world.goals import Closed, Holding, Inside, Opened, Wiped
from pilot.sims.world.scene import ImpossibleSceneError, region_centre
from pilot.sims.world.things import HELD_OUT_COLOURS, HELD_OUT_KINDS

STANDING = [
    name
    for name in TASKS
    if name not in ("close_all", "into_drawer", "pull_blanket", "put_on", "clean_room", "make_bed")
]


def make_env(task, body, **options):
    draw = SceneDraw(body=body, length=TASKS[task].length, tasks=(task,), **({"split": "train", "level": 2} | options))
    return WorldEnv(draw, robot=load_robot(body), image_size=16)


def do_by_hand(env):
    """Make every goal true, as a person would; what is held cannot be."""
    world, scene = env.world, env.scene
    placed = {}
    for step in scene.task.steps:
        goal = step.goal
        if isinstance(goal, Wiped):
            for spot in goal.spots:
                world.model.geom_rgba[world.id_of("geom", spot), 3] = 0
        elif isinstance(goal, Opened | Closed):
            fixture = scene.fixtures[goal.fixture]
            world.set_joint(fixture.joint, fixture.open_at if isinstance(goal, Opened) else fixture.closed_at)
    world.forward()
    for step in scene.task.steps:
        if isinstance(step.goal, Inside):
            put(env, step.goal, placed)
    world.step(60)
    env.advance(env.controller.encode(env.controller.command))


def put(env, goal, placed):
    """Lay an item into the region of its fixture, beside those that lie there."""
    world, fixture = env.world, env.scene.fixtures[goal.fixture]
    number = placed.setdefault(goal.fixture, 0)
    placed[goal.fixture] += 1
    along = np.array(
        [0.0, ((number + 1) // 2) * (0.09 if number % 2 else -0.09), -fixture.half[2] + 0.02 + 0.05 * (number // 3)]
    )
    pos = region_centre(world, fixture) + world.rot(fixture.body) @ along
    world.set_pose(env.scene.items[goal.item].body, pos)
    world.forward()


@pytest.mark.parametrize("task", TASKS)
def test_tasks_begin_undone_and_can_be_done(task):
    env = make_env(task, "mobile")
    try:
        for scene in range(2):
            observation, info = env.reset_to(scene)
            assert info["success"] is False
            assert info["subtask"] in {words for step in env.scene.task.steps for words in step.subtasks}
            assert observation["prompt"] == env.scene.task.prompt
            do_by_hand(env)
            done = env.goal_states()
            for step, is_done in zip(env.scene.task.steps, done, strict=True):
                assert is_done != isinstance(step.goal, Holding), (scene, step)
    finally:
        env.close()


@pytest.mark.parametrize("task", STANDING)
def test_robots_that_stand_have_tasks_too(task):
    env = make_env(task, "arm")
    try:
        env.reset_to(0)
        assert not all(env.goal_states())
        reach = [
            np.linalg.norm((env.world.pos(item.body) - env.world.pos("r_shoulder"))[:2])
            for item in env.scene.items.values()
        ]
        assert max(reach) < 0.6
    finally:
        env.close()


def print_of(spec):
    """A number for everything that a model is: shapes, places, colours, textures."""
    model = spec.compile()
    parts = (model.geom_pos, model.geom_size, model.geom_rgba, model.tex_data, model.body_pos, model.body_quat)
    return hash(b"".join(part.tobytes() for part in parts))


def scenes(count=12, **options):
    draw = SceneDraw(**({"body": "mobile", "length": "move", "level": 2} | options))
    for number in range(count):
        try:
            yield draw(number, 0, 0)
        except ImpossibleSceneError:
            continue


def test_splits_share_no_home():
    homes = {split: [print_of(s.spec) for s in scenes(3, split=split)] for split in ("train", "validation", "test")}
    everything = [one for prints in homes.values() for one in prints]
    assert len(set(everything)) == len(everything) >= 8


def test_novel_things_are_in_the_test_split_alone():
    for scene in scenes(split="train"):
        for item in scene.items.values():
            assert item.kind.name not in HELD_OUT_KINDS
            assert item.look.colour not in HELD_OUT_COLOURS
    novel = [item for scene in scenes(novel=NOVELTIES) for item in scene.items.values()]
    assert any(item.kind.name in HELD_OUT_KINDS for item in novel)
    assert any(item.look.colour in HELD_OUT_COLOURS for item in novel)


def test_training_never_hears_what_is_held_out():
    from pilot.sims.rooms.language import REQUESTS, fill, place_names

    scene = next(scenes(novel=("phrasings",), tasks=("put_in",)))
    goal = scene.task.steps[0].goal
    names = scene.items[goal.item].kind.names(scene.items[goal.item].look)
    places = place_names(goal.fixture, held_out=True)
    templates = REQUESTS["put_in"].held_out
    held_out = {fill(t, thing=name, place=place) for t in templates for name in names for place in places}
    assert scene.task.prompt in held_out
    heard = {s.task.prompt for s in scenes(split="train", tasks=("put_in",))}
    assert not heard & held_out


def test_training_refuses_what_is_novel():
    with pytest.raises(ValueError, match="novel kinds are for the test split only, not for 'train'"):
        SceneDraw(body="arm", length="move", split="train", novel=("kinds",))
    with pytest.raises(ValueError, match="kinds"):
        SceneDraw(body="arm", length="move", novel=("kindz",))


def test_a_task_that_a_robot_cannot_do_is_refused():
    env = make_env("make_bed", "arm", rooms=("bedroom",))
    with pytest.raises(ValueError, match="robot 'arm' can do none of make_bed in this bedroom"):
        env.reset_to(0)


def test_levels_add_things_and_distance():
    few, many = (np.mean([len(s.items) for s in scenes(level=level, tasks=("put_in",))]) for level in (1, 3))
    assert many > few + 2


def test_the_same_numbers_are_the_same_start():
    suite = next(suite for suite in SUITES if suite.name == "rooms-steps")
    first, again, other = suite.draw(3, 1, 7), suite.draw(3, 1, 7), suite.draw(3, 2, 7)
    assert print_of(first.spec) == print_of(again.spec)
    assert (first.task, first.robot_pose) == (again.task, again.robot_pose)
    assert print_of(first.spec) != print_of(other.spec)


def test_suites_cover_four_lengths_and_name_their_robot():
    assert {suite.length for suite in SUITES} == {"skill", "move", "steps", "room"}
    suite = SUITES[0].with_robot("bimanual")
    assert (suite.name, suite.body, suite.robot.name) == (f"{SUITES[0].name}@bimanual", "bimanual", "bimanual")
    assert isinstance(suite, RoomsSuite)


def test_containers_on_surfaces_keep_their_names():
    found = {name for scene in scenes(8, tasks=("put_in",), level=1) for name in scene.fixtures} & set(VESSELS)
    assert len(found) >= 2
