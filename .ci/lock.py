"""Write requirements-dev.lock: every package of `pilot[all,dev]` in one version, with the hash of its file.

    python .ci/lock.py

pip chooses the versions: those installed here where they still fit pyproject.toml. The hashes are of the files for this
system and this Python; `make install-locked` installs exactly these.
"""

import json
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOCK = ROOT / "requirements-dev.lock"


def run_pip(*arguments: str) -> str:
    """Run pip and return what it printed."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments]
    return subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE, cwd=ROOT).stdout


def lines_of(report: dict) -> list[str]:
    """Return the lines of a lock file from pip's report of an installation.

    Raises:
        ValueError: a package came from a file without a hash.
    """
    lines = []
    for package in report["install"]:
        name, version = package["metadata"]["name"], package["metadata"]["version"]
        if name == "pilot":
            continue
        hashes = package["download_info"].get("archive_info", {}).get("hashes", {})
        if "sha256" not in hashes:
            raise ValueError(f"{name} {version} came without a sha256; install it from the registry")
        lines.append(f"{name.lower()}=={version.partition('+')[0]} --hash=sha256:{hashes['sha256']}")
    return sorted(lines)


def main() -> None:
    """Write the lock file."""
    with tempfile.TemporaryDirectory() as folder:
        constraints, report = Path(folder, "constraints.txt"), Path(folder, "report.json")
        installed = [line for line in run_pip("freeze", "--exclude-editable").splitlines() if "@" not in line]
        constraints.write_text("\n".join(line.partition("+")[0] for line in installed))
        dry = ("install", "--dry-run", "--ignore-installed", "--quiet", "--report", str(report))
        run_pip(*dry, "--constraint", str(constraints), ".[all,dev]")
        lines = lines_of(json.loads(report.read_text()))
    where = f"Python {sys.version_info[0]}.{sys.version_info[1]}, {platform.system()} {platform.machine()}"
    head = f"# Made by `make lock` for {where}; do not edit.\n"
    LOCK.write_text(head + "\n".join(lines) + "\n")
    print(f"{LOCK.name}: {len(lines)} packages")


if __name__ == "__main__":
    main()
