"""`pilot serve`: policies for robots elsewhere."""

import argparse
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from pilot.cli.arguments import (
    Verb,
    above_zero,
    checkpoint_at,
    chosen_high_level,
    high_level_arguments,
    local_path,
    whole_number,
)

if TYPE_CHECKING:
    from pilot.infer.high_level import HighLevel
    from pilot.infer.policy import Policy
    from pilot.serve.auth import ApiKeys
    from pilot.serve.hosted_policy import HostedPolicy

EXAMPLE = "pilot serve checkpoints/nano mine=outputs/mine/policy --host 0.0.0.0 --api-keys keys.txt --watch 10"
ADDRESSES = """

The first policy is at ws://HOST:PORT, each at ws://HOST:PORT/NAME, and at http://HOST:PORT a page to look at them.
`kill -HUP` loads them anew while robots act. Everything else: docs/serving.md"""
KEY_VARIABLE = "PILOT_API_KEY"
SMALL = 50e6  # weights of a model whose operations take a core less time than it takes to wake another


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = f"{parser.description}{ADDRESSES}"
    parser.add_argument("policy", nargs="+", help="checkpoint folder, such as checkpoints/nano, or NAME=FOLDER")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (default: %(default)s)")
    parser.add_argument("--port", type=whole_number(0, 65535), default=8000, help="(default: %(default)s)")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda (default: %(default)s)")
    parser.add_argument(
        "--max-batch", type=whole_number(1), default=16, help="robots answered together (default: %(default)s)"
    )
    parser.add_argument(
        "--workers",
        type=whole_number(1),
        help="batches computed at once, each on a core (default: 1; small models on a CPU: cores)",
    )
    parser.add_argument(
        "--replan-steps",
        type=whole_number(1),
        metavar="TICKS",
        help="control ticks after which a robot that does not choose otherwise asks again (default: 2)",
    )
    parser.add_argument(
        "--max-robots", type=whole_number(1), default=64, help="robots connected (default: %(default)s)"
    )
    parser.add_argument(
        "--max-rate", type=above_zero, default=200.0, help="observations per second of a robot (default: %(default)g)"
    )
    parser.add_argument(
        "--max-mib", type=above_zero, default=32.0, help="size of an observation (default: %(default)g)"
    )
    parser.add_argument(
        "--api-keys", type=Path, metavar="FILE", help=f"one key a line; without it the key in ${KEY_VARIABLE}, or none"
    )
    parser.add_argument("--certificate", type=Path, metavar="PEM", help="serve over TLS (wss://, https://)")
    parser.add_argument("--certificate-key", type=Path, metavar="PEM", help="where it is in a file of its own")
    parser.add_argument("--watch", type=above_zero, metavar="SECONDS", help="load a policy anew when its files change")
    parser.add_argument("--log", choices=["text", "json"], default="text", help="(default: %(default)s)")
    high_level_arguments(parser)


def run(args: argparse.Namespace) -> None:
    folders = by_name(args.policy)
    for folder in folders.values():
        checkpoint_at(folder)
    if args.certificate_key and not args.certificate:
        raise ValueError("--certificate-key belongs to a --certificate")
    for file in filter(None, (args.certificate, args.certificate_key)):
        local_path(file, "give a PEM file")
    allowed, level = keys(args.api_keys), chosen_high_level(args)
    from pilot.serve.server import Limits, serve

    limits = Limits(
        robots=args.max_robots,
        observations_per_second=args.max_rate,
        message_bytes=int(args.max_mib * 2**20),
    )
    serve(
        [hosted(name, folder, args, level=level) for name, folder in folders.items()],
        host=args.host,
        port=args.port,
        keys=allowed,
        limits=limits,
        certificate=args.certificate,
        certificate_key=args.certificate_key,
        watch_seconds=args.watch,
        log_format=args.log,
    )


def by_name(policies: Iterable[str]) -> dict[str, str]:
    """`NAME=FOLDER`, or a folder that gives the name.

    Raises:
        ValueError: two of one name.
    """
    folders: dict[str, str] = {}
    for policy in policies:
        name, equals, folder = policy.partition("=")
        name, folder = (name, folder) if equals else (Path(policy).name, policy)
        if name in folders:
            raise ValueError(f"two policies are named '{name}'; give them names of their own: NAME=FOLDER")
        folders[name] = folder
    return folders


def keys(file: Path | None) -> "ApiKeys":
    from pilot.serve.auth import ApiKeys

    if file is not None:
        return ApiKeys.read(file)
    return ApiKeys([os.environ[KEY_VARIABLE]] if os.environ.get(KEY_VARIABLE) else [])


def hosted(name: str, folder: str, args: argparse.Namespace, *, level: "HighLevel | None") -> "HostedPolicy":
    import pilot
    from pilot.serve.hosted_policy import HostedPolicy

    def load() -> pilot.Policy:
        policy = pilot.load_policy(folder, device=args.device, replan_steps=args.replan_steps)
        if level is not None:
            policy.high_level = level
        return policy

    here, policy = Path(folder) if Path(folder).is_dir() else None, load()
    count = workers_for(policy) if args.workers is None else args.workers
    return HostedPolicy(name, policy, load=load, folder=here, max_batch=args.max_batch, workers=count)


def workers_for(policy: "Policy") -> int:
    """Cores, where they gain more from robots of their own than from sharing each operation; else 1."""
    import torch

    small = sum(weight.numel() for weight in policy.model.parameters()) <= SMALL
    if policy.device != "cpu" or not small:
        return 1
    torch.set_num_threads(1)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


VERB = Verb(
    help="Answer observations with actions over a websocket; openpi's clients fit.",
    example=EXAMPLE,
    add_arguments=add_arguments,
    run=run,
)
