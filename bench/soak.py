"""A server under good and hostile clients for minutes: wrong answers, memory, descriptors, and how long answers take.

    python bench/soak.py --minutes 2

First 8 robots alone, then 24 clients beside them that flood, lie, hang and shout; at a third of the time the policy is
reloaded, at two thirds the server drains, ends, and another one takes its place. Every answer to a robot is checked
against what the policy must say. Where there are two cores, the attackers have other ones than server and robots.
Exits with 1 if an answer was wrong, if memory or descriptors grew, or if a robot's p99 was over 3 times the calm's.
"""

import argparse
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from websockets.sync.client import connect

from pilot.serve.client import PolicyClient
from pilot.serve.wire import pack

GOOD, HOSTILE, RATE = 8, 24, 10.0
KEY = "the-key-of-the-soak-test"
STATE_DIM, HORIZON = 6, 8
GROWTH_MIB, GROWTH_FILES = 64, 16
CORES = sorted(os.sched_getaffinity(0))


def answer(observation: dict[str, Any]) -> np.ndarray:
    """Return the actions that an observation must be answered with: they depend on all of it."""
    picture = float(observation["images"]["front"].astype(np.float64).mean())
    start = observation["state"] + np.float32(picture) + np.float32(len(observation["prompt"]))
    return (start + np.arange(HORIZON, dtype=np.float32)[:, None]).astype(np.float32)


class Policy:
    """Answers with `answer`, and takes a moment."""

    metadata: ClassVar = {
        "robot": "arm", "cameras": ["front"], "state_names": [f"s{i}" for i in range(STATE_DIM)], "control_hz": RATE,
        "action_names": [f"a{i}" for i in range(STATE_DIM)], "action_horizon": HORIZON,
    }  # fmt: skip

    def infer(self, observation: dict[str, Any]) -> dict[str, Any]:
        if observation["state"].shape != (STATE_DIM,):
            raise ValueError(f"state has {observation['state'].shape} dims, robot 'arm' declares {STATE_DIM}")
        time.sleep(0.002)
        return {"actions": answer(observation)}


def run_server(port: int) -> None:
    """Serve until SIGTERM, as `pilot serve` does."""
    from pilot.serve.auth import ApiKeys
    from pilot.serve.hosted_policy import HostedPolicy
    from pilot.serve.server import serve

    serve([HostedPolicy("soak", Policy(), load=Policy)], port=port, keys=ApiKeys([KEY]), log_format="json")


@dataclass
class Server:
    """A server in a process of its own."""

    port: int
    process: subprocess.Popen[bytes] = field(init=False)

    def __post_init__(self) -> None:
        self.start()

    def start(self) -> None:
        """Start it on the first core, and wait until robots are accepted."""
        command = [sys.executable, __file__, "--serve", str(self.port)]
        self.process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        pin(self.process.pid, first=True)
        PolicyClient(port=self.port, api_key=KEY, wait_s=120).close()

    def memory_mib(self) -> float:
        """Return the memory that is resident."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20

    def files(self) -> int:
        """Return the number of open descriptors: the least within five seconds, for attackers come and go."""
        counts = []
        for _ in range(25):
            counts.append(len(os.listdir(f"/proc/{self.process.pid}/fd")))
            time.sleep(0.2)
        return min(counts)

    def end(self) -> None:
        """Let it drain and end."""
        self.process.terminate()
        self.process.wait(60)


def pin(process: int, *, first: bool) -> None:
    """Keep a process on the first core, or on the others, where there are two."""
    if len(CORES) > 1:
        os.sched_setaffinity(process, CORES[:1] if first else CORES[1:])


@dataclass
class Robots:
    """Good clients: each asks at its rate, checks the answer, and reconnects when the server goes."""

    port: int
    over: threading.Event = field(default_factory=threading.Event)
    seconds: list[float] = field(default_factory=list)
    wrong: int = 0
    lost: int = 0

    def run(self, number: int) -> None:
        """Be one robot until the end."""
        rng = np.random.default_rng(number)
        client = PolicyClient(port=self.port, api_key=KEY, wait_s=120)
        while not self.over.is_set():
            picture = rng.integers(0, 256, (64, 64, 3), np.uint8)
            state = rng.normal(size=STATE_DIM).astype(np.float32)
            observation = {"images": {"front": picture}, "state": state, "prompt": "x" * int(rng.integers(1, 40))}
            start = time.perf_counter()
            try:
                actions = client.infer(observation)["actions"]
            except ConnectionError:
                self.lost += 1
                continue
            self.seconds.append(time.perf_counter() - start)
            self.wrong += not np.array_equal(actions, answer(observation))
            self.over.wait(1 / RATE)
        client.close()

    def p99(self) -> float:
        """Return the 99th percentile of an answer's time in ms since the last call."""
        seconds, self.seconds = self.seconds, []
        return 1e3 * float(np.percentile(seconds, 99)) if seconds else float("nan")


def attack(port: int) -> None:
    """Be all hostile clients, until killed."""
    kinds = [flood, garbage, half_open, wrong_key, liar, slow_reader, watcher, huge]
    for number in range(HOSTILE):
        threading.Thread(target=repeat, args=(kinds[number % len(kinds)], port), daemon=True).start()
    signal.pause()


def repeat(kind: Callable[[int], None], port: int) -> None:
    """Attack again and again, whatever the server does about it."""
    while True:
        with contextlib.suppress(Exception):
            kind(port)
        time.sleep(0.05)


@contextlib.contextmanager
def keyed(port: int) -> Iterator[Any]:
    """A websocket of somebody with the key."""
    headers = {"Authorization": f"Api-Key {KEY}"}
    with connect(f"ws://127.0.0.1:{port}", additional_headers=headers, close_timeout=1, max_size=None) as line:
        line.recv(5)
        yield line


def flood(port: int) -> None:
    """Send the smallest frames as fast as possible."""
    with keyed(port) as line:
        for _ in range(5000):
            line.send(b"")


def garbage(port: int) -> None:
    """Send bytes that are no message, and maps of maps."""
    with keyed(port) as line:
        for data in (os.urandom(5000), b"\x81" * 900, b"\xdf\xff\xff\xff\xff", pack({"images": {}})):
            line.send(data)
            line.recv(5)
            time.sleep(0.02)


def half_open(port: int) -> None:
    """Open connections and say half a request."""
    lines = [socket.create_connection(("127.0.0.1", port), 5) for _ in range(20)]
    for line in lines:
        line.sendall(b"GET / HTTP/1.1\r\nHost: x")
    time.sleep(1)
    for line in lines:
        line.close()


def wrong_key(port: int) -> None:
    """Try keys."""
    with connect(
        f"ws://127.0.0.1:{port}", additional_headers={"Authorization": "Api-Key guess-a-key"}, close_timeout=1
    ):
        pass


def liar(port: int) -> None:
    """Send observations of the right form and the wrong content."""
    with keyed(port) as line:
        for state in (np.zeros(3, np.float32), np.full(STATE_DIM, np.nan, np.float32)):
            picture = np.zeros((8, 8, 3), np.uint8)
            line.send(pack({"images": {"front": picture}, "state": state, "prompt": "x"}))
            line.recv(5)
            time.sleep(0.02)


def slow_reader(port: int) -> None:
    """Ask, and never read the answers."""
    with keyed(port) as line:
        state, picture = np.zeros(STATE_DIM, np.float32), np.zeros((64, 64, 3), np.uint8)
        for _ in range(50):
            line.send(pack({"images": {"front": picture}, "state": state, "prompt": "x"}))
        time.sleep(2)


def watcher(port: int) -> None:
    """Watch, and send nonsense."""
    with connect(f"ws://127.0.0.1:{port}/live", close_timeout=1, max_size=None) as line:
        line.recv(5)
        line.send(json.dumps({"key": KEY}))
        for text in ("[" * 3000, "{}", '{"session": "nobody", "prompt": "x"}') * 5:
            line.send(text)
            line.recv(5)


def huge(port: int) -> None:
    """Send the largest message that is read from a robot of one camera, then one of three times that."""
    with keyed(port) as line:
        for pixels in (2_790_000, 2**23):  # almost 8 MiB, and 24
            line.send(pack({"images": {"front": np.zeros((pixels, 1, 3), np.uint8)}, "prompt": "x"}))
            line.recv(10)
            time.sleep(1)


def soak(minutes: float) -> bool:
    """Run it all; print what was found, and return whether it was good."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    pin(os.getpid(), first=True)
    server, robots = Server(port), Robots(port)
    threads = [threading.Thread(target=robots.run, args=(number,)) for number in range(GOOD)]
    for thread in threads:
        thread.start()
    time.sleep(5)
    robots.p99()  # without the first answers
    time.sleep(max(10.0, 6 * minutes))
    calm = robots.p99()
    attackers = subprocess.Popen([sys.executable, __file__, "--attack", str(port)], stderr=subprocess.DEVNULL)
    pin(attackers.pid, first=False)
    third = 60 * minutes / 3
    time.sleep(third / 2)
    memory, files = server.memory_mib(), server.files()
    time.sleep(third / 2)
    server.process.send_signal(signal.SIGHUP)
    time.sleep(third)
    stormy, grown, more = robots.p99(), server.memory_mib() - memory, server.files() - files
    before = robots.lost
    server.end()
    server.start()
    time.sleep(third)
    attackers.kill()
    attackers.wait()
    robots.over.set()
    for thread in threads:
        thread.join()
    last = robots.p99()
    server.end()
    print(f"wrong answers: {robots.wrong}; lost connections: {robots.lost}, {before} before the drain")
    print(f"p99 [ms]: {calm:.1f} calm, {stormy:.1f} under attack, {last:.1f} with a drain")
    print(f"memory: {memory:.0f} MiB, grown by {grown:.0f}; descriptors: {files}, grown by {more}")
    return not robots.wrong and grown < GROWTH_MIB and more < GROWTH_FILES and stormy < 3 * calm


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--minutes", type=float, default=30.0, help="under attack (default: %(default)g)")
    parser.add_argument("--serve", type=int, metavar="PORT", help=argparse.SUPPRESS)
    parser.add_argument("--attack", type=int, metavar="PORT", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        run_server(args.serve)
    elif args.attack:
        attack(args.attack)
    else:
        raise SystemExit(not soak(args.minutes))


if __name__ == "__main__":
    main()
