"""How fast homes runs: control steps per second with both pictures every step, in one process and in two together.

`python bench/homes.py [seconds]`. The expert drives, so that contacts are as in real use; nothing is asserted.
"""

import multiprocessing
import sys
import time

import numpy as np

from pilot.sims.homes import Expert, HomesEnv


def steps_per_second(seed: int, seconds: float) -> float:
    """Level 2 rates of one process, homes compiled on the way included."""
    env = HomesEnv(level=2, task="multi")
    env.reset(options={"home": seed, "episode": 0})
    steps, start = 0, time.perf_counter()
    while (spent := time.perf_counter() - start) < seconds:
        env.reset(options={"home": seed + steps // 500, "episode": steps})
        expert = Expert(env, np.random.default_rng(steps))
        for _ in range(50):
            env.advance(expert.act())
            env.observe()
            steps += 1
    return steps / spent


def main() -> None:
    """Print the table."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 8.0
    for workers in (1, 2):
        with multiprocessing.get_context("spawn").Pool(workers) as pool:
            rates = pool.starmap(steps_per_second, [(100 * (i + 1), seconds) for i in range(workers)])
        print(f"{workers} process(es): {sum(rates):.0f} control steps/s together, two 64 x 64 pictures per step")


if __name__ == "__main__":
    main()
