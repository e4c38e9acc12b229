"""pilot beside openpi's PyTorch model: the same weights, the same inputs, in turns on one core.

    python bench/against_openpi.py [--openpi FOLDER --python PYTHON] [--size tiny|mid|mid-third] [--model pi0|pi05]
                                   [--rounds 5] [--cameras 3 2 1] [--sides openpi plain engine] [--train]

Without `--openpi` pilot is measured alone: its engine beside its plain model. For openpi, give it an environment of its
own from its public repository; JAX is not needed:

    git clone https://github.com/Physical-Intelligence/openpi
    python3.11 -m venv openpi-env
    openpi-env/bin/pip install torch==2.13.0 transformers==4.53.2 numpy safetensors
    cp -r openpi/src/openpi/models_pytorch/transformers_replace/* \\
        openpi-env/lib/python3.11/site-packages/transformers/
    python bench/against_openpi.py --openpi openpi --python openpi-env/bin/python

Each side is a process with one thread, both on the same core; rounds alternate between them and the least processor
time of a call counts, which other work on the machine hardly touches. A call is `sample_actions`: fp32, batch 1, 10
Euler steps, three cameras of which some are absent (masked, for openpi), a prompt with a quarter of padding. `tiny` is
openpi's own "dummy" language model. `mid` has 500 M parameters (SigLIP-B/14 at 224 pixels, openpi's gemma_300m as
language model, a narrow expert) and takes a quarter of a minute per call; `mid-third` has a third of its layers. Also
printed: the seconds from a checkpoint on disk to a model, and by how much the chunks differ.

With `--train` a call is a training step on three cameras, of 8 rows (`tiny`) or 1: forward, backward, clipping and
AdamW as in openpi's `train_pytorch.py`, which recomputes activations (`openpi`; without that: `openpi-kept`), on fixed
noise and times and without its augmentation. pilot's (`plain`) is the trainer's own step, moving average included, and
without insulation, which openpi has not. Then losses and gradient norms of the first step are compared.
 openpi builds its model,
then loads; pilot's plain model is converted from openpi's file as it is read; the engine gets the converted file, which
is mapped into memory.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")

import argparse
import functools
import importlib
import json
import subprocess
import sys
import tempfile
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

CAMERAS = ("base_0_rgb", "left_wrist_0_rgb", "right_wrist_0_rgb")
EXPERT = {"depth": 18, "num_heads": 8, "num_kv_heads": 1, "head_dim": 256}
TINY = {"depth": 4, "num_heads": 8, "num_kv_heads": 1, "head_dim": 16}
SIZES: dict[str, dict[str, Any]] = {
    "tiny": {
        "vision": {"image_size": 56, "patch_size": 14, "width": 32, "depth": 2, "mlp_dim": 80, "num_heads": 4},
        "vlm": {"width": 64, "mlp_dim": 128, **TINY},
        "expert": {"width": 48, "mlp_dim": 96, **TINY},
        "vocab_size": 512, "action_dim": 7, "action_horizon": 5, "tokens": {"pi0": 11, "pi05": 13}, "calls": 20,
        "batch": 8,
    },
    "mid": {
        "vision": {"image_size": 224, "patch_size": 14, "width": 768, "depth": 12, "mlp_dim": 3072, "num_heads": 12},
        "vlm": {"width": 1024, "mlp_dim": 4096, **EXPERT},
        "expert": {"width": 256, "mlp_dim": 1024, **EXPERT},
        "vocab_size": 32_768, "action_dim": 32, "action_horizon": 50, "tokens": {"pi0": 48, "pi05": 200}, "calls": 1,
        "batch": 1,
    },
}  # fmt: skip
SIZES["mid-third"] = SIZES["mid"] | {
    "vision": SIZES["mid"]["vision"] | {"depth": 4},
    "vlm": SIZES["mid"]["vlm"] | {"depth": 6},
    "expert": SIZES["mid"]["expert"] | {"depth": 6},
}
LR, DECAY, EPS = 2.5e-5, 1e-10, 1e-8  # of openpi's training
Call = Callable[[int], np.ndarray]
"""From the number of cameras that are there to a chunk."""


def inputs(size: dict[str, Any], model: str, *, batch: int = 1) -> dict[str, torch.Tensor]:
    """Pictures, state, prompt, noise, and for training actions and times, the same on both sides."""
    generator = torch.Generator().manual_seed(0)
    pixels, length = size["vision"]["image_size"], size["tokens"][model]
    known = (torch.arange(length)[None] < length - length // 4).expand(batch, -1)
    chunk = (batch, size["action_horizon"], size["action_dim"])
    return {
        "images": torch.rand(len(CAMERAS), batch, pixels, pixels, 3, generator=generator) * 2 - 1,
        "state": torch.randn(batch, size["action_dim"], generator=generator),
        "tokens": torch.randint(4, size["vocab_size"], (batch, length), generator=generator) * known,
        "known": known,
        "noise": torch.randn(chunk, generator=generator),
        "actions": torch.randn(chunk, generator=generator),
        "time": 0.001 + 0.999 * torch.rand(batch, generator=generator),
    }


# --- pilot ------------------------------------------------------------------------------------------------------------


def pilot_config(size: dict[str, Any], model: str) -> Any:
    from dataclasses import replace

    from pilot.models.pi import pi0, pi05
    from pilot.nn.configs import GemmaConfig, SiglipConfig

    expert = GemmaConfig(**size["expert"], cond_width=size["expert"]["width"] if model == "pi05" else 0)
    return replace(
        {"pi0": pi0, "pi05": pi05}[model]("2b"),
        vision=SiglipConfig(**size["vision"]), vlm=GemmaConfig(**size["vlm"]), action_expert=expert,
        **{name: size[name] for name in ("vocab_size", "action_dim", "action_horizon")},
    )  # fmt: skip


def write_weights(size: dict[str, Any], model: str, folder: Path) -> None:
    """Random weights in openpi's PyTorch format and in pilot's, nothing zero."""
    from safetensors.torch import save_file

    from pilot.convert import openpi_torch
    from pilot.models.pi import Pi

    generator = torch.Generator().manual_seed(0)
    pi = Pi(pilot_config(size, model)).initialize(generator)
    with torch.no_grad():
        for p in pi.parameters():
            if p.ndim == 1 or not p.any():
                p += 0.02 * torch.randn(p.shape, generator=generator)
    openpi_torch.save(pi, folder, dtype=torch.float32)
    save_file(pi.state_dict(), folder / "converted.safetensors")


def pilot_call(size: dict[str, Any], model: str, folder: Path, *, plain: bool) -> Call:
    from pilot.convert import openpi_torch
    from pilot.data.layout import Kind, Observation
    from pilot.infer.engine.fast import FastEngine
    from pilot.models.bundle import load_weights
    from pilot.models.pi import Pi

    config = pilot_config(size, model)
    pi = openpi_torch.load(folder, config) if plain else load_weights(config, folder / "converted.safetensors")
    given = inputs(size, model)
    kinds = torch.where(given["known"], int(Kind.PREFIX), int(Kind.PAD))
    assert isinstance(pi, Pi)
    acting = pi if plain else FastEngine(pi)

    @torch.inference_mode()
    def call(cameras: int) -> np.ndarray:
        observation = Observation(
            images=dict(zip(CAMERAS, given["images"], strict=True)),
            image_masks={c: torch.tensor([i < cameras]) for i, c in enumerate(CAMERAS)},
            state=given["state"],
            tokens=given["tokens"],
            token_kinds=kinds,
            token_loss=torch.zeros_like(given["known"]),
        )
        return acting.sample_actions(observation, noise=given["noise"]).numpy()

    return call


def pilot_step(size: dict[str, Any], model: str, folder: Path) -> Call:
    from dataclasses import replace

    from pilot.data.layout import Batch, Kind, Observation
    from pilot.models.bundle import load_weights
    from pilot.train.config import ObjectiveConfig, OptimConfig, ParallelConfig, TrainConfig
    from pilot.train.learner import Learner

    batch = size["batch"]
    given = inputs(size, model, batch=batch)
    pi = load_weights(replace(pilot_config(size, model), insulate=False), folder / "converted.safetensors")
    pi.draw = lambda *_, **__: {"noise": given["noise"][:, None], "time": given["time"][:, None]}
    optim = OptimConfig(peak_lr=LR, final_lr=LR, warmup_steps=0, weight_decay=DECAY, eps=EPS)
    config = TrainConfig(
        name="bench", model=pi.config, robot="libero", steps=1000, batch_size=batch, optim=optim,
        objective=ObjectiveConfig(alpha=1.0, text_weight=0.0, fast_weight=0.0), parallel=ParallelConfig(threads=1),
    )  # fmt: skip
    rows = Batch(
        observation=Observation(
            images=dict(zip(CAMERAS, given["images"], strict=True)),
            image_masks={camera: torch.ones(batch, dtype=torch.bool) for camera in CAMERAS},
            state=given["state"],
            tokens=given["tokens"],
            token_kinds=torch.where(given["known"], int(Kind.PREFIX), int(Kind.PAD)),
            token_loss=torch.zeros_like(given["known"]),
        ),
        actions=given["actions"],
        action_mask=torch.ones_like(given["actions"], dtype=torch.bool),
        sources=("bench",) * batch,
        row_ids=tuple(range(batch)),
    )
    learner = Learner(pi, config)

    def call(_: int) -> np.ndarray:
        outcome = learner.train_step([rows])
        return np.array([outcome.loss.item(), outcome.grad_norm.item()])

    return call


# --- openpi -----------------------------------------------------------------------------------------------------------


def stand_ins(size: dict[str, Any]) -> None:
    """The two modules of openpi that would import JAX: sizes by name, and resizing, which pictures here do not need."""
    sizes = {name: types.SimpleNamespace(**size[name]) for name in ("vlm", "expert")}
    gemma = types.ModuleType("openpi.models.gemma")
    gemma.get_config = sizes.__getitem__  # type: ignore[attr-defined]
    for name in ("openpi.models", "openpi.shared"):
        sys.modules[name] = types.ModuleType(name)
    sys.modules["openpi.shared.image_tools"] = types.ModuleType("openpi.shared.image_tools")
    sys.modules["openpi.models"].gemma = gemma  # type: ignore[attr-defined]
    sys.modules["openpi.models.gemma"] = gemma
    sys.modules["openpi.shared"].image_tools = sys.modules["openpi.shared.image_tools"]  # type: ignore[attr-defined]


def openpi_model(size: dict[str, Any], model: str) -> Any:
    """Its model at these sizes, which it writes down in part: the configs it makes are changed on the way in."""
    from openpi.models_pytorch import gemma_pytorch, pi0_pytorch  # type: ignore[import-not-found]

    vision = {
        "hidden_size": "width", "intermediate_size": "mlp_dim", "num_hidden_layers": "depth",
        "num_attention_heads": "num_heads", "image_size": "image_size", "patch_size": "patch_size",
    }  # fmt: skip

    def resized(build: Any, config: Any) -> Any:
        if hasattr(config, "vision_config"):
            for theirs, ours in vision.items():
                setattr(config.vision_config, theirs, size["vision"][ours])
            config.vision_config.projection_dim = size["vlm"]["width"]
            config.text_config.vocab_size = config._vocab_size = config.image_token_index = size["vocab_size"]
        else:
            config.vocab_size = size["vocab_size"]
        return build(config=config)

    for name in ("PaliGemmaForConditionalGeneration", "GemmaForCausalLM"):
        setattr(gemma_pytorch, name, functools.partial(resized, getattr(gemma_pytorch, name)))
    preprocessing = pi0_pytorch._preprocessing
    pixels = (size["vision"]["image_size"],) * 2
    preprocessing.preprocess_observation_pytorch = functools.partial(
        preprocessing.preprocess_observation_pytorch, image_resolution=pixels
    )
    config = types.SimpleNamespace(
        pi05=model == "pi05", dtype="float32", paligemma_variant="vlm", action_expert_variant="expert",
        action_dim=size["action_dim"], action_horizon=size["action_horizon"], pytorch_compile_mode=None,
    )  # fmt: skip
    return pi0_pytorch.PI0Pytorch(config)


def openpi_call(size: dict[str, Any], model: str, folder: Path) -> Call:
    from safetensors.torch import load_model

    theirs = openpi_model(size, model)
    load_model(theirs, str(folder / "model.safetensors"))
    theirs.eval()
    given = inputs(size, model)

    def call(cameras: int) -> np.ndarray:
        observation = types.SimpleNamespace(
            images={c: x.permute(0, 3, 1, 2) for c, x in zip(CAMERAS, given["images"], strict=True)},
            image_masks={c: torch.tensor([i < cameras]) for i, c in enumerate(CAMERAS)},
            state=given["state"],
            tokenized_prompt=given["tokens"],
            tokenized_prompt_mask=given["known"],
            token_ar_mask=None,
            token_loss_mask=None,
        )
        return theirs.sample_actions("cpu", observation, noise=given["noise"]).numpy()

    return call


def openpi_step(size: dict[str, Any], model: str, folder: Path, *, recompute: bool) -> Call:
    from safetensors.torch import load_model

    theirs = openpi_model(size, model)
    load_model(theirs, str(folder / "model.safetensors"))
    theirs.train()
    if recompute:
        theirs.gradient_checkpointing_enable()
    else:
        theirs.paligemma_with_expert.eval()  # in training mode it recomputes whatever is set; it has no dropout
    prepared = theirs._preprocess_observation
    theirs._preprocess_observation = lambda observation, train: prepared(observation, train=False)  # as it comes
    parameters = [p for p in theirs.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=LR, betas=(0.9, 0.95), eps=EPS, weight_decay=DECAY)
    given = inputs(size, model, batch=size["batch"])
    observation = types.SimpleNamespace(
        images={c: x.permute(0, 3, 1, 2) for c, x in zip(CAMERAS, given["images"], strict=True)},
        image_masks={c: torch.ones(size["batch"], dtype=torch.bool) for c in CAMERAS},
        state=given["state"],
        tokenized_prompt=given["tokens"],
        tokenized_prompt_mask=given["known"],
        token_ar_mask=None,
        token_loss_mask=None,
    )

    def call(_: int) -> np.ndarray:
        loss = theirs(observation, given["actions"], noise=given["noise"], time=given["time"]).mean()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(parameters, max_norm=1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return np.array([loss.item(), norm.item()])

    return call


# --- in turns ---------------------------------------------------------------------------------------------------------


def built_call(side: str, size: dict[str, Any], model: str, folder: Path, *, train: bool) -> Call:
    if train:
        theirs = side.startswith("openpi")
        return (
            openpi_step(size, model, folder, recompute=side == "openpi") if theirs else pilot_step(size, model, folder)
        )
    return (
        openpi_call(size, model, folder) if side == "openpi" else pilot_call(size, model, folder, plain=side == "plain")
    )


def work(side: str, size: dict[str, Any], model: str, folder: Path, *, train: bool) -> None:
    """A side's process: build the model, then answer each line (a number of cameras) with seconds and a chunk."""
    torch.set_num_threads(1)
    if side.startswith("openpi"):  # imports are no part of building a model
        stand_ins(size)
        importlib.import_module("openpi.models_pytorch.pi0_pytorch")
    else:
        importlib.import_module("pilot.convert.openpi_torch")
        importlib.import_module("pilot.infer.engine.fast")
    start, wall = time.process_time(), time.perf_counter()
    call = built_call(side, size, model, folder, train=train)
    print(json.dumps({"cpu": time.process_time() - start, "wall": time.perf_counter() - wall}), flush=True)
    for line in sys.stdin:
        best, chunks = float("inf"), []
        for _ in range(size["calls"]):
            start = time.process_time()
            chunks.append(call(int(line)))
            best = min(best, time.process_time() - start)
        print(json.dumps({"cpu": best, "chunk": chunks[0].tolist()}), flush=True)


class Side:
    """A process that works for one side."""

    def __init__(self, name: str, args: argparse.Namespace, folder: Path) -> None:
        command = [
            args.python if name.startswith("openpi") else sys.executable,
            __file__,
            "--work",
            name,
            "--folder",
            str(folder),
        ]
        path = {"PYTHONPATH": str(Path(args.openpi) / "src")} if name.startswith("openpi") else {}
        self.process = subprocess.Popen(
            [*command, "--size", args.size, "--model", args.model, *["--train"] * args.train],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | path,
        )  # fmt: skip
        self.built = self.hear()

    def hear(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit("a side has failed; its error is above")
        return json.loads(line)

    def call(self, cameras: int) -> dict[str, Any]:
        assert self.process.stdin is not None
        print(cameras, file=self.process.stdin, flush=True)
        return self.hear()


def compare(args: argparse.Namespace, folder: Path) -> None:
    sides = {name: Side(name, args, folder) for name in args.sides}
    reference = next(iter(sides))
    for name, side in sides.items():
        built, other = side.built, sides[reference].built
        print(f"{name:>7}: model from disk in {built['cpu']:6.2f} s of processor time ({built['wall']:.1f} s of wall), "
              f"{other['cpu'] / built['cpu']:5.1f} times as fast as {reference}")  # fmt: skip
    for cameras in [len(CAMERAS)] if args.train else args.cameras:
        best: dict[str, float] = {}
        chunks: dict[str, np.ndarray] = {}
        for _ in range(args.rounds):
            for name, side in sides.items():
                answer = side.call(cameras)
                best[name] = min(best.get(name, float("inf")), answer["cpu"])
                chunks.setdefault(name, np.array(answer["chunk"]))
        for name, seconds in best.items():
            apart = np.abs(chunks[name] - chunks[reference]).max()
            ratio = best[reference] / seconds
            print(
                f"{cameras} cameras, {name:>7}: {1e3 * seconds:9.1f} ms, {ratio:5.2f} times as fast as {reference}; "
                f"{'losses and norms' if args.train else 'chunks'} differ by {apart:.1e}",
                flush=True,
            )
    for side in sides.values():
        side.process.stdin.close()  # type: ignore[union-attr]
        side.process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--openpi", type=Path, default=os.environ.get("OPENPI"), help="a clone of openpi")
    parser.add_argument("--python", default=os.environ.get("OPENPI_PYTHON"), help="the Python of its environment")
    parser.add_argument("--size", choices=SIZES, default="tiny")
    parser.add_argument("--model", choices=("pi0", "pi05"), default="pi0")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cameras", type=int, nargs="+", default=[3, 2, 1])
    parser.add_argument("--sides", choices=("openpi", "openpi-kept", "plain", "engine"), nargs="+")
    parser.add_argument("--train", action="store_true", help="steps of training in place of chunks")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.work:
        return work(args.work, SIZES[args.size], args.model, args.folder, train=args.train)
    if bool(args.openpi) != bool(args.python):
        parser.error("--openpi (the clone) and --python (of its environment) go together")
    usual = ["openpi", "openpi-kept", "plain"] if args.train else ["openpi", "plain", "engine"]
    args.sides = [side for side in args.sides or usual if args.openpi or not side.startswith("openpi")]
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    print(f"{args.model} {args.size}, one thread on one core, load of the machine {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as folder:
        write_weights(SIZES[args.size], args.model, Path(folder))
        compare(args, Path(folder))


if __name__ == "__main__":
    main()
