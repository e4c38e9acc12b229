"""`pilot robots`: the robots that are known by name, one line each."""

import argparse

from pilot.cli.arguments import Verb, list_rows, listing_arguments


def run(args: argparse.Namespace) -> None:
    """Run this verb with its parsed options."""
    from pilot.robots import load_robot, robot_names

    rows = []
    for name in robot_names():
        robot = load_robot(name)
        rows.append(
            {
                "robot": name,
                "state": robot.state_dim,
                "action": robot.action_dim,
                "hz": robot.control_hz,
                "control": robot.control_mode,
                "cameras": " ".join(robot.cameras),
            }
        )
    list_rows(rows, as_json=args.json)


VERB = Verb(
    help="List the robots that are known by name, with their dims, rates, control modes and cameras.",
    example="pilot robots",
    add_arguments=listing_arguments,
    run=run,
)
