"""Write requirements-dev.lock: every package of `pilot[all,dev]` in the version installed here, with its file's hash.

    python .ci/lock.py

pip says which file each version is for this system and this Python; `make install-locked` installs exactly these.
"""

import json
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from licences import ROOT, needed_packages

LOCK = ROOT / "requirements-dev.lock"
HEAD = """# Made by `make lock` for Python {python}, {system}; do not edit.
# torch is the build that was installed there; one for CPUs (+cpu) comes from PyTorch's index: pip must be told of it.
"""


def report(requirements: list[str]) -> dict[str, Any]:
    """Return pip's report of what it would install for these requirements."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "report.json")
        options = ("--dry-run", "--no-deps", "--ignore-installed", "--quiet", "--disable-pip-version-check")
        command = [sys.executable, "-m", "pip", "install", *options, "--report", str(path), *requirements]
        subprocess.run(command, check=True, cwd=folder)
        return json.loads(path.read_text())


def lines_of(report: dict[str, Any]) -> list[str]:
    """Return the lines of a lock file from pip's report.

    Raises:
        ValueError: a package came from a file without a hash.
    """
    lines = []
    for package in report["install"]:
        name, version = package["metadata"]["name"], package["metadata"]["version"]
        hashes = package["download_info"].get("archive_info", {}).get("hashes", {})
        if "sha256" not in hashes:
            raise ValueError(f"{name} {version} came without a sha256; install it from the registry")
        lines.append(f"{name.lower()}=={version} --hash=sha256:{hashes['sha256']}")
    return sorted(lines)


def main() -> None:
    """Write the lock file."""
    lines = lines_of(report([f"{name}=={package.version}" for name, package in needed_packages().items()]))
    python = ".".join(map(str, sys.version_info[:2]))
    head = HEAD.format(python=python, system=f"{platform.system()} {platform.machine()}")
    LOCK.write_text(head + "\n".join(lines) + "\n")
    print(f"{LOCK.name}: {len(lines)} packages")


if __name__ == "__main__":
    main()
