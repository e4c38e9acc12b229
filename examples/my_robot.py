"""A template for your own robot: fill in `MyRobot`. It runs as it is, with black pictures.

    pip install -e '.[client]'                                  # numpy and a socket, no torch
    python examples/my_robot.py --host 192.168.0.10 --prompt "put the red cup in the sink"

When the policy is late or gone it stands still; if that is wrong for yours: `LateBehavior` in `infer/executor.py`.
"""

import argparse

import numpy as np

from pilot.infer.executor import Pace
from pilot.serve.client import PolicyClient
from pilot.serve.control import Controller, executor_for


class MyRobot:
    """Cameras, joints and motors, with the names, units and order of `robots/<your robot>.py`. No method may wait."""

    def look(self) -> dict:
        """Return the cameras' last pictures, uint8 [h w 3] in RGB of any size, and the joints."""
        return {"images": dict.fromkeys(("room", "wrist"), np.zeros((480, 640, 3), np.uint8)), "state": np.zeros(5)}

    def move(self, action: np.ndarray) -> None:
        """Send the motors one setpoint [ad], after checking it against your limits of position, speed and force."""

    def stop(self) -> None:
        """Brake, and let go of nothing that would fall."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", default="127.0.0.1", help="wss://… for a connection that nobody can read")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--api-key")
    parser.add_argument("--robot", default="", help="which of the policy's robots this is, where it knows several")
    parser.add_argument("--prompt", required=True)
    parser.add_argument("--seconds", type=float, default=60.0, help="(default: %(default)s)")
    args = parser.parse_args()
    print(f"connecting to {args.host}:{args.port}, for half a minute at most")
    robot, policy = MyRobot(), PolicyClient(args.host, args.port, robot=args.robot, api_key=args.api_key)
    executor, hz = executor_for("rtc", policy.metadata), policy.metadata["control_hz"]
    with Controller(policy, executor, observe=lambda: robot.look() | {"prompt": args.prompt}) as controller:
        try:
            pace = Pace(hz=hz)
            while executor.state.tick < args.seconds * hz:
                command = controller.next(missed=pace.wait())
                if command.status == "stop":
                    raise SystemExit(f"stopped: {controller.error or 'the policy is too slow'}; {policy.latency}")
                if command.action is not None:
                    robot.move(command.action)
        finally:
            robot.stop()
    print(f"{executor.counts}; an answer takes {policy.latency}")


if __name__ == "__main__":
    main()
