"""Policy folders of LeRobot at debug size, of any time."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from pilot.convert import lerobot_weights
from pilot.models.pi import Pi, PiConfig, pi0, pi0_fast, pi05

CONFIGS = {
    "pi0": pi0("debug", max_tokens=48),
    "pi05": pi05("debug", insulate=False),
    "pi0_fast": pi0_fast("debug", fast_offset=128, max_tokens=456),
}


def model(config: PiConfig, *, seed: int = 0) -> Pi:
    """Nothing in it is zero, so that nothing lost goes unseen."""
    made = Pi(config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in made.parameters():
            weight.normal_(0.0, 0.3, generator=generator)
    return made


def write(folder: Path, kind: str, *, seed: int = 0, **changes: object) -> Pi:
    """Weights and config.json; `changes` of the latter."""
    made = model(CONFIGS[kind], seed=seed)
    lerobot_weights.save(made, folder, dtype=torch.float32)
    write_config(folder, kind, **changes)
    return made


def write_config(folder: Path, kind: str, **changes: object) -> None:
    config = CONFIGS[kind]
    content = {
        "type": kind,
        "chunk_size": config.action_horizon,
        "max_action_dim": config.action_dim,
        "max_state_dim": config.action_dim,
        "image_resolution": [config.vision.image_size] * 2,
        "tokenizer_max_length": config.max_tokens - (256 if kind == "pi0_fast" else 0),
        "fast_skip_tokens": config.fast_offset,
        **changes,
    }
    (folder / "config.json").write_text(json.dumps(content))


def change(folder: Path, edit) -> None:
    """Rewrite the weights as `edit` makes them of the dict of arrays."""
    file = folder / "model.safetensors"
    save_file({name: array.contiguous() for name, array in edit(load_file(file)).items()}, file)


def same(a: Pi, b: Pi) -> bool:
    mine, other = a.state_dict(), b.state_dict()
    return mine.keys() == other.keys() and all(torch.equal(mine[name], other[name]) for name in mine)
