"""What stands before and behind the model, against recorded inputs and outputs of openpi (JAX, PIL, its transforms).

Tolerances: 1e-6 of a normalised value, one level of 255 where a picture is resized, 3e-6 of full light where JAX and
PyTorch round the place of a moved pixel differently.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from pilot.data import transforms
from pilot.data.augment import CROP, UNCHANGED, Augmentation, augment
from pilot.data.pipeline import _to_float
from pilot.data.stats import RunningStats, load_norm_stats
from pilot.models.flow import sample_time
from pilot.robots import aloha, droid, libero, load_adapter, read_openpi, ur5
from pilot.tokenizers.prompts import state_bins
from pilot.types import NormStats, make_bool_mask

FOLDER = Path(__file__).parent / "data/preproc"
CASES, NOTES = load_file(FOLDER / "preproc.safetensors"), json.loads((FOLDER / "preproc.json").read_text())
RESIZED = sorted({int(name.split("/")[1]) for name in CASES if name.startswith("resize/")})


def close(got: np.ndarray, want: np.ndarray, *, atol: float = 1e-6) -> None:
    np.testing.assert_allclose(got, want, rtol=1e-6, atol=atol)


def levels(a: np.ndarray, b: np.ndarray) -> int:
    return int(np.abs(a.astype(int) - b.astype(int)).max())


@pytest.mark.parametrize("case", RESIZED)
def test_pictures_are_resized_as_jax_and_pil_do(case):
    height, width = NOTES["resize_cases"][case]
    for number, image in enumerate(CASES[f"resize/{case}/in_u8"]):
        got = transforms.resize_with_pad(image, (height, width))
        assert levels(got, CASES[f"resize/{case}/pil_u8"][number]) <= 1  # Pillow's versions round differently
        assert levels(got, CASES[f"resize/{case}/jax_u8"][number]) <= 1


def test_bytes_become_light():
    close(_to_float(CASES["u8_to_float/in"], "cpu").numpy(), CASES["u8_to_float/out"])


def stats(name: str) -> NormStats:
    return NormStats(**{field: CASES[f"norm/stats/{name}/{field}"] for field in ("mean", "std", "q01", "q99")})


@pytest.mark.parametrize("kind", ["zscore", "quantile"])
@pytest.mark.parametrize("name", ["state", "actions"])
def test_vectors_are_normalised_and_back(kind, name):
    """The shorter vectors take the first of the statistics; padded ones are undone in the robot's own dims."""
    for size in ("full", "short"):
        got = transforms.normalize(CASES[f"norm/{size}/{name}"], stats(name), kind)
        close(got, CASES[f"norm/normalize_{kind}/{size}/{name}"])
    for size in ("full", "padded"):
        own = CASES[f"norm/{size}/{name}"][..., : len(stats(name).mean)]
        want = CASES[f"norm/unnormalize_{kind}/{size}/{name}"][..., : own.shape[-1]]
        close(transforms.unnormalize(own, stats(name), kind), want)


def test_running_statistics_are_those_of_openpi_with_true_quantiles():
    """openpi counts in 5000 bins and takes a bin's left edge: its quantiles are that much off, ours are not."""
    running, rows = RunningStats(3), []
    for number in range(4):
        rows.append(CASES[f"running_stats/batch{number}"].reshape(-1, 3))
        running.update(rows[-1])
    everything, result = np.concatenate(rows), running.result()
    close(result.mean, CASES["running_stats/mean"])
    close(result.std, CASES["running_stats/std"])
    bin_width = np.ptp(everything, axis=0) / 5000
    for name, share in (("q01", 0.01), ("q99", 0.99)):
        close(getattr(result, name), np.quantile(everything, share, axis=0))
        assert (np.abs(getattr(result, name) - CASES[f"running_stats/{name}"]) < 40 * bin_width).all()


def test_openpis_file_of_statistics_is_read(tmp_path):
    (tmp_path / "norm_stats.json").write_text(json.dumps(NOTES["norm_stats_json_example"]))
    loaded = load_norm_stats(tmp_path)["state"]
    want = NOTES["norm_stats_json_example"]["norm_stats"]["state"]
    assert loaded.q99.tolist() == want["q99"] and loaded.std.tolist() == want["std"] and loaded.clip is None


@pytest.mark.parametrize("mask", ["aloha", "short", "none"])
def test_actions_become_relative_and_absolute(mask):
    actions, state = CASES["delta/in/actions"], CASES["delta/in/state"]
    dims = tuple(NOTES["delta_masks"][mask] or ())
    close(transforms.to_delta(actions, state, dims), CASES[f"delta/{mask}/delta"])
    close(transforms.to_absolute(actions, state, dims), CASES[f"delta/{mask}/absolute"])


@pytest.mark.parametrize("dims", [14, 32])
def test_vectors_are_padded(dims):
    np.testing.assert_array_equal(transforms.pad_dims(CASES["delta/in/actions"], dims), CASES[f"pad/{dims}/actions"])
    np.testing.assert_array_equal(transforms.pad_dims(CASES["delta/in/state"], dims), CASES[f"pad/{dims}/state"])


def test_masks_are_written_in_runs():
    for runs, mask in NOTES["make_bool_mask"].items():
        assert list(make_bool_mask(*json.loads(f"[{runs.strip('()')}]"))) == mask


@pytest.mark.filterwarnings("ignore:state dim")
@pytest.mark.parametrize("name", ["edges", "edges_f32", "random"])
def test_states_fall_into_openpis_bins(name):
    given, want = CASES[f"state_bins/{name}/in"], CASES[f"state_bins/{name}/out"]
    np.testing.assert_array_equal(state_bins(given, clip=False), want)
    np.testing.assert_array_equal(state_bins(given), np.maximum(want, 0))


def test_times_are_distributed_as_recorded():
    """Kolmogorov-Smirnov against the recorded distribution function: for 100,000 draws chance stays below 0.006."""
    drawn = np.sort(sample_time(100_000, torch.Generator().manual_seed(0)).numpy())
    note = NOTES["time_sampling"]
    expected = ((drawn - note["shift"]) / note["scale"]).clip(0, 1) ** note["alpha"]
    assert np.abs(expected - np.arange(1, len(drawn) + 1) / len(drawn)).max() < 0.006
    assert drawn.mean() == pytest.approx(note["mean"], abs=3e-3) and drawn.var() == pytest.approx(note["var"], abs=1e-3)


def test_aloha_in_pis_convention():
    adapter = load_adapter(aloha.ROBOT)
    state, actions = CASES["aloha/in/state"], CASES["aloha/in/actions"]
    close(adapter.state(state), CASES["aloha/adaptTrue/state"])
    close(adapter.actions(actions), CASES["aloha/adaptTrue/actions"])
    close(adapter.actions_inverse(actions), CASES["aloha/adaptTrue/out_actions"])
    for kept in ("state", "actions", "out_actions"):
        close(state if kept == "state" else actions, CASES[f"aloha/adaptFalse/{kept}"])


def test_alohas_pictures_and_slots():
    given = {"cam_high": CASES["aloha/in/cam_high"], "cam_left_wrist": CASES["aloha/in/cam_left_wrist"]}
    for camera, image in given.items():
        slot = aloha.ROBOT.slot(camera)
        np.testing.assert_array_equal(transforms.picture(image), CASES[f"aloha/adaptTrue/image/{slot}"])
    present = {aloha.ROBOT.slot(camera): camera in given for camera in aloha.ROBOT.cameras if aloha.ROBOT.slot(camera)}
    assert present == NOTES["aloha_masks"]["True"]


@pytest.mark.parametrize("robot", [droid, libero])
def test_observations_of_openpis_clients(robot):
    """Pictures in bytes or floats land in openpi's slots; a slot without a camera is absent, which is masked."""
    name, note = robot.ROBOT.name, NOTES[f"{robot.ROBOT.name}_pi0"]
    outer, wrist = CASES["policy_images/pi0/base"], CASES["policy_images/pi0/wrist"]
    raw = {
        "droid": {
            "observation/exterior_image_1_left": outer, "observation/wrist_image_left": wrist,
            "observation/joint_position": np.arange(7) / 10, "observation/gripper_position": np.array(0.3),
        },
        "libero": {
            "observation/image": outer, "observation/wrist_image": wrist, "observation/state": np.arange(8) / 10,
        },
    }[name]  # fmt: skip
    seen = read_openpi(robot.ROBOT, raw | {"prompt": "do it"})
    slots = {robot.ROBOT.slot(camera): transforms.picture(image) for camera, image in seen["images"].items()}
    assert {slot: int(image.sum()) for slot, image in slots.items()} == {k: v for k, v in note["sum"].items() if v}
    assert {slot: slot in slots for slot in note["masks"]} == note["masks"] and seen["prompt"] == "do it"
    np.testing.assert_allclose(seen["state"], note.get("state", np.arange(8) / 10))


def test_an_openpi_observation_that_lacks_a_part_is_said():
    with pytest.raises(ValueError, match="robot 'ur5' has neither 'images' nor 'joints'"):
        read_openpi(ur5.ROBOT, {"base_rgb": 0, "gripper": 0})


@pytest.mark.parametrize("case", range(len(NOTES["augment"])))
def test_pictures_are_augmented_as_in_jax(case):
    """With the draws that JAX made. Its pictures are recorded in 0 to 1."""
    note, given, want = NOTES["augment"][case], CASES[f"augment/{case}/in"], CASES[f"augment/{case}/out"]
    reach = (given.shape[0] - note["crop"]) / 2
    moves = {} if note["wrist"] else {
        "crop": CROP, "angle": note["rotate_theta_rad"] * note["rotate_do"],
        "centre": tuple(offset / reach for offset in note["crop_center_yx"]),
    }  # fmt: skip
    light = {name: note[name] * note["jitter_applied"] for name in ("brightness", "contrast", "hue")}
    pictures = torch.from_numpy(np.stack([given, given])) * 2 - 1
    got, untouched = (augment(pictures, [Augmentation(**moves, **light), UNCHANGED]).numpy() + 1) / 2
    np.testing.assert_allclose(got, want, atol=1e-6 if note["wrist"] else 3e-6, rtol=0)
    np.testing.assert_allclose(untouched, given, atol=1e-6)
