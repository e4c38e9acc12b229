"""How fast statistics come from parquet: frames per second of a set with 14-dim state and action, chunks of 50 actions.

`python bench/stats.py [frames]`. A set is written to a temporary folder, read once to warm the disk cache, then
measured: the time on the wall with two processes, and the processor time that all of them used, start-up included,
which is what counts on a busy machine. Frames per second on two free cores are twice the frames per second of
processor time.
"""

import json
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pilot.data.loading.parallel import map_in_processes
from pilot.data.stats import compute_file_stats
from pilot.robots import load_adapter, load_robot

EPISODE, FILE = 400, 250_000


def write_set(path: Path, frames: int) -> None:
    """A LeRobot v3.0 set of smooth random motion; no pictures, statistics never look at them."""
    rng = np.random.default_rng(0)
    (path / "meta").mkdir(parents=True)
    (path / "data/chunk-000").mkdir(parents=True)
    for number, start in enumerate(range(0, frames, FILE)):
        index = np.arange(start, min(start + FILE, frames))
        waves = np.sin(index[:, None] / 50 * rng.uniform(0.1, 2, 14) + rng.uniform(0, 6, 14))
        state = (waves + rng.normal(0, 0.02, waves.shape)).astype(np.float32)
        action = (state + rng.normal(0, 0.05, waves.shape)).astype(np.float32)
        columns = {
            "observation.state": pa.FixedSizeListArray.from_arrays(pa.array(state.ravel()), 14),
            "action": pa.FixedSizeListArray.from_arrays(pa.array(action.ravel()), 14),
            "episode_index": pa.array(index // EPISODE),
        }
        pq.write_table(pa.table(columns), path / f"data/chunk-000/file-{number:03d}.parquet", row_group_size=10_000)
    feature = {"dtype": "float32", "shape": [14]}
    info = {"codebase_version": "v3.0", "total_episodes": -(-frames // EPISODE), "fps": 50}
    info["features"] = {"observation.state": feature, "action": feature}
    (path / "meta/info.json").write_text(json.dumps(info))


def processor_time() -> float:
    """Of this process and of those that it waited for [s]."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def main() -> None:
    """Print the table."""
    frames = int(sys.argv[1]) if len(sys.argv) > 1 else 4_000_000
    robot = load_robot("aloha")
    with tempfile.TemporaryDirectory() as folder:
        write_set(Path(folder) / "set", frames)
        for workers in (1, 2):
            wall, cpu = time.perf_counter(), processor_time()
            stats = compute_file_stats(
                [Path(folder) / "set"],
                robot,
                adapter=load_adapter(robot),
                action_horizon=50,
                parallel_map=map_in_processes(workers),
            )
            stats.result()
            wall, cpu = time.perf_counter() - wall, processor_time() - cpu
            rates = (
                f"{frames / wall / 1e6:.2f} M frames/s on the wall, {2 * frames / cpu / 1e6:.2f} M on two free cores"
            )
            print(f"{workers} process(es): {rates} ({cpu / frames * 1e6:.2f} µs of processor time per frame)")


if __name__ == "__main__":
    main()
