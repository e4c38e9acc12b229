"""PaliGemma's base weights as a start for training: vision tower, embedding and backbone, in any published layout.

- an npz file with big_vision's names (`params/llm/…`, `params/img/…`): openpi's JAX names but for the prefix;
- a folder of Hugging Face safetensors, the older tree (`language_model.model.…`) or the newer
  (`model.language_model.…`), whose embedding is padded to a round number of rows.

What PaliGemma does not have (action expert, projections) starts as in openpi's JAX: normal kernels, truncated at two
deviations, with a variance of one over what they read; zero biases, norms and modulations.
"""

import math
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from pilot.convert import lerobot_weights, openpi_jax
from pilot.convert.keymap import KeyMap, TensorSource, load_tensors
from pilot.convert.model_loading import require_shape, resolve_config
from pilot.convert.openpi_torch import PALIGEMMA
from pilot.convert.renamed_source import RenamedSource
from pilot.convert.tensor_files import NpzSource, SafetensorsSource
from pilot.models.bundle import empty_model
from pilot.models.pi import Pi, PiConfig
from pilot.tokenizers.text import TextTokenizer

PUBLISHED_TEXT = "gs://big_vision/paligemma_tokenizer.model"
PADDING = 64
"""Hugging Face's embedding has up to this many rows behind the vocabulary, which no token uses."""
TRUNCATED = 0.87962566103423978
"""The deviation of a normal distribution of deviation 1 that is cut off at ±2."""


def init_model(
    config: PiConfig, path: str | Path, *, generator: torch.Generator, dtype: torch.dtype = torch.float32
) -> Pi:
    """Return a model whose backbone is PaliGemma and whose action expert is new.

    `path` is an npz file, a folder with one, or a folder of safetensors. Embeddings of tokens that PaliGemma does not
    have (with a larger `vocab_size`) start small, as Gemma's do in openpi.

    Raises:
        FileNotFoundError: there are no weights.
        ValueError: a file is damaged, or the weights are of another shape than `config`; all that differs is named.
    """
    source, key_map, rows = open_weights(Path(path), config)
    model = empty_model(config).to(dtype).to_empty(device="cpu").eval()
    weights = model.state_dict()
    backbone = {entry.name for entry in key_map.entries}
    init_action_expert({name: weight for name, weight in weights.items() if name not in backbone}, generator)
    known_rows, new_rows = weights["embedding.weight"].split((rows, config.vocab_size - rows))
    new_rows.normal_(0.0, 0.01, generator=generator)
    load_tensors(key_map, source, weights | {"embedding.weight": known_rows})
    return model


@torch.no_grad()
def init_action_expert(weights: dict[str, Tensor], generator: torch.Generator) -> None:
    """Initialise the weights of an action expert and its projections as openpi's JAX does."""
    for name, weight in weights.items():
        if weight.ndim != 2 or ".modulation." in name:
            weight.zero_()
            continue
        deviation = math.sqrt(1 / weight.shape[1]) / TRUNCATED
        drawn = torch.empty(weight.shape)
        nn.init.trunc_normal_(drawn, 0.0, deviation, -2 * deviation, 2 * deviation, generator=generator)
        weight.copy_(drawn)


def find_text_tokenizer(path: str | Path) -> TextTokenizer:
    """Return PaliGemma's SentencePiece model from the folder of its weights.

    Raises:
        FileNotFoundError: the folder has none, or several.
    """
    folder = Path(path) if Path(path).is_dir() else Path(path).parent
    files = sorted(folder.glob("*.model"))
    if len(files) != 1:
        raise FileNotFoundError(
            f"{folder} has {[file.name for file in files] or 'no SentencePiece model'}; put PaliGemma's beside its "
            f"weights (tokenizer.model of Hugging Face, or {PUBLISHED_TEXT})"
        )
    return TextTokenizer(files[0])


def open_weights(path: Path, config: PiConfig) -> tuple[TensorSource, KeyMap, int]:
    """Return the weights, the key map of the backbone in their format, and the number of rows of their embedding.

    Raises:
        FileNotFoundError: there are no weights.
        ValueError: they are damaged, or do not fit `config`.
    """
    if config.text_encoder is not None:
        raise ValueError("π0-small has no PaliGemma inside; start π0, π0.5 or π0-FAST from it")
    if path.suffix == ".npz" or any(path.glob("*.npz")):
        source, embedding = (
            RenamedSource(NpzSource(_only_npz(path)), _jax_name),
            f"{openpi_jax.LANGUAGE}/embedder/input_embedding",
        )
        read, key_map = openpi_jax.read_config, openpi_jax.key_map
    else:
        source = RenamedSource(SafetensorsSource(path), lambda key: lerobot_weights.modern_key(PALIGEMMA + key))
        embedding = lerobot_weights.EMBEDDING if lerobot_weights.EMBEDDING in source.keys() else lerobot_weights.HEAD  # noqa: SIM118
        read, key_map = lerobot_weights.read_config, lerobot_weights.backbone_key_map
    rows = require_shape(source, embedding)[0]
    if 0 < rows - config.vocab_size <= PADDING:
        rows = config.vocab_size
        source = RenamedSource(source, str, rows={embedding: rows, lerobot_weights.HEAD: rows})
    backbone = replace(config, action_expert=None, vocab_size=min(rows, config.vocab_size))
    return source, key_map(resolve_config(source, backbone, read_config=read, key_map=key_map)), rows


def _only_npz(path: Path) -> Path:
    if not path.is_dir():
        return path
    files = sorted(path.glob("*.npz"))
    if len(files) > 1:
        raise ValueError(f"{path} has several npz files; name one of them: {', '.join(file.name for file in files)}")
    return files[0]


def _jax_name(key: str) -> str:
    return key.replace("params/", "PaliGemma/", 1)
