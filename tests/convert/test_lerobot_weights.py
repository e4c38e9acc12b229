"""LeRobot's weights: every tree of names, strictly, and back to the names that its loader wants."""

import re
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from convert import lerobot_files as files
from pilot.convert import lerobot_weights
from pilot.models.pi import Pi, pi0, pi0_fast, pi05

P = "model.paligemma_with_expert.paligemma."
KINDS = list(files.CONFIGS)


@pytest.mark.parametrize("kind", KINDS)
def test_there_and_back(tmp_path, kind):
    made = files.write(tmp_path, kind)
    assert files.same(lerobot_weights.load(tmp_path, files.CONFIGS[kind]), made)


@pytest.mark.parametrize(
    ("constructor", "count", "millions"), [(pi05, 813, 4143), (pi0, 778, 4028), (pi0_fast, 604, 3450)]
)
def test_the_published_size_has_the_names_of_lerobots_model(constructor, count, millions):
    """Numbers of tensors and parameters of LeRobot's own modules, dead heads and second names counted."""
    names = lerobot_weights.key_map(constructor())
    shapes = [
        *names.shapes().values(),
        *names.unused.values(),
        *(names.shapes()[key] for key in names.aliases.values()),
    ]
    assert len(shapes) == count
    assert round(sum(torch.Size(shape).numel() for shape in shapes) / 1e6) == millions
    with torch.device("meta"):
        assert {entry.name for entry in names.entries} == Pi(constructor()).state_dict().keys()


def before_transformers_4_52(arrays):
    return {
        name.replace(f"{P}model.language_model.", f"{P}language_model.model.")
        .replace(f"{P}lm_head.", f"{P}language_model.lm_head.")
        .replace(f"{P}model.", P): array
        for name, array in arrays.items()
    }


def without_prefix(arrays):
    return {name.removeprefix("model."): array for name, array in arrays.items()}


def compiled(arrays):
    return {name.replace("model.", "model._orig_mod.", 1): array for name, array in arrays.items()}


def without_vision_level(arrays):
    return {name.replace("vision_tower.vision_model.", "vision_tower."): array for name, array in arrays.items()}


def without_embed_tokens(arrays):
    return {name: array for name, array in arrays.items() if "embed_tokens" not in name}


def without_head(arrays):
    return {name: array for name, array in arrays.items() if "lm_head" not in name}


def with_buffers(arrays):
    return arrays | {"normalize_inputs.buffer_observation_state.mean": torch.zeros(5)}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "tree",
    [before_transformers_4_52, without_prefix, compiled, without_vision_level, without_embed_tokens, without_head,
     with_buffers],
)  # fmt: skip
def test_every_tree_is_the_same_model(tmp_path, kind, tree):
    made = files.write(tmp_path, kind)
    files.change(tmp_path, tree)
    assert files.same(lerobot_weights.load(tmp_path, files.CONFIGS[kind]), made)


def test_shards(tmp_path):
    made = files.write(tmp_path, "pi05")
    arrays = load_file(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").unlink()
    where = {name: f"model-0000{1 + i % 2}-of-00002.safetensors" for i, name in enumerate(arrays)}
    for shard in set(where.values()):
        save_file({n: a for n, a in arrays.items() if where[n] == shard}, tmp_path / shard)
    (tmp_path / "model.safetensors.index.json").write_text(str({"weight_map": where}).replace("'", '"'))
    assert files.same(lerobot_weights.load(tmp_path, files.CONFIGS["pi05"]), made)


def moved_embedding(arrays):
    return arrays | {f"{P}model.language_model.embed_tokens.weight": arrays[f"{P}lm_head.weight"] + 1}


def test_words_are_read_with_embed_tokens_where_training_moved_it(tmp_path):
    made = files.write(tmp_path, "pi05")
    files.change(tmp_path, moved_embedding)
    loaded = lerobot_weights.load(tmp_path, files.CONFIGS["pi05"])
    assert torch.equal(loaded.embedding.weight, made.embedding.weight + 1)


def test_pi0_fast_uses_both_and_pilot_ties_them(tmp_path):
    files.write(tmp_path, "pi0_fast")
    files.change(tmp_path, moved_embedding)
    with pytest.raises(ValueError, match=r"embed_tokens.* and .*lm_head\.weight are names of one array"):
        lerobot_weights.load(tmp_path, files.CONFIGS["pi0_fast"])


def test_dtypes(tmp_path):
    made = files.write(tmp_path, "pi0")
    lerobot_weights.save(made, tmp_path)
    half = lerobot_weights.load(tmp_path, files.CONFIGS["pi0"], dtype=torch.bfloat16)
    assert files.same(half, made.to(torch.bfloat16))


# --- config.json ------------------------------------------------------------------------------------------------------


@pytest.fixture
def published_vision(monkeypatch):
    """Debug sizes told by config.json alone: LeRobot's vision tower has one size, whose heads weights do not tell."""
    read = lerobot_weights.openpi_torch.read_siglip
    monkeypatch.setattr(
        lerobot_weights.openpi_torch, "read_siglip", lambda s, k, b: read(s, k, b or files.CONFIGS["pi05"])
    )


@pytest.mark.parametrize("kind", KINDS)
def test_the_config_is_read_off_the_folder(tmp_path, kind, published_vision):
    files.write(tmp_path, kind)
    config = lerobot_weights.load(tmp_path).config
    expected = files.CONFIGS[kind]
    untold = ("loc_start", "fast_vocab_size", *(() if kind == "pi0_fast" else ("fast_offset",)))
    own = {"prompt": kind, "integrate_padded_dims": kind != "pi0_fast"}
    assert config == replace(expected, **own, **{name: getattr(config, name) for name in untold})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"type": "pi0"}, "type is pi0, the weights say pi05"),
        ({"type": "pi0_fast"}, "type is pi0_fast, the weights say pi05"),
        ({"max_action_dim": 32}, "max_action_dim is 32, the weights say 8"),
        ({"image_resolution": [224, 224]}, re.escape("image_resolution is [224, 224], the weights say [16, 16]")),
        ({"paligemma_variant": "gemma_2b"}, "paligemma_variant is gemma_2b, the weights say width_32"),
        ({"action_expert_variant": "gemma_300m"}, "the weights say width_24"),
        ({"type": "act"}, "policy type 'act'; pilot reads pi0, pi05, pi0_fast"),
        ({"type": "pi0fast"}, "policy type 'pi0fast'; pilot reads"),
        ({"use_visual_memory": True}, "use_visual_memory.*pilot does not have"),
        ({"max_period": 8.0}, "max_period.*pilot does not have"),
    ],
)
def test_a_config_that_contradicts_the_weights(tmp_path, published_vision, changes, message):
    files.write(tmp_path, "pi05", **changes)
    with pytest.raises(ValueError, match=message):
        lerobot_weights.load(tmp_path)


def test_pi0_state_and_action_dims_are_one(tmp_path, published_vision):
    files.write(tmp_path, "pi0", max_state_dim=9)
    with pytest.raises(ValueError, match="max_state_dim is 9, the weights say 8"):
        lerobot_weights.load(tmp_path)


def test_a_config_of_the_caller_that_contradicts_the_weights(tmp_path):
    files.write(tmp_path, "pi05")
    with pytest.raises(ValueError, match=r"action_dim is 8 in the weights and 9 in the config"):
        lerobot_weights.load(tmp_path, pi05("debug", action_dim=9))


# --- bad files --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda a: {n: t for n, t in a.items() if "action_out_proj.bias" not in n}, r"missing: action_out_proj\.bias"),
        (lambda a: a | {"model.proprio_history_proj.bias": torch.zeros(4)}, r"left over: proprio_history_proj\.bias"),
        (lambda a: a | {"model.action_in_proj.bias": torch.zeros(7)}, r"wrong shape: action_in_proj\.bias is \(7,\)"),
        (
            lambda a: a | {"model.action_in_proj.bias": torch.zeros(24, dtype=torch.int64)},
            "wrong dtype: action_in_proj.bias is torch.int64",
        ),
        (
            lambda a: a | {"model.model.action_in_proj.bias": torch.zeros(24), "action_in_proj.bias": torch.zeros(24)},
            "are both action_in_proj.bias",
        ),
    ],
)
def test_arrays_that_do_not_fit_are_named(tmp_path, edit, message):
    files.write(tmp_path, "pi05")
    files.change(tmp_path, edit)
    with pytest.raises(ValueError, match=message):
        lerobot_weights.load(tmp_path, files.CONFIGS["pi05"])


def test_truncated_weights(tmp_path):
    files.write(tmp_path, "pi05")
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"model\.safetensors cannot be read.*truncated"):
        lerobot_weights.load(tmp_path, files.CONFIGS["pi05"])


def test_what_is_no_policy_folder(tmp_path):
    files.write(tmp_path, "pi05")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match="is not valid JSON"):
        lerobot_weights.load(tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"no config\.json"):
        lerobot_weights.load(tmp_path)
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(ValueError, match="PEFT adapter"):
        lerobot_weights.load(tmp_path)


def test_lerobot_has_no_pi0_small():
    from pilot.models.pi import pi0_small

    with pytest.raises(ValueError, match="no π0-small"):
        lerobot_weights.key_map(pi0_small("debug"))
