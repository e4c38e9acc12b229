"""LIBERO's five suites (2306.03310) and LIBERO-PRO's sixteen (2510.03827), from their official initial states.

Conventions, those of openpi's evaluation: 20 Hz; ten steps without motion and with the gripper open before the policy
acts; pictures are turned by 180°, as the data sets have them; success at any step ends the episode; the most steps that
an episode takes are those of `MAX_STEPS`. A task has 50 initial states, scene `n` is state `n // tasks` of task
`n % tasks`; in the train and validation splits LIBERO's own sampler draws others. LIBERO-PRO changes one thing at a
time: the words (`language`), what the objects look like (`object`), where they are (`swap`), or what is asked for
(`task`).

Pictures are drawn without shadows, reflections and multisampling, which takes a quarter of the time;
`effects=True` draws them as LIBERO does.
"""

import contextlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from pilot.robots.libero import ROBOT
from pilot.sims.base import SPLITS, Info, Observation, ScriptedExpert, SimEnv, TaskSuite, check_action, import_extra
from pilot.types import Robot

MAX_STEPS = {"spatial": 220, "object": 280, "goal": 300, "10": 520, "90": 400}
WITH_EXPERT = ("spatial", "object", "goal")
STARTS = 50
SETTLE = np.array([0, 0, 0, 0, 0, 0, -1.0])
SETTLE_STEPS = 10
CAMERAS = {"image": "agentview", "wrist_image": "robot0_eye_in_hand"}
PRO = {"language": "lan", "object": "object", "swap": "swap", "task": "task"}
"""LIBERO-PRO's changes, and what its folders call them."""
TITLES = {
    "language": "in other words",
    "object": "objects look otherwise",
    "swap": "objects in other places",
    "task": "other tasks",
}


class LiberoEnv:
    """One task at a time. Making a task's world takes seconds, so the last one is kept while scenes are of its task."""

    robot = ROBOT

    def __init__(self, suite: "LiberoSuite", *, image_size: int) -> None:
        self._suite, self._size = suite, image_size
        self._gl = import_extra("pilot.sims.gl", extra="sim")
        suite.benchmark()  # if it is missing, say so now
        self._made: int | None = None
        self._renderer: Any = None

    @property
    def max_steps(self) -> int:
        """Control steps until the episode is cut off."""
        return MAX_STEPS[self._suite.base]

    def reset_to(self, scene: int, *, episode: int = 0, seed: int = 0) -> tuple[Observation, Info]:
        """Begin an initial state of a task: `episode` and `seed` move on to others of the 50.

        In other splits than the test split things stand where LIBERO's own sampler puts them: nobody learns from the
        states that policies are tried in.
        """
        index, start = self._suite.place(scene)
        if index != self._made:
            self._make(index)
        if self._suite.split == "test":
            states = self._suite.initial_states(index)
            self._env.seed(0)  # its world is drawn anew at each reset: furniture stands where the seed puts it
            self._env.reset()
            self._observation = self._env.set_init_state(states[(start + episode + seed) % len(states)])
        else:
            words = (SPLITS.index(self._suite.split), index, start, episode, seed)
            self._env.seed(int(np.random.default_rng(words).integers(2**31)))
            self._observation = self._env.reset()
        for _ in range(SETTLE_STEPS):
            self._observation, *_ = self._env.step(SETTLE)
        self._make_renderer()
        return self.observe(), {"success": bool(self._env.check_success())}

    def _make(self, index: int) -> None:
        self.close()
        make, path = self._suite.world_maker(), self._suite.task_file(index)
        with contextlib.redirect_stdout(io.StringIO()):  # it greets
            self._env = make(
                path, has_offscreen_renderer=False, use_camera_obs=False, horizon=self.max_steps + SETTLE_STEPS + 1
            )
        self._prompt = self._suite.instruction(index)
        self._made, self._renderer = index, None

    def _make_renderer(self) -> None:
        """Make a renderer: each reset compiles the task's world anew."""
        if self._renderer is not None:
            self._renderer.close()
        self._renderer = self._gl.Renderer(
            self._env.sim.model._model, self._size, effects=self._suite.effects, groups=(1,), max_geoms=2000
        )

    def advance(self, action: np.ndarray) -> Info:
        """Run one control step (0.05 s)."""
        self._observation, _, done, _ = self._env.step(np.clip(check_action(action, ROBOT), -1, 1))
        return {"success": bool(done)}

    def observe(self) -> Observation:
        """Return `{"images": {"image", "wrist_image"}, "state" [8], "prompt"}`."""
        images = {name: self._render(camera) for name, camera in CAMERAS.items()}
        return {"images": images, "state": self.state(), "prompt": self._prompt}

    @property
    def world(self) -> Any:
        """LIBERO's own environment, for who reads its state: an expert."""
        return self._env.env

    @property
    def prompt(self) -> str:
        """The instruction of the task."""
        return self._prompt

    def state(self) -> np.ndarray:
        """Return the hand's position [m] and axis-angle [rad], and both fingers [m], float32 [8]."""
        now = self._observation
        axis_angle = quaternion_to_axis_angle(now["robot0_eef_quat"])
        return np.concatenate([now["robot0_eef_pos"], axis_angle, now["robot0_gripper_qpos"]]).astype(np.float32)

    def render(self) -> np.ndarray:
        """Return the picture from the front."""
        return self._render("agentview")

    def _render(self, camera: str) -> np.ndarray:
        """Return a picture as the data sets have it: LIBERO's own, turned by 180°.

        LIBERO's begin with the lowest row, ours with the highest: only the columns are left to turn.
        """
        return self._renderer.render(self._env.sim.data._data, camera)[:, ::-1].copy()

    def close(self) -> None:
        """Free the task's world."""
        if self._made is None:
            return
        if self._renderer is not None:
            self._renderer.close()
        self._env.close()
        self._made = None


def quaternion_to_axis_angle(quaternion: np.ndarray) -> np.ndarray:
    """Return the axis-angle [rad] of a quaternion x y z w, as robosuite does: w below zero gives angles above π."""
    w = np.clip(quaternion[3], -1.0, 1.0)
    sine = np.sqrt(1.0 - w * w)
    if np.isclose(sine, 0.0):
        return np.zeros(3)
    return np.asarray(quaternion[:3]) * 2.0 * np.arccos(w) / sine


@dataclass(frozen=True, kw_only=True)
class LiberoSuite(TaskSuite):
    """A suite of LIBERO, as it is or with one of LIBERO-PRO's changes."""

    base: str  # "spatial", "object", "goal", "10" or "90"
    change: str = ""  # one of `PRO`, "" for none
    effects: bool = False  # shadows, reflections and multisampling, as LIBERO draws them
    starts: int | None = STARTS
    scene: ClassVar[str] = "start"
    package: ClassVar[str] = "libero"
    extra: ClassVar[str] = "libero"

    @property
    def robot(self) -> Robot:
        return ROBOT

    def check_ready(self) -> None:
        super().check_ready()
        remedy = f"install it anew: pip install --force-reinstall 'pilot[{self.extra}]'"
        paths = import_extra("libero.libero", extra=self.extra)
        for part in ("assets", "bddl_files", "init_states"):
            try:
                folder = Path(paths.get_libero_path(part))
            except ImportError as error:  # the packages that hold the assets
                raise ImportError(f"suite '{self.name}' lacks LIBERO's {part} ({error}); {remedy}") from error
            if not folder.is_dir():
                raise FileNotFoundError(f"suite '{self.name}' needs LIBERO's {part} in {folder}; {remedy}")

    def make_env(self, *, image_size: int = 224) -> SimEnv:
        return LiberoEnv(self, image_size=image_size)

    def benchmark(self) -> Any:
        """Return LIBERO's object for this suite.

        Raises:
            ImportError: LIBERO is not installed.
        """
        import_extra("pilot.sims.gl", extra="sim")
        module = import_extra("libero.libero.benchmark", extra=self.extra)
        folder = f"libero_{self.base}" + (f"_{PRO[self.change]}" if self.change else "")
        with contextlib.redirect_stdout(io.StringIO()):  # it says which order of tasks it took
            return module.get_benchmark(folder)()

    def place(self, scene: int) -> tuple[int, int]:
        """Return the number of a scene's world (one for each task), and that of its initial state."""
        return scene % len(self.tasks), self.locate(scene)[1]

    def world_maker(self) -> Any:
        """Return LIBERO's class of environments, which are made from a task's file."""
        return import_extra("libero.libero.envs.env_wrapper", extra=self.extra).ControlEnv

    def task_file(self, index: int) -> str:
        """Return the file that a world is made from."""
        return self.benchmark().get_task_bddl_file_path(index)

    def initial_states(self, index: int) -> Any:
        """Return the official initial states of a world."""
        return self.benchmark().get_task_init_states(index)

    def instruction(self, index: int) -> str:
        """Return a task's instruction: LIBERO's from the file's name, LIBERO-PRO's from its contents."""
        benchmark = self.benchmark()
        if not self.change:
            return benchmark.get_task(index).language
        reader = import_extra("libero.libero.envs.bddl_utils", extra=self.extra)
        return reader.get_problem_info(self.task_file(index))["language_instruction"]

    def prompt(self, scene: int, *, seed: int = 0) -> str:
        return self.instruction(self.place(scene)[0])


class ScriptedLiberoSuite(LiberoSuite):
    """A suite of LIBERO whose tasks a scripted expert solves."""

    has_expert: ClassVar[bool] = True

    def expert(self, env: Any, rng: np.random.Generator, *, shuffle: bool = False) -> ScriptedExpert:
        from pilot.sims.experts.libero.expert import LiberoExpert  # it needs MuJoCo

        return LiberoExpert(env, rng)


def _suite(base: str, change: str = "") -> LiberoSuite:
    pro = f"-pro-{base}-{change}" if change else f"-{base}"
    title = f"LIBERO-{base}" + (f", {TITLES[change]}" if change else "")
    tasks = tuple(f"{base}-{number}" for number in range(90 if base == "90" else 10))
    kind = ScriptedLiberoSuite if base in WITH_EXPERT else LiberoSuite
    return kind(name=f"libero{pro}", title=title, base=base, change=change, tasks=tasks)


SUITES = (
    *(_suite(base) for base in MAX_STEPS),
    *(_suite(base, change) for base in ("spatial", "object", "goal", "10") for change in PRO),
)
