"""PaliGemma's weights, in each layout, as the backbone of each model; what it does not have starts as in openpi."""

import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from convert.lerobot_files import model
from pilot.convert import lerobot_weights, openpi_jax, paligemma
from pilot.convert.keymap import export_arrays
from pilot.models.pi import Pi, PiConfig, pi0, pi0_fast, pi0_small, pi05
from pilot.tokenizers.text import NANO_MODEL

BASE = pi0_fast("debug")
PREFIX = "paligemma_with_expert.paligemma."
CONFIGS = {"pi0": pi0("debug"), "pi05": pi05("debug"), "pi0_fast": BASE}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def start(config: PiConfig, path: Path) -> Pi:
    return paligemma.init_model(config, path, generator=generator())


def write_npz(path: Path, base: Pi) -> Path:
    arrays = export_arrays(openpi_jax.key_map(BASE), base.state_dict(), dtype=torch.float32)
    np.savez(path / "pt_224.npz", **{key.replace("PaliGemma/", "params/"): array.numpy() for key, array in arrays})
    return path / "pt_224.npz"


def hugging_face(base: Pi) -> dict[str, torch.Tensor]:
    """The newer tree, the embedding under the head's name."""
    arrays = export_arrays(lerobot_weights.backbone_key_map(BASE), base.state_dict(), dtype=torch.float32)
    return {key.removeprefix(PREFIX): array for key, array in arrays}


def write_new_tree(path: Path, base: Pi) -> Path:
    save_file(hugging_face(base), path / "model.safetensors")
    return path


def write_old_tree(path: Path, base: Pi) -> Path:
    """As on the hub: two shards, `embed_tokens` alone and padded."""
    arrays = {
        name.replace("model.language_model.", "language_model.model."): a for name, a in hugging_face(base).items()
    }
    arrays = {name.removeprefix("model."): array for name, array in arrays.items()}
    table = torch.nn.functional.pad(arrays.pop("lm_head.weight"), (0, 0, 0, paligemma.PADDING))
    arrays["language_model.model.embed_tokens.weight"] = table
    where = {name: f"model-0000{1 + i % 2}-of-00002.safetensors" for i, name in enumerate(arrays)}
    for shard in set(where.values()):
        save_file({n: a.contiguous() for n, a in arrays.items() if where[n] == shard}, path / shard)
    (path / "model.safetensors.index.json").write_text(str({"weight_map": where}).replace("'", '"'))
    return path


@pytest.fixture(scope="module")
def base() -> Pi:
    return model(BASE)


@pytest.mark.parametrize("write", [write_npz, write_new_tree, write_old_tree])
@pytest.mark.parametrize("kind", CONFIGS)
def test_every_layout_is_the_same_backbone(tmp_path, base, write, kind):
    started = start(CONFIGS[kind], write(tmp_path, base)).state_dict()
    expected = base.state_dict()
    assert expected.keys() <= started.keys()
    assert all(torch.equal(started[name], expected[name]) for name in expected)
    assert all(tensor.isfinite().all() for tensor in started.values())


def test_a_folder_with_one_npz(tmp_path, base):
    write_npz(tmp_path, base)
    assert torch.equal(start(BASE, tmp_path).embedding.weight, base.embedding.weight)
    shutil.copy(tmp_path / "pt_224.npz", tmp_path / "pt_448.npz")
    with pytest.raises(ValueError, match=r"several npz files; name one of them: pt_224\.npz, pt_448\.npz"):
        start(BASE, tmp_path)


def test_the_expert_starts_as_in_openpi(tmp_path, base):
    wide = pi05("debug", action_expert=replace(CONFIGS["pi05"].action_expert, width=256, cond_width=256, mlp_dim=512))
    fresh = {n: w for n, w in start(wide, write_npz(tmp_path, base)).state_dict().items() if n not in base.state_dict()}
    kernels = {n: w for n, w in fresh.items() if w.ndim == 2 and "modulation" not in n}
    assert {"action_in.weight", "time_mlp_out.weight", "action_expert.blocks.1.qkv.weight"} <= kernels.keys()
    for name, kernel in kernels.items():
        deviation = 1 / math.sqrt(kernel.shape[1])
        assert abs(kernel.std() / deviation - 1) < 0.1, name
        assert kernel.abs().max() <= 2 * deviation / paligemma.TRUNCATED, name
    assert all(not tensor.any() for name, tensor in fresh.items() if name not in kernels)
    assert any("modulation" in name for name in fresh)


def test_the_start_is_a_function_of_the_seed(tmp_path, base):
    file = write_npz(tmp_path, base)
    one, two = (start(CONFIGS["pi0"], file).action_in.weight for _ in range(2))
    other = paligemma.init_model(CONFIGS["pi0"], file, generator=generator(1)).action_in.weight
    assert torch.equal(one, two) and not torch.equal(one, other)


def test_words_that_paligemma_does_not_have_start_small(tmp_path, base):
    larger = replace(CONFIGS["pi05"], vocab_size=BASE.vocab_size + 500)
    table = start(larger, write_npz(tmp_path, base)).embedding.weight
    assert torch.equal(table[: BASE.vocab_size], base.embedding.weight)
    assert 0.008 < table[BASE.vocab_size :].std() < 0.012


def test_half_precision(tmp_path, base):
    started = paligemma.init_model(
        CONFIGS["pi05"], write_npz(tmp_path, base), generator=generator(), dtype=torch.bfloat16
    )
    assert {w.dtype for w in started.parameters()} == {torch.bfloat16}
    assert torch.equal(started.embedding.weight, base.embedding.weight.bfloat16())


def test_bfloat16_npz(tmp_path, base):
    arrays = dict(np.load(write_npz(tmp_path, base)))
    halves = {n: torch.from_numpy(a).bfloat16().view(torch.int16).numpy().view("V2") for n, a in arrays.items()}
    np.savez(tmp_path / "pt_224.npz", **halves)
    assert torch.equal(start(BASE, tmp_path).vlm.blocks[0].qkv.weight, base.vlm.blocks[0].qkv.weight.bfloat16().float())


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (pi05("nano"), r"vision\.depth is 1 in the weights and 2 in the config"),
        (pi05("debug", vocab_size=1000), "vocab_size is 2080 in the weights and 1000 in the config"),
    ],
)
def test_another_size_is_refused(tmp_path, base, config, message):
    (folder := tmp_path / "hf").mkdir()
    for file in (write_npz(tmp_path, base), write_new_tree(folder, base)):
        with pytest.raises(ValueError, match=message):
            start(config, file)


def test_bad_files(tmp_path, base):
    with pytest.raises(FileNotFoundError, match=r"no model\.safetensors"):
        start(BASE, tmp_path)
    with pytest.raises(ValueError, match="has no PaliGemma inside"):
        start(pi0_small("debug"), tmp_path)
    file = write_npz(tmp_path, base)
    arrays = dict(np.load(file))
    whole = file.read_bytes()
    file.write_bytes(whole[:-1000])
    with pytest.raises(ValueError, match=r"pt_224\.npz cannot be read.*truncated"):
        start(BASE, file)
    np.savez(file, **{n: a for n, a in arrays.items() if "final_norm" not in n}, **{"params/opt": np.zeros(3)})
    with pytest.raises(ValueError, match=r"missing: PaliGemma/llm/final_norm/scale(.|\n)*left over: PaliGemma/opt"):
        start(BASE, file)


def test_the_text_model_lies_beside_the_weights(tmp_path, base):
    file = write_npz(tmp_path, base)
    with pytest.raises(FileNotFoundError, match="put PaliGemma's beside its weights"):
        paligemma.find_text_tokenizer(file)
    shutil.copy(NANO_MODEL, tmp_path / "tokenizer.model")
    assert paligemma.find_text_tokenizer(file).vocab_size == paligemma.find_text_tokenizer(tmp_path).vocab_size > 0
