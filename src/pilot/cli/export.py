"""`pilot export CHECKPOINT OUT`: a policy as ONNX files, for runtimes without PyTorch."""

import argparse
import json

from pilot.cli.arguments import Verb, checkpoint_at, folder_to_write


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this verb."""
    parser.add_argument("checkpoint", help="checkpoint folder, such as checkpoints/nano")
    parser.add_argument("out", type=folder_to_write, help="folder for the files")
    parser.add_argument("--robot", help="which of the policy's robots (default: the only one)")


def run(args: argparse.Namespace) -> None:
    """Run this verb with its parsed options."""
    folder = checkpoint_at(args.checkpoint)
    from pilot.infer.onnx_export import DESCRIPTION, export_onnx, require_onnx
    from pilot.infer.policy import load_policy

    require_onnx()
    out = export_onnx(load_policy(folder, device="cpu"), args.out, robot=args.robot)
    differences = json.loads((out / DESCRIPTION).read_text(encoding="utf-8"))["differences"]
    said = ", ".join(f"{name} {value:.1e}" for name, value in differences.items())
    print(f"wrote {', '.join(sorted(file.name for file in out.glob('*.onnx')))} to {out}")
    print(f"largest differences to PyTorch: {said}")


VERB = Verb(
    help="Export a policy to three ONNX files, and check that they compute what PyTorch does.",
    example="pilot export checkpoints/nano outputs/nano-onnx",
    add_arguments=add_arguments,
    run=run,
    when_stopped="the folder is unfinished; run the same command again",
)
