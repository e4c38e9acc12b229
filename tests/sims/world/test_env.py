"""`WorldEnv` keeps the contract of environments, redraws scenes that do not work, and never records broken physics."""

import gc
import os

import numpy as np
import pytest

from pilot.contracts import sim as contract
from pilot.eval.episode import EpisodeSetup
from pilot.eval.rollout import run_episode
from pilot.robots import load_robot
from pilot.sims.base import DONE, Disturbance
from pilot.sims.demonstrate import BROKEN, Dropped, demonstrate
from pilot.sims.world import env as module
from pilot.sims.world.env import WorldEnv
from pilot.sims.world.goals import Inside
from pilot.sims.world.scene import ImpossibleSceneError
from pilot.sims.world.suites import WorldSuite
from pilot.sims.world.task import Step, Task
from sims.world.small_scene import TOP, draw, make_scene, table_spec


class TableSuite(WorldSuite):
    """Tests' own: the red box into the tray."""

    has_expert = False

    def draw(self, scene, episode, seed):
        return draw(self.body.removesuffix("_ee"))(scene, episode, seed)


SUITE = TableSuite(name="table", title="a box into a tray", body="arm")


@pytest.fixture
def env():
    made = SUITE.make_env()
    yield made
    made.close()


@pytest.mark.parametrize("check", contract.CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("robot", ["arm", "mobile_bimanual_ee"])
def test_contract(robot, check):
    check(SUITE.with_robot(robot))


def test_success_is_what_the_task_says_at_rest(env):
    _, info = env.reset_to(0)
    assert info["subtask"] == "pick up the red box" and info["progress"] == 0 and info["targets"] == 1
    stay = env.controller.encode(env.controller.command)
    env.world.set_pose("item0", (0.42, -0.22, TOP + 0.05))
    env.world.data.qvel[:3] = 0.5
    env.world.forward()
    assert env.advance(stay)["success"] is False  # it moves
    for _ in range(20):
        info = env.advance(stay)
    assert info["success"] and info["success_ever"] and info["progress"] == 1
    assert (info["subtask"], info["box"]) == (DONE, None) and env.goal_states() == (True,)
    env.world.set_pose("item0", (0.4, 0.2, TOP + 0.03))
    env.world.forward()
    info = env.advance(stay)
    assert not info["success"] and info["success_ever"] and info["time"] == pytest.approx(22 / 20)


def test_the_box_is_that_of_the_latest_pictures(env):
    _, info = env.reset_to(1)
    assert info["box"] == env.subtask_of(env.next_step())[1] is not None
    info = env.advance(env.controller.encode(env.controller.command))
    assert info["box"] is None and info["subtask"] == "pick up the red box"
    env.observe()
    assert info["box"] == env.subtask_of(env.next_step())[1] is not None


def test_starts_are_the_same_in_a_new_environment(env):
    first, _ = env.reset_to(5, episode=2, seed=9)
    other = SUITE.make_env()
    assert contract.is_same(first, other.reset_to(5, episode=2, seed=9)[0])
    other.close()


@pytest.mark.parametrize(
    ("why", "reason"),
    [
        ("overlaps", "item0 and item1 overlap at the start"),
        ("falls", "item0 does not stay where it is put"),
        ("impossible", "nothing fits"),
        ("done", "the task is done before it begins"),
        ("inside", "overlap at the start"),
    ],
)
def test_a_scene_that_does_not_work_is_drawn_again_and_counted(why, reason):
    seeds = []

    def draw_scene(scene, episode, seed):
        seeds.append(seed)
        spec = table_spec()
        if len(seeds) == 1:
            if why == "impossible":
                raise ImpossibleSceneError("nothing fits")
            places = {
                "overlaps": (0.47, 0.06, TOP + 0.031),
                "falls": (0.4, 0.2, TOP + 0.5),
                "inside": (0.05, 0, TOP + 0.05),
            }
            spec.body("item0").pos = places.get(why, (0.42, -0.22, TOP + 0.04))
        return make_scene(spec=spec)

    env = WorldEnv(draw_scene, robot=load_robot("arm"))
    env.reset_to(0, seed=7)
    assert env.redrawn == 1 and reason in next(iter(env.reasons)) and seeds[0] == 7 != seeds[1]
    env.close()


def test_a_scene_that_never_works_is_given_up_with_the_reason(monkeypatch):
    monkeypatch.setattr(module, "REDRAWS", 3)

    def draw_scene(scene, episode, seed):
        raise ImpossibleSceneError("nothing fits")

    env = WorldEnv(draw_scene, robot=load_robot("arm"))
    with pytest.raises(ValueError, match=r"none of 3 draws of scene 4, episode 0 works: \{'nothing fits': 3\}"):
        env.reset_to(4)


def test_a_task_about_what_is_not_there_is_an_error_not_a_redraw():
    task = Task("odd", "put the cup in the tray", (Step(Inside("cup", "tray"), ("put it",)),))
    env = WorldEnv(lambda *_: make_scene(task=task), robot=load_robot("arm"))
    with pytest.raises(ValueError, match="names item 'cup'"):
        env.reset_to(0)
    assert env.redrawn == 0


def test_physics_that_blows_up_ends_the_episode_as_broken(env):
    env.reset_to(0)
    stay = env.controller.encode(env.controller.command)
    env.world.data.qvel[0] = 1e4
    info = env.advance(stay)
    assert info["broken"] and not info["success"]
    time = env.world.data.time
    assert env.advance(stay)["broken"] and env.world.data.time == time  # nothing goes on
    assert not env.reset_to(0)[1]["broken"]


def test_the_wrong_object_and_collisions_are_noticed(env):
    env.reset_to(0)
    controller, arm = env.controller, env.scene.body.arms[0]
    env.world.set_pose("item1", controller.ik.pose(controller.command.q, arm)[0])
    env.world.forward()
    action = controller.encode(controller.command)
    action[-1] = 0
    for _ in range(12):
        info = env.advance(action)
    assert info["holding"] == info["first_grasped"] == "blue box" and info["wrong_object"] and info["collisions"] == 0
    action[:6] = [0, 1.3, 0, 0, 0, 0]  # the arm, stretched out, comes down on the table
    for _ in range(40):
        info = env.advance(action)
    assert info["collisions"] >= 1 and not info["broken"]


def test_suites_change_their_robot():
    assert SUITE.with_robot("arm") is SUITE
    other = SUITE.with_robot("bimanual")
    assert (other.name, other.robot.name) == ("table@bimanual", "bimanual")
    assert other.with_robot("mobile_ee").name == "table@mobile_ee"
    settings = SUITE.settings()
    assert (settings["split"], settings["body"]) == ("test", "arm") and not {"name", "title"} & set(settings)
    with pytest.raises(ValueError, match="unknown robot of suite 'table' 'mobil'; did you mean 'mobile'"):
        SUITE.with_robot("mobil")


def test_memory_stays_flat_over_homes(env):
    def resident_mib():
        gc.collect()
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20

    for scene in range(10):
        env.reset_to(scene)
    before = resident_mib()
    for scene in range(50):
        env.reset_to(scene)
    assert resident_mib() - before < 8


def test_pictures_say_where_things_are(env):
    env.reset_to(1)
    picture, (_, box) = env.observe()["images"]["front"], env.subtask_of(env.next_step())
    y0, x0, y1, x1 = (round(64 * edge) for edge in box)
    red = (picture[..., 0].astype(int) - picture[..., 2]) > 60
    rows, columns = np.nonzero(red)
    assert red.any() and y0 - 1 <= rows.min() and rows.max() <= y1 and x0 - 1 <= columns.min() and columns.max() <= x1
    env.world.set_pose("item0", (0.45, 0.1, TOP - 0.3))  # under the table
    env.world.forward()
    assert env.subtask_of(env.next_step())[1] is None
    behind = env.scene.fixtures["tray"].__class__("behind", "table", "surface", (-5, 0, 0), (0.1, 0.1, 0.1))
    assert env.pictures.box_of_fixture(behind, camera="front") is None
    assert env.render().shape == (64, 64, 3)


def test_what_a_camera_does_not_see_is_left_out_of_the_drawing_only(env):
    env.reset_to(1)
    pictures, model = env.pictures, env.world.model
    groups = model.geom_group.copy()
    for camera in env.robot.cameras:
        drawn = pictures.render(camera)
        assert np.array_equal(model.geom_group, groups)
        whole = pictures._renderer.render(env.world.data, camera)
        assert np.array_equal(drawn, whole), camera
    assert pictures._is_out_of_sight("wrist").sum() > 5  # most of the arm is behind it


class Still:
    """An expert, a policy and its session in one, who stays where it is."""

    subtask = ("wait", None)

    def __init__(self, env):
        self.env = env

    def act(self):
        return self.env.controller.encode(self.env.controller.command)

    def infer(self, observation):
        return {"actions": self.act()[None], "subtask": None, "box": None, "timing": {}}


def test_a_broken_episode_is_not_recorded_and_ends_an_evaluation(env, monkeypatch):
    class Breaks(TableSuite):
        def expert(self, env, rng, *, shuffle=False):
            return Still(env)

        def disturb(self, env, rng):
            env.world.is_broken = lambda: True
            return Disturbance()

    suite = Breaks(name="breaks", title="", body="arm")
    assert demonstrate(suite, env, scene=0, episode=0, seed=0) == Dropped(BROKEN)

    steps = []
    reset_to, advance = env.reset_to, env.advance

    def reset_and_break(*args, **options):
        start = reset_to(*args, **options)
        env.world.is_broken = lambda: len(steps) >= 3
        return start

    monkeypatch.setattr(env, "reset_to", reset_and_break)
    monkeypatch.setattr(env, "advance", lambda action: (steps.append(action), advance(action))[1])
    record, actions = run_episode(env, Still, EpisodeSetup(suite="table", replan_steps=1, scene=0, episode=0, seed=0))
    assert len(actions) == record.steps == 3 and not record.success
