"""A robot in simulated homes that has numpy, MuJoCo and a socket: the policy thinks elsewhere, the robot never waits.

    pip install -e '.[client,sim]'
    pilot serve checkpoints/nano                                # in another terminal, or on another machine
    python examples/homes_robot.py

Each home asks for something of its own; `--prompt "pick up the red cup"` asks for something else. Time is real: each
control tick comes when it is due, whether or not the policy has answered. Meanwhile http://127.0.0.1:8000 shows it and
takes commands. `my_robot.py` is the same for hardware.
"""

import argparse

from pilot.infer.executor import Pace
from pilot.serve.client import PolicyClient
from pilot.serve.control import EXECUTORS, Controller, executor_for
from pilot.sims.homes import HomesEnv


def tidy(env: HomesEnv, controller: Controller, *, home: int, hz: float) -> bool:
    """Run one episode; return whether the robot did what the home asked for."""
    observation, info = env.reset(options={"home": home, "episode": 0})
    controller.reset()
    print(f"home {home}: {observation['prompt']}")
    pace, subtask, steps = Pace(hz=hz), None, 0
    while not info["success"] and steps < env.max_steps:
        command = controller.next(missed=pace.wait())
        if command.action is not None:
            info, steps = env.advance(command.action), steps + 1
        if controller.reply.get("subtask") != subtask:
            subtask = controller.reply.get("subtask")
            print(f"  {steps / hz:4.1f} s  {subtask}")
    print(f"  {steps / hz:4.1f} s  {'success' if info['success'] else 'no success'}")
    return info["success"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--api-key")
    parser.add_argument("--executor", choices=EXECUTORS, default="rtc", help="(default: %(default)s)")
    parser.add_argument("--homes", type=int, default=3, help="unseen homes to act in (default: %(default)s)")
    parser.add_argument("--prompt", help="ask for this; success is still what the home itself asks for")
    args = parser.parse_args()
    env = HomesEnv(level=1, task="single", split="test")
    print(f"connecting to {args.host}:{args.port}, for half a minute at most")
    policy = PolicyClient(args.host, args.port, robot="homes", api_key=args.api_key)
    executor = executor_for(args.executor, policy.metadata)
    own_words = {"prompt": args.prompt} if args.prompt else {}
    with Controller(policy, executor, observe=lambda: env.observe() | own_words) as controller:
        hz = policy.metadata["control_hz"]
        done = [tidy(env, controller, home=home, hz=hz) for home in range(args.homes)]
    print(f"{sum(done)} of {len(done)} done; an answer takes {policy.latency}; {executor.counts}")


if __name__ == "__main__":
    main()
