"""The licences of all that pilot is made of and depends on, as a table: `python .ci/licences.py > THIRD_PARTY.md`.

The packages are those that `pip install 'pilot[all,dev]'` brings, as they are installed where this runs; what is in the
repository itself and comes from others is in NOTICE.
"""

import re
from collections.abc import Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
EXTRAS = ("all", "dev")
HEAD = """# Third parties

Made by `make licences`; do not edit. What the repository itself holds from others is in [NOTICE](NOTICE). These are
the packages that `pip install 'pilot[all,dev]'` installs on Linux; none is part of this repository.

| package | version | licence |
|---|---|---|
"""
NAMES = {
    "Apache Software License": "Apache-2.0", "MIT License": "MIT", "BSD License": "BSD", "MIT": "MIT",
    "ISC License (ISCL)": "ISC", "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0", "The Unlicense (Unlicense)": "Unlicense",
}  # fmt: skip


def requirements(package: Distribution, extras: tuple[str, ...]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield what a package with these extras needs on this machine: names, and their extras."""
    from packaging.requirements import Requirement

    for line in package.requires or ():
        needed = Requirement(line)
        environments: list[dict[str, str]] = [{"extra": extra} for extra in extras] or [{"extra": ""}]
        if needed.marker is None or any(needed.marker.evaluate(environment) for environment in environments):
            yield needed.name, tuple(needed.extras)


def needed_packages() -> dict[str, Distribution]:
    """Return all packages that pilot with `EXTRAS` needs here, by their normal names."""
    found: dict[str, Distribution] = {}
    seen: set[tuple[str, tuple[str, ...]]] = set()
    waiting: list[tuple[str, tuple[str, ...]]] = [("pilot", EXTRAS)]
    while waiting:
        name, extras = waiting.pop()
        name = re.sub(r"[-_.]+", "-", name).lower()
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        try:
            package = distribution(name)
        except PackageNotFoundError:  # for another system
            continue
        if name != "pilot":
            found[name] = package
        waiting += requirements(package, extras)
    return dict(sorted(found.items()))


def licence(package: Distribution) -> str:
    """Return a package's licence in one line: its expression, else its classifiers, else its own words."""
    about = package.metadata
    if expression := about.get("License-Expression"):
        return expression
    classifiers = [c.rsplit(" :: ", 1)[-1] for c in about.get_all("Classifier") or () if c.startswith("License ::")]
    if named := [NAMES.get(c, c) for c in classifiers if c != "OSI Approved"]:
        return " and ".join(named)
    words = (about.get("License") or "").strip().splitlines()
    return words[0][:60] if words else "not said"


def main() -> None:
    """Print the table."""
    rows = [
        f"| {name} | {package.version.partition('+')[0]} | {licence(package)} |"
        for name, package in needed_packages().items()
    ]
    print(HEAD + "\n".join(rows))


if __name__ == "__main__":
    main()
