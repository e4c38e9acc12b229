"""How a result came about: the commit and the command that can make it again."""

import os
import platform
import shlex
import sys
from datetime import datetime
from pathlib import Path

import pilot
from pilot.data.storage.manifest import source_commit

DIGITS = 12  # of a commit, enough to find it by


def commit() -> str:
    """Return the commit of pilot's source tree, with a mark if it was changed."""
    if (found := source_commit()) is None:
        return "none: not run from a git checkout"
    head, dash, mark = found.partition("-")
    return head[:DIGITS] + dash + mark


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
