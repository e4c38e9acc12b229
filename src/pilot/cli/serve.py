"""`pilot serve POLICY …`: policies for robots elsewhere."""

import argparse
import os
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pilot.cli.arguments import (
    Verb,
    above_zero,
    checkpoint_at,
    high_level_arguments,
    local_path,
    read_high_level,
    verify_argument,
    whole_number,
)

if TYPE_CHECKING:
    from pilot.infer.high_level import HighLevel
    from pilot.infer.policy import Policy
    from pilot.serve.auth import ApiKeys
    from pilot.serve.hosted_policy import HostedPolicy

ADDRESSES = """

The first policy is at ws://HOST:PORT, each at ws://HOST:PORT/NAME, and http://HOST:PORT is the dashboard.
A client says which robot it is where a policy is for several: PolicyClient(robot="NAME"), or ?robot=NAME.
`kill -HUP` reloads the policies while robots act. All else: docs/serving.md"""
KEY_VARIABLE = "PILOT_API_KEY"
SMALL_MODEL = 50e6
"""Parameters up to which an operation takes a core less time than waking another core."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this verb."""
    parser.description = f"{parser.description}{ADDRESSES}"
    parser.add_argument("policy", nargs="+", help="checkpoint folder, such as checkpoints/nano, or NAME=FOLDER")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=whole_number(0, 65535), default=8000, help="(default: %(default)s)")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda (default: %(default)s)")
    parser.add_argument(
        "--max-batch", type=whole_number(1), default=16, help="most robots in one batch (default: %(default)s)"
    )
    parser.add_argument(
        "--workers",
        type=whole_number(1),
        help="batches computed at the same time, each on a core (default: 1; for small models on a CPU: all cores)",
    )
    parser.add_argument(
        "--replan-steps",
        type=whole_number(1),
        metavar="TICKS",
        help="control ticks between two observations of a robot that does not choose otherwise (default: "
        "what the robot does in a fifth of a second)",
    )
    parser.add_argument(
        "--max-robots", type=whole_number(1), default=64, help="most robots connected (default: %(default)s)"
    )
    parser.add_argument(
        "--max-rate",
        type=above_zero,
        default=200.0,
        help="most observations per second from a robot (default: %(default)g)",
    )
    parser.add_argument(
        "--max-mib", type=above_zero, help="largest observation, in MiB (default: 8 for each camera, 32 in all)"
    )
    parser.add_argument(
        "--api-keys",
        type=Path,
        metavar="FILE",
        help=f"one key per line (default: the key in ${KEY_VARIABLE}; if there is none, no key is needed)",
    )
    parser.add_argument("--certificate", type=Path, metavar="PEM", help="serve over TLS (wss://, https://)")
    parser.add_argument(
        "--certificate-key", type=Path, metavar="PEM", help="its private key (default: in the same file)"
    )
    verify_argument(parser)
    parser.add_argument("--watch", type=above_zero, metavar="SECONDS", help="reload a policy when its files change")
    parser.add_argument("--log", choices=["text", "json"], default="text", help="format (default: %(default)s)")
    high_level_arguments(parser)


def run(args: argparse.Namespace) -> None:
    """Run this verb with its parsed options."""
    addresses = policies_by_name(args.policy)
    folders = {name: checkpoint_at(address) for name, address in addresses.items()}
    if args.certificate_key and not args.certificate:
        raise ValueError("--certificate-key needs --certificate")
    for file in filter(None, (args.certificate, args.certificate_key)):
        local_path(file, "give a PEM file")
    keys, level = read_keys(args.api_keys), read_high_level(args)
    from pilot.serve.server import Limits, serve

    limits = Limits(robots=args.max_robots, observations_per_second=args.max_rate)
    if args.max_mib is not None:
        largest = int(args.max_mib * 2**20)
        limits = replace(limits, message_bytes=largest, camera_bytes=largest)
    serve(
        [load_hosted(name, folders[name], args, address=addresses[name], level=level) for name in addresses],
        host=args.host,
        port=args.port,
        keys=keys,
        limits=limits,
        certificate=args.certificate,
        certificate_key=args.certificate_key,
        watch_seconds=args.watch,
        log_format=args.log,
    )


def policies_by_name(policies: Iterable[str]) -> dict[str, str]:
    """Return addresses by name, from `NAME=FOLDER` or from a folder whose own name is taken.

    Raises:
        ValueError: two policies have one name.
    """
    addresses: dict[str, str] = {}
    for policy in policies:
        name, equals, address = policy.partition("=")
        named = equals and "/" not in name  # else it is a folder such as runs/lr=3e-4
        name, address = (name, address) if named else (Path(policy).name, policy)
        if name in addresses:
            raise ValueError(f"two policies are named '{name}'; give each its own name: NAME=FOLDER")
        addresses[name] = address
    return addresses


def read_keys(file: Path | None) -> "ApiKeys":
    """Return the keys in a file, or else the one in the environment."""
    from pilot.serve.auth import ApiKeys

    if file is not None:
        return ApiKeys.read(file)
    return ApiKeys([os.environ[KEY_VARIABLE]] if os.environ.get(KEY_VARIABLE) else [])


def load_hosted(
    name: str, folder: Path, args: argparse.Namespace, *, address: str, level: "HighLevel | None"
) -> "HostedPolicy":
    """Return the policy in `folder`, ready to be served; a reload looks at its `address` again."""
    from pilot.serve.hosted_policy import HostedPolicy

    load = policy_loader(args, level)
    policy = load(folder)  # which is on this machine: the address, if it is the hub's, has been asked already
    workers = count_workers(policy) if args.workers is None else args.workers
    watched = folder if Path(address).is_dir() else None
    return HostedPolicy(
        name, policy, load=lambda: load(address), folder=watched, max_batch=args.max_batch, workers=workers
    )


def policy_loader(args: argparse.Namespace, level: "HighLevel | None") -> "Callable[[str | Path], Policy]":
    """Return a function that loads a policy as the command line says."""
    import pilot

    def load(address: str | Path) -> "Policy":
        policy = pilot.load_policy(address, device=args.device, replan_steps=args.replan_steps, verify=args.verify)
        if level is not None:
            policy.high_level = level
        return policy

    return load


def count_workers(policy: "Policy") -> int:
    """Return the number of cores for a small model on a CPU, where a batch per core is faster than sharing; else 1."""
    import torch

    small = sum(weight.numel() for weight in policy.model.parameters()) <= SMALL_MODEL
    if policy.device != "cpu" or not small:
        return 1
    torch.set_num_threads(1)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


VERB = Verb(
    help="Serve policies to robots over a websocket; openpi's clients can connect.",
    example="pilot serve checkpoints/nano mine=outputs/mine/policy --host 0.0.0.0 --api-keys keys.txt --watch 10",
    add_arguments=add_arguments,
    run=run,
    when_stopped="the server has ended",
)
