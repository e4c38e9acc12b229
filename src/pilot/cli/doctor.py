"""`pilot doctor`: what this machine can run, and for each lack the one command that mends it."""

import argparse
import dataclasses
import importlib.metadata
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from pilot.cli.arguments import Verb

LEAST_DISK, LEAST_MEMORY = 5e9, 4e9  # bytes: an environment with room for a data set; the demo's training
EXTRAS = {
    "sim": "simulated homes, lab and rooms",
    "serve": "serving policies",
    "client": "a robot that asks a server",
    "train": "TensorBoard curves",
    "video": "data sets with mp4 video",
    "hub": "paths hf:// and gs://",
}
GL_SECONDS = 60
ROOM = 1.3  # memory that a policy needs, as a multiple of its weights
SLOW_SECONDS = 2.0  # for a chunk: no robot waits for it, and larger sizes need not be tried
MARKS = {True: "ok", False: "LACKS", None: "--"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was looked at. `ok` is None where a lack is no fault; `mend` is the command that helps."""

    what: str
    found: str
    ok: bool | None = True
    mend: str = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this verb."""
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")
    parser.add_argument("--no-timing", action="store_true", help="do not measure how long a chunk of actions takes")


def run(args: argparse.Namespace) -> None:
    """Run this verb with its parsed options."""
    findings = []
    for finding in examine(timing=not args.no_timing):
        findings.append(finding)
        if not args.json:
            print(f"{MARKS[finding.ok]:<5}  {finding.what:<20} {finding.found}", flush=True)
            if finding.mend:
                print(f"{'':<28}{finding.mend}")
    if args.json:
        print(json.dumps([dataclasses.asdict(finding) for finding in findings], indent=2))
    elif lacking := [finding.what for finding in findings if finding.ok is False]:
        print(f"\nlacking: {', '.join(lacking)}")
    else:
        print("\nall that pilot needs is here")


def examine(*, timing: bool) -> Iterator[Finding]:
    """Yield what is found on this machine, the quick things first."""
    yield Finding(what="python", found=f"{platform.python_version()}, {platform.system()} {platform.machine()}")
    yield memory()
    yield disk()
    yield from extras()
    yield drawing()
    yield checkpoint()
    if not is_installed("torch"):
        yield Finding(what="torch", found="not installed", ok=False, mend="pip install 'pilot[torch]'")
        return
    device, finding = compute()
    yield finding
    if timing:
        yield from chunk_times(device)


def memory() -> Finding:
    """Say how much memory there is, and how much of it is free."""
    total, free = memory_bytes()
    if total is None:
        return Finding(what="memory", found="not known on this system", ok=None)
    found = f"{total / 1e9:.0f} GB" + (f", {free / 1e9:.0f} GB free" if free is not None else "")
    return Finding(what="memory", found=f"{found}, {os.cpu_count()} cores", ok=total >= LEAST_MEMORY)


def memory_bytes() -> tuple[float | None, float | None]:
    """Return the bytes of memory, and of what is free; None where the system does not say."""
    info = Path("/proc/meminfo")
    if info.exists():
        kibibytes = dict(re.findall(r"(\w+):\s+(\d+) kB", info.read_text()))
        return 1024.0 * int(kibibytes["MemTotal"]), 1024.0 * int(kibibytes["MemAvailable"])
    names = getattr(os, "sysconf_names", {})
    if "SC_PHYS_PAGES" in names and "SC_PAGE_SIZE" in names:
        return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")), None
    return None, None


def disk() -> Finding:
    """Say how much space there is where runs and data are written."""
    free = shutil.disk_usage(Path.cwd()).free
    mend = "" if free >= LEAST_DISK else "free some space, or work in another folder"
    return Finding(what="disk", found=f"{free / 1e9:.0f} GB free in {Path.cwd()}", ok=not mend, mend=mend)


def extras() -> Iterator[Finding]:
    """Say of each part of pilot that has packages of its own whether they are installed."""
    try:
        lines = importlib.metadata.requires("pilot") or []
    except importlib.metadata.PackageNotFoundError:
        yield Finding(what="pilot", found="not installed, run from its source", ok=None, mend="pip install -e .")
        return
    for extra, use in EXTRAS.items():
        missing = sorted(name for name in packages_of(extra, lines) if not is_installed(name))
        if missing:
            found = f"for {use}: no {', '.join(missing)}"
            yield Finding(what=f"pilot[{extra}]", found=found, ok=None, mend=f"pip install 'pilot[{extra}]'")
        else:
            yield Finding(what=f"pilot[{extra}]", found=use)


def packages_of(extra: str, lines: list[str]) -> set[str]:
    """Return the packages that an extra asks for, those of the extras that it includes among them."""
    names: set[str] = set()
    for line in lines:
        match = re.match(r"""([\w.-]+)(?:\[([\w,.-]+)\])?.*;.*extra == ['"]([\w-]+)['"]""", line)
        if match is None or match[3] != extra:
            continue
        if match[1] == "pilot":
            names |= {name for inner in match[2].split(",") for name in packages_of(inner, lines)}
        else:
            names.add(match[1])
    return names


def is_installed(package: str) -> bool:
    """Return whether a package is installed."""
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def drawing() -> Finding:
    """Draw a picture with the simulator's library, in a process of its own: a broken driver may end it."""
    if not is_installed("mujoco"):
        return Finding(what="OpenGL", found="not tried without MuJoCo", ok=None, mend="pip install 'pilot[sim]'")
    command = [sys.executable, "-m", "pilot.sims.gl"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=GL_SECONDS)
    except subprocess.TimeoutExpired:
        return Finding(what="OpenGL", found=f"no picture within {GL_SECONDS} s", ok=False, mend=" ".join(command))
    words = (done.stdout.strip() or done.stderr.strip() or f"ended with code {done.returncode}").splitlines()
    if done.returncode == 0:
        return Finding(what="OpenGL", found=words[-1])
    install = [line.strip() for line in words if "-get install" in line or "dnf install" in line]
    return Finding(what="OpenGL", found=words[0], ok=False, mend="\n".join(install) or "python -m pilot.sims.gl")


def checkpoint() -> Finding:
    """Say where the shipped checkpoint is."""
    if not is_installed("torch"):
        return Finding(what="checkpoint", found="not looked for without torch", ok=None)
    from pilot.eval.demo import find_checkpoint

    try:
        return Finding(what="checkpoint", found=str(find_checkpoint(None)))
    except FileNotFoundError as error:
        return Finding(what="checkpoint", found=str(error), ok=None)


def compute() -> tuple[str, Finding]:
    """Return the device that policies run on, and what is to be said of it."""
    import torch

    if torch.cuda.is_available():
        card = torch.cuda.get_device_properties(0)
        found = (
            f"{torch.cuda.device_count()} × {card.name}, {card.total_memory / 1e9:.0f} GB, torch {torch.__version__}"
        )
        return "cuda", Finding(what="GPU", found=found)
    if shutil.which("nvidia-smi"):
        found = f"there is one, but torch {torch.__version__} cannot use it"
        mend = "pip install --force-reinstall torch   (a build for your CUDA, see pytorch.org)"
        return "cpu", Finding(what="GPU", found=found, ok=False, mend=mend)
    found = f"none; torch {torch.__version__} computes on the CPU, which is enough for the nano size"
    return "cpu", Finding(what="GPU", found=found, ok=None)


def chunk_times(device: str) -> Iterator[Finding]:
    """Measure each size that fits into memory, up to the first one that is too slow for any robot."""
    from pilot.infer.chunk_time import SIZES, measure, weight_bytes

    seconds = 0.0
    for size, make_config in SIZES.items():
        if seconds > SLOW_SECONDS:
            yield Finding(what=f"chunk, {size}", found="not measured: smaller ones are too slow already", ok=None)
            continue
        config = make_config()
        need, room = ROOM * weight_bytes(config, device=device), free_memory(device)
        what = f"chunk, {size}"
        if room is not None and need > room:
            found = f"needs {need / 1e9:.1f} GB of memory, {room / 1e9:.1f} are free"
            yield Finding(what=what, found=found, ok=None)
            continue
        try:
            seconds = measure(config, device=device)
        except (RuntimeError, MemoryError) as error:
            yield Finding(what=what, found=f"could not be measured: {str(error).splitlines()[0]}", ok=None)
            continue
        where = "GPU" if device == "cuda" else "CPU"
        yield Finding(what=what, found=describe_seconds(seconds, where))


def describe_seconds(seconds: float, where: str) -> str:
    """Say how long a chunk takes."""
    time = f"{1e3 * seconds:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"
    return f"{time} from pictures to actions, on the {where}"


def free_memory(device: str) -> float | None:
    """Return the bytes that are free on a device; None where the system does not say."""
    if device != "cuda":
        return memory_bytes()[1]
    import torch

    return float(torch.cuda.mem_get_info()[0])


VERB = Verb(
    help="Say what this machine can run, and the one command that mends each lack.",
    example="pilot doctor",
    add_arguments=add_arguments,
    run=run,
)
