"""Recorded cases of the reference implementation: a folder of inputs, weights and outputs (`data/`, or $PILOT_GOLDEN).

`{model}_….{torch,jax}.safetensors` holds `inputs/…`, `outputs/…`, maybe `grads/…`, and its `weights/…` unless
`orbax/{name}` beside it has them. Sizes, horizons, cameras and masks are read from the files; nothing is assumed.

Axes: `b` batch, `s` tokens of the case, `v` those of them that are not masked, all rows one after the other.
"""

import json
import os
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from pilot.convert import openpi_jax, openpi_torch
from pilot.convert.keymap import KeyMap, TensorSource
from pilot.convert.model_loading import load_pi
from pilot.convert.orbax import OrbaxSource
from pilot.data.layout import Kind, Observation
from pilot.models.pi import Pi, PiConfig, pi0, pi0_fast, pi05
from pilot.nn.configs import GemmaConfig, SiglipConfig

FOLDER = Path(os.environ.get("PILOT_GOLDEN", Path(__file__).parent / "data"))
FAMILIES = {"pi0": pi0, "pi05": pi05, "pi0_fast": pi0_fast}
FORMATS = {"torch": openpi_torch, "jax": openpi_jax}


class Weights:
    """The arrays of a case that stand below `weights/`, as a checkpoint."""

    def __init__(self, arrays: dict[str, Tensor], where: str) -> None:
        self.location, self._arrays = where, arrays

    def keys(self) -> list[str]:
        return list(self._arrays)

    def shape(self, key: str) -> tuple[int, ...]:
        return tuple(self._arrays[key].shape)

    def dtype(self, key: str) -> torch.dtype:
        return self._arrays[key].dtype

    def read(self, key: str) -> Tensor:
        return self._arrays[key]


@dataclass(frozen=True, kw_only=True)
class Case:
    """One file: `meta` is its description, `arrays` what it holds."""

    path: Path
    meta: dict
    arrays: dict[str, Tensor]

    @property
    def name(self) -> str:
        return self.path.name.removesuffix(".safetensors")

    @property
    def stem(self) -> str:
        return self.name.rsplit(".", 1)[0]

    @property
    def framework(self) -> str:
        return self.meta["framework"]

    @property
    def config(self) -> PiConfig:
        """The model's shape as the file describes it; without insulation, as the reference trains."""
        dims = self.meta["dims"]
        vision, patch = dict(dims["vision"]), dims["vision"]["patch"]
        del vision["patch"]
        expert = GemmaConfig(**dims["expert"])
        family = FAMILIES[self.meta["model"]]
        return family(
            "debug",
            vision=SiglipConfig(image_size=dims["image"], patch_size=patch, **vision),
            vlm=GemmaConfig(**dims["vlm"]),
            action_expert={
                "pi0": expert, "pi05": replace(expert, cond_width=expert.width), "pi0_fast": None
            }[self.meta["model"]],
            vocab_size=dims["vocab"],
            action_dim=dims["action_dim"],
            action_horizon=dims["action_horizon"],
            max_tokens=dims["max_token_len"],
            insulate=False,
        )  # fmt: skip

    def table(self, framework: str | None = None) -> KeyMap:
        return FORMATS[framework or self.framework].key_map(self.config)

    def model(self, dtype: torch.dtype = torch.float32) -> Pi:
        """The model with the weights of the case."""
        weights = self.below("weights/")
        if weights:
            return load_pi(self.table(), Weights(weights, str(self.path)), self.config, dtype=dtype)
        source: TensorSource = OrbaxSource(next((self.path.parent / "orbax" / self.stem).iterdir()))
        return load_pi(self.table("jax"), source, self.config, dtype=dtype)

    def below(self, prefix: str) -> dict[str, Tensor]:
        """The arrays whose names begin with `prefix`, without it."""
        return {name.removeprefix(prefix): x for name, x in self.arrays.items() if name.startswith(prefix)}

    def output(self, name: str) -> Tensor:
        return self.arrays[f"outputs/{name}"]

    def observation(self, inputs: str = "inputs", *, masks: str | None = None) -> Observation:
        """What the model sees; `masks` names other inputs to take the camera masks from."""
        arrays = self.below(f"{inputs}/")
        images = {name: x.contiguous() for name, x in self._images(inputs).items()}
        valid = arrays["tokenized_prompt_mask"]
        causal = arrays["token_ar_mask"].bool() if "token_ar_mask" in arrays else torch.zeros_like(valid)
        kinds = torch.where(causal, int(Kind.FAST), int(Kind.PREFIX)) * valid
        said = arrays["token_loss_mask"] & valid if "token_loss_mask" in arrays else torch.zeros_like(valid)
        return Observation(
            images=images,
            image_masks=self.below(f"{masks or inputs}/image_masks/"),
            state=arrays["state"],
            tokens=arrays["tokenized_prompt"].long(),
            token_kinds=kinds,
            token_loss=said,
        )

    def _images(self, inputs: str) -> dict[str, Tensor]:
        """Pictures in the order in which the reference reads them: it is that of their names."""
        images = dict(sorted(self.below(f"{inputs}/images/").items()))
        return images if self.meta["image_layout"] == "NHWC" else {n: x.permute(0, 2, 3, 1) for n, x in images.items()}


@cache
def load_case(path: Path) -> Case:
    with safe_open(path, "pt") as file:
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return Case(path=path, meta=json.loads(file.metadata()["meta"]), arrays=arrays)


def cases(*models: str) -> list[Path]:
    """The files of these models, `pi0`, `pi05` or `pi0_fast`."""
    return sorted(path for path in FOLDER.glob("*.safetensors") if _model_of(path) in models)


def _model_of(path: Path) -> str | None:
    with safe_open(path, "pt") as file:
        return json.loads((file.metadata() or {}).get("meta", "{}")).get("model")
