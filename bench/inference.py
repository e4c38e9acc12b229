"""How long a policy thinks: one chunk (two cameras, 10 flow steps) on one core, with and without deciding a subtask.

    python bench/inference.py [--checkpoint checkpoints/nano] [--chunks 200]

Without a checkpoint the nano model is measured with random weights: they cost the same, save that a trained model says
its subtask in fewer tokens. Processor time is what a core of one's own would take; the two differ on a busy machine.
Target: p50 under 25 ms per chunk on one core.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import argparse
import time
from pathlib import Path

import numpy as np
import torch

from pilot.infer.policy import Policy, load_policy
from pilot.models.bundle import Bundle
from pilot.models.pi import Pi, pi05
from pilot.robots.homes import ROBOT
from pilot.tokenizers.text import TextTokenizer
from pilot.types import NormStats


def random_policy() -> Policy:
    """The nano model with fresh weights."""
    dims = {"state": ROBOT.state_dim, "actions": ROBOT.action_dim}
    stats = {
        name: NormStats(mean=np.zeros(d), std=np.ones(d), q01=-np.ones(d), q99=np.ones(d)) for name, d in dims.items()
    }
    model = Pi(pi05("nano")).initialize(torch.Generator().manual_seed(0))
    bundle = Bundle(model=model, robot=ROBOT, norm_stats=stats, text=TextTokenizer(), action_tokenizer=None)
    return Policy(bundle)


def timings(policy: Policy, *, chunks: int, subtask: str | None) -> dict[str, np.ndarray]:
    """Milliseconds of each stage, chunk by chunk, and of the process's own time; `subtask` spares the high level."""
    rng = np.random.default_rng(0)
    session = policy.session(subtask_seconds=0.0)
    rows = []
    for _ in range(chunks + 10):
        images = {camera: rng.integers(0, 256, (64, 64, 3), np.uint8) for camera in ROBOT.cameras}
        state = rng.uniform(-0.2, 0.2, ROBOT.state_dim).astype(np.float32)
        observation = {"images": images, "state": state, "prompt": "put the red cup in the sink"}
        start = time.process_time()
        timing = session.infer(observation | ({"subtask": subtask} if subtask else {}))["timing"]
        rows.append(timing | {"own": time.process_time() - start})
    return {stage: 1e3 * np.array([row[stage] for row in rows[10:]]) for stage in rows[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--chunks", type=int, default=200)
    args = parser.parse_args()
    torch.set_num_threads(1)
    policy = load_policy(args.checkpoint, device="cpu") if args.checkpoint else random_policy()
    parameters = sum(p.numel() for p in policy.model.parameters())
    print(f"{args.checkpoint or 'random weights'}: {parameters / 1e6:.2f} M parameters, 1 thread, {args.chunks} chunks")
    said = "<loc0512><loc0512><loc0640><loc0640>pick up the red cup"
    for name, subtask in (("chunk, subtask known", said), ("chunk and subtask", None)):
        stages = timings(policy, chunks=args.chunks, subtask=subtask)
        p50, p95 = np.percentile(stages["total"], [50, 95])
        split = ", ".join(f"{stage} {np.median(stages[stage]):.1f}" for stage in ("read", "subtask", "actions"))
        own = np.median(stages["own"])
        print(f"{name:>20}: p50 {p50:5.1f} ms  p95 {p95:5.1f} ms  ({split}); p50 of processor time {own:5.1f} ms")


if __name__ == "__main__":
    main()
