"""`pilot play [CHECKPOINT]`: talk to a policy in a simulated home, in a browser."""

import argparse
import secrets
from pathlib import Path
from typing import TYPE_CHECKING

from pilot.cli.arguments import Verb, checkpoint_at, folder_to_write, whole_number

if TYPE_CHECKING:
    from pilot.play.recorder import Recorder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this verb."""
    parser.add_argument("checkpoint", nargs="?", help="checkpoint folder (default: the shipped checkpoints/nano)")
    parser.add_argument(
        "--suite", help="what `pilot suites` lists, or a file of yours (default: the first of the policy's robot)"
    )
    parser.add_argument("--robot", help="which of the policy's robots acts (default: the one that the suite is for)")
    parser.add_argument("--scene", type=whole_number(0), default=0, help="home to begin in (default: %(default)s)")
    parser.add_argument("--seed", type=whole_number(0), default=0, help="chooses the starts (default: %(default)s)")
    parser.add_argument("--out", type=folder_to_write, help="folder for recordings and fine-tuned policies "
                        "(default: outputs/play/ROBOT)")  # fmt: skip
    parser.add_argument("--replan-steps", type=whole_number(1), help="actions executed per chunk (default: its own)")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda (default: %(default)s)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: this machine only)")
    parser.add_argument("--port", type=whole_number(0, 65535), default=8090, help="(default: %(default)s)")


def run(args: argparse.Namespace) -> None:
    """Run this verb with its parsed options."""
    from pilot.eval.suites import load_suite

    suite = load_suite(args.suite) if args.suite else None
    checkpoint = checkpoint_at(args.checkpoint) if args.checkpoint else None
    from pilot.eval.demo import find_checkpoint
    from pilot.eval.policies import robot_for, robots_of, with_known_robot
    from pilot.eval.suites import suites_for
    from pilot.infer.policy import load_policy
    from pilot.play.player import Player
    from pilot.play.server import PlayServer, run_player, serving

    folder = checkpoint or find_checkpoint(None)
    robots = robots_of(folder)
    suite = suite or suites_for(*([args.robot] if args.robot else robots))[0]
    suite = with_known_robot(suite, robots, robot=args.robot)
    robot = robot_for(folder, suite, robot=args.robot)
    policy = load_policy(folder, device=args.device)
    key = secrets.token_urlsafe(16)
    server = PlayServer(key)
    with serving(server, args.host, port=args.port) as port:
        print(f"Getting the {suite.scene} ready …", flush=True)
        player = Player(
            policy,
            suite,
            robot=robot,
            checkpoint=folder,
            out=args.out or Path("outputs/play") / suite.robot.name,
            scene=args.scene,
            seed=args.seed,
            replan_steps=args.replan_steps,
        )
        print(describe_address(args.host, port=port, key=key), flush=True)
        try:
            run_player(player, server, hz=player.robot.control_hz)
        except KeyboardInterrupt as stopped:
            raise KeyboardInterrupt(describe_stop(player.recorder)) from stopped
        finally:
            player.close()


def describe_stop(recorder: "Recorder") -> str:
    """Return what became of the recordings when the play ended."""
    words, kept = "stopped", recorder.episodes
    if recorder.frames:
        words += f"; {recorder.frames} recorded frames were not kept"
    return words + (f"; {kept} recorded episodes are in {recorder.path}" if kept else "")


def describe_address(host: str, *, port: int, key: str) -> str:
    """Return the address to open, and how to reach it from another machine."""
    name = "localhost" if host in ("127.0.0.1", "::1", "0.0.0.0", "::") else host
    lines = [f"Open http://{name}:{port}/#key={key}"]
    if host in ("127.0.0.1", "::1", "localhost"):
        lines.append(
            f"(from another machine: ssh -L {port}:localhost:{port} THIS-MACHINE, then the same address there)"
        )
    lines.append("Ctrl-C stops it.")
    return "\n".join(lines)


VERB = Verb(
    help="Talk to a policy in a simulated home, in a browser: change your mind, take over, record, teach.",
    example="pilot play checkpoints/nano --suite homes-l2",
    add_arguments=add_arguments,
    run=run,
    when_stopped="episodes that were kept before are still there",
)
