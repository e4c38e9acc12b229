"""openpi's PyTorch checkpoints: `model.safetensors` with the names of Hugging Face's PaliGemma and Gemma.

openpi stores the tied embedding under the head's name alone, and a head of the action expert that no computation uses
(written as zeros here, as its loader wants it to be there). Linear weights are [out in], as pilot's are.
"""

import math
from dataclasses import replace
from pathlib import Path

import torch

from pilot.convert.keymap import Piece, Slot, Table, TensorSource, export
from pilot.convert.load import count_layers, load_pi, settle, shape_of
from pilot.convert.tensor_files import SafetensorsSource, write_safetensors
from pilot.models.pi import Pi, PiConfig, pi0, pi05
from pilot.nn.gemma import GemmaConfig
from pilot.nn.siglip import SiglipConfig

PALIGEMMA = "paligemma_with_expert.paligemma."
EXPERT = "paligemma_with_expert.gemma_expert."
VISION = "model.vision_tower.vision_model."
LANGUAGE = "model.language_model."
TIED = "embed_tokens.weight"


def load(path: str | Path, config: PiConfig | None = None, *, dtype: torch.dtype = torch.float32) -> Pi:
    """The model in a file or folder of openpi's PyTorch.

    Raises:
        FileNotFoundError: no weights there.
        ValueError: a file is damaged, or the weights do not fit each other or `config`.
    """
    source = SafetensorsSource(path)
    config = settle(source, config, read_config=read_config, table=table)
    return load_pi(table(config), source, config, dtype=dtype)


def save(model: Pi, path: str | Path, *, dtype: torch.dtype = torch.bfloat16) -> Path:
    """Write `path`/model.safetensors as openpi's converter does, for its PyTorch models to load."""
    names, tied = table(model.config), PALIGEMMA + LANGUAGE + TIED
    arrays = export(names, model.state_dict(), dtype=dtype)
    metadata = {tied: names.aliases[tied]}
    return write_safetensors(Path(path) / "model.safetensors", arrays, layout=names.layout(dtype), metadata=metadata)


def table(config: PiConfig) -> Table:
    """Every tensor of π0 and π0.5 in openpi's PyTorch."""
    expert = config.action_expert
    if expert is None:
        raise ValueError("openpi's PyTorch has no π0-FAST; its JAX does: source 'openpi-jax'")
    head = f"{PALIGEMMA}lm_head.weight"
    projections = [("action_in", "action_in_proj", (expert.width, config.action_dim))]
    projections.append(("action_out", "action_out_proj", (config.action_dim, expert.width)))
    time_width, time = (2 * expert.width, "action_") if config.time_conditioning == "concat" else (expert.width, "")
    projections.append(("time_mlp_in", f"{time}time_mlp_in", (expert.width, time_width)))
    projections.append(("time_mlp_out", f"{time}time_mlp_out", (expert.width, expert.width)))
    if config.state_input == "token":
        projections.append(("state_in", "state_proj", (expert.width, config.action_dim)))
    slots = [
        *siglip(config.vision, PALIGEMMA + VISION),
        *linear(
            "vision.head", f"{PALIGEMMA}model.multi_modal_projector.linear", (config.vlm.width, config.vision.width)
        ),
        one("embedding.weight", head, (config.vocab_size, config.vlm.width)),
        *gemma("vlm", config.vlm, PALIGEMMA + LANGUAGE),
        *gemma("action_expert", expert, f"{EXPERT}model."),
        *(slot for name, key, shape in projections for slot in linear(name, key, shape)),
    ]
    return Table(
        slots=tuple(slots),
        aliases={PALIGEMMA + LANGUAGE + TIED: head},
        dead={f"{EXPERT}lm_head.weight": (config.vocab_size, expert.width)},
    )


def one(name: str, key: str, shape: tuple[int, ...], *, axes: tuple[int, ...] | None = None) -> Slot:
    """A tensor that is one whole array."""
    return Slot(name, (Piece(key, shape, axes),))


def linear(name: str, key: str, shape: tuple[int, int]) -> list[Slot]:
    """A linear layer with bias."""
    return [one(f"{name}.weight", f"{key}.weight", shape), one(f"{name}.bias", f"{key}.bias", shape[:1])]


def siglip(config: SiglipConfig, key: str) -> list[Slot]:
    """The vision tower below `key`; its patch convolution is a linear layer over (row, column, colour) here."""
    width, patch = config.width, config.patch_size
    convolution = (width, 3, patch, patch)
    slots = [
        one("vision.patch.weight", f"{key}embeddings.patch_embedding.weight", convolution, axes=(0, 2, 3, 1)),
        one("vision.patch.bias", f"{key}embeddings.patch_embedding.bias", (width,)),
        one("vision.position", f"{key}embeddings.position_embedding.weight", (config.grid**2, width)),
        *layer_norm("vision.final_norm", f"{key}post_layernorm", width),
    ]
    for i in range(config.depth):
        ours, theirs = f"vision.blocks.{i}", f"{key}encoder.layers.{i}"
        attention = [f"{theirs}.self_attn.{name}_proj" for name in "qkv"]
        slots += [
            *layer_norm(f"{ours}.attention_norm", f"{theirs}.layer_norm1", width),
            Slot(f"{ours}.qkv.weight", tuple(Piece(f"{name}.weight", (width, width)) for name in attention)),
            Slot(f"{ours}.qkv.bias", tuple(Piece(f"{name}.bias", (width,)) for name in attention)),
            *linear(f"{ours}.out", f"{theirs}.self_attn.out_proj", (width, width)),
            *layer_norm(f"{ours}.mlp_norm", f"{theirs}.layer_norm2", width),
            *linear(f"{ours}.up", f"{theirs}.mlp.fc1", (config.mlp_dim, width)),
            *linear(f"{ours}.down", f"{theirs}.mlp.fc2", (width, config.mlp_dim)),
        ]
    return slots


def layer_norm(name: str, key: str, width: int) -> list[Slot]:
    return [one(f"{name}.{part}", f"{key}.{part}", (width,)) for part in ("weight", "bias")]


def gemma(name: str, config: GemmaConfig, key: str) -> list[Slot]:
    """A language stack below `key`, without its embedding."""
    width, mlp, head_dim = config.width, config.mlp_dim, config.head_dim
    heads = {"q": config.num_heads, "k": config.num_kv_heads, "v": config.num_kv_heads}
    slots = rms_norm(f"{name}.final_norm", f"{key}norm", config)
    for i in range(config.depth):
        ours, theirs = f"{name}.blocks.{i}", f"{key}layers.{i}"
        qkv = [Piece(f"{theirs}.self_attn.{part}_proj.weight", (n * head_dim, width)) for part, n in heads.items()]
        gate_up = [Piece(f"{theirs}.mlp.{part}_proj.weight", (mlp, width)) for part in ("gate", "up")]
        slots += [
            *rms_norm(f"{ours}.attention_norm", f"{theirs}.input_layernorm", config),
            Slot(f"{ours}.qkv.weight", tuple(qkv)),
            one(f"{ours}.out.weight", f"{theirs}.self_attn.o_proj.weight", (width, config.num_heads * head_dim)),
            *rms_norm(f"{ours}.mlp_norm", f"{theirs}.post_attention_layernorm", config),
            Slot(f"{ours}.gate_up.weight", tuple(gate_up)),
            one(f"{ours}.down.weight", f"{theirs}.mlp.down_proj.weight", (width, mlp)),
        ]
    return slots


def rms_norm(name: str, key: str, config: GemmaConfig) -> list[Slot]:
    """A plain norm's scale, or the layer that makes scale, shift and gate of the flow time."""
    if config.cond_width:
        return linear(f"{name}.modulation", f"{key}.dense", (3 * config.width, config.cond_width))
    return [one(f"{name}.weight", f"{key}.weight", (config.width,))]


def read_config(source: TensorSource, base: PiConfig | None = None) -> PiConfig:
    """The model's shape, read off the weights; what they do not tell is taken from `base`.

    Without `base` that is the published models: one key-value head, a vision tower of So400m's shape, a horizon of 50
    actions. `insulate` is False then, as openpi trains.

    Raises:
        ValueError: the weights are not of this format, or do not tell what must be known.
    """
    keys = set(source.keys())
    adaptive, state_token = "time_mlp_in.weight" in keys, "state_proj.weight" in keys
    width, action_dim = shape_of(source, "action_in_proj.weight")
    family = base or (pi05(insulate=False) if adaptive else pi0())
    tied = PALIGEMMA + LANGUAGE + TIED
    return replace(
        family,
        vision=read_siglip(source, f"{PALIGEMMA}{VISION}", base),
        vlm=read_gemma(source, f"{PALIGEMMA}{LANGUAGE}"),
        action_expert=replace(read_gemma(source, f"{EXPERT}model."), cond_width=width if adaptive else 0),
        vocab_size=shape_of(source, tied if tied in keys else f"{PALIGEMMA}lm_head.weight")[0],
        action_dim=action_dim,
        time_conditioning="adarms" if adaptive else "concat",
        state_input="token" if state_token else "none" if family.state_input == "none" else "text",
    )


def read_siglip(source: TensorSource, key: str, base: PiConfig | None) -> SiglipConfig:
    """The vision tower's shape; how its width is split into heads is not told by weights."""
    width, _, patch, _ = shape_of(source, f"{key}embeddings.patch_embedding.weight")
    published = SiglipConfig()
    if base is None and width != published.width:
        raise ValueError(
            f"{source.where}: weights do not tell the number of heads of a vision tower of width {width}; pass config="
        )
    return SiglipConfig(
        image_size=patch * math.isqrt(shape_of(source, f"{key}embeddings.position_embedding.weight")[0]),
        patch_size=patch,
        width=width,
        depth=count_layers(source, f"{key}encoder.layers.*.layer_norm1.weight"),
        mlp_dim=shape_of(source, f"{key}encoder.layers.0.mlp.fc1.weight")[0],
        num_heads=(base.vision if base else published).num_heads,
    )


def read_gemma(source: TensorSource, key: str) -> GemmaConfig:
    """A language stack's shape; all that are published have one key-value head."""
    queries, width = shape_of(source, f"{key}layers.0.self_attn.q_proj.weight")
    head_dim = shape_of(source, f"{key}layers.0.self_attn.k_proj.weight")[0]
    return GemmaConfig(
        width=width,
        depth=count_layers(source, f"{key}layers.*.self_attn.q_proj.weight"),
        mlp_dim=shape_of(source, f"{key}layers.0.mlp.gate_proj.weight")[0],
        num_heads=queries // head_dim,
        head_dim=head_dim,
    )
