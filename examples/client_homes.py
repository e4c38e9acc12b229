"""A robot that has only numpy, MuJoCo and a socket: the policy thinks elsewhere, this acts in a home.

    pilot serve checkpoints/nano                       # in one terminal
    python examples/client_homes.py --prompt "put all the dishes in the sink"

The same three lines drive hardware: read the cameras, ask, send the next few actions to the motors.
"""

import argparse

from pilot.serve.client import PolicyClient
from pilot.sims.homes import HomesEnv


def act(env: HomesEnv, policy: PolicyClient, *, home: int, prompt: str | None) -> bool:
    """One episode; True if the robot did what was asked. Without a prompt the home asks for something itself."""
    observation, _ = env.reset(seed=home, options={"home": home, "episode": 0})
    said, truncated, info = None, False, {"success": False}
    print(f"home {home}: {prompt or observation['prompt']}")
    while not (info["success"] or truncated):
        reply = policy.infer(observation | ({"prompt": prompt} if prompt else {}))
        if reply.get("subtask") != said:
            said = reply.get("subtask")
            print(f"  {said}  ({policy.latency_ms:.0f} ms)")
        for action in reply["actions"][: policy.metadata.get("replan_steps")]:
            observation, _, terminated, truncated, info = env.step(action)
            if terminated or truncated:
                break
    return info["success"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--homes", type=int, default=3, help="unseen homes to act in (default: %(default)s)")
    parser.add_argument("--prompt", help="say it yourself; success then still means the home's own wish")
    args = parser.parse_args()
    env = HomesEnv(level=1, task="single", split="test")
    with PolicyClient(args.host, args.port) as policy:
        done = 0
        for home in range(args.homes):
            done += act(env, policy, home=home, prompt=args.prompt)
            policy.reset()
    env.close()
    print(f"{done} of {args.homes} done")


if __name__ == "__main__":
    main()
