"""How long a policy thinks about a chunk: two cameras, 10 flow steps; with the engine, and with the plain model beside.

    python bench/inference.py [--checkpoint checkpoints/nano] [--chunks 100] [--rounds 3] [--threads 1 2]

Without a checkpoint the nano model is measured with random weights: they cost the same, save that a trained model says
its subtask in fewer tokens. A call is `Session.infer`: pictures and words in, actions in the robot's units out. Wall
time is what a robot waits; processor time is what it would wait if it had the core to itself, and the figure to compare
on a busy machine. Rounds alternate between engine and plain model, and the best of each counts. One thread runs pinned
to one core. Target: p50 under 25 ms per chunk on one core.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import argparse
import time
from pathlib import Path

import numpy as np
import torch

from pilot.infer.engine.choose import engine_for
from pilot.infer.engine.plain import PlainEngine
from pilot.infer.policy import Policy, load_policy
from pilot.models.bundle import Bundle
from pilot.models.pi import Pi, pi05
from pilot.models.trained_robots import one_robot
from pilot.robots.homes import ROBOT
from pilot.tokenizers.text import TextTokenizer
from pilot.types import NormStats

STAGES = ("read", "subtask", "actions")
KNOWN = "<loc0512><loc0512><loc0640><loc0640>pick up the red cup"


def random_policy() -> Policy:
    """The nano model with fresh weights."""
    dims = {"state": ROBOT.state_dim, "actions": ROBOT.action_dim}
    stats = {
        name: NormStats(mean=np.zeros(d), std=np.ones(d), q01=-np.ones(d), q99=np.ones(d)) for name, d in dims.items()
    }
    model = Pi(pi05("nano")).initialize(torch.Generator().manual_seed(0))
    bundle = Bundle(model=model, robots=one_robot(ROBOT, stats), text=TextTokenizer(), action_tokenizer=None)
    return Policy(bundle)


def timings(policy: Policy, *, chunks: int, subtask: str | None) -> dict[str, np.ndarray]:
    """Milliseconds of each stage and of the process's own time, chunk by chunk; `subtask` spares the high level."""
    rng = np.random.default_rng(0)
    session = policy.session(subtask_seconds=0.0)
    rows = []
    for _ in range(chunks + 3):
        images = {camera: rng.integers(0, 256, (64, 64, 3), np.uint8) for camera in ROBOT.cameras}
        state = policy.bundle.norm_stats["state"].mean.astype(np.float32)
        observation = {"images": images, "state": state, "prompt": "put the red cup in the sink"}
        observation |= {"subtask": subtask} if subtask else {}
        wall, own = time.perf_counter(), time.process_time()
        timing = session.infer(observation)["timing"]
        rows.append(timing | {"own": time.process_time() - own, "wall": time.perf_counter() - wall})
    return {stage: 1e3 * np.array([row[stage] for row in rows[3:]]) for stage in rows[0]}


def measure(policy: Policy, *, chunks: int, rounds: int, subtask: str | None) -> dict[str, dict[str, np.ndarray]]:
    """The timings of the round with the least processor time, for the engine and for the plain model."""
    engines = {"engine": engine_for(policy.bundle.pi), "plain": PlainEngine(policy.bundle.pi)}
    best: dict[str, dict[str, np.ndarray]] = {}
    for _ in range(rounds):
        for name, policy.engine in engines.items():
            stages = timings(policy, chunks=chunks, subtask=subtask)
            if name not in best or np.median(stages["own"]) < np.median(best[name]["own"]):
                best[name] = stages
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--chunks", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    args = parser.parse_args()
    policy = load_policy(args.checkpoint, device="cpu") if args.checkpoint else random_policy()
    count, cores = sum(p.numel() for p in policy.model.parameters()), os.sched_getaffinity(0)
    print(
        f"{args.checkpoint or 'random weights'}: {count / 1e6:.2f} M parameters, {args.rounds} rounds of {args.chunks}"
    )
    for threads in args.threads:
        torch.set_num_threads(threads)
        os.sched_setaffinity(0, {max(cores)} if threads == 1 else cores)
        for name, subtask in (("subtask known", KNOWN), ("subtask decided", None)):
            best = measure(policy, chunks=args.chunks, rounds=args.rounds, subtask=subtask)
            load = os.getloadavg()[0]
            print(f"\n{name}, {threads} thread(s), {len(cores)} cores with a load of {load:.1f}; milliseconds")
            for engine, stages in best.items():
                least, own = stages["own"].min(), np.median(stages["own"])
                p50, p99 = np.percentile(stages["wall"], [50, 99])
                split = ", ".join(f"{stage} {np.median(stages[stage]):.1f}" for stage in STAGES)
                print(
                    f"{engine:>7}: processor p50 {own:.1f}, least {least:.1f}; "
                    f"wall p50 {p50:.1f}, p99 {p99:.1f} ({split})"
                )
            ratio = np.median(best["plain"]["own"]) / np.median(best["engine"]["own"])
            print(f"{'':>7}  the engine takes {ratio:.1f} times less processor time than the plain model")


if __name__ == "__main__":
    main()
