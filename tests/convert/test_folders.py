"""From a folder of one kind to another: what is recognised, what has to be given, and that nothing is half-written."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from convert import lerobot_files as files
from pilot.cli import main
from pilot.contracts import examples
from pilot.convert import folders, lerobot_export, openpi_jax, openpi_torch
from pilot.convert.keymap import export_arrays
from pilot.data.action_chunks import add_step_scale
from pilot.data.stats import save_norm_stats
from pilot.infer.policy import load_policy
from pilot.models.bundle import Bundle, load_bundle, save_bundle
from pilot.models.pi import pi05
from pilot.models.trained_robots import one_robot
from pilot.robots import load_robot
from pilot.tokenizers.text import NANO_MODEL, TextTokenizer

pytestmark = pytest.mark.filterwarnings("ignore:LeRobot ")
HOMES, DISC = load_robot("homes"), load_robot("pusht")
GIVEN = ["--robot", "homes", "--tokenizer", str(NANO_MODEL)]


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    config = replace(files.CONFIGS["pi05"], prompt="pi05", action_horizon=7, max_tokens=100)
    text, stats = TextTokenizer(), examples.make_norm_stats(HOMES)
    return Bundle(model=files.model(config).eval(), robots=one_robot(HOMES, stats), text=text, action_tokenizer=None)


@pytest.fixture(scope="module")
def made(bundle, tmp_path_factory) -> dict[str, Path]:
    """The same policy as each kind of folder."""
    root = tmp_path_factory.mktemp("made")
    folders_of = {kind: root / kind for kind in ("pilot", "lerobot", "openpi-torch", "openpi-jax")}
    save_bundle(bundle, folders_of["pilot"])
    for kind, folder in list(folders_of.items())[1:]:
        folders.save_checkpoint(bundle, folder, kind)
    return folders_of


@pytest.fixture
def debug_vision(monkeypatch):
    """Weights of torch do not tell the heads of a vision tower, and the published size is large."""
    read = openpi_torch.read_siglip
    monkeypatch.setattr(openpi_torch, "read_siglip", lambda s, k, b: read(s, k, b or files.CONFIGS["pi05"]))


def convert(*arguments: object) -> int:
    return main.main(["convert", *map(str, arguments)])


# --- what lies in a folder --------------------------------------------------------------------------------------------


def test_every_kind_is_recognised(made, tmp_path):
    assert {kind: folders.detect_kind(folder) for kind, folder in made.items()} == {kind: kind for kind in made}
    assert folders.detect_kind(made["openpi-jax"] / "params") == "openpi-jax"
    assert folders.detect_kind(made["openpi-torch"] / "model.safetensors") == "openpi-torch"
    (tmp_path / "pt_224.npz").touch()
    assert folders.detect_kind(tmp_path) == folders.detect_kind(tmp_path / "pt_224.npz") == "paligemma"


def test_paligemma_of_hugging_face_is_recognised(tmp_path):
    save_file({"language_model.model.norm.weight": torch.zeros(2)}, tmp_path / "model.safetensors")
    assert folders.detect_kind(tmp_path) == "paligemma"


def test_an_ambiguous_or_unknown_folder_lists_what_it_has(made, tmp_path):
    both = shutil.copytree(made["openpi-jax"], tmp_path / "both")
    shutil.copy(made["openpi-torch"] / "model.safetensors", both)
    with pytest.raises(ValueError, match=r"or openpi-torch; choose with --from: it has assets, model\.safe"):
        folders.detect_kind(both)
    (tmp_path / "other").mkdir()
    save_file({"conv.weight": torch.zeros(2)}, tmp_path / "other" / "model.safetensors")
    (tmp_path / "other" / "notes.txt").touch()
    with pytest.raises(ValueError, match=r"not a checkpoint that pilot knows: it has model\.safetensors, notes\.txt"):
        folders.detect_kind(tmp_path / "other")
    with pytest.raises(FileNotFoundError, match="does not exist"):
        folders.detect_kind(tmp_path / "none")


# --- the command ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        ("lerobot", []),
        ("openpi-jax", [*GIVEN, "--set", "action_horizon=7", "--set", "max_tokens=100"]),
        ("openpi-torch", [*GIVEN, "--set", "action_horizon=7", "--set", "max_tokens=100"]),
    ],
)
def test_into_pilot(made, bundle, tmp_path, debug_vision, kind, more, capsys):
    assert convert(made[kind], tmp_path / "out", *more) == 0
    back = load_bundle(tmp_path / "out")
    assert files.same(back.model, bundle.model) and back.robot == HOMES
    differ = {"loc_start", "fast_vocab_size", "fast_offset", "num_heads", "integrate_padded_dims"}
    assert back.pi.config.integrate_padded_dims == (kind != "lerobot"), "as openpi acts; this LeRobot folder is pilot's"
    assert {n for n, v in vars(back.model.config).items() if v != getattr(bundle.model.config, n)} <= differ
    assert np.allclose(back.norm_stats["state"].q99, bundle.norm_stats["state"].q99)
    assert (tmp_path / "out" / "record.safetensors").is_file()
    assert f"({kind}) -> " in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["lerobot", "openpi-jax", "openpi-torch"])
def test_out_of_pilot_and_from_one_to_another(made, tmp_path, kind):
    """Whatever way it goes, the same arrays arrive."""
    assert convert(made["pilot"], tmp_path / "out", "--to", kind) == 0
    assert convert(made["lerobot"], tmp_path / "other", "--to", kind) == 0
    for folder in (tmp_path / "out", tmp_path / "other"):
        assert folders.detect_kind(folder) == kind
        if kind != "openpi-jax":
            mine, theirs = (load_file(f / "model.safetensors") for f in (folder, made[kind]))
            assert mine.keys() == theirs.keys() and all(torch.equal(mine[n], theirs[n]) for n in mine)
    assert list(tmp_path.glob(".*")) == []


def test_dtypes(made, tmp_path):
    assert convert(made["pilot"], tmp_path / "half", "--to", "lerobot", "--dtype", "bfloat16") == 0
    assert convert(tmp_path / "half", tmp_path / "back") == 0
    assert load_bundle(tmp_path / "back").model.dtype == torch.bfloat16
    assert convert(tmp_path / "half", tmp_path / "full", "--dtype", "float32") == 0
    assert load_bundle(tmp_path / "full").model.dtype == torch.float32


def test_a_dry_run_prints_the_table_and_writes_nothing(made, tmp_path, capsys):
    before = sorted(tmp_path.rglob("*"))
    assert convert(made["lerobot"], "--dry-run", "--to", "openpi-jax") == 0
    shown = capsys.readouterr().out
    assert "vlm.blocks.0.qkv.weight  <-  paligemma_with_expert.paligemma.model.language_model.layers.0" in shown
    assert "gemma_expert.lm_head.weight [2080, 24]  is used by nothing" in shown
    assert "vlm.blocks.1.qkv.weight  <-  PaliGemma/llm/layers/attn/q_einsum/w[1] [2, 32, 16] + " in shown
    assert sorted(tmp_path.rglob("*")) == before
    assert convert(made["pilot"], "--dry-run", "--to", "openpi-torch") == 0
    assert "written as openpi-torch:" in capsys.readouterr().out


def test_a_dry_run_refuses_what_the_run_would(made, several, tmp_path, debug_vision, capsys):
    for source, more, message in (
        (made["openpi-torch"], [], "lacks the robot (--robot NAME), PaliGemma's text model"),
        (made["openpi-torch"], [*GIVEN, "--set", "bogus=1"], "unknown setting 'bogus'"),
        (made["openpi-torch"], [*GIVEN, "--set", "action_dim=9"], "the weights do not fit the changed config"),
        (made["lerobot"], ["--robot", "aloha"], "robot 'aloha' has 14"),
        (made["lerobot"], ["--model", "pi0", "--seed", "9"], "--model, --seed is for a source of PaliGemma"),
        (several, ["--to", "lerobot"], "is for one robot, this checkpoint is for homes, pusht"),
    ):
        for target in (["--dry-run"], [tmp_path / "out"]):
            assert convert(source, *target, *more) == 2
            assert message in capsys.readouterr().err
    assert convert(several, "--dry-run", "--to", "lerobot", "--robot", "pusht") == 0
    assert convert(made["openpi-torch"], "--dry-run", *GIVEN, "--set", "action_horizon=7") == 0


def test_a_start_from_paligemma(bundle, tmp_path, monkeypatch):
    monkeypatch.setattr(folders, "MODELS", {"pi05": lambda: pi05("debug")})
    base = files.model(files.CONFIGS["pi0_fast"])
    names = openpi_jax.key_map(base.config)
    arrays = export_arrays(names, base.state_dict(), dtype=torch.float32)
    np.savez(tmp_path / "pt.npz", **{key.replace("PaliGemma/", "params/"): array.numpy() for key, array in arrays})
    shutil.copy(NANO_MODEL, tmp_path / "tokenizer.model")
    save_bundle(bundle, tmp_path / "stats")
    stats = ["--stats", tmp_path / "stats" / "norm_stats.json"]
    assert convert(tmp_path / "pt.npz", tmp_path / "out", "--robot", "homes", *stats) == 0
    started = load_bundle(tmp_path / "out")
    assert torch.equal(started.model.embedding.weight, base.embedding.weight)
    assert started.model.config == pi05("debug")


# --- what is wrong ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ([], "lacks the robot (--robot NAME), PaliGemma's text model (--tokenizer gs://big_vision"),
        (["--robot", "homes"], "lacks PaliGemma's text model (--tokenizer gs://big_vision/paligemma_tokenizer"),
        ([*GIVEN, "--robot", "hommes"], "did you mean 'homes'?"),
        ([*GIVEN, "--set", "action_dim=9"], "the weights do not fit the changed config: action_in.weight"),
        ([*GIVEN, "--set", "horizon=9"], "unknown setting 'horizon'"),
        ([*GIVEN, "--stats", "none.json"], "none.json does not exist"),
        ([*GIVEN, "--from", "lerobot"], "openpi-jax has no model.safetensors"),
    ],
)
def test_what_a_folder_lacks_is_asked_for(made, tmp_path, more, message, capsys):
    assert convert(made["openpi-jax"], tmp_path / "out", *more) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ["openpi-torch", "openpi-jax", "lerobot"])
def test_a_model_that_nobody_else_builds_is_refused(bundle, tmp_path, kind):
    config = bundle.pi.config
    own = replace(config, vision=replace(config.vision, patch_size=8, stem=(4, 4, 8, 8)))
    with pytest.raises(ValueError, match=r"convolutions .*which '.*' has not"):
        folders.key_map_for(kind, own)
    with pytest.raises(ValueError, match=r"the state both in the prompt and as a token, which '.*' has not"):
        folders.key_map_for(kind, replace(config, state_input="both"))


def test_options_that_a_checkpoint_of_pilot_has_no_use_for_are_refused(made, tmp_path, capsys):
    source = made["pilot"]
    assert convert(source, tmp_path / "out", "--set", "horizon=9", "--stats", source / "norm_stats.json") == 2
    assert "needs no --set, --stats; leave them out" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def several(made, tmp_path_factory) -> Path:
    """The policy of the homes' robot, to which another has been added with its statistics."""
    folder = tmp_path_factory.mktemp("several")
    save_norm_stats(folder / "disc.json", examples.make_norm_stats(DISC))
    more = ["--robot", "pusht", "--stats", folder / "disc.json"]
    assert convert(made["pilot"], folder / "policy", *more) == 0
    return folder / "policy"


def test_a_robot_is_added_to_a_checkpoint_with_its_statistics(several, bundle, capsys):
    back = load_bundle(several)
    assert list(back.robots) == ["homes", "pusht"] and files.same(back.model, bundle.model)
    assert np.allclose(back.robots["homes"].norm_stats["state"].q99, bundle.norm_stats["state"].q99)
    assert np.allclose(back.robots["pusht"].norm_stats["state"].q99, examples.make_norm_stats(DISC)["state"].q99)
    assert load_policy(several, verify=True).session(robot="pusht").robot == DISC


def test_a_robot_that_a_checkpoint_does_not_know_needs_statistics(several, made, tmp_path, capsys):
    for source, robot, message in (
        (
            several,
            "ur5",
            "has no statistics of robot 'ur5'; it knows homes, pusht. Compute them (pilot data stats DATASET",
        ),
        (
            made["pilot"],
            "pusht",
            "robot 'pusht' has 2 state and 2 action dims, and the checkpoint knows 'homes' with 5",
        ),
    ):
        assert convert(source, tmp_path / "out", "--robot", robot) == 2
        assert message in capsys.readouterr().err
    file = tmp_path / "gantry.py"
    lines = (
        "import dataclasses",
        "from pilot.robots import homes",
        "ROBOT = dataclasses.replace(homes.ROBOT, name='gantry')",
    )
    file.write_text("\n".join(lines) + "\n")
    assert convert(made["pilot"], tmp_path / "named", "--robot", file) == 0
    assert list(load_bundle(tmp_path / "named", weights=False).robots) == ["gantry"], "the only robot has another name"


def test_openpi_gets_the_statistics_of_all_robots_and_lerobot_one_robot(several, tmp_path, capsys):
    assert convert(several, tmp_path / "openpi", "--to", "openpi-jax") == 0
    found = folders.find_norm_stats(tmp_path / "openpi")
    assert [file.parent.name for file in found] == ["homes", "pusht"]
    assert convert(several, tmp_path / "lerobot", "--to", "lerobot") == 2
    assert "is for one robot, this checkpoint is for homes, pusht; choose one: --robot homes" in capsys.readouterr().err
    assert convert(several, tmp_path / "lerobot", "--to", "lerobot", "--robot", "pusht") == 0
    assert convert(tmp_path / "lerobot", tmp_path / "back") == 0
    assert load_bundle(tmp_path / "back", weights=False).robot == DISC


def test_statistics_of_several_robots(made, tmp_path, capsys):
    source = shutil.copytree(made["openpi-jax"], tmp_path / "source")
    shutil.copytree(source / "assets" / "homes", source / "assets" / "droid")
    assert convert(source, tmp_path / "out", *GIVEN) == 2
    said = capsys.readouterr().err
    assert all(f"{source}/assets/{robot}/norm_stats.json" in said for robot in ("droid", "homes"))
    assert convert(source, tmp_path / "out", *GIVEN, "--stats", source / "assets" / "homes") == 0


def test_statistics_that_openpi_padded(made, tmp_path):
    source = shutil.copytree(made["openpi-jax"], tmp_path / "source")
    file = source / "assets" / "homes" / "norm_stats.json"
    content = json.loads(file.read_text())
    for vector in content["norm_stats"].values():
        vector.update({name: values + [0.0] * 20 for name, values in vector.items()})
    file.write_text(json.dumps(content))
    stats = folders.read_norm_stats(file, HOMES, norm="quantile")
    assert [len(stats[name].q01) for name in ("state", "actions")] == [5, 4]
    content["norm_stats"]["state"]["q01"] = None
    file.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="normalised by QUANTILES, but has no q01"):
        folders.read_norm_stats(file, HOMES, norm="quantile")
    assert np.isfinite(folders.read_norm_stats(file, HOMES, norm="zscore")["state"].q01).all()
    file.write_text("{}")
    with pytest.raises(ValueError, match="not a norm stats file"):
        folders.read_norm_stats(file, HOMES, norm="zscore")


def test_the_clip_of_pilot_s_own_statistics_is_kept_and_its_loss_is_said(bundle, tmp_path):
    stats = examples.make_norm_stats(HOMES)
    stats["state"] = replace(stats["state"], clip=np.array([np.inf, np.inf, np.inf, np.inf, 20.0]))
    save_norm_stats(tmp_path, stats)
    read = folders.read_norm_stats(tmp_path, HOMES, norm="quantile")
    np.testing.assert_array_equal(read["state"].clip, stats["state"].clip)
    assert read["actions"].clip is None
    with pytest.raises(ValueError, match="state of 5 dims, the robot 'aloha' has 14"):
        folders.read_norm_stats(tmp_path, load_robot("aloha"), norm="quantile")
    for kind in ("openpi-torch", "openpi-jax", "lerobot"):
        with pytest.warns(UserWarning, match=f"'{kind}' does not clip dims that hardly moved"):
            folders.check_export(replace(bundle, robots=one_robot(HOMES, stats)), kind)


def test_what_is_there_is_not_replaced(made, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").touch()
    for to in ("pilot", "lerobot"):
        assert convert(made["lerobot"], tmp_path / "out", "--to", to) == 2
        assert "is not empty; choose another folder" in capsys.readouterr().err
    assert convert(made["lerobot"]) == 2
    assert "name the folder to write" in capsys.readouterr().err


def test_nothing_half_written_is_left(made, bundle, tmp_path, monkeypatch):
    def fails(*_, **__):
        raise OSError("no space left on device")

    monkeypatch.setattr(lerobot_export, "write_json", fails)
    with pytest.raises(OSError, match="no space"):
        folders.save_checkpoint(bundle, tmp_path / "out", "lerobot")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["lerobot", "openpi-torch", "openpi-jax"])
def test_a_scale_for_each_step_is_not_lost_in_silence(bundle, tmp_path, kind):
    stats = examples.make_norm_stats(HOMES)
    stats["actions"] = add_step_scale(stats["actions"], np.random.default_rng(0).normal(size=(9, 7, HOMES.action_dim)))
    with pytest.raises(ValueError, match="'homes' has a scale for each step of a chunk"):
        folders.save_checkpoint(replace(bundle, robots=one_robot(HOMES, stats)), tmp_path / "out", kind)
    assert list(tmp_path.iterdir()) == []
    save_bundle(replace(bundle, robots=one_robot(HOMES, stats)), tmp_path / "own")
    kept = load_bundle(tmp_path / "own").norm_stats["actions"]
    np.testing.assert_allclose(kept.step_std, stats["actions"].step_std)
