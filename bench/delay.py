"""What a late policy costs: success in homes by how many control ticks an answer takes, and by executor.

    python bench/delay.py [checkpoints/nano] [--ticks 1 3] [--homes 10] [--rtc guided prefix]

Time is simulated: an answer comes exactly so many ticks after its question, and meanwhile the robot does what its
executor says, as `serve/control.py` drives it. An episode ends after 8 s of the robot's time, standing still included,
so what waits gets less done. Training homes only (the same ones for all); `tick` is the mean length of an episode.
"""

import argparse
from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any, cast

import torch

import pilot
from pilot.eval.stats import wilson
from pilot.infer.policy import Policy
from pilot.infer.rtc import Mode, Rtc
from pilot.serve.control import Controller, executor_for
from pilot.sims.homes import HomesEnv

FIRST_HOME = 70_000


class Later:
    """Does jobs at once, and says so only after some ticks."""

    def __init__(self, ticks: int) -> None:
        self.ticks, self.now = ticks, 0
        self.flying: list[tuple[int, Future[Any], Any]] = []

    def submit(self, job: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self.flying.append((self.now + self.ticks, future, job()))
        return future

    def tick(self) -> None:
        self.now += 1
        for flight in [flight for flight in self.flying if flight[0] <= self.now]:
            self.flying.remove(flight)
            flight[1].set_result(flight[2])

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self.flying.clear()


class Near:
    """A policy in this process, as a `Controller` asks it."""

    def __init__(self, policy: Policy) -> None:
        self.session, self.metadata = policy.session(), policy.metadata

    def infer(self, observation: Mapping[str, Any], /) -> dict[str, Any]:
        return self.session.infer({key: value for key, value in observation.items() if key != "executed"})

    def reset(self) -> None:
        self.session.reset()

    def connect(self) -> None:
        pass

    def close(self) -> None:
        pass


def episode(env: HomesEnv, policy: Policy, *, home: int, name: str, ticks: int) -> tuple[bool, int]:
    """Success, and after how many ticks."""
    env.reset(options={"home": home, "episode": 0})
    worker, near = Later(ticks), Near(policy)
    executor = executor_for(name, policy.metadata)
    info: dict[str, Any] = {"success": False}
    with Controller(near, executor, observe=env.observe, worker=worker) as controller:
        for tick in range(env.max_steps):
            command = controller.next()
            if command.action is not None:
                info = env.advance(command.action)
            worker.tick()
            if info["success"]:
                return True, tick + 1
            if controller.error is not None:
                raise controller.error
    return False, env.max_steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", nargs="?", default="checkpoints/nano")
    parser.add_argument("--ticks", type=int, nargs="+", default=[1, 3])
    parser.add_argument("--homes", type=int, default=10)
    parser.add_argument("--rtc", nargs="+", default=["guided", "prefix"], help="modes of real-time chunking")
    args = parser.parse_args()
    torch.set_num_threads(1)
    policy = pilot.load_policy(args.checkpoint)
    env = HomesEnv(level=1, task="single", split="train")
    print(f"{'executor':<16}{'ticks':>6}{'success':>12}{'95 %':>16}{'tick':>8}")
    for ticks in args.ticks:
        for name in ["open-loop", "ensemble", *(f"rtc {mode}" for mode in args.rtc)]:
            kind, _, mode = name.partition(" ")
            if mode:
                policy.rtc = Rtc(mode=cast(Mode, mode))
            homes = range(FIRST_HOME, FIRST_HOME + args.homes)
            ended = [episode(env, policy, home=home, name=kind, ticks=ticks) for home in homes]
            done, length = sum(success for success, _ in ended), sum(after for _, after in ended) / len(ended)
            low, high = wilson(done, len(ended))
            print(
                f"{name:<16}{ticks:>6}{f'{done} of {len(ended)}':>12}{f'{low:.0%} – {high:.0%}':>16}{length:>8.0f}",
                flush=True,
            )
    env.close()


if __name__ == "__main__":
    main()
