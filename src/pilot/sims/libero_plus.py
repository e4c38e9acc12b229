"""LIBERO-Plus (2510.13626): LIBERO's tasks with one thing changed, in the official variants that need no more files.

A suite has the variants of one axis for the ten tasks of one of LIBERO's suites. A scene is a variant from the first
initial state of its task, as Plus is evaluated; tasks take turns and their variants come in an order that has nothing
to do with how strong they are, so the first scenes stand for all. What is not said here is as in `libero.py`.

- `camera`: the front camera turns about the table, nearer or further, or looks past it.
- `robot`: the arm's posture. Plus makes the world with another one and then sets LIBERO's initial state, joints too;
  what is left is what the controller remembers: as the policy begins, the hand has moved and turned towards it.
- `language`: other words. On the other axes the words are LIBERO's; Plus' own code appends the variant's numbers.
- `noise`: blur or fog in the front camera's picture, which Plus draws at 256².
- `moved`: things lie elsewhere; one half of the axis that Plus calls layout.
"""

import contextlib
import functools
import hashlib
import importlib.util
import io
import pickle
import re
import runpy
import sys
import types
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from pilot.sims.base import SimEnv, import_extra
from pilot.sims.libero import WITH_EXPERT, LiberoEnv, LiberoSuite, ScriptedLiberoSuite

AXES = {
    "camera": "seen from elsewhere",
    "robot": "the arm starts in another posture",
    "language": "asked for in other words",
    "noise": "the picture is blurred or foggy",
    "moved": "things lie elsewhere",
}
MISSING_SUITES = {
    "libero-plus": "LIBERO-Plus' light, background and added objects cannot be had: no package has their files "
    "(docs/benchmarks.md)"
}
"""By the beginning of its name, what is said of a suite that does not exist."""

VIEW = re.compile(r"_view_(?P<camera>\d+_\d+_\d+_\d+_\d+)_initstate_(?P<robot>\d+)(?:_noise_(?P<noise>\d+))?$")
MOVED = re.compile(r"(?:_moved)?_level\d+_sample\d+$")
NOISES = ("motion_blur", "gaussian_blur", "zoom_blur", "fog", "glass_blur")
"""Plus' functions, each with ten strengths: noise 1 to 10 is motion blur, 41 to 50 the blur of glass."""
NOISE_SIZE = 256


class LiberoPlusEnv(LiberoEnv):
    """An environment whose front camera may be noisy. The noise of a picture is drawn by the time of the simulation."""

    def __init__(self, suite: "LiberoPlusSuite", *, image_size: int) -> None:
        self._noisy = suite.axis == "noise"
        self._wanted_size = image_size
        super().__init__(suite, image_size=NOISE_SIZE if self._noisy else image_size)

    def _make(self, index: int) -> None:
        super()._make(index)
        self._noise, self._env.noise = self._env.noise, 0  # it would add noise to pictures that it does not draw

    def _render(self, camera: str) -> np.ndarray:
        picture = super()._render(camera)
        if not self._noisy:
            return picture
        if camera == "agentview":
            self._env.seed(round(1000 * self._env.sim.data.time))  # Plus draws from NumPy's global generator
            picture = add_noise(picture, self._noise, functions=import_envs())
        size = (self._wanted_size, self._wanted_size)
        return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BILINEAR))


@dataclass(frozen=True, kw_only=True)
class LiberoPlusSuite(LiberoSuite):
    """The official variants of one axis for the tasks of one suite of LIBERO."""

    axis: str
    starts: int | None = None  # a task has as many as it has variants
    is_part: bool = True  # the tasks are LIBERO's
    package: ClassVar[str] = "liberoplus"
    extra: ClassVar[str] = "libero-plus"

    def check_ready(self) -> None:
        super().check_ready()
        link_assets()
        if self.axis == "noise":
            import_wand()

    def make_env(self, *, image_size: int = 224) -> SimEnv:
        return LiberoPlusEnv(self, image_size=image_size)

    def variants(self) -> tuple[tuple[int, str], ...]:
        """Return each scene's task, by number, and its variant's name.

        Raises:
            ImportError: LIBERO or LIBERO-Plus is not installed.
        """
        return order_variants(official_variants(self.base), tuple(self.benchmark().get_task_names()), self.axis)

    def locate(self, scene: int) -> tuple[str, int]:
        """Return a scene's task, and how many variants of it came before.

        Raises:
            ValueError: there is no such scene.
        """
        variants = self.variants()
        if not 0 <= scene < len(variants):
            raise ValueError(f"suite '{self.name}' has {len(variants)} scenes (the official variants), not {scene}")
        index = variants[scene][0]
        return self.tasks[index], sum(other == index for other, _ in variants[:scene])

    def place(self, scene: int) -> tuple[int, int]:
        """Return the number of a scene's world (one for each variant), and that of its initial state."""
        self.locate(scene)
        return scene, 0

    def world_maker(self) -> Any:
        return import_envs().ControlEnv

    def task_file(self, index: int) -> str:
        return str(package_folder() / "bddl_files" / f"libero_{self.base}" / f"{self.variants()[index][1]}.bddl")

    def initial_states(self, index: int) -> np.ndarray:
        task, name = self.variants()[index]
        folder = package_folder() / "init_files"
        if self.axis == "moved":
            states = read_states(folder / "libero_newobj" / f"libero_{self.base}" / f"{name}.pruned_init")
            return states.reshape(1, -1)
        return read_states(folder / f"libero_{self.base}" / f"{self.benchmark().get_task_names()[task]}.pruned_init")

    def instruction(self, index: int) -> str:
        if self.axis != "language":
            return super().instruction(self.variants()[index][0])
        import_envs()
        reader = import_extra("liberoplus.liberoplus.envs.bddl_utils", extra=self.extra)
        path = self.task_file(index).split("_view_")[0] + ".bddl"  # what follows is not in the file's name
        return reader.get_problem_info(path)["language_instruction"]


class ScriptedLiberoPlusSuite(LiberoPlusSuite, ScriptedLiberoSuite):
    """Variants of tasks that a scripted expert solves."""


def axis_of(variant: str) -> str:
    """Return the axis of an official variant, "" for those whose files are missing."""
    if "_language_" in variant:
        return "language"
    if MOVED.search(variant):
        return "moved"
    view = VIEW.search(variant)
    if view is None:
        return ""
    return "noise" if view["noise"] else "robot" if view["robot"] != "0" else "camera"


def task_name(variant: str) -> str:
    """Return the name of the task that a variant is of."""
    return MOVED.sub("", VIEW.sub("", variant)).split("_language_")[0]


@functools.cache
def order_variants(variants: tuple[str, ...], tasks: tuple[str, ...], axis: str) -> tuple[tuple[int, str], ...]:
    """Return the variants of an axis with the numbers of their tasks: one of each task, then the next of each."""
    own = sorted(
        (name for name in variants if axis_of(name) == axis), key=lambda name: hashlib.sha256(name.encode()).digest()
    )
    seen = [0] * len(tasks)
    turns = []
    for name in own:
        index = tasks.index(task_name(name))
        turns.append((seen[index], index, name))
        seen[index] += 1
    return tuple((index, name) for _, index, name in sorted(turns))


@functools.cache
def official_variants(base: str) -> tuple[str, ...]:
    """Return the names of all variants of a suite's tasks, in Plus' order."""
    path = package_folder() / "benchmark" / "libero_suite_task_map.py"  # an import would take torch along
    return tuple(runpy.run_path(str(path))["libero_task_map"][f"libero_{base}"])


def package_folder() -> Path:
    """Return the folder of LIBERO-Plus' code and files.

    Raises:
        ImportError: it is not installed.
    """
    spec = importlib.util.find_spec("liberoplus")
    if spec is None:
        raise ImportError("this suite needs 'liberoplus': pip install 'pilot[libero-plus]'")
    return Path(next(iter(spec.submodule_search_locations or ()))) / "liberoplus"


def link_assets() -> None:
    """Let LIBERO-Plus, whose package has no meshes, find those of LIBERO, unless it has its own.

    Raises:
        OSError: its folder cannot be written to.
    """
    here = package_folder() / "assets"
    if here.exists():
        return
    there = import_extra("libero.libero", extra="libero-plus").get_libero_path("assets")
    try:
        here.unlink(missing_ok=True)  # a link to what is gone
        here.symlink_to(there)
    except FileExistsError:  # another process was faster
        pass
    except OSError as error:
        raise OSError(
            f"LIBERO-Plus needs a link to LIBERO's assets; as its owner run: ln -sfn {there} {here}"
        ) from error


@functools.cache
def import_envs() -> Any:
    """Import LIBERO-Plus' environments."""
    link_assets()
    with stand_in_for_wand(), contextlib.redirect_stdout(io.StringIO()):  # it says where its settings are
        return import_extra("liberoplus.liberoplus.envs.env_wrapper", extra="libero-plus")


def import_wand() -> None:
    """Import what draws motion blur.

    Raises:
        ImportError: wand or ImageMagick's library is missing.
    """
    try:
        import_extra("wand.api", extra="libero-plus")
    except ImportError as error:
        raise ImportError(
            "LIBERO-Plus' noise needs wand and ImageMagick's library: pip install 'pilot[libero-plus]', and "
            "apt-get install libmagickwand-dev, dnf install ImageMagick-libs or brew install imagemagick"
        ) from error


@contextlib.contextmanager
def stand_in_for_wand() -> Iterator[None]:
    """Let LIBERO-Plus be imported without ImageMagick's library, which it needs for motion blur only."""
    try:
        import_wand()
    except ImportError:
        library = types.SimpleNamespace(MagickMotionBlurImage=types.SimpleNamespace())
        absent: Any = {"wand.api": types.ModuleType("wand.api"), "wand.image": types.ModuleType("wand.image")}
        absent["wand.api"].library, absent["wand.image"].Image = library, object
        sys.modules.update(absent)
        try:
            yield
        finally:
            for name in absent:
                del sys.modules[name]
    else:
        yield


def add_noise(picture: np.ndarray, noise: int, *, functions: Any) -> np.ndarray:
    """Return a picture [256 256 3] with Plus' noise of that number."""
    kind, strength = divmod(noise - 1, 10)
    as_plus_has_it = Image.fromarray(picture[::-1, ::-1])  # as LIBERO draws it, upside down
    noisy = getattr(functions, NOISES[kind])(as_plus_has_it, severity=strength + 1)
    return np.asarray(noisy).astype(np.uint8)[::-1, ::-1]


def read_states(path: Path) -> np.ndarray:
    """Return initial states [n s] from a file of torch that holds an array of NumPy."""
    with zipfile.ZipFile(path) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("data.pkl"))
        return np.asarray(pickle.loads(archive.read(name)))  # a file of the package, whose code runs here anyway


def _suite(base: str, axis: str) -> LiberoPlusSuite:
    kind = ScriptedLiberoPlusSuite if base in WITH_EXPERT else LiberoPlusSuite
    tasks = tuple(f"{base}-{number}" for number in range(10))
    title = f"LIBERO-{base}, Plus: {AXES[axis]}"
    return kind(name=f"libero-plus-{base}-{axis}", title=title, base=base, axis=axis, tasks=tasks)


SUITES = tuple(_suite(base, axis) for base in ("spatial", "object", "goal", "10") for axis in AXES)
