"""What serving costs beyond the model, and what batching robots gains. Server and robots are processes of their own.

    python bench/serving.py [--observations 1000] [--checkpoint checkpoints/nano] [--seconds 10] [--workers 1 2]

Overhead: one robot with three cameras of 224 x 224 uint8 and chunks of 50 x 14, over loopback. Everything counts that
is not inside the model's `prefill` and `denoise`: packing, the wire, decoding, checking, waiting, pre- and
post-processing, unpacking. Wall time is what a robot waits. On a busy machine other processes are in it too; `own` is
the processor time
of robot and server together beyond the model, part of which is spent side by side. Target: p50 under 2 ms, p99 under 6.

Throughput: robots that ask again as soon as they are answered, 1 and `--robots` of them in turns, with the checkpoint
that ships (or random weights of its size), and batches computed by one worker, or by one on each core as `pilot serve`
does with small models. Target: 16 robots get at least three times the answers that 1 gets.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import argparse
import asyncio
import dataclasses
import multiprocessing
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from websockets.asyncio.client import ClientConnection, connect

from pilot.infer.policy import Policy, load_policy
from pilot.memory import keep_freed_memory
from pilot.models.bundle import Bundle
from pilot.models.pi import Pi, pi05
from pilot.models.pi_config import SIZES
from pilot.models.trained_robots import one_robot
from pilot.robots.homes import ROBOT
from pilot.serve.client import PolicyClient
from pilot.serve.hosted_policy import HostedPolicy
from pilot.serve.limits import Limits
from pilot.serve.server import serve_in_background
from pilot.serve.wire import pack, unpack
from pilot.tokenizers.text import TextTokenizer
from pilot.types import NormStats, Robot

CAMERAS = ("base_0_rgb", "left_wrist_0_rgb", "right_wrist_0_rgb")
OF_WALL = "  robot: packing", "  wire, unpacking", "  server: reading, waiting", "  pre- and post-processing"
PARTS = ("wall", "own", *OF_WALL, "model")
JOINTS = tuple(f"joint_{i}" for i in range(14))
THREE_CAMERAS = Robot(
    name="three_cameras", cameras=CAMERAS, wrist_cameras=CAMERAS[1:], state_names=JOINTS, action_names=JOINTS,
    delta_mask=(False,) * 14, control_hz=50,
)  # fmt: skip


class Timed:
    """An engine that adds up the time inside of it."""

    def __init__(self, engine: Any) -> None:
        self.engine, self.wall, self.own = engine, 0.0, 0.0

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.engine, name)
        return self.timed(found) if name in ("read", "speak", "act") else found

    def timed(self, run: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            wall, own = time.perf_counter(), time.thread_time()
            try:
                return run(*args, **options)
            finally:
                self.wall, self.own = self.wall + time.perf_counter() - wall, self.own + time.thread_time() - own

        return call


class TimedPolicy(Policy):
    """Answers hold the time inside the model, and that of the whole process so far."""

    def infer_many(self, sessions: Sequence[Any], observations: Sequence[Any], **options: Any) -> list[Any]:
        timed = self.engine = self.engine if isinstance(self.engine, Timed) else Timed(self.engine)
        timed.wall = timed.own = 0.0
        answers = super().infer_many(sessions, observations, **options)
        mine = {"model_s": timed.wall, "model_own_s": timed.own, "process_s": time.process_time()}
        return [{**answer, **mine} for answer in answers]


def small_model(robot: Robot) -> TimedPolicy:
    """The smallest model that looks at 224 x 224 pixels; what it costs does not count."""
    vision = dataclasses.replace(SIZES["debug"][0], image_size=224, patch_size=56)
    config = pi05("debug", vision=vision, action_dim=32, action_horizon=50, max_tokens=120, prompt="pi05")
    return TimedPolicy(bundle(robot, Pi(config)))


def bundle(robot: Robot, model: Pi) -> Bundle:
    dims = {"state": robot.state_dim, "actions": robot.action_dim}
    stats = {
        name: NormStats(mean=np.zeros(d), std=np.ones(d), q01=-np.ones(d), q99=np.ones(d)) for name, d in dims.items()
    }
    model = model.initialize(torch.Generator().manual_seed(0))
    return Bundle(model=model, robots=one_robot(robot, stats), text=TextTokenizer(), action_tokenizer=None)


def serve_policy(talk: Connection, kind: str, checkpoint: Path | None, workers: int) -> None:
    """A server in this process: says its port; answers whatever it hears with the processor time it has used."""
    torch.set_num_threads(1)
    keep_freed_memory()  # as `pilot serve` does
    if kind == "overhead":
        policy: Policy = small_model(THREE_CAMERAS)
    else:
        policy = load_policy(checkpoint, device="cpu") if checkpoint else Policy(bundle(ROBOT, Pi(pi05("nano"))))
    hosted = HostedPolicy("policy", policy, workers=workers)
    with serve_in_background(hosted, limits=Limits(observations_per_second=1e6)) as port:
        talk.send(port)
        while talk.recv() is not None:
            talk.send(time.process_time())


class ServerProcess:
    def __init__(self, kind: str, *, checkpoint: Path | None, workers: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.talk, theirs = context.Pipe()
        self.process = context.Process(target=serve_policy, args=(theirs, kind, checkpoint, workers))
        self.process.start()
        self.port: int = self.talk.recv()

    def own_seconds(self) -> float:
        self.talk.send("time")
        return self.talk.recv()

    def stop(self) -> None:
        self.talk.send(None)
        self.process.join()


def overhead(port: int, *, observations: int) -> dict[str, np.ndarray]:
    """Milliseconds beyond the model, observation by observation: wall time, and processor time of both sides."""
    rng = np.random.default_rng(0)
    rows = []
    with PolicyClient(port=port) as client:
        before = 0.0
        for _ in range(observations + 20):
            images = {camera: rng.integers(0, 256, (224, 224, 3), np.uint8) for camera in CAMERAS}
            state = rng.uniform(-0.5, 0.5, 14).astype(np.float32)
            wall, own = time.perf_counter(), time.process_time()
            reply = client.infer({"images": images, "state": state, "prompt": "fold the towel"})
            wall, own = time.perf_counter() - wall, time.process_time() - own
            server = reply["process_s"] - before - reply["model_own_s"]
            before = reply["process_s"]
            parts = client.latency.seen[-1]
            beyond = parts["model"] - 1e3 * reply["model_s"]
            times = 1e3 * (wall - reply["model_s"]), 1e3 * (own + server), parts["prepare"], parts["network"]
            rows.append((*times, parts["server"] + parts["queue"], beyond, 1e3 * reply["model_s"]))
    return dict(zip(PARTS, np.array(rows[20:]).T))


async def throughput(port: int, *, robots: int, seconds: float) -> float:
    """Answers per second that so many robots get together."""
    rng = np.random.default_rng(0)
    images = {camera: rng.integers(0, 256, (64, 64, 3), np.uint8) for camera in ROBOT.cameras}
    message = pack({"images": images, "state": np.zeros(5, np.float32), "prompt": "put the red cup in the sink"})
    async with asyncio.timeout(10 * seconds + 60):
        connections = [await connect(f"ws://127.0.0.1:{port}", compression=None) for _ in range(robots)]
        for connection in connections:
            unpack(await connection.recv())  # type: ignore[arg-type]
        end = time.perf_counter() + seconds
        counts = await asyncio.gather(*(drive(connection, message, end) for connection in connections))
        took = time.perf_counter() - end + seconds
        for connection in connections:
            await connection.close()
    return sum(counts) / took


async def drive(connection: ClientConnection, message: bytes, end: float) -> int:
    answers = 0
    while time.perf_counter() < end:
        await connection.send(message)
        if isinstance(reply := await connection.recv(), str):
            raise RuntimeError(reply)
        answers += 1
    return answers


def show_overhead(args: argparse.Namespace) -> None:
    server = ServerProcess("overhead", checkpoint=None, workers=1)
    try:
        found = overhead(server.port, observations=args.observations)
    finally:
        server.stop()
    print(f"overhead of {args.observations} observations, 3 cameras 224 x 224, load {os.getloadavg()[0]:.1f}; ms")
    for name, values in found.items():
        p50, p90, p99 = np.percentile(values, [50, 90, 99])
        target = "" if name != "wall" else f"   target 2 and 6: {'met' if p50 < 2 and p99 < 6 else 'missed'}"
        print(f"  {name:<26} p50 {p50:5.2f}  p90 {p90:5.2f}  p99 {p99:5.2f}{target}")


def show_throughput(args: argparse.Namespace, workers: int) -> None:
    server = ServerProcess("throughput", checkpoint=args.checkpoint, workers=workers)
    found: dict[int, list[tuple[float, float]]] = {1: [], args.robots: []}
    try:
        for _ in range(args.rounds):
            for robots, rows in found.items():
                before = server.own_seconds()
                rate = asyncio.run(throughput(server.port, robots=robots, seconds=args.seconds))
                rows.append((rate, rate * args.seconds / (server.own_seconds() - before)))
    finally:
        server.stop()
    what = f"{args.checkpoint or 'random weights'}, {workers} worker(s), load {os.getloadavg()[0]:.1f}"
    print(f"throughput, {what}; the best of {args.rounds} rounds of {args.seconds:g} s")
    best = {robots: np.array(rows).max(0) for robots, rows in found.items()}
    for robots, (wall, own) in best.items():
        print(f"  {robots:>3} robots: {wall:6.1f} answers per second, {own:6.1f} per second of processor time")
    gain = best[args.robots] / best[1]
    verdict = "met" if gain[0] >= 3 else "missed"
    print(f"  {gain[0]:.2f} times the answers ({gain[1]:.2f} in processor time), target 3: {verdict}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--observations", type=int, default=1000)
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--robots", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--rounds", type=int, default=3, help="of throughput; 0: overhead only (default: %(default)s)")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    args = parser.parse_args()
    show_overhead(args)
    for workers in args.workers if args.rounds else ():
        show_throughput(args, workers)


if __name__ == "__main__":
    main()
