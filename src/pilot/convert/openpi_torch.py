"""openpi's PyTorch checkpoints: `model.safetensors` with the names of Hugging Face's PaliGemma and Gemma.

openpi stores the tied embedding under the head's name alone, and a head of the action expert that no computation uses
(written as zeros here, as its loader wants it to be there). Linear weights are [out in], as pilot's are.
"""

import math
from dataclasses import replace
from pathlib import Path

import torch

from pilot.convert.keymap import Entry, KeyMap, Slice, TensorSource, export_arrays
from pilot.convert.model_loading import count_layers, load_pi, require_shape, resolve_config
from pilot.convert.tensor_files import SafetensorsSource, write_safetensors
from pilot.models.pi import Pi, PiConfig, pi0, pi05
from pilot.nn.configs import GemmaConfig, SiglipConfig

PALIGEMMA = "paligemma_with_expert.paligemma."
EXPERT = "paligemma_with_expert.gemma_expert."
VISION = "model.vision_tower.vision_model."
LANGUAGE = "model.language_model."
TIED = "embed_tokens.weight"


def load(path: str | Path, config: PiConfig | None = None, *, dtype: torch.dtype = torch.float32) -> Pi:
    """Return the model in a file or folder of openpi's PyTorch.

    Raises:
        FileNotFoundError: there are no weights.
        ValueError: a file is damaged, or the weights contradict each other or `config`.
    """
    source = SafetensorsSource(path)
    config = resolve_config(source, config, read_config=read_config, key_map=key_map)
    return load_pi(key_map(config), source, config, dtype=dtype)


def save(model: Pi, path: str | Path, *, dtype: torch.dtype = torch.bfloat16) -> Path:
    """Write `path`/model.safetensors as openpi's converter does, so that its PyTorch models can load it."""
    names, tied = key_map(model.config), PALIGEMMA + LANGUAGE + TIED
    arrays = export_arrays(names, model.state_dict(), dtype=dtype)
    metadata = {tied: names.aliases[tied]}
    return write_safetensors(Path(path) / "model.safetensors", arrays, layout=names.layout(dtype), metadata=metadata)


def key_map(config: PiConfig) -> KeyMap:
    """Return the key map of π0 and π0.5 in openpi's PyTorch.

    Raises:
        ValueError: openpi's PyTorch has no such model.
    """
    expert = config.action_expert
    if expert is None:
        raise ValueError("openpi's PyTorch has no π0-FAST; its JAX does: source 'openpi-jax'")
    head = f"{PALIGEMMA}lm_head.weight"
    projections = [("action_in", "action_in_proj", (expert.width, config.action_dim))]
    projections.append(("action_out", "action_out_proj", (config.action_dim, expert.width)))
    time_width, time = (2 * expert.width, "action_") if config.time_conditioning == "concat" else (expert.width, "")
    projections.append(("time_mlp_in", f"{time}time_mlp_in", (expert.width, time_width)))
    projections.append(("time_mlp_out", f"{time}time_mlp_out", (expert.width, expert.width)))
    if config.has_state_token:
        projections.append(("state_in", "state_proj", (expert.width, config.action_dim)))
    entries = [
        *siglip(config.vision, PALIGEMMA + VISION),
        *linear(
            "vision.head", f"{PALIGEMMA}model.multi_modal_projector.linear", (config.vlm.width, config.vision.width)
        ),
        whole_array("embedding.weight", head, (config.vocab_size, config.vlm.width)),
        *gemma("vlm", config.vlm, PALIGEMMA + LANGUAGE),
        *gemma("action_expert", expert, f"{EXPERT}model."),
        *(entry for name, key, shape in projections for entry in linear(name, key, shape)),
    ]
    return KeyMap(
        entries=tuple(entries),
        aliases={PALIGEMMA + LANGUAGE + TIED: head},
        unused={f"{EXPERT}lm_head.weight": (config.vocab_size, expert.width)},
    )


def whole_array(name: str, key: str, shape: tuple[int, ...], *, axes: tuple[int, ...] | None = None) -> Entry:
    """Return the entry of a tensor that is one whole array."""
    return Entry(name, (Slice(key, shape, axes),))


def linear(name: str, key: str, shape: tuple[int, int]) -> list[Entry]:
    """Return the entries of a linear layer with bias."""
    return [
        whole_array(f"{name}.weight", f"{key}.weight", shape),
        whole_array(f"{name}.bias", f"{key}.bias", shape[:1]),
    ]


def siglip(config: SiglipConfig, key: str) -> list[Entry]:
    """Return the entries of the vision tower below `key`.

    Its patch convolution is a linear layer over (row, column, colour) in pilot.
    """
    width, patch = config.width, config.patch_size
    convolution = (width, 3, patch, patch)
    entries = [
        whole_array("vision.patch.weight", f"{key}embeddings.patch_embedding.weight", convolution, axes=(0, 2, 3, 1)),
        whole_array("vision.patch.bias", f"{key}embeddings.patch_embedding.bias", (width,)),
        whole_array("vision.position", f"{key}embeddings.position_embedding.weight", (config.grid**2, width)),
        *layer_norm("vision.final_norm", f"{key}post_layernorm", width),
    ]
    for i in range(config.depth):
        ours, theirs = f"vision.blocks.{i}", f"{key}encoder.layers.{i}"
        attention = [f"{theirs}.self_attn.{name}_proj" for name in "qkv"]
        entries += [
            *layer_norm(f"{ours}.attention_norm", f"{theirs}.layer_norm1", width),
            Entry(f"{ours}.qkv.weight", tuple(Slice(f"{name}.weight", (width, width)) for name in attention)),
            Entry(f"{ours}.qkv.bias", tuple(Slice(f"{name}.bias", (width,)) for name in attention)),
            *linear(f"{ours}.out", f"{theirs}.self_attn.out_proj", (width, width)),
            *layer_norm(f"{ours}.mlp_norm", f"{theirs}.layer_norm2", width),
            *linear(f"{ours}.up", f"{theirs}.mlp.fc1", (config.mlp_dim, width)),
            *linear(f"{ours}.down", f"{theirs}.mlp.fc2", (width, config.mlp_dim)),
        ]
    return entries


def layer_norm(name: str, key: str, width: int) -> list[Entry]:
    """Return the entries of a layer norm with bias."""
    return [whole_array(f"{name}.{part}", f"{key}.{part}", (width,)) for part in ("weight", "bias")]


def gemma(name: str, config: GemmaConfig, key: str) -> list[Entry]:
    """Return the entries of a language stack below `key`, without its embedding."""
    width, mlp, head_dim = config.width, config.mlp_dim, config.head_dim
    heads = {"q": config.num_heads, "k": config.num_kv_heads, "v": config.num_kv_heads}
    entries = rms_norm(f"{name}.final_norm", f"{key}norm", config)
    for i in range(config.depth):
        ours, theirs = f"{name}.blocks.{i}", f"{key}layers.{i}"
        qkv = [Slice(f"{theirs}.self_attn.{part}_proj.weight", (n * head_dim, width)) for part, n in heads.items()]
        gate_up = [Slice(f"{theirs}.mlp.{part}_proj.weight", (mlp, width)) for part in ("gate", "up")]
        entries += [
            *rms_norm(f"{ours}.attention_norm", f"{theirs}.input_layernorm", config),
            Entry(f"{ours}.qkv.weight", tuple(qkv)),
            whole_array(
                f"{ours}.out.weight", f"{theirs}.self_attn.o_proj.weight", (width, config.num_heads * head_dim)
            ),
            *rms_norm(f"{ours}.mlp_norm", f"{theirs}.post_attention_layernorm", config),
            Entry(f"{ours}.gate_up.weight", tuple(gate_up)),
            whole_array(f"{ours}.down.weight", f"{theirs}.mlp.down_proj.weight", (width, mlp)),
        ]
    return entries


def rms_norm(name: str, key: str, config: GemmaConfig) -> list[Entry]:
    """Return the entries of a norm: its scale or, with adaRMS, the layer from flow time to scale, shift and gate."""
    if config.cond_width:
        return linear(f"{name}.modulation", f"{key}.dense", (3 * config.width, config.cond_width))
    return [whole_array(f"{name}.weight", f"{key}.weight", (config.width,))]


def read_config(source: TensorSource, base: PiConfig | None = None) -> PiConfig:
    """Read the model's config from the weights; what they do not tell is taken from `base`.

    Without `base` it is as in the published models: one key-value head, a vision tower of So400m's shape, a horizon of
    50 actions, and `insulate=False`, as openpi trains.

    Raises:
        ValueError: the weights are not of this format, or do not tell something that must be known.
    """
    keys = set(source.keys())
    adaptive, state_token = "time_mlp_in.weight" in keys, "state_proj.weight" in keys
    width, action_dim = require_shape(source, "action_in_proj.weight")
    family = base or (pi05(insulate=False) if adaptive else pi0())
    tied = PALIGEMMA + LANGUAGE + TIED
    return replace(
        family,
        vision=read_siglip(source, f"{PALIGEMMA}{VISION}", base),
        vlm=read_gemma(source, f"{PALIGEMMA}{LANGUAGE}"),
        action_expert=replace(read_gemma(source, f"{EXPERT}model."), cond_width=width if adaptive else 0),
        vocab_size=require_shape(source, tied if tied in keys else f"{PALIGEMMA}lm_head.weight")[0],
        action_dim=action_dim,
        time_conditioning="adarms" if adaptive else "concat",
        state_input="token" if state_token else "none" if family.state_input == "none" else "text",
    )


def read_siglip(source: TensorSource, key: str, base: PiConfig | None) -> SiglipConfig:
    """Read the vision tower's config from the weights; the number of heads, which they do not tell, is `base`'s.

    Raises:
        ValueError: there is no `base`, and the tower is not the published one.
    """
    width, _, patch, _ = require_shape(source, f"{key}embeddings.patch_embedding.weight")
    published = SiglipConfig()
    if base is None and width != published.width:
        raise ValueError(
            f"{source.location}: the weights do not tell how many heads a vision tower of width {width} has; "
            "pass config="
        )
    return SiglipConfig(
        image_size=patch * math.isqrt(require_shape(source, f"{key}embeddings.position_embedding.weight")[0]),
        patch_size=patch,
        width=width,
        depth=count_layers(source, f"{key}encoder.layers.*.layer_norm1.weight"),
        mlp_dim=require_shape(source, f"{key}encoder.layers.0.mlp.fc1.weight")[0],
        num_heads=(base.vision if base else published).num_heads,
    )


def read_gemma(source: TensorSource, key: str) -> GemmaConfig:
    """Read a language stack's config from the weights; all published ones have one key-value head."""
    queries, width = require_shape(source, f"{key}layers.0.self_attn.q_proj.weight")
    head_dim = require_shape(source, f"{key}layers.0.self_attn.k_proj.weight")[0]
    return GemmaConfig(
        width=width,
        depth=count_layers(source, f"{key}layers.*.self_attn.q_proj.weight"),
        mlp_dim=require_shape(source, f"{key}layers.0.mlp.gate_proj.weight")[0],
        num_heads=queries // head_dim,
        head_dim=head_dim,
    )
