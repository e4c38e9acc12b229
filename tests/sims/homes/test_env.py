"""The environment's promises: same numbers same start, honest physics, honest judgement, clear errors."""

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from pilot.eval.suites import load_suite
from pilot.sims.homes import Expert, HomesEnv


@pytest.fixture(scope="module")
def env():
    env = HomesEnv(level=2)
    yield env
    env.close()


def go_to(env, x, y, z, suction=0, steps=14):
    for _ in range(steps):
        info = env.advance(np.array([x, y, z, suction]))
    return info


def grasp(env, item, offset):
    """Down on an object's top beside its middle with suction on, then up."""
    x, y = env.world.position(item)[:2] + offset
    top = env.world.top(item)
    go_to(env, x, y, top + 0.05)
    go_to(env, x, y, top - 0.01, suction=1, steps=4)
    return go_to(env, x, y, 0.3, suction=1, steps=8)


@pytest.mark.filterwarnings("ignore:.*symmetric and normalized")
def test_gymnasium_agrees(env):
    check_env(env, skip_render_check=True, skip_close_check=True)


def test_two_homes_in_one_process_keep_their_pictures_apart(env):
    other = HomesEnv(level=2)
    pictures = []
    for one, home in ((env, 20), (other, 21)):
        pictures.append((one, one.reset(options={"home": home, "episode": 0})[0]["images"]["room"]))
    assert not np.array_equal(pictures[0][1], pictures[1][1])
    for one, picture in pictures:
        assert np.array_equal(one.observe()["images"]["room"], picture)
    other.close()


def test_the_same_numbers_are_the_same_start(env):
    options = {"home": 5, "episode": 9}
    first = env.reset(seed=1, options=options)[0]
    env.reset(options={"home": 6, "episode": 0})
    other = HomesEnv(level=2)
    again = other.reset(seed=2, options=options)[0]
    other.close()
    assert first["prompt"] == again["prompt"] and np.array_equal(first["state"], again["state"])
    assert np.array_equal(first["images"]["wrist"], again["images"]["wrist"])
    same = env.reset_to(5, episode=9)[0]
    assert first["prompt"] == same["prompt"] and np.array_equal(first["state"], same["state"])


def test_another_seed_is_another_start_in_the_same_home(env):
    """Demonstrations have seeds of their own, so they do not begin as the evaluation of the same home does."""
    first, other = env.reset_to(5, episode=9)[0], env.reset_to(5, episode=9, seed=3)[0]
    assert not np.array_equal(first["state"], other["state"])
    again = env.reset_to(5, episode=9, seed=3)[0]
    assert np.array_equal(again["state"], other["state"]) and again["prompt"] == other["prompt"]


def test_the_arm_goes_where_it_is_told_at_its_own_pace(env):
    env.reset(options={"home": 1, "episode": 0})
    go_to(env, -0.1, 0.05, 0.3)
    before = env.world.gripper
    env.advance(np.array([0.2, 0.05, 0.3, 0]))
    assert 0.03 < env.world.gripper[0] - before[0] <= 0.055
    go_to(env, 0.2, -0.1, 0.25)
    assert np.allclose(env.world.gripper, [0.2, -0.1, 0.25], atol=0.002)


def test_an_episode_is_cut_off_after_its_seconds_for_each_move():
    patient = HomesEnv(level=2, task="multi", seconds_per_move=0.3)
    patient.reset(options={"home": 1, "episode": 0})
    moves = len(patient.episode.targets)
    cut = [patient.step(patient.action_space.low)[3] for _ in range(3 * moves)]
    assert cut == [False] * (3 * moves - 1) + [True]
    patient.close()
    with pytest.raises(ValueError, match="needs some time"):
        HomesEnv(seconds_per_move=0)


@pytest.mark.parametrize("kind", ["cup", "plate", "ball", "bottle", "hat"])
def test_suction_holds_off_centre_and_misses_beside(kind):
    env = HomesEnv(level=1, kinds=(kind,))
    for offset, holds in (((0.015, 0.015), True), ((0.075, 0.0), False)):
        env.reset(options={"home": 2, "episode": 1})
        item = env.episode.things[0].index
        info = grasp(env, item, offset)
        assert (env.world.held_object() == item) == holds
        assert env.state()[4] == holds and env.state()[3] == 1
        assert (env.world.position(item)[2] > 0.15) == holds
        assert info["first_grasped"] == (env.episode.things[0].name if holds else None)
    env.close()


def test_the_wrong_object_is_noticed_and_let_go(env):
    env.reset(options={"home": 3, "episode": 2})
    wrong = next(t for t in env.episode.things if t.index not in env.target_items())
    info = grasp(env, wrong.index, (0, 0))
    assert info["holding"] == wrong.name and info["wrong_object"] and not info["success"]
    assert info["subtask"].startswith("pick up the")
    info = go_to(env, *env.world.gripper, suction=0, steps=3)
    assert info["holding"] is None and info["wrong_object"]


def test_boxes_cover_what_is_painted(env):
    """Repaint one object and see which pixels change: all of them within its box, and up to the box's sides."""
    env.reset(options={"home": 4, "episode": 3})
    go_to(env, 0, 0, 0.35, steps=4)
    for thing in env.episode.things:
        before = env.world.render("room").astype(int)
        env.world.model.geom_rgba[[g for g, _ in env.world._paint[thing.index]], :3] = (1, 0, 1)
        ys, xs = np.nonzero(np.abs(env.world.render("room") - before).max(-1) > 8)
        y0, x0, y1, x1 = np.array(env.world.item_box(thing.index)) * 64
        assert ys.min() >= y0 - 1 and xs.min() >= x0 - 1 and ys.max() <= y1 + 1 and xs.max() <= x1 + 1
        assert xs.max() - xs.min() > 0.5 * (x1 - x0)


def test_success_needs_letting_go(env):
    env.reset(options={"home": 8, "episode": 0})
    expert = Expert(env, np.random.default_rng(0))
    item, seen_held_inside = env.target_items()[0], False
    for _ in range(env.max_steps):
        info = env.advance(expert.act())
        if env.world.held_object() == item and env.inside(item):
            seen_held_inside = True
            assert not info["success"] and info["placed"] == 0
        if info["success"]:
            break
    assert seen_held_inside and info["placed"] == info["targets"] == 1 and info["subtask"] == "done"


def test_an_episode_is_cut_off(env):
    env.reset(options={"home": 0, "episode": 0})
    for _ in range(env.max_steps - 1):
        env.advance(np.array([0, 0, 0.3, 0]))
    _, reward, terminated, truncated, _ = env.step(np.array([0, 0, 0.3, 0]))
    assert truncated and not terminated and reward == 0


def test_annotations_name_everything(env):
    env.reset(options={"home": 11, "episode": 0})
    rows = env.annotations()
    assert {row["name"] for row in rows if not row["is_receptacle"]} == {t.name for t in env.episode.things}
    assert sum(row["is_receptacle"] for row in rows) == 2
    assert all(row["in"] is None for row in rows)


@pytest.mark.parametrize(
    "arguments",
    [{"level": 3}, {"level": 1, "task": "multi"}, {"kinds": ("spoon",)}, {"receptacles": ("sea",)}, {"split": "valid"}],
)
def test_unknown_words_are_refused(arguments):
    with pytest.raises(ValueError):
        HomesEnv(**arguments)


def test_unknown_reset_options_are_refused(env):
    with pytest.raises(ValueError, match="hoome"):
        env.reset(options={"hoome": 1})


def test_what_a_person_may_ask_for_is_here_and_not_done():
    suite = load_suite("homes-l2")
    env = suite.make_env()
    env.reset_to(3)
    asked = suite.instructions(env)
    assert asked[0] == env.episode.prompt and len(set(asked)) == len(asked) > 3
    assert all(any(thing.name in words for thing in env.episode.things) for words in asked)
    env.close()


def test_a_planned_motion_is_drawn_from_the_pad_on():
    env = HomesEnv()
    env.reset_to(0)
    x, y, z = env.world.gripper
    path = env.path_of(np.array([[x, y, z, 0], [x + 0.1, y, z, 0], [x, y, z - 0.1, 0]]))
    assert path.shape == (3, 2) and ((path > 0) & (path < 1)).all()
    assert path[1, 1] > path[0, 1] and path[2, 0] > path[0, 0], "to the right, and down"
    env.close()
