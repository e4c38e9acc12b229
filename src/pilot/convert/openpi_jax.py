"""openpi's JAX checkpoints: an orbax folder of arrays stacked over layers, weights as [in out] or per head.

The first stack (`q_einsum`) is the backbone, the one with `_1` behind its names the action expert; π0-FAST has the
first alone. Its Gemma keeps heads apart: queries [l n d h], keys and values [l 2 k d h], outputs [l n h d].
"""

import math
from dataclasses import replace
from pathlib import Path

import torch

from pilot.convert.keymap import Entry, KeyMap, Slice, TensorSource, export_arrays
from pilot.convert.model_loading import load_pi, require_shape, resolve_config
from pilot.convert.openpi_lora import MergedLoraSource
from pilot.convert.orbax import OrbaxSource, write_orbax
from pilot.models.pi import Pi, PiConfig, pi0, pi0_fast, pi05
from pilot.nn.configs import GemmaConfig, SiglipConfig

VISION = "PaliGemma/img"
LANGUAGE = "PaliGemma/llm"
ATTENTION = f"{VISION}/Transformer/encoderblock/MultiHeadDotProductAttention_0"
SUFFIX = {"vlm": "", "action_expert": "_1"}


def load(path: str | Path, config: PiConfig | None = None, *, dtype: torch.dtype = torch.float32) -> Pi:
    """Return the model in a checkpoint of openpi's JAX: the folder that holds `params`, or `params` itself.

    Raises:
        FileNotFoundError: there is no checkpoint.
        ValueError: it is damaged, or its arrays contradict each other or `config`.
    """
    source = open_weights(path)
    config = resolve_config(source, config, read_config=read_config, key_map=key_map)
    return load_pi(key_map(config), source, config, dtype=dtype)


def open_weights(path: str | Path) -> TensorSource:
    """Open the arrays of a checkpoint; those of a LoRA run have their adapters added."""
    return MergedLoraSource(OrbaxSource(path))


def save(model: Pi, path: str | Path, *, dtype: torch.dtype = torch.float32) -> Path:
    """Write `path`/params so that openpi's JAX can restore it."""
    return write_orbax(Path(path) / "params", export_arrays(key_map(model.config), model.state_dict(), dtype=dtype))


def key_map(config: PiConfig) -> KeyMap:
    """Return the key map of π0, π0.5 and π0-FAST in openpi's JAX."""
    entries = [
        *siglip(config.vision),
        *dense("vision.head", f"{VISION}/head", (config.vision.width, config.vlm.width)),
        Entry(
            "embedding.weight",
            (Slice(f"{LANGUAGE}/embedder/input_embedding", (config.vocab_size, config.vlm.width)),),
        ),
        *gemma("vlm", config.vlm),
    ]
    if (expert := config.action_expert) is not None:
        entries += [*gemma("action_expert", expert), *projections(config, expert)]
    return KeyMap(entries=tuple(entries))


def projections(config: PiConfig, expert: GemmaConfig) -> list[Entry]:
    """Return the entries of the layers around the action expert: for actions, state and flow time."""
    concat = config.time_conditioning == "concat"
    time, time_width = ("action_time_mlp", 2 * expert.width) if concat else ("time_mlp", expert.width)
    entries = [
        *dense("action_in", "action_in_proj", (config.action_dim, expert.width)),
        *dense("action_out", "action_out_proj", (expert.width, config.action_dim)),
        *dense("time_mlp_in", f"{time}_in", (time_width, expert.width)),
        *dense("time_mlp_out", f"{time}_out", (expert.width, expert.width)),
    ]
    if config.has_state_token:
        entries += dense("state_in", "state_proj", (config.action_dim, expert.width))
    return entries


def dense(name: str, key: str, shape: tuple[int, int], *, index: tuple[int, ...] = ()) -> list[Entry]:
    """Return the entries of a linear layer with kernel [in out] and bias, or of layer `index` of a stack of them."""
    kernel = Slice(f"{key}/kernel", shape, (1, 0), index)
    return [
        Entry(f"{name}.weight", (kernel,)),
        Entry(f"{name}.bias", (Slice(f"{key}/bias", shape[1:], None, index),)),
    ]


def layer_norm(name: str, key: str, width: int, *, index: tuple[int, ...] = ()) -> list[Entry]:
    """Return the entries of a layer norm with bias, or of layer `index` of a stack of them."""
    names = {"weight": "scale", "bias": "bias"}
    return [
        Entry(f"{name}.{ours}", (Slice(f"{key}/{theirs}", (width,), None, index),)) for ours, theirs in names.items()
    ]


def siglip(config: SiglipConfig) -> list[Entry]:
    """Return the entries of the vision tower; its patch convolution is a linear layer over (row, column, colour)."""
    width, patch, heads = config.width, config.patch_size, config.num_heads
    head_dim, block = width // heads, f"{VISION}/Transformer/encoderblock"
    entries = [
        Entry("vision.patch.weight", (Slice(f"{VISION}/embedding/kernel", (patch, patch, 3, width), (3, 0, 1, 2)),)),
        Entry("vision.patch.bias", (Slice(f"{VISION}/embedding/bias", (width,)),)),
        Entry("vision.position", (Slice(f"{VISION}/pos_embedding", (1, config.grid**2, width)),)),
        *layer_norm("vision.final_norm", f"{VISION}/Transformer/encoder_norm", width),
    ]
    for i in range(config.depth):
        ours, layer = f"vision.blocks.{i}", (i,)
        parts = [f"{ATTENTION}/{name}" for name in ("query", "key", "value")]
        kernels = [Slice(f"{part}/kernel", (width, heads, head_dim), (1, 2, 0), layer) for part in parts]
        biases = [Slice(f"{part}/bias", (heads, head_dim), None, layer) for part in parts]
        out = Slice(f"{ATTENTION}/out/kernel", (heads, head_dim, width), (2, 0, 1), layer)
        entries += [
            *layer_norm(f"{ours}.attention_norm", f"{block}/LayerNorm_0", width, index=layer),
            Entry(f"{ours}.qkv.weight", tuple(kernels)),
            Entry(f"{ours}.qkv.bias", tuple(biases)),
            Entry(f"{ours}.out.weight", (out,)),
            Entry(f"{ours}.out.bias", (Slice(f"{ATTENTION}/out/bias", (width,), None, layer),)),
            *layer_norm(f"{ours}.mlp_norm", f"{block}/LayerNorm_1", width, index=layer),
            *dense(f"{ours}.up", f"{block}/MlpBlock_0/Dense_0", (width, config.mlp_dim), index=layer),
            *dense(f"{ours}.down", f"{block}/MlpBlock_0/Dense_1", (config.mlp_dim, width), index=layer),
        ]
    return entries


def gemma(name: str, config: GemmaConfig) -> list[Entry]:
    """Return the entries of one of the two language stacks, "vlm" or "action_expert"."""
    width, mlp, head_dim, suffix = config.width, config.mlp_dim, config.head_dim, SUFFIX[name]
    layers, kv = f"{LANGUAGE}/layers", (config.num_kv_heads, width, head_dim)
    entries = rms_norm(f"{name}.final_norm", f"{LANGUAGE}/final_norm{suffix}", config)
    for i in range(config.depth):
        ours = f"{name}.blocks.{i}"
        queries = Slice(f"{layers}/attn/q_einsum{suffix}/w", (config.num_heads, width, head_dim), (0, 2, 1), (i,))
        keys, values = (Slice(f"{layers}/attn/kv_einsum{suffix}/w", kv, (0, 2, 1), (i, part)) for part in (0, 1))
        out = Slice(f"{layers}/attn/attn_vec_einsum{suffix}/w", (config.num_heads, head_dim, width), (2, 0, 1), (i,))
        gate, up = (Slice(f"{layers}/mlp{suffix}/gating_einsum", (width, mlp), (1, 0), (i, part)) for part in (0, 1))
        entries += [
            *rms_norm(f"{ours}.attention_norm", f"{layers}/pre_attention_norm{suffix}", config, index=(i,)),
            Entry(f"{ours}.qkv.weight", (queries, keys, values)),
            Entry(f"{ours}.out.weight", (out,)),
            *rms_norm(f"{ours}.mlp_norm", f"{layers}/pre_ffw_norm{suffix}", config, index=(i,)),
            Entry(f"{ours}.gate_up.weight", (gate, up)),
            Entry(f"{ours}.down.weight", (Slice(f"{layers}/mlp{suffix}/linear", (mlp, width), (1, 0), (i,)),)),
        ]
    return entries


def rms_norm(name: str, key: str, config: GemmaConfig, *, index: tuple[int, ...] = ()) -> list[Entry]:
    """Return the entries of a norm: its scale or, with adaRMS, the layer from flow time to scale, shift and gate."""
    if config.cond_width:
        return dense(f"{name}.modulation", f"{key}/Dense_0", (config.cond_width, 3 * config.width), index=index)
    return [Entry(f"{name}.weight", (Slice(f"{key}/scale", (config.width,), None, index),))]


def read_config(source: TensorSource, base: PiConfig | None = None) -> PiConfig:
    """Read the model's config from the weights; what they do not tell is taken from `base`.

    Without `base` it is as in the published models: a horizon of 50 actions, π0-FAST's action dims, and
    `insulate=False`, as openpi trains.

    Raises:
        ValueError: the weights are not of this format.
    """
    keys = set(source.keys())
    vision, vlm = read_siglip(source), read_gemma(source, "vlm")
    vocab_size = require_shape(source, f"{LANGUAGE}/embedder/input_embedding")[0]
    if f"{LANGUAGE}/layers/attn/q_einsum_1/w" not in keys:
        return replace(base or pi0_fast(), vision=vision, vlm=vlm, action_expert=None, vocab_size=vocab_size)
    adaptive = "time_mlp_in/kernel" in keys
    family = base or (pi05(insulate=False) if adaptive else pi0())
    action_dim, width = require_shape(source, "action_in_proj/kernel")
    without_token = "none" if family.state_input == "none" else "text"
    return replace(
        family,
        vision=vision,
        vlm=vlm,
        action_expert=replace(read_gemma(source, "action_expert"), cond_width=width if adaptive else 0),
        vocab_size=vocab_size,
        action_dim=action_dim,
        time_conditioning="adarms" if adaptive else "concat",
        state_input="token" if "state_proj/kernel" in keys else without_token,
    )


def read_siglip(source: TensorSource) -> SiglipConfig:
    """Read the vision tower's config from the weights."""
    depth, width, num_heads, _ = require_shape(source, f"{ATTENTION}/query/kernel")
    patch = require_shape(source, f"{VISION}/embedding/kernel")[0]
    return SiglipConfig(
        image_size=patch * math.isqrt(require_shape(source, f"{VISION}/pos_embedding")[1]),
        patch_size=patch,
        width=width,
        depth=depth,
        mlp_dim=require_shape(source, f"{VISION}/Transformer/encoderblock/MlpBlock_0/Dense_0/kernel")[2],
        num_heads=num_heads,
    )


def read_gemma(source: TensorSource, name: str) -> GemmaConfig:
    """Read the config of a language stack, "vlm" or "action_expert", from the weights."""
    layers, suffix = f"{LANGUAGE}/layers", SUFFIX[name]
    depth, num_heads, width, head_dim = require_shape(source, f"{layers}/attn/q_einsum{suffix}/w")
    return GemmaConfig(
        width=width,
        depth=depth,
        mlp_dim=require_shape(source, f"{layers}/mlp{suffix}/linear")[1],
        num_heads=num_heads,
        num_kv_heads=require_shape(source, f"{layers}/attn/kv_einsum{suffix}/w")[2],
        head_dim=head_dim,
    )
