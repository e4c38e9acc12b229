"""`HomesEnv`: tidying up in generated homes, as a Gymnasium environment.

A home is drawn from its number, an episode in it from its own: the same (split, home, episode, level, task) is the
same start, bit for bit. The environment judges the task and names the next subtask; it never decides how to move.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import gymnasium
import numpy as np

from pilot.robots.homes import ROBOT
from pilot.sims.base import Info, check_action
from pilot.sims.homes import language
from pilot.sims.homes.episodes import SECONDS_PER_MOVE, TASKS, HomesEpisode, draw_episode
from pilot.sims.homes.mjcf import LIMITS
from pilot.sims.homes.rooms import ALL_KINDS, ALL_RECEPTACLES, Receptacle, check_names, draw_home, home_seed
from pilot.sims.homes.world import Box, World

STEERING_AXES = ("right", "away", "up")
STEERING_STEP = 0.03  # of the pad, at full push and per control step [m]
_LIFTED = 0.015  # an object held this far above where it stood counts as grasped [m]
_RESTING = 0.1  # a target slower than this rests [m/s]


class HomesEnv(gymnasium.Env):
    """One level, task and split of homes.

    `kinds` and `receptacles` restrict what there is, or bring in the held-out words, which appear only when named. An
    episode is cut off after `seconds_per_move` for each of its moves.
    Raises ValueError for unknown words, levels, tasks and splits, and for actions that are not 4 finite numbers.
    """

    metadata: ClassVar = {"render_modes": ["rgb_array"], "render_fps": 10}
    render_mode = "rgb_array"
    robot = ROBOT

    def __init__(
        self,
        *,
        level: int = 1,
        task: str = "single",
        split: str = "train",
        image_size: int = 64,
        kinds: tuple[str, ...] | None = None,
        receptacles: tuple[str, ...] | None = None,
        seconds_per_move: float = SECONDS_PER_MOVE,
    ):
        if level not in (1, 2):
            raise ValueError(f"homes has levels 1 and 2, got {level!r}")
        if task not in TASKS or (level == 1 and task == "multi"):
            raise ValueError(f"homes level {level} has no task {task!r}: level 1 has 'single', level 2 has {TASKS}")
        if seconds_per_move <= 0:
            raise ValueError(f"a move needs some time, got seconds_per_move={seconds_per_move}")
        home_seed(split, 0)
        self.level, self.task, self.split, self.image_size = level, task, split, image_size
        self.seconds_per_move = seconds_per_move
        self.kinds = check_names("kinds", kinds or language.KINDS, known=ALL_KINDS)
        self.receptacles = check_names("receptacles", receptacles or language.RECEPTACLES, known=ALL_RECEPTACLES)
        self.observation_space = _observation_space(image_size)
        self.action_space = gymnasium.spaces.Box(
            np.array([*LIMITS[0], 0], np.float32), np.array([*LIMITS[1], 1], np.float32)
        )
        self.world: World
        self.episode: HomesEpisode
        self._world_seed: int | None = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[dict[str, Any], Info]:
        """Start episode `options["episode"]` of home `options["home"]`; what is not given is drawn from `seed`.

        Another `options["start"]` than 0 is another start of the same number.
        """
        super().reset(seed=seed)
        wanted = dict(options or {})
        if unknown := set(wanted) - {"home", "episode", "start"}:
            raise ValueError(f"unknown reset options {sorted(unknown)}; homes knows 'home', 'episode' and 'start'")
        home = int(wanted.get("home", self.np_random.integers(100_000)))
        number = int(wanted.get("episode", self.np_random.integers(100_000)))
        self._enter(home_seed(self.split, home))
        self.episode = draw_episode(self.world.home, number, task=self.task, seed=int(wanted.get("start", 0)))
        self.world.place({t.index: (t.xy, t.yaw, t.rgb) for t in self.episode.things}, self.episode.gripper)
        self._stood = {t.index: self.world.position(t.index)[2] for t in self.episode.things}
        self._names = {t.index: t.name for t in self.episode.things}
        self._first_grasped: int | None = None
        self._steps = 0
        return self.observe(), self._info()

    def reset_to(self, scene: int, *, episode: int = 0, seed: int = 0) -> tuple[dict[str, Any], Info]:
        """Begin episode `episode` of home `scene`, from the start that `seed` draws."""
        return self.reset(seed=seed, options={"home": scene, "episode": episode, "start": seed})

    def _enter(self, seed: int) -> None:
        """Compile the home, unless it stands already."""
        if seed == self._world_seed:
            return
        if self._world_seed is not None:
            self.world.close()
        home = draw_home(seed, self.level, kinds=self.kinds, receptacles=self.receptacles)
        self.world, self._world_seed = World(home, self.image_size), seed

    @property
    def max_steps(self) -> int:
        """Control steps until the episode is cut off."""
        return round(self.seconds_per_move * ROBOT.control_hz) * len(self.episode.targets)

    def step(self, action: np.ndarray) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """Run `advance`, then `observe`; the reward is 1 once everything is where it belongs."""
        info = self.advance(action)
        truncated = self._steps >= self.max_steps
        return self.observe(), float(info["success"]), info["success"], truncated, info

    def advance(self, action: np.ndarray) -> Info:
        """Run one control step (0.1 s) of physics without pictures."""
        self.world.advance(check_action(action, ROBOT))
        self._steps += 1
        held = self.world.held_object()
        lifted = held is not None and self.world.position(held)[2] > self._stood[held] + _LIFTED
        if lifted and self._first_grasped is None:
            self._first_grasped = held
        return self._info()

    def observe(self) -> dict[str, Any]:
        """Return `{"images": {"room", "wrist"}, "state" [5], "prompt"}`."""
        images = {camera: self.world.render(camera) for camera in ROBOT.cameras}
        return {"images": images, "state": self.state(), "prompt": self.episode.prompt}

    def state(self) -> np.ndarray:
        """Return the robot's state without pictures, float32 [5]."""
        return np.array([*self.world.gripper, self.world.suction, self.world.held_object() is not None], np.float32)

    def render(self) -> np.ndarray:
        """Return the picture of the room."""
        return self.world.render("room")

    @property
    def targets(self) -> tuple[str, ...]:
        """The names of the objects to move."""
        return tuple(self.episode.things[t].name for t in self.episode.targets)

    def target_items(self) -> list[int]:
        """Return the objects to move, as numbers of the home's pool."""
        return [self.episode.things[t].index for t in self.episode.targets]

    def find(self, name: str) -> int:
        """Return an object's number in the home's pool, by its name in this episode.

        Raises:
            ValueError: there is no such object.
        """
        for thing in self.episode.things:
            if thing.name == name:
                return thing.index
        raise ValueError(f"there is no '{name}' here, only {[t.name for t in self.episode.things]}")

    def inside(self, item: int) -> bool:
        """Return whether an object's centre is within the episode's receptacle, seen from above."""
        return self.is_inside(item, self.episode.receptacle)

    def is_inside(self, item: int, receptacle: Receptacle) -> bool:
        """Return whether an object's centre is within a receptacle, seen from above."""
        return float(receptacle.distance(self.world.position(item)[:2])) == 0.0

    @property
    def steering_axes(self) -> tuple[str, ...]:
        """What a person can move: the pad, as the picture of the room shows it."""
        return STEERING_AXES

    def steer(self, axes: Mapping[str, float], *, is_open: bool) -> np.ndarray:
        """Return the next action [4] for axes that are pushed by −1 to 1, and whether suction is off."""
        push = np.clip([axes.get(name, 0.0) for name in STEERING_AXES], -1, 1)
        target = np.clip(self.world.data.ctrl[:3] + STEERING_STEP * push, *LIMITS)
        return np.array([*target, float(not is_open)], np.float32)

    def path_of(self, actions: np.ndarray) -> np.ndarray:
        """Return where actions [n 4] would take the pad, as (y, x) in the picture of the room [n 2]."""
        return self.world.project(actions[:, :3])[:, ::-1]

    def missing(self, order: list[int] | None = None) -> list[int]:
        """Return the objects that are not put away yet: those of `order`, or else the targets, the nearest first."""
        held, pad = self.world.held_object(), self.world.gripper[:2]
        items = self.target_items() if order is None else order
        remaining = [i for i in items if i == held or not self.inside(i)]
        if order is not None:
            return remaining
        return sorted(remaining, key=lambda i: float(np.linalg.norm(self.world.position(i)[:2] - pad)))

    def next_subtask(self, order: list[int] | None = None) -> tuple[str, Box | None]:
        """Return the next subtask, and the box of its object or receptacle."""
        missing, held = self.missing(order), self.world.held_object()
        if held in missing:
            receptacle = self.episode.receptacle
            return language.put_subtask(receptacle.name), self.world.receptacle_box(receptacle)
        if missing:
            return language.pick_subtask(self._names[missing[0]]), self.world.item_box(missing[0])
        return language.DONE, None

    def feasible_subtasks(self) -> dict[str, float]:
        """Return what the hand can do now: an empty one can pick any object, a full one can put it anywhere."""
        is_holding = self.world.held_object() is not None
        picks = {language.pick_subtask(thing.name): float(not is_holding) for thing in self.episode.things}
        puts = {language.put_subtask(r.name): float(is_holding) for r in self.world.home.receptacles}
        return {**picks, **puts, language.DONE: 1.0}

    def annotations(self) -> list[dict[str, Any]]:
        """Return every object and receptacle in the current picture: name, kind, colour, box, is_receptacle, in."""
        rows = []
        for thing in self.episode.things:
            xy = self.world.position(thing.index)[:2]
            inside = [r.name for r in self.world.home.receptacles if r.distance(xy) == 0.0]
            row = {"name": thing.name, "kind": thing.kind, "colour": thing.colour, "is_receptacle": False}
            in_it = inside[0] if inside and thing.index != self.world.held_object() else None
            rows.append(row | {"box": self.world.item_box(thing.index), "in": in_it})
        for r in self.world.home.receptacles:
            row = {"name": r.name, "kind": r.name, "colour": None, "is_receptacle": True}
            rows.append(row | {"box": self.world.receptacle_box(r), "in": None})
        return rows

    def _info(self) -> Info:
        missing, held, first = self.missing(), self.world.held_object(), self._first_grasped
        targets = self.target_items()
        subtask, box = self.next_subtask()
        return {
            "success": not missing and all(self.world.speed(i) < _RESTING for i in targets),
            "subtask": subtask,
            "box": box,
            "first_grasped": None if first is None else self._names[first],
            "wrong_object": first is not None and first not in targets,
            "placed": len(targets) - len(missing),
            "targets": len(targets),
            "holding": None if held is None else self._names[held],
        }

    def close(self) -> None:
        """Free the memory of the home's pictures."""
        if self._world_seed is not None:
            self.world.close()
            self._world_seed = None


def _observation_space(image_size: int) -> gymnasium.spaces.Dict:
    spaces = gymnasium.spaces
    picture = spaces.Box(0, 255, (image_size, image_size, 3), np.uint8)
    letters = "abcdefghijklmnopqrstuvwxyz "
    return spaces.Dict(
        {
            "images": spaces.Dict(dict.fromkeys(ROBOT.cameras, picture)),
            "state": spaces.Box(-1, 1, (ROBOT.state_dim,), np.float32),
            "prompt": spaces.Text(max_length=100, charset=letters),
        }
    )
