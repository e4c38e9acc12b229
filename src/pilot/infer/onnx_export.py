"""A π0-family policy as three ONNX files, for runtimes without PyTorch, and the check that they compute the same.

| file | takes | gives |
|---|---|---|
| `prefix_embedding.onnx` | a picture per camera in [-1, 1], `image_masks`, `tokens`, `token_kinds` | `x`, `kinds` |
| `prefix.onnx` | `x`, `kinds` | `keys` and `values` of all layers, `logits` behind the last token |
| `action_step.onnx` | `keys`, `values`, `kinds`, `state`, `x_t`, `time` | `v_t` |

A chunk is one run of the first two and `num_steps` of the third: `x_t = x_t - v_t / num_steps`, from noise at time 1,
where `v_t` is the noise itself in the `padded_dims` (`models/flow.py`). The first `robot_action_dim` are the robot's.
A subtask is written by running the first two again with one token more each time: the likeliest of `logits`. Text is
padded to `max_tokens`, and a batch may have any number of rows. Weights are float32. `export.json` beside the files has
every name, shape and constant; the checkpoint's statistics and tokenizers are copied there.

Axes: `b` batch, `l` text tokens, `s` backbone tokens, `n` layers, `k` key-value heads, `h` head dim, `ah` action
horizon, `ad` action dims, `v` vocabulary.
"""

import contextlib
import copy
import json
import logging
import math
import shutil
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pilot.data.layout import Kind, Observation, backbone_mask, token_positions
from pilot.data.pipeline import collate
from pilot.infer.policy import Policy
from pilot.infer.record import dummy_observation
from pilot.models.pi import Pi
from pilot.models.registry import require_pi
from pilot.nn.attention import KV
from pilot.nn.encoder_decoder import Towers
from pilot.version import __version__

EMBEDDING, PREFIX, ACTION_STEP = "prefix_embedding.onnx", "prefix.onnx", "action_step.onnx"
DESCRIPTION = "export.json"
OPSET = 20
TOLERANCE = 1e-3
"""Largest difference to PyTorch of a normalised action, which the files must keep to be good."""


def export_onnx(policy: Policy, out: str | Path, *, robot: str | None = None) -> Path:
    """Write the three files of a policy for one of its robots into `out`, and check them; return `out`.

    Raises:
        ImportError: a package of the extra `onnx` is missing.
        ValueError: a model of another kind, or the files do not compute what PyTorch does.
    """
    require_onnx()
    out, trained = Path(out), policy.bundle.find_robot(robot).robot
    model = exportable_model(policy)
    example = example_observation(policy, robot=trained.name, rows=2)
    out.mkdir(parents=True, exist_ok=True)
    write_parts(model, example, out)
    copy_parts(policy, out)
    description = describe_export(policy, model, example, robot=trained.name)
    write_description(out, description)
    differences = compare_with_torch(policy, out, robot=trained.name)
    write_description(out, description | {"differences": differences})
    if not (worst := max(differences.values())) <= TOLERANCE:
        raise ValueError(
            f"the files in {out} compute something else than PyTorch: off by up to {worst:.2g} ({differences}); "
            f"the tolerance is {TOLERANCE}"
        )
    return out


def require_onnx() -> None:
    """Check that the packages for exporting are installed.

    Raises:
        ImportError: one is not; the message says what to install.
    """
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ModuleNotFoundError as error:
        raise ImportError(f"exporting to ONNX needs {error.name}: pip install 'pilot[onnx]'") from error


def exportable_model(policy: Policy) -> Pi:
    """Return a float32 copy of the policy's model on the CPU.

    Raises:
        ValueError: the model is not of the π0 family, or its expert reads a memory and not the layers' caches.
    """
    config = require_pi(policy.model.config)
    if config.text_encoder is not None or config.vision_towers or config.expert_reads != "layers":
        raise ValueError("ONNX export is for π0, π0-FAST and π0.5; π0-small has no layers that its expert reads")
    return copy.deepcopy(policy.bundle.pi).to("cpu", torch.float32).eval()


def example_observation(policy: Policy, *, robot: str, rows: int, subtask: str | None = None) -> Observation:
    """Return made-up observations of a robot as the model takes them, text padded to `max_tokens`."""
    pipeline = policy.pipelines[robot]
    encoded = []
    for seed in range(rows):
        shown = dummy_observation(policy, robot=robot, seed=seed)
        sample = policy.make_sample(shown, robot=robot, subtask=subtask)
        encoded.append(pipeline.encode(sample, with_fast=False))
    return collate(encoded, device="cpu", length=policy.model.config.max_tokens).observation


class PrefixEmbedding(nn.Module):
    """Pictures and text as the backbone takes them; a camera that a row lacks is padding there."""

    def __init__(self, model: Pi) -> None:
        super().__init__()
        assert not isinstance(model.vision, Towers)
        self.vision, self.embedding = model.vision, model.embedding

    def forward(
        self, images: tuple[Tensor, ...], image_masks: Tensor, tokens: Tensor, token_kinds: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return `x` [b s d] and `kinds` [b s], from pictures [b h w 3], masks [b cameras] and text [b l]."""
        parts, kinds = [], []
        for number, pictures in enumerate(images):
            present = image_masks[:, number]
            embedded = self.vision(pictures)
            parts.append(torch.where(present[:, None, None], embedded, torch.zeros_like(embedded)))
            kinds.append((present[:, None] * Kind.PREFIX).long().expand(-1, embedded.shape[1]))
        parts.append(self.embedding(tokens) * math.sqrt(self.embedding.embedding_dim))
        return torch.cat(parts, dim=1), torch.cat([*kinds, token_kinds], dim=1)


class PrefixPass(nn.Module):
    """The backbone over the prefix: what the action expert reads, and what word comes next."""

    def __init__(self, model: Pi) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor, kinds: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return `keys` and `values` [n b k s h], and `logits` [b v] behind each row's last token."""
        inputs = self.model.attention_inputs(token_positions(kinds), backbone_mask(kinds), x.dtype)
        hidden, cache = self.model.vlm(x, **inputs)
        places = torch.arange(kinds.shape[1])
        last = torch.where(kinds > 0, places, torch.zeros_like(places)).amax(dim=1)  # [b]
        behind = hidden.gather(1, last[:, None, None].expand(-1, 1, hidden.shape[2]))[:, 0]
        keys, values = (torch.stack(parts) for parts in zip(*cache, strict=True))
        return keys, values, self.model.logits(behind)


class ActionStep(nn.Module):
    """One evaluation of the flow: the velocity of noisy actions at one time."""

    def __init__(self, model: Pi) -> None:
        super().__init__()
        self.model = model

    def forward(self, keys: Tensor, values: Tensor, kinds: Tensor, state: Tensor, x_t: Tensor, time: Tensor) -> Tensor:
        """Return `v_t` [b ah ad] at `time` [b]."""
        cache: list[KV] = list(zip(keys.unbind(), values.unbind(), strict=True))
        block = self.model.flow_block(cache, kinds, state, horizon=x_t.shape[1])
        return self.model.velocity(block, x_t, self.model.embed_time(time, self.model.dtype))


@torch.no_grad()
def write_parts(model: Pi, example: Observation, out: Path) -> None:
    """Export each part with the example that its inputs have the shapes of; batches may have any number of rows."""
    rows, masks = torch.export.Dim("rows", min=1), stack_masks(example)
    of_rows = {0: rows}
    images = tuple(example.images.values())
    names = [f"image_{camera}" for camera in example.images]
    embedding, prefix = PrefixEmbedding(model), PrefixPass(model)
    inputs = (images, masks, example.tokens, example.token_kinds)
    write_part(
        embedding, inputs, out / EMBEDDING, names=[*names, "image_masks", "tokens", "token_kinds"],
        outputs=["x", "kinds"], dynamic=(tuple(of_rows for _ in images), of_rows, of_rows, of_rows),
    )  # fmt: skip
    x, kinds = embedding(*inputs)
    write_part(
        prefix, (x, kinds), out / PREFIX, names=["x", "kinds"], outputs=["keys", "values", "logits"],
        dynamic=(of_rows, of_rows),
    )  # fmt: skip
    if not model.has_flow:
        return
    keys, values, _ = prefix(x, kinds)
    config = model.config
    noise = torch.zeros(len(x), config.action_horizon, config.action_dim)
    write_part(
        ActionStep(model), (keys, values, kinds, example.state, noise, torch.ones(len(x))), out / ACTION_STEP,
        names=["keys", "values", "kinds", "state", "x_t", "time"], outputs=["v_t"],
        dynamic=({1: rows}, {1: rows}, of_rows, of_rows, of_rows, of_rows),
    )  # fmt: skip


def write_part(
    module: nn.Module, inputs: tuple[Any, ...], file: Path, *, names: list[str], outputs: list[str], dynamic: Any
) -> None:
    """Export one module to a file with named inputs and outputs."""
    with _quiet():
        torch.onnx.export(
            module.eval(), inputs, file, input_names=names, output_names=outputs, dynamic_shapes=dynamic,
            opset_version=OPSET, dynamo=True, verbose=False, external_data=True,
        )  # fmt: skip


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep back what PyTorch's exporter says about itself: packages that it could use too, and names of axes."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)


def stack_masks(observation: Observation) -> Tensor:
    """Return which cameras each row has [b cameras], in the order of the pictures."""
    return torch.stack([observation.image_masks[camera] for camera in observation.images], dim=1)


def copy_parts(policy: Policy, out: Path) -> None:
    """Copy what stands around the model: its config, statistics and tokenizers."""
    if policy.path is None:
        return
    for name in ("config.json", "norm_stats.json", "text.model", "action_tokenizer", "robots"):
        source = policy.path / name
        if source.is_dir():
            shutil.copytree(source, out / name, dirs_exist_ok=True)
        elif source.is_file():
            shutil.copyfile(source, out / name)


def describe_export(policy: Policy, model: Pi, example: Observation, *, robot: str) -> dict[str, Any]:
    """Return what a runtime has to know beside the files."""
    config = model.config
    codec = policy.subtask_codec
    return {
        "pilot": __version__,
        "robot": robot,
        "cameras": {name: list(picture.shape[1:]) for name, picture in example.images.items()},
        "max_tokens": config.max_tokens,
        "kinds": {kind.name.lower(): int(kind) for kind in Kind},
        "action_horizon": config.action_horizon,
        "action_stride": config.action_stride,
        "action_dim": config.action_dim,
        "robot_action_dim": policy.bundle.find_robot(robot).robot.action_dim,
        "padded_dims": [] if (padded := policy.padded_dims([robot])) is None else padded[0].nonzero()[:, 0].tolist(),
        "num_steps": policy.num_steps,
        "end_of_subtask": None if codec is None else codec.end,
        "has_actions": model.has_flow,
    }


def write_description(out: Path, description: Mapping[str, Any]) -> None:
    """Write `export.json`."""
    (out / DESCRIPTION).write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")


class OnnxModel:
    """The exported files as a model, run by onnxruntime: numpy in, numpy out."""

    def __init__(self, folder: str | Path) -> None:
        import onnxruntime

        self.folder = Path(folder)
        self.description = json.loads((self.folder / DESCRIPTION).read_text(encoding="utf-8"))
        files = [EMBEDDING, PREFIX] + [ACTION_STEP] * self.description["has_actions"]
        self.sessions = {
            name: onnxruntime.InferenceSession(str(self.folder / name), providers=onnxruntime.get_available_providers())
            for name in files
        }

    def prefix(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return `kinds`, `keys`, `values` and `logits` for pictures and text by the names of the inputs."""
        x, kinds = self.sessions[EMBEDDING].run(None, dict(inputs))
        keys, values, logits = self.sessions[PREFIX].run(None, {"x": x, "kinds": kinds})
        return {"x": x, "kinds": kinds, "keys": keys, "values": values, "logits": logits}

    def velocity(
        self, prefix: Mapping[str, np.ndarray], *, state: np.ndarray, x_t: np.ndarray, time: float
    ) -> np.ndarray:
        """Return `v_t` [b ah ad] of noisy actions at one time."""
        inputs = {name: prefix[name] for name in ("keys", "values", "kinds")}
        times = np.full(len(x_t), time, np.float32)
        return self.sessions[ACTION_STEP].run(None, inputs | {"state": state, "x_t": x_t, "time": times})[0]

    def actions(
        self, prefix: Mapping[str, np.ndarray], *, state: np.ndarray, noise: np.ndarray, num_steps: int
    ) -> np.ndarray:
        """Return a normalised chunk [b ah ad] from noise, by `num_steps` Euler steps."""
        x_t, padded = noise, self.description["padded_dims"]
        for step in range(num_steps):
            v_t = self.velocity(prefix, state=state, x_t=x_t, time=1 - step / num_steps)
            v_t[..., padded] = noise[..., padded]  # they go from noise to 0, as in training
            x_t = x_t - v_t / np.float32(num_steps)
        return x_t


@torch.no_grad()
def compare_with_torch(policy: Policy, folder: str | Path, *, robot: str, rows: int = 3) -> dict[str, float]:
    """Return the largest differences between the files and PyTorch: of keys, values, logits, velocity and actions.

    Rows are made-up observations. Of several, the first lacks a camera: PyTorch leaves it out where no row has it.
    """
    model, files = exportable_model(policy), OnnxModel(folder)
    observation = example_observation(policy, robot=robot, rows=rows)
    if len(observation.images) > 1 and rows > 1:
        last = list(observation.images)[-1]
        masks = observation.image_masks | {last: torch.arange(rows) > 0}
        observation = replace(observation, image_masks=masks)
    got = files.prefix(onnx_inputs(observation))
    want = model.prefill(observation, compute_hidden=True)
    seen = (want.kinds > 0)[None, :, None, :, None].numpy()  # what is padding is seen by nobody
    keys, values = (torch.stack(parts).numpy() for parts in zip(*want.cache, strict=True))
    last_text = observation.token_kinds.count_nonzero(dim=1) - 1
    logits = model.logits(want.hidden[torch.arange(rows), last_text]).numpy()
    differences = {
        "keys": float(np.abs((got["keys"] - keys) * seen).max()),
        "values": float(np.abs((got["values"] - values) * seen).max()),
        "logits": float(np.abs(got["logits"] - logits).max()),
    }
    if model.has_flow:
        state, config = observation.state, model.config
        noise = torch.randn(rows, config.action_horizon, config.action_dim, generator=torch.Generator().manual_seed(0))
        block = model.flow_block(want.cache, want.kinds, state, horizon=config.action_horizon)
        time = torch.full((rows,), 0.5)
        v_t = model.velocity(block, noise, model.embed_time(time, model.dtype)).numpy()
        padded = policy.padded_dims([robot])
        steps: dict[str, Any] = {"num_steps": policy.num_steps, "padded_dims": None if padded is None else padded.cpu()}
        chunk = model.denoise(want, state, noise=noise, **steps)[-1].numpy()
        as_numpy: dict[str, Any] = {"state": state.numpy()}
        velocity = files.velocity(got, x_t=noise.numpy(), time=0.5, **as_numpy)
        actions = files.actions(got, noise=noise.numpy(), num_steps=policy.num_steps, **as_numpy)
        differences["velocity"] = float(np.abs(velocity - v_t).max())
        differences["actions"] = float(np.abs(actions - chunk).max())
    return differences


def onnx_inputs(observation: Observation) -> dict[str, np.ndarray]:
    """Return an observation as the first file takes it."""
    images = {f"image_{camera}": picture.float().numpy() for camera, picture in observation.images.items()}
    return images | {
        "image_masks": stack_masks(observation).numpy(),
        "tokens": observation.tokens.long().numpy(),
        "token_kinds": observation.token_kinds.long().numpy(),
    }
