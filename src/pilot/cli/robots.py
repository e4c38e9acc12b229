"""`pilot robots`: the robots that are known by name, one line each."""

import argparse

from pilot.cli.arguments import Verb, list_rows, listing_arguments


def run(args: argparse.Namespace) -> None:
    """Run this verb with its parsed options."""
    from pilot.robots import load_robot, robot_names, robots_in

    robots = {name: load_robot(name) for name in robot_names()} if args.file is None else robots_in(args.file)
    rows = []
    for name, robot in robots.items():
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
