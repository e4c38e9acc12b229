"""LIBERO-Plus on stand-ins that record what they are asked (the real package: `make test-benchmarks`)."""

import pickle
import sys
import zipfile
from dataclasses import replace
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from pilot.eval.suites import load_suite
from pilot.sims import libero_plus
from pilot.sims.libero_plus import add_noise, axis_of, link_assets, order_variants, stand_in_for_wand, task_name
from sims.fake_libero import FakeArm, FakeRenderer

MILK, SOUP = "pick_up_the_milk", "pick_up_the_soup"
VARIANTS = {
    f"{MILK}_view_6_15_100_0_0_initstate_0": "camera",
    f"{MILK}_view_0_0_120_0_0_initstate_0": "camera",
    f"{MILK}_view_0_0_100_0_0_initstate_311": "robot",
    f"{MILK}_language_23_view_0_0_100_0_0_initstate_0": "language",
    f"{MILK}_view_0_0_100_0_0_initstate_0_noise_36": "noise",
    f"{MILK}_level1_sample2": "moved",
    f"{MILK}_moved_level5_sample4": "moved",
    f"{MILK}_table_12": "",
    f"{MILK}_tb_3": "",
    f"{MILK}_light_50": "",
    f"{MILK}_add_8": "",
}


def test_twenty_suites_run_only_where_they_are_named():
    assert len(libero_plus.SUITES) == 20 and all(suite.is_part for suite in libero_plus.SUITES)
    taught = {suite.base for suite in libero_plus.SUITES if suite.has_expert}
    assert taught == {"spatial", "object", "goal"}


@pytest.mark.parametrize(("variant", "axis"), VARIANTS.items())
def test_a_variant_tells_its_axis_and_its_task(variant, axis):
    assert axis_of(variant) == axis
    if axis:
        assert task_name(variant) == MILK


def test_tasks_take_turns_and_strengths_are_mixed():
    names = tuple(f"{task}_view_{n}_0_100_0_0_initstate_0" for task in (MILK, SOUP) for n in range(1, 9))
    names += (f"{SOUP}_view_9_0_100_0_0_initstate_0", f"{SOUP}_light_1")
    ordered = order_variants(names, (SOUP, MILK), "camera")
    assert [index for index, _ in ordered] == [0, 1] * 8 + [0]
    assert {name for _, name in ordered} == set(names[:-1])
    of_milk = [name for index, name in ordered if index == 1]
    assert of_milk != sorted(of_milk) and ordered == order_variants(names, (SOUP, MILK), "camera")


def test_axes_whose_files_are_missing_are_named():
    for name in ("libero-plus-object-light", "libero-plus-goal-background", "libero-plus-10-layout"):
        with pytest.raises(ValueError, match="light, background and added objects cannot be had: no package has"):
            load_suite(name)
    with pytest.raises(ValueError) as raised:
        load_suite("homes-l9")
    assert "LIBERO-Plus" not in str(raised.value)


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A folder in place of the package's, with the initial states of two tasks."""
    monkeypatch.setattr(libero_plus, "package_folder", lambda: tmp_path)
    monkeypatch.setattr(libero_plus, "official_variants", lambda base: tuple(VARIANTS))
    states_of = {
        f"libero_object/{MILK}": np.eye(3),
        f"libero_newobj/libero_object/{MILK}_level1_sample2": np.full(4, 7.0),
        f"libero_newobj/libero_object/{MILK}_moved_level5_sample4": np.full(4, 9.0),
    }
    for name, states in states_of.items():
        path = tmp_path / "init_files" / f"{name}.pruned_init"
        path.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", pickle.dumps(states, protocol=2))
            archive.writestr("archive/version", "3")
    benchmark = SimpleNamespace(
        get_task_names=lambda: [SOUP, MILK], get_task=lambda index: SimpleNamespace(language=("soup", "milk")[index])
    )
    fakes = {
        "libero.libero.benchmark": SimpleNamespace(get_benchmark=lambda name: lambda: benchmark),
        "libero.libero": SimpleNamespace(get_libero_path=lambda part: str(tmp_path / "of_libero" / part)),
        "liberoplus.liberoplus.envs.bddl_utils": SimpleNamespace(
            get_problem_info=lambda path: {"language_instruction": path.rpartition("/")[2]}
        ),
    }
    for name, module in fakes.items():
        monkeypatch.setitem(sys.modules, name, module)
    return tmp_path


class FakePlusArm(FakeArm):
    """LIBERO-Plus' world, whose noise is in the file's name."""

    def __init__(self, path, **options):
        super().__init__(path, **options)
        self.path, self.noise, self.seeds = path, 36 if path.endswith("_noise_36.bddl") else 0, []
        self.sim.data.time = 0.5

    def seed(self, seed):
        self.seeds.append(seed)


@pytest.fixture
def world(package, monkeypatch):
    """From an axis to an environment of it."""
    envs = SimpleNamespace(ControlEnv=FakePlusArm, fog=lambda picture, severity: np.asarray(picture) * 0.5 + severity)
    monkeypatch.setattr(libero_plus, "import_envs", lambda: envs)
    monkeypatch.setattr("pilot.sims.gl.Renderer", FakeRenderer)
    return lambda axis, size=2: load_suite(f"libero-plus-object-{axis}").make_env(image_size=size)


def test_a_scene_is_a_variant_from_the_first_initial_state(world, package):
    env = world("robot")
    observation, _ = env.reset_to(0)
    assert env._env.path == str(package / f"bddl_files/libero_object/{MILK}_view_0_0_100_0_0_initstate_311.bddl")
    np.testing.assert_array_equal(env._env.state, [1, 0, 0])
    assert observation["prompt"] == "milk" and len(env._env.actions) == 10
    env.reset_to(0, episode=1)
    np.testing.assert_array_equal(env._env.state, [0, 1, 0])
    with pytest.raises(ValueError, match="has 1 scenes"):
        env.reset_to(1)


def test_moved_things_have_a_state_of_their_own(world):
    env = world("moved")
    states = []
    for scene in (0, 1):
        env.reset_to(scene, seed=scene)
        states.append(env._env.state)
    np.testing.assert_array_equal(sorted(state.tolist() for state in states), [[7.0] * 4, [9.0] * 4])


def test_other_words_come_from_the_variants_file(world):
    assert world("language").reset_to(0)[0]["prompt"] == f"{MILK}_language_23.bddl"
    assert load_suite("libero-plus-object-language").prompt(0) == f"{MILK}_language_23.bddl"


def test_noise_is_in_the_front_cameras_picture_as_libero_draws_it(world):
    env = world("noise")
    images = env.reset_to(0)[0]["images"]
    assert env._env.noise == 0, "LIBERO-Plus looks for pictures that it did not draw"
    assert env._env.seeds[-1] == 500, "the same time should give the same noise"
    assert images["image"].shape == images["wrist_image"].shape == (2, 2, 3)
    assert images["image"].min() == 6 and images["wrist_image"].min() == 0  # fog of strength 6


def test_noise_meets_pictures_upside_down():
    seen = []

    def zoom_blur(picture, severity):
        seen.append((np.asarray(picture)[0, 0, 0], severity))
        return np.asarray(picture, float)

    picture = np.zeros((4, 4, 3), np.uint8)
    picture[-1, -1] = 200
    noisy = add_noise(picture, 30, functions=SimpleNamespace(zoom_blur=zoom_blur))
    assert seen == [(200, 10)]
    np.testing.assert_array_equal(noisy, picture)


def test_scenes_are_counted_by_the_variants(package):
    suite = replace(load_suite("libero-plus-object-camera"), tasks=("object-0", "object-1"))
    assert [suite.locate(scene) for scene in (0, 1)] == [("object-1", 0), ("object-1", 1)]
    with pytest.raises(ValueError, match="has 2 scenes"):
        suite.locate(2)


def test_assets_of_libero_are_linked_unless_there_are_others(package):
    (package / "of_libero/assets").mkdir(parents=True)
    (package / "assets").symlink_to(package / "gone")
    link_assets()
    assert (package / "assets").resolve() == package / "of_libero/assets"
    (package / "assets").unlink()
    (package / "assets").mkdir()
    link_assets()
    assert not (package / "assets").is_symlink()


def test_without_imagemagick_only_noise_is_refused(package, monkeypatch):
    (package / "of_libero").mkdir()
    for part in ("assets", "bddl_files", "init_states"):
        (package / "of_libero" / part).mkdir()
    monkeypatch.setattr(libero_plus.LiberoPlusSuite, "is_installed", True)
    for name in ("wand", "wand.api", "wand.image"):
        monkeypatch.setitem(sys.modules, name, None)
    load_suite("libero-plus-object-camera").check_ready()
    with pytest.raises(ImportError, match="apt-get install libmagickwand"):
        load_suite("libero-plus-object-noise").check_ready()
    monkeypatch.setitem(sys.modules, "wand", ModuleType("wand"))
    with stand_in_for_wand():
        from wand.api import library  # pyright: ignore[reportMissingImports]
        from wand.image import Image  # pyright: ignore[reportMissingImports]
    assert library.MagickMotionBlurImage and Image is object
    assert "wand.api" not in sys.modules
