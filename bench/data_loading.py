"""How many training samples per second come from H.264 video: 3 cameras of 224 × 224, state, a chunk of actions.

    python bench/data_loading.py [--episodes 8] [--steps 120] [--samples 600] [--rounds 3]

Side by side in one run, on one thread, from a set made for it (a key frame every second frame, as LeRobot writes):

- the ceiling: the same files decoded from beginning to end, in order;
- the published approach: for every sample seek to its frame and decode it, with the files kept open (LeRobot's
  torchcodec backend keeps them open; its PyAV backend opens them for each sample, which is measured too);
- pilot: random rows, rows in shuffled windows, and random rows from pictures decoded before;
- memory of the process while 10,000 samples are read.

Rates are per second of processor time, which a busy machine does not change much, and of the wall. Targets: windows at
least twice the published approach and 80 % of the ceiling; decoded pictures at least 1,500 samples/s; memory flat.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer

from pilot.data.formats.lerobot import LeRobotDataset
from pilot.data.formats.writer import LeRobotWriter
from pilot.data.loading.shuffle import shuffle_by_window
from pilot.data.loading.windows import OPEN_WINDOWS, WindowCache, find_windows
from pilot.data.storage.frame_cache import cache_frames
from pilot.types import Robot

SIZE, FPS, HORIZON = 224, 30, 50
NAMES = tuple(f"joint_{i}" for i in range(14))
ROBOT = Robot(
    name="bench",
    cameras=("high", "left", "right"),
    state_names=NAMES,
    action_names=NAMES,
    delta_mask=(True,) * 14,
    control_hz=FPS,
)


def record(path: Path, *, episodes: int, steps: int) -> None:
    """A textured scene that moves, so that frames cost about what recorded ones do."""
    rng = np.random.default_rng(0)
    with LeRobotWriter(path, ROBOT, FPS, image_format="video") as writer:
        for _ in range(episodes):
            frames = {f"observation.images.{camera}": film(rng, steps) for camera in ROBOT.cameras}
            for name in ("observation.state", "action"):
                frames[name] = rng.normal(size=(steps, 14)).astype(np.float32)
            writer.add_episode(frames, task="fold the shirt")


def film(rng: np.random.Generator, steps: int) -> np.ndarray:
    coarse = rng.integers(0, 255, (SIZE // 8, SIZE // 8, 3)).repeat(8, 0).repeat(8, 1)
    grain = rng.integers(-6, 7, (SIZE, SIZE, 3))
    pictures = [np.roll(coarse, step, axis=(0, 1)[step // 20 % 2]) + grain for step in range(steps)]
    return np.clip(pictures, 0, 255).astype(np.uint8)


def opened(file: Path) -> InputContainer:
    container = av.open(str(file))
    container.streams.video[0].thread_type = "NONE"
    return container


def in_order(dataset: LeRobotDataset, _: list[int]) -> None:
    """The ceiling: every file once, by PyAV alone."""
    for camera in dataset.cameras:
        for file in sorted((dataset.path / "videos" / f"observation.images.{camera}").rglob("*.mp4")):
            with opened(file) as container:
                for frame in container.decode(video=0):
                    frame.to_ndarray(format="rgb24")


def seek_and_decode(dataset: LeRobotDataset, rows: list[int], *, reopen: bool = False) -> None:
    """The published approach, by PyAV alone; all frames lie in one file per camera."""
    files = {c: next((dataset.path / "videos" / f"observation.images.{c}").rglob("*.mp4")) for c in dataset.cameras}
    kept = {} if reopen else {camera: opened(file) for camera, file in files.items()}
    for row in rows:
        dataset.row(row)
        for camera in dataset.cameras:
            container = opened(files[camera]) if reopen else kept[camera]
            stream = container.streams.video[0]
            container.seek(round(row / FPS / (stream.time_base or 1)), stream=stream)
            frame = next(frame for frame in container.decode(stream) if round(frame.time * FPS) >= row)
            frame.to_ndarray(format="rgb24")
            if reopen:
                container.close()
    for container in kept.values():
        container.close()


def read(dataset: LeRobotDataset, rows: list[int]) -> None:
    for row in rows:
        dataset.frame(row)


def rates(work: Callable[[], None], samples: int) -> tuple[float, float]:
    """Samples per second of processor time, and of the wall."""
    wall, processor = time.perf_counter(), time.process_time()
    work()
    return samples / (time.process_time() - processor), samples / (time.perf_counter() - wall)


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def memory(dataset: LeRobotDataset, order: Callable[[], list[int]], *, samples: int) -> list[float]:
    """Resident megabytes at the end of each fifth of `samples`."""
    seen, marks, rows = 0, [], []
    while seen < samples:
        rows = rows or order()
        dataset.frame(rows.pop())
        seen += 1
        if seen % (samples // 5) == 0:
            marks.append(resident_mb())
    return marks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=int, default=8)
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--samples", type=int, default=600, help="random samples per round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory-samples", type=int, default=10_000)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "set"
        record(path, episodes=args.episodes, steps=args.steps)
        plain, windows, decoded = (LeRobotDataset(path, HORIZON) for _ in range(3))
        cache_frames(decoded, progress=False)
        rng = np.random.default_rng(1)
        rows = rng.integers(len(plain), size=args.samples).tolist()
        some = rows[: args.samples // 4]

        def in_windows() -> None:
            windows.frames = WindowCache(windows)
            read(windows, windowed_order(windows, rng).tolist())

        jobs = {
            "decoder, in order (ceiling)": (lambda: in_order(plain, rows), len(plain)),
            "published: open, seek, decode": (lambda: seek_and_decode(plain, some, reopen=True), len(some)),
            "published: seek, decode": (lambda: seek_and_decode(plain, rows), len(rows)),
            "pilot: random rows": (lambda: read(plain, rows), len(rows)),
            "pilot: shuffled windows": (in_windows, len(plain)),
            "pilot: decoded pictures": (lambda: read(decoded, rows), len(rows)),
        }
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in jobs}
        for _ in range(args.rounds):  # side by side: what else the machine does meets all of them
            for name, (work, samples) in jobs.items():
                found[name].append(rates(work, samples))
        report({name: np.median(values, axis=0) for name, values in found.items()}, rows=len(plain))
        windows.frames = WindowCache(windows)
        for name, dataset in (("shuffled windows", windows), ("decoded pictures", decoded)):
            marks = memory(dataset, lambda d=dataset: windowed_order(d, rng).tolist(), samples=args.memory_samples)
            every = args.memory_samples // 5
            print(f"memory, {name}: " + ", ".join(f"{mark:.0f}" for mark in marks) + f" MB, every {every} samples")


def windowed_order(dataset: LeRobotDataset, rng: np.random.Generator) -> np.ndarray:
    """Return every row once, from few windows at a time, as a mixture draws them."""
    rows = dataset.trainable_rows()
    return shuffle_by_window(rows, find_windows(dataset, rows), rng, open_windows=OPEN_WINDOWS)


def report(found: dict[str, np.ndarray], *, rows: int) -> None:
    ceiling, published = (found[name][0] for name in ("decoder, in order (ceiling)", "published: seek, decode"))
    print(f"{rows} rows, 3 cameras of {SIZE} × {SIZE}, H.264; medians, one thread")
    print(f"{'':32} {'per s of':>10} {'per s of':>10} {'of the':>8} {'of the':>10}")
    print(f"{'samples':32} {'processor':>10} {'the wall':>10} {'ceiling':>8} {'published':>10}")
    for name, (processor, wall) in found.items():
        print(f"{name:32} {processor:10.0f} {wall:10.0f} {processor / ceiling:8.0%} {processor / published:9.1f}x")


if __name__ == "__main__":
    main()
