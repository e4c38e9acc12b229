"""What stands around LeRobot's weights: robots, statistics, steps and tokenizers, read and written."""

import json
import re
import shutil
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from convert import lerobot_files as files
from pilot.contracts import examples
from pilot.convert import folders, lerobot_export, lerobot_policy, lerobot_weights
from pilot.data.transforms import normalize, unnormalize
from pilot.infer.policy import Policy
from pilot.models.bundle import Bundle
from pilot.models.trained_robots import one_robot
from pilot.robots import load_robot
from pilot.tokenizers.fast import FastTokenizer
from pilot.tokenizers.text import NANO_MODEL, TextTokenizer
from pilot.types import Robot

pytestmark = pytest.mark.filterwarnings("ignore:LeRobot ", "ignore:the folder does not say")
ROBOT = Robot(
    name="desk",
    cameras=("top", "wrist"),
    wrist_cameras=("wrist",),
    state_names=("a", "b", "c", "d", "e"),
    action_names=("pan", "lift", "roll", "grip"),
    delta_mask=(True, True, True, False),
    control_hz=10.0,
)


def bundle(kind: str, robot: Robot = ROBOT) -> Bundle:
    config = replace(files.CONFIGS[kind], prompt=kind, norm="zscore" if kind == "pi0" else "quantile", max_tokens=456)
    pipeline = examples.make_pipeline(robot, config, with_fast=True)
    return Bundle(
        model=files.model(config).eval(),
        robots=one_robot(robot, pipeline.norm_stats),
        text=TextTokenizer(),
        action_tokenizer=pipeline.action_tokenizer if kind == "pi0_fast" else None,
    )


@pytest.fixture(params=["pi0", "pi05"])
def exported(request, tmp_path):
    made = bundle(request.param)
    return made, lerobot_export.save_bundle(made, tmp_path / "policy", dtype=torch.float32)


def edit(file, change) -> None:
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def without_own_file(folder) -> None:
    """As LeRobot itself would have written it."""
    (folder / lerobot_weights.PILOT_FILE).unlink()


@pytest.fixture
def debug_vision(monkeypatch):
    read = lerobot_weights.openpi_torch.read_siglip
    monkeypatch.setattr(
        lerobot_weights.openpi_torch, "read_siglip", lambda s, k, b: read(s, k, b or files.CONFIGS["pi05"])
    )


# --- there and back ---------------------------------------------------------------------------------------------------


def test_there_and_back_is_the_same_policy(exported):
    made, folder = exported
    back = lerobot_policy.load_bundle(folder)
    assert files.same(back.model, made.model)
    assert (back.model.config, back.robot) == (made.model.config, made.robot)
    observation = {
        "images": examples.make_sample(ROBOT, horizon=2).images,
        "state": np.linspace(-1, 1, 5, dtype=np.float32),
        "prompt": "Put the red_cup in the sink",
    }
    actions = [Policy(b).infer(observation)["actions"] for b in (made, back)]
    assert np.allclose(*actions, atol=1e-5) and actions[0].shape == (6, 4)


def test_pi0_fast_there_and_back(tmp_path):
    made = bundle("pi0_fast")
    with pytest.warns(UserWarning, match="LeRobot decodes actions with hf://lerobot/fast-action-tokenizer"):
        folder = folders.save_checkpoint(made, tmp_path / "policy", "lerobot", dtype=torch.float32)
    back = lerobot_policy.load_bundle(folder)
    assert files.same(back.model, made.model) and back.model.config == made.model.config
    chunk = examples.make_sample(ROBOT, horizon=6).actions
    assert back.action_tokenizer.encode(chunk) == made.action_tokenizer.encode(chunk)


OTHERWISE = {
    "LeRobot writes prompts of 'pi05', this model has learned those of 'subtask'": {"prompt": "subtask"},
    r"LeRobot lets the model move the padded dims of its actions \(4 of 8": {"integrate_padded_dims": False},
    "LeRobot shows the pictures that 'desk' has.*with top, left, wrist": {"always_shown": ("top", "left", "wrist")},
}


@pytest.mark.parametrize("message", OTHERWISE)
def test_what_lerobot_does_otherwise_is_said(message):
    made = bundle("pi05")
    own = {"integrate_padded_dims": True, "always_shown": ("top", "wrist")}

    def warned(**changes: object) -> str:
        made.model.config = replace(made.pi.config, **changes)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            lerobot_export.check_for_lerobot(made)
        return "\n".join(str(one.message) for one in caught)

    assert re.search(message, warned(**own)) is None
    assert re.search(message, warned(**own | OTHERWISE[message]))


def test_boxes_keep_their_grid(tmp_path):
    made = replace(bundle("pi05"), loc_stride=16)
    assert lerobot_policy.load_bundle(lerobot_export.save_bundle(made, tmp_path / "policy")).loc_stride == 16


def test_a_folder_of_lerobots_own_tells_the_robot(exported, debug_vision):
    made, folder = exported
    without_own_file(folder)
    with pytest.warns(UserWarning, match="30 Hz is assumed"):
        back = lerobot_policy.load_bundle(folder)
    assert back.robot == replace(
        ROBOT, name="lerobot", state_names=tuple(f"state_{i}" for i in range(5)), control_hz=30.0
    )
    untold = ("loc_start", "fast_vocab_size", "fast_offset")
    flows = made.pi.config.action_expert is not None  # then LeRobot takes the model's word for padded dims
    expected = replace(
        made.pi.config, integrate_padded_dims=flows, **{name: getattr(back.model.config, name) for name in untold}
    )
    assert back.model.config == expected


# --- what is written --------------------------------------------------------------------------------------------------


def test_the_files_are_those_that_lerobot_looks_for(exported):
    made, folder = exported
    kind = made.model.config.prompt
    steps = {
        "pi0": ["rename_observations_processor", "to_batch_processor", "pi0_new_line_processor", "tokenizer_processor",
                "device_processor", "relative_actions_processor", "normalizer_processor"],
        "pi05": ["rename_observations_processor", "to_batch_processor", "relative_actions_processor",
                 "normalizer_processor", "pi05_prepare_state_tokenizer_processor_step", "tokenizer_processor",
                 "device_processor"],
    }[kind]  # fmt: skip
    pre, post = (json.loads((folder / f"policy_{name}processor.json").read_text()) for name in ("pre", "post"))
    assert [step["registry_name"] for step in pre["steps"]] == steps
    assert [step["registry_name"] for step in post["steps"]] == [
        "unnormalizer_processor", "absolute_actions_processor", "device_processor",
    ]  # fmt: skip
    position = steps.index("normalizer_processor")
    assert (
        pre["steps"][position]["state_file"] == f"policy_preprocessor_step_{position}_normalizer_processor.safetensors"
    )
    stats = load_file(folder / "policy_postprocessor_step_0_unnormalizer_processor.safetensors")
    assert sorted(stats) == sorted(
        f"{key}.{name}" for key in ("observation.state", "action") for name in ("mean", "std", "q01", "q99")
    )
    assert np.allclose(stats["action.q99"].numpy(), made.norm_stats["actions"].q99)
    config = json.loads((folder / "config.json").read_text())
    mode = {"pi0": "MEAN_STD", "pi05": "QUANTILES"}[kind]
    assert config["type"] == kind and config["normalization_mapping"]["STATE"] == mode
    assert config["input_features"]["observation.images.top"] == {"type": "VISUAL", "shape": [3, 16, 16]}
    assert config["output_features"] == {"action": {"type": "ACTION", "shape": [4]}}
    assert config["relative_exclude_joints"] == ["grip"] and config["action_feature_names"] == list(ROBOT.action_names)


def test_absolute_actions_need_no_steps(tmp_path):
    robot = replace(ROBOT, delta_mask=(False,) * 4)
    folder = lerobot_export.save_bundle(bundle("pi05", robot), tmp_path / "policy", dtype=torch.float32)
    assert "relative" not in (folder / "policy_preprocessor.json").read_text() + (folder / "config.json").read_text()
    assert lerobot_policy.load_bundle(folder).robot == robot


def test_relative_dims_by_names_that_contain_each_other():
    robot = replace(ROBOT, action_names=("grip_x", "lift", "roll", "grip"))
    step = lerobot_export._relative_step(robot)
    assert step["exclude_joints"] == ["03:grip"]
    assert lerobot_policy.relative_mask(step, 4) == robot.delta_mask


@pytest.mark.parametrize(
    ("settings", "mask"),
    [
        ({"enabled": False, "exclude_joints": ["x"], "action_names": ["x", "y"]}, (False, False)),
        ({"enabled": True, "exclude_joints": ["Grip"], "action_names": ["left_gripper.pos", "y"]}, (False, True)),
        ({"enabled": True, "exclude_joints": ["x"], "action_names": None}, (True, True)),
        ({"enabled": True, "exclude_joints": [], "action_names": ["x", "y"]}, (True, True)),
    ],
)
def test_lerobots_rule_of_relative_dims(settings, mask):
    assert lerobot_policy.relative_mask(settings, 2) == mask


def test_a_camera_that_the_model_is_not_shown_is_left_out(tmp_path):
    robot = replace(ROBOT, slots=("base_0_rgb", None))
    features = lerobot_export.input_features(bundle("pi05", robot))
    assert [key for key in features if "images" in key] == ["observation.images.top"]


def test_what_lerobot_cannot_do_is_refused(tmp_path):
    for change, message in (
        ({"state_input": "none"}, "no policy with state_input 'none'"),
        ({"wrist_image_size": 8}, "one picture size for all cameras"),
    ):
        made = bundle("pi05")
        made.model.config = replace(made.model.config, **change)
        with pytest.raises(ValueError, match=message):
            lerobot_export.save_bundle(made, tmp_path / "policy")
    assert not (tmp_path / "policy").exists()


# --- what is read -----------------------------------------------------------------------------------------------------


def test_cameras_that_were_renamed_keep_their_names(exported, debug_vision):
    _, folder = exported
    without_own_file(folder)
    renamed = {"observation.images.front": "observation.images.top"}
    edit(folder / "policy_preprocessor.json", lambda c: c["steps"][0]["config"].update(rename_map=renamed))
    edit(folder / "config.json", lambda c: c["input_features"].update(
        {"observation.images.empty_camera_0": {"type": "VISUAL", "shape": [3, 16, 16]}}))  # fmt: skip
    robot = lerobot_policy.load_bundle(folder, robot=None).robot
    assert robot.cameras == ("front", "wrist") and robot.slots == ("top", "wrist")


def test_a_robot_that_is_named_must_fit(exported):
    _, folder = exported
    assert lerobot_policy.load_bundle(folder, robot=replace(ROBOT, name="other")).robot.name == "other"
    with pytest.raises(ValueError, match="cameras \\['top'\\], robot 'desk' has \\('front', 'wrist'\\)"):
        lerobot_policy.load_bundle(folder, robot=replace(ROBOT, cameras=("front", "wrist")))
    with pytest.raises(ValueError, match=r"4 dims of action, robot 'desk' has 3"):
        lerobot_policy.load_bundle(folder, robot=replace(ROBOT, action_names=("x", "y", "z"), delta_mask=(False,) * 3))
    slots = replace(ROBOT, cameras=("cam_high", "cam_wrist"), wrist_cameras=(), slots=("top", "wrist"))
    assert lerobot_policy.load_bundle(folder, robot=slots).robot == slots


MODES = {
    "MEAN_STD": lambda x, s: (x - s["mean"]) / s["std"],
    "MIN_MAX": lambda x, s: 2 * (x - s["min"]) / (s["max"] - s["min"]) - 1,
    "QUANTILES": lambda x, s: 2 * (x - s["q01"]) / (s["q99"] - s["q01"]) - 1,
    "QUANTILE10": lambda x, s: 2 * (x - s["q10"]) / (s["q90"] - s["q10"]) - 1,
    "IDENTITY": lambda x, s: x,
}


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_of_normalisation_gives_lerobots_numbers(mode):
    rng = np.random.default_rng(0)
    data = rng.normal(size=(100, 3)) * [1.0, 5.0, 0.1]
    stats = {"mean": data.mean(0), "std": data.std(0), "min": data.min(0), "max": data.max(0), "count": np.array([100])}
    stats |= {f"q{q:02d}": np.quantile(data, q / 100, axis=0) for q in (1, 10, 90, 99)}
    for norm in ("quantile", "zscore") if mode == "MEAN_STD" else ("quantile",):
        made = lerobot_policy.to_norm_stats(stats, mode, dims=3, norm=norm, location="x")
        expected = MODES[mode](data, stats)
        assert np.allclose(normalize(data, made, norm), expected, rtol=1e-4, atol=1e-4)
        assert np.allclose(unnormalize(normalize(data, made, norm), made, norm), data, atol=1e-4)
    assert np.array_equal(
        lerobot_policy.to_norm_stats(stats, "MEAN_STD", dims=3, norm="zscore", location="x").q01, stats["q01"]
    )


def test_statistics_among_the_weights(tmp_path, exported):
    made, folder = exported
    file = folder / "policy_preprocessor.json"
    position = [step["registry_name"] for step in json.loads(file.read_text())["steps"]].index("normalizer_processor")
    stats = load_file(folder / f"policy_preprocessor_step_{position}_normalizer_processor.safetensors")
    names = {
        "observation.state": "normalize_inputs.buffer_observation_state",
        "action": "normalize_targets.buffer_action",
    }
    buffers = {f"{names[key.rpartition('.')[0]]}.{key.rpartition('.')[2]}": value for key, value in stats.items()}
    files.change(folder, lambda arrays: arrays | buffers)
    for old in folder.glob("policy_*"):
        old.unlink()
    back = lerobot_policy.load_bundle(folder)
    assert np.allclose(back.norm_stats["state"].mean, made.norm_stats["state"].mean)
    assert back.model.config.norm == made.model.config.norm


def remove_stats(folder):
    for file in folder.glob("policy_*.json"):
        edit(file, lambda content: [step.pop("state_file", None) for step in content["steps"]])


def remove_stats_file(folder):
    next(folder.glob("*_unnormalizer_processor.safetensors")).unlink()


def contradict(folder):
    file = next(folder.glob("*_unnormalizer_processor.safetensors"))
    save_file(load_file(file) | {"action.mean": torch.ones(4)}, file)


def shorten_stats(folder):
    for file in folder.glob("policy_*.safetensors"):
        save_file({key: value[:3].clone() for key, value in load_file(file).items()}, file)


def drop_needed(folder):
    for file in folder.glob("policy_*.safetensors"):
        save_file({key: v for key, v in load_file(file).items() if key.rpartition(".")[2] not in ("std", "q99")}, file)


def truncate_stats(folder):
    file = next(folder.glob("*_unnormalizer_processor.safetensors"))
    file.write_bytes(file.read_bytes()[:-4])


def break_steps(folder):
    (folder / "policy_preprocessor.json").write_text('{"name": "x"}')


def unknown_mode(folder):
    edit(folder / "policy_preprocessor.json", lambda c: [
        step["config"].update(norm_map={"STATE": "WHITEN"}) for step in c["steps"] if "norm" in step["registry_name"]
    ])  # fmt: skip


def remove_text(folder):
    shutil.rmtree(folder / "tokenizer")


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        (remove_stats, FileNotFoundError, "no statistics of observation.state and action: a base policy has none"),
        (remove_stats_file, FileNotFoundError, "the statistics that its processor names"),
        (contradict, ValueError, "disagree on action.mean"),
        (shorten_stats, ValueError, "observation.state: statistics of other dims than the robot's 5"),
        (drop_needed, ValueError, "but has no (std|q99); it has"),
        (truncate_stats, ValueError, "cannot be read.*truncated"),
        (break_steps, ValueError, "lists no steps"),
        (unknown_mode, ValueError, "unknown normalization \\['WHITEN'\\]"),
        (remove_text, FileNotFoundError, "give PaliGemma's SentencePiece model"),
    ],
)  # fmt: skip
def test_what_is_missing_or_damaged_is_said(exported, damage, error, message):
    damage(exported[1])
    with pytest.raises(error, match=message):
        lerobot_policy.load_bundle(exported[1])


def test_what_is_missing_may_be_given(exported):
    made, folder = exported
    remove_stats(folder)
    remove_text(folder)
    back = lerobot_policy.load_bundle(folder, norm_stats=made.norm_stats, text=TextTokenizer(NANO_MODEL))
    assert back.norm_stats is made.norm_stats


def test_pi0_fast_without_its_tokenizer(tmp_path):
    folder = lerobot_export.save_bundle(bundle("pi0_fast"), tmp_path / "policy")
    fast = FastTokenizer.load(folder / "action_tokenizer")
    shutil.rmtree(folder / "action_tokenizer")
    with pytest.raises(FileNotFoundError, match="hf://lerobot/fast-action-tokenizer"):
        lerobot_policy.load_bundle(folder)
    assert lerobot_policy.load_bundle(folder, action_tokenizer=fast).action_tokenizer is fast


def test_a_base_policy_needs_a_robot(tmp_path, debug_vision):
    files.write(tmp_path, "pi05")
    with pytest.raises(ValueError, match="a base policy has no robot; name one"):
        lerobot_policy.load_bundle(tmp_path)
    homes = load_robot("homes")
    stats = examples.make_norm_stats(homes)
    assert lerobot_policy.load_bundle(tmp_path, robot=homes, norm_stats=stats, text=TextTokenizer()).robot == homes
