"""`WorldEnv`: an episode of any scene with any task, as evaluation and collection speak to it (`sims/base.py`).

A scene is drawn and compiled anew for every episode, which costs about 30 ms. One that is impossible, or in which
bodies overlap, fall or blow up before anybody acts, is drawn again with the next sub-seed and counted in `redrawn`;
physics that blows up later ends the episode as broken.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from pilot.sims.base import DONE, Box, Info, Observation
from pilot.sims.world.control import BodyController
from pilot.sims.world.grasping import is_reachable
from pilot.sims.world.ik import InverseKinematics
from pilot.sims.world.physics import Physics
from pilot.sims.world.pictures import Pictures
from pilot.sims.world.planner import Planner
from pilot.sims.world.scene import ImpossibleSceneError, Scene, held_items
from pilot.sims.world.steering import planned_path, steer, steering_axes
from pilot.sims.world.task import Step
from pilot.types import Robot

DrawFn = Callable[[int, int, int], Scene]
"""From the numbers of a scene, an episode and a seed to the scene; `ImpossibleSceneError` asks for another seed."""

BeginFn = Callable[["WorldEnv", np.random.Generator], None]
"""What happens to an episode before anybody sees it; `ImpossibleSceneError` asks for another seed."""

_BEGIN = 0xBE61  # keeps these draws apart from the scene's own
REDRAWS = 20  # before a scene is given up
SETTLE = 0.3  # what a scene has to come to rest [s]
OVERLAP = 0.006  # the deepest that bodies may overlap at the start [m]
MOVED = 0.05  # how far an item may slip while the scene comes to rest [m]
RESTING = 0.1  # an item slower than this rests [m/s]
LIFTED = 0.03  # an item held this far above where it stood counts as grasped [m]


class WorldEnv:
    """Scenes that `draw` makes, with pictures of `image_size` pixels.

    `robot`: the body moved by the hand instead of by joints, `load_robot("arm_ee")`; without it as the body says.
    `begin`: changes where an episode begins, by what it draws from its numbers.
    `redrawn` counts the scenes that did not work, `reasons` says why.
    """

    def __init__(self, draw: DrawFn, *, robot: Robot, image_size: int = 64, begin: BeginFn | None = None):
        self.draw, self.robot, self.image_size, self.begin = draw, robot, image_size, begin
        self.redrawn, self.reasons = 0, dict[str, int]()
        self.scene: Scene
        self.world: Physics
        self.controller: BodyController
        self.pictures: Pictures | None = None

    @property
    def max_steps(self) -> int:
        """Control steps until the episode is cut off."""
        return round(self.scene.task.max_seconds * self.robot.control_hz)

    def reset_to(self, scene: int, *, episode: int = 0, seed: int = 0) -> tuple[Observation, Info]:
        """Begin episode `episode` in scene `scene`.

        Raises:
            ValueError: none of many draws works, with the reasons.
        """
        for attempt in range(REDRAWS):
            tried = seed + (attempt << 32)
            try:
                self._enter(self.draw(scene, episode, tried))
                if self.begin is not None:
                    self.begin(self, np.random.default_rng((_BEGIN, scene, episode, tried)))
                    self._info = self._judge()
                break
            except ImpossibleSceneError as error:
                self.redrawn += 1
                self.reasons[str(error)] = self.reasons.get(str(error), 0) + 1
        else:
            raise ValueError(f"none of {REDRAWS} draws of scene {scene}, episode {episode} works: {self.reasons}")
        return self.observe(), self._info

    def advance(self, action: np.ndarray) -> Info:
        """Run one control step of physics with an action [ad], without pictures.

        Raises:
            ValueError: the action is not `action_dim` finite numbers.
        """
        command = self.controller.decode(action)
        if self.is_broken:
            return self._info
        self.controller.apply(command)
        for effect in self.scene.effects:
            effect.update(self.world, self.scene)
        self.is_broken = self.world.is_broken()
        self._count_collisions()
        self._info = self._judge()
        return self._info

    def observe(self) -> Observation:
        """Return the observation now: pictures, state and prompt. The latest info now has the box in these pictures."""
        assert self.pictures is not None, "reset_to comes first"
        self._info["box"] = self.subtask_of(self._next)[1]
        images = {camera: self.pictures.render(camera) for camera in self.robot.cameras}
        return {"images": images, "state": self.state(), "prompt": self.scene.task.prompt}

    def state(self) -> np.ndarray:
        """Return the robot's state without pictures, float32 [sd]."""
        return self.controller.state()

    def render(self) -> np.ndarray:
        """Return a picture for people: of the scene's camera `overview` where it has one, or of the first camera."""
        assert self.pictures is not None, "reset_to comes first"
        names = [self.world.model.camera(i).name for i in range(self.world.model.ncam)]
        return self.pictures.render("overview" if "overview" in names else self.robot.cameras[0])

    def close(self) -> None:
        """Free the buffers of pictures."""
        if self.pictures is not None:
            self.pictures.close()
            self.pictures = None

    def path_of(self, actions: np.ndarray) -> np.ndarray:
        """Return where actions [n ad] would take the first hand, as (y, x) in the first camera's picture [n 2]."""
        assert self.pictures is not None, "reset_to comes first"
        across, down, ahead = self.pictures.project(
            planned_path(self.controller, actions), camera=self.robot.cameras[0]
        )
        return np.stack([down, across], axis=1)[ahead > 0]

    @property
    def steering_axes(self) -> tuple[str, ...]:
        """What a person can move: the first hand, and the base where there is one."""
        return steering_axes(self.scene.body)

    def steer(self, axes: Mapping[str, float], *, is_open: bool) -> np.ndarray:
        """Return the next action [ad] for axes that are pushed by −1 to 1, and whether the first hand is open."""
        return steer(self.controller, axes, is_open=is_open)

    def goal_states(self) -> tuple[bool, ...]:
        """Return, of each step of the task, whether it is done."""
        return self.scene.task.done(self.world, self.scene)

    def next_step(self, order: Sequence[int] | None = None) -> Step | None:
        """Return the step to do now, None when all is done; `order` as in `Task.next_step`."""
        return self.scene.task.next_step(self.world, self.scene, done=self.goal_states(), order=order)

    def subtask_of(self, step: Step | None) -> tuple[str, Box | None]:
        """Return a step's subtask in words, and the box of what it is about in the first camera's picture."""
        if step is None:
            return DONE, None
        moment, known, subtask = self._subtask
        if moment != self.world.moment or known is not step:
            subtask = self._describe(step)
            self._subtask = self.world.moment, step, subtask
        return subtask

    def _describe(self, step: Step) -> tuple[str, Box | None]:
        goal, camera = step.goal, self.robot.cameras[0]
        assert self.pictures is not None
        is_held = goal.item is not None and goal.item in held_items(self.world, self.scene)
        if goal.item is not None and not (is_held and goal.fixture):
            box = self.pictures.box_of(self.scene.items[goal.item].body, camera=camera)
        elif goal.fixture is not None:
            box = self.pictures.box_of_fixture(self.scene.fixtures[goal.fixture], camera=camera)
        else:
            box = None
        return step.words(is_held=is_held), box

    def _enter(self, scene: Scene) -> None:
        """Compile a scene, put the robot into it and let it come to rest.

        Raises:
            ImpossibleSceneError: bodies overlap, fall or blow up, or there is nothing to do.
        """
        self.close()
        scene.task.check(scene)
        x, y, yaw = scene.robot_pose
        where = {"xy": (x, y), "yaw": yaw, "height": scene.robot_height}
        body = scene.body
        body.add_to(scene.spec, **where, jitter=scene.camera_jitter)
        self.scene, self.world = scene, Physics(scene.spec)
        self.controller = BodyController(body, self.world, InverseKinematics(body, **where), robot=self.robot)
        start = body.ready.copy() if scene.robot_start is None else np.array(scene.robot_start, float)
        if body.is_mobile:
            start[:3] = scene.robot_pose
        self.controller.ik.rest[:] = start
        self.controller.reset(start)
        self.pictures = Pictures(self.world, self.image_size)
        self._parts = self._number_parts()
        self._subtask: tuple[int, Step | None, tuple[str, Box | None]] = (-1, None, (DONE, None))
        self._settle()
        self.is_broken, self.success_ever, self.collisions = False, False, 0
        self._touching: set[int] = set()
        self._first_grasped: str | None = None
        self._started = self.world.data.time
        self._stood = {name: self.world.centre(item.body)[2] for name, item in scene.items.items()}
        self._info = self._judge()
        if self._info["success"]:
            raise ImpossibleSceneError("the task is done before it begins")
        if not body.is_mobile:
            self._check_reach()

    def _check_reach(self) -> None:
        """Check that a robot that cannot drive reaches what it has to move.

        Raises:
            ImpossibleSceneError: it does not.
        """
        planner = Planner(self.world, self.controller, self.scene)
        for name in {step.goal.item for step in self.scene.task.steps} & set(self.scene.items):
            if not is_reachable(planner, self.scene.items[name]):
                raise ImpossibleSceneError(f"robot '{self.robot.name}' does not reach the {name}")

    def _settle(self) -> None:
        items = [item.body for item in self.scene.items.values()]
        overlaps = [pair for *pair, depth in self.world.contacts(deeper_than=OVERLAP)]
        if overlaps:
            raise ImpossibleSceneError(f"{' and '.join(sorted(overlaps[0]))} overlap at the start")
        before = [self.world.pos(body) for body in items]
        self.world.step(round(SETTLE / self.world.model.opt.timestep))
        if self.world.is_broken():
            raise ImpossibleSceneError("the physics blows up at the start")
        for body, stood in zip(items, before, strict=True):
            if np.linalg.norm(self.world.pos(body) - stood) > MOVED:
                raise ImpossibleSceneError(f"{body} does not stay where it is put")

    def _number_parts(self) -> dict[str, np.ndarray]:
        """Return masks over bodies: the robot without its fingers, its fingers, and items."""
        model, body = self.world.model, self.scene.body
        root = self.world.id_of("body", body.root)
        fingers = {self.world.id_of("body", name) for arm in body.arms for name in arm.fingers}
        items = {self.world.id_of("body", item.body) for item in self.scene.items.values()}
        of_robot = np.zeros(model.nbody, bool)
        for number in range(model.nbody):
            of_robot[number] = number == root or of_robot[model.body_parentid[number]]
        of_fingers = np.array([number in fingers for number in range(model.nbody)])
        of_items = np.array([model.body_rootid[number] in items for number in range(model.nbody)])
        return {"robot": of_robot & ~of_fingers, "fingers": of_fingers, "items": of_items}

    def _count_collisions(self) -> None:
        """Count how often the robot, its fingers aside, begins to touch what is no item, or itself."""
        count = self.world.data.ncon
        touching: set[int] = set()
        if count:
            pairs = self.world.model.geom_bodyid[self.world.data.contact.geom[:count]]
            own, allowed = self._parts["robot"][pairs], self._parts["items"][pairs]
            for first, second in pairs[own.any(axis=1) & ~allowed.any(axis=1)]:
                touching.add(int(first) * self.world.model.nbody + int(second))
        self.collisions += len(touching - self._touching)
        self._touching = touching

    def _judge(self) -> Info:
        """Return what is known about the episode now."""
        world, scene, task = self.world, self.scene, self.scene.task
        done = self.goal_states()
        reached, held = task.reached(done), held_items(world, scene)
        if self._first_grasped is None:
            lifted = [name for name in held if world.centre(scene.items[name].body)[2] > self._stood[name] + LIFTED]
            self._first_grasped = lifted[0] if lifted else None
        at_rest = all(world.speed(scene.items[name].body) < RESTING for name in task.items)
        success = all(done) and at_rest and not self.is_broken
        self.success_ever = self.success_ever or success
        self._next = task.next_step(world, scene, done=done)
        return {
            "success": success,
            "task": task.name,
            "success_ever": self.success_ever,
            "subtask": DONE if self._next is None else self._next.words(is_held=self._next.goal.item in held),
            "box": None,  # which takes a third of a tick: `observe` finds it, for the pictures that it is in
            "first_grasped": self._first_grasped,
            "wrong_object": self._first_grasped is not None
            and bool(task.items)
            and self._first_grasped not in task.items,
            "placed": sum(reached),
            "targets": len(reached),
            "progress": sum(reached) / len(reached),
            "holding": next(iter(held), None),
            "collisions": self.collisions,
            "time": float(world.data.time - self._started),
            "broken": self.is_broken,
        }
