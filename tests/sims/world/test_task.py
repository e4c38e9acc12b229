"""What is to be done next, and how much of a task is done, follow from which steps hold."""

from dataclasses import dataclass

import numpy as np
import pytest

from pilot.sims.world import task as task_module
from pilot.sims.world.control import JointCommand
from pilot.sims.world.env import WorldEnv
from pilot.sims.world.goals import Goal, Inside
from pilot.sims.world.task import Step, Task
from sims.world.small_scene import make_scene

BOXES = ("red box", "blue box")


@dataclass(frozen=True)
class Said(Goal):
    """Holds if its name is in the world, here a set."""

    name: str

    def holds(self, world, scene):
        return self.name in world


def steps(*names, **options):
    return tuple(Step(Said(name), (name,), **options) for name in names)


OPEN, PUT, CLOSE = (
    Step(Said("open"), ("open",), skill="open", enables=(1,)),
    Step(Said("in"), ("put",), needs=(0,)),
    Step(Said("closed"), ("close",), skill="close", needs=(1,)),
)
DRAWER = Task("drawer", "put it in the drawer", (OPEN, PUT, CLOSE))


@pytest.mark.parametrize(
    ("world", "reached", "following"),
    [
        ({"closed"}, 0, OPEN),  # at the start the drawer is closed, which counts for nothing yet
        ({"open"}, 1, PUT),
        ({"open", "in"}, 2, CLOSE),
        ({"in", "closed"}, 3, None),  # it need not be open any longer
        ({"in"}, 2, CLOSE),
    ],
)
def test_a_drawer_is_opened_only_for_what_goes_into_it(world, reached, following):
    done = DRAWER.done(world, None)
    assert sum(DRAWER.reached(done)) == reached
    assert DRAWER.next_step(world, None, done=done) is following
    assert all(done) == (following is None)


def test_ordered_steps_come_one_after_the_other():
    task = Task("flaps", "close the box", steps("a", "b", "c"), ordered=True)
    assert task.reached(task.done({"b"}, None)) == (False, False, False)
    assert task.open_steps(task.done({"b"}, None)) == [0]
    assert task.open_steps(task.done({"a", "b"}, None)) == [2]


def test_an_order_decides_among_what_can_be_done(monkeypatch):
    task = Task("all", "do all", steps("a", "b", "c"))
    monkeypatch.setattr(task_module, "held_items", lambda world, scene: {})
    done = task.done({"a"}, None)
    assert task.open_steps(done) == [1, 2]
    assert task.next_step({"a"}, None, done=done, order=(2, 1, 0)).goal.name == "c"
    assert task.next_step({"a"}, None, done=done, order=(0, 1, 2)).goal.name == "b"


def test_without_an_order_the_nearest_comes_first_and_what_is_held_before_all():
    steps = [Step(Inside(name, "tray"), (f"pick up the {name}", f"put the {name} in the tray")) for name in BOXES]
    scene = make_scene(task=Task("all", "put the boxes in the tray", tuple(steps)))
    env = WorldEnv(lambda *_: scene, robot=scene.body.robot)
    assert env.reset_to(0)[1]["subtask"] == "pick up the red box"
    hand = env.controller.ik.pose(env.controller.command.q, scene.body.arms[0])[0]
    env.world.set_pose("item1", hand)
    env.world.forward()
    for _ in range(12):
        info = env.advance(env.controller.encode(JointCommand(env.controller.command.q, np.zeros(1))))
    assert info["subtask"] == "put the blue box in the tray"
    assert env.next_step((0, 1)) is steps[1]
    env.close()


def test_tasks_that_do_not_fit_are_refused():
    scene = make_scene()
    scene.task.check(scene)
    with pytest.raises(ValueError, match="0 steps"):
        Task("none", "do nothing", ()).check(scene)
    with pytest.raises(ValueError, match="length 'long' of"):
        Task("odd", "do it", steps("a"), length="long").check(scene)
    with pytest.raises(ValueError, match="names a step that there is not"):
        Task("odd", "do it", steps("a", needs=(3,))).check(scene)
    assert scene.task.items == ("red box",)
