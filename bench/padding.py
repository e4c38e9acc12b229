"""What it is worth to treat padded action dims at acting as in training, for a body with much padding.

    pilot collect data/padding --level 1 --task single --homes 80 --episodes 2 --seed 0
    python bench/padding.py data/padding [--steps 600] [--seed 0] [--action-dim 32] [--rows 512]

Trains the action expert of `nano_expert` anew with `action_dim` 32, of which the homes' robot has 4, beside the frozen
backbone of checkpoints/nano. Then samples chunks for held-out rows in both ways, from the same noise: with the model's
velocity in padded dims, where it has learned none (`model`), and along the path that those dims had in training
(`path`). Prints the error of the robot's own dims, normalised, and how far the padded ones end from 0, where training
puts them.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from pilot.configs.nano import nano_expert
from pilot.data.pipeline import collate
from pilot.train.config import CheckpointConfig, DataConfig, InitFrom, ParallelConfig, Source, TrainConfig
from pilot.train.loop import train
from pilot.train.setup import prepare

BATCH = 32


def config_of(args: argparse.Namespace) -> TrainConfig:
    run = nano_expert()
    return replace(
        run,
        name="padding",
        model=replace(run.model, action_dim=args.action_dim),
        data=DataConfig(sources=(Source(path=args.data, teaches=("flow",)),), loc_stride=16, held_out=0.1),
        steps=args.steps,
        batch_size=BATCH,
        init_from=InitFrom("checkpoints/nano", kind="weights", fresh=("expert",)),
        parallel=ParallelConfig(threads=1),
        checkpoints=CheckpointConfig(save_every=args.steps),
        seed=args.seed,
    )


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--action-dim", type=int, default=32)
    parser.add_argument("--rows", type=int, default=512)
    parser.add_argument("--out", default="outputs/padding")
    args = parser.parse_args()
    torch.set_num_threads(1)
    config = config_of(args)
    with torch.inference_mode(False):
        train(config, out=args.out)
    setup = prepare(config, Path(args.out), resume=True)
    model = setup.bundle.model.eval()
    ((name, pipeline),) = setup.loader.pipelines.items()
    rng = np.random.default_rng(args.seed)
    numbers = rng.permutation(setup.held_out[name])[: args.rows]
    generator = torch.Generator().manual_seed(args.seed)
    own = pipeline.robot.action_dim
    sums = {way: np.zeros(3) for way in ("model", "path")}
    for first in range(0, len(numbers), BATCH):
        samples = [setup.loader.mixture.sources[name].sample(int(i), rng) for i in numbers[first : first + BATCH]]
        rows = [pipeline.encode(sample, with_fast=False) for sample in samples]
        read = collate(rows).observation
        actions, mask = (
            torch.from_numpy(np.stack(x)) for x in ([r.actions for r in rows], [r.action_mask for r in rows])
        )
        noise = torch.randn(actions.shape, generator=generator)
        for way, padded_dims in (("model", None), ("path", model.padded_dims(own))):
            chunk = model.sample_actions(read, noise=noise, padded_dims=padded_dims)
            error = (chunk - actions).square()[mask]
            sums[way] += [float(error.sum()), error.numel(), float(chunk[..., own:].square().mean()) * len(rows)]
    for way, (error, count, padded) in sums.items():
        print(f"{way:<6} action mse {error / count:.5f}, rms of padded dims {(padded / len(numbers)) ** 0.5:.4f}")


if __name__ == "__main__":
    main()
