"""How a result came about: the commit and the command that can make it again."""

import os
import platform
import shlex
import subprocess
import sys
from datetime import datetime
from functools import cache
from pathlib import Path

import pilot


@cache
def commit() -> str:
    """Return the commit of the source tree, with a mark if it was changed."""
    root = Path(pilot.__path__[0]).parents[1]
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty"], cwd=root, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return "none: not run from a git checkout"
    return described.stdout.strip()


def command_line() -> str | None:
    """Return the command that this process was started with, if it was one of pilot's."""
    if Path(sys.argv[0]).stem not in ("pilot", "__main__"):
        return None
    return shlex.join(["pilot", *sys.argv[1:]])


def device_name() -> str:
    """Return the name that the processor gives itself."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()


def provenance() -> dict[str, str | None]:
    """Return version, commit, command, machine and time, for a file beside the results."""
    return {
        "version": pilot.__version__,
        "commit": commit(),
        "command": command_line(),
        "machine": f"{os.cpu_count()} cores, {device_name()}",
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
    }
