"""Look up what is "one file in a folder": a robot, a data set, a simulator, a run, a study.

Each such thing is found by one of three references, and it is the same to pilot where it came from:

| reference | is found in |
|---|---|
| `ur5` | a file of the package's own folder, here `pilot/robots/ur5.py` |
| `path/to/arm.py` or `path/to/arm.py:LEFT_ARM` | a file of your own; after the colon stands the name in it |
| `desk_arm` | an entry point of an installed package, in the group of the kind (`pilot.robots`) |

A package declares an entry point in its `pyproject.toml`, to a module or to an object in one:

    [project.entry-points."pilot.robots"]
    desk_arm = "my_package.desk_arm"            # the module, which defines ROBOT
    left_arm = "my_package.arms:LEFT_ARM"

The groups are `pilot.robots`, `pilot.datasets`, `pilot.sims`, `pilot.runs` and `pilot.studies`. A folder of pilot
becomes extensible with one `ExtensionPoint`, see `pilot.robots`.
"""

import importlib
import importlib.metadata
import pkgutil
import re
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from pilot.names import check_name, suggest_names

FILE_REFERENCE = re.compile(r"(?P<file>.+\.py)(:(?P<name>\w+))?")


class Extension(NamedTuple):
    """The object that a reference names, and the module that defines it."""

    value: Any
    module: ModuleType


@dataclass(frozen=True, kw_only=True)
class ExtensionPoint:
    """Everything of one kind that can be named: the package's own, and that of users.

    `kind` is what messages call it. `own_names` and `load_own` list and load what the package itself has; names of its
    own come before entry points. `attribute` is what a file of the user's must define, unless the reference names
    something else in it (None: the reference has to). `instance_of` is the type that it must have.
    """

    kind: str
    group: str
    own_names: Callable[[], Iterable[str]]
    load_own: Callable[[str], Extension]
    attribute: str | None = None
    instance_of: type = object

    def names(self) -> list[str]:
        """Return every name that is known without a path, sorted."""
        return sorted({*self.own_names(), *entry_points(self.group)})

    def load(self, reference: str) -> Extension:
        """Load what `reference` names; see the table in the module's head.

        Raises:
            FileNotFoundError: the file does not exist.
            ValueError: no such name (the nearest is suggested), or the file lacks what it should define.
        """
        if is_file_reference(reference):
            extension = load_file(reference, attribute=self.attribute, kind=self.kind)
        elif reference in set(self.own_names()):
            extension = self.load_own(reference)
        else:
            note = f" (one of your own: path/to/file.py, or an entry point '{self.group}')"
            check_name(self.kind, reference, self.names(), note=note)
            extension = load_entry_point(self.group, reference, attribute=self.attribute, kind=self.kind)
        if not isinstance(extension.value, self.instance_of):
            raise ValueError(
                f"'{reference}' is a {type(extension.value).__name__}; a {self.kind} is a {self.instance_of.__name__}"
            )
        return extension


def is_file_reference(reference: str) -> bool:
    """Return whether a reference is a path to a file, `path/to/file.py` or `path/to/file.py:NAME`."""
    return FILE_REFERENCE.fullmatch(reference) is not None


def load_file(reference: str, *, attribute: str | None, kind: str) -> Extension:
    """Load `path/to/file.py:NAME`; without a name, what the file calls `attribute`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file does not define the name.
    """
    match = FILE_REFERENCE.fullmatch(reference)
    assert match is not None, reference
    module = import_file(Path(match["file"]))
    return _get_attribute(module, match["name"] or attribute, where=match["file"], kind=kind)


def import_file(path: Path) -> ModuleType:
    """Import a file by its path, as the module that it is in its package, or else by its own name.

    The folder joins the end of `sys.path`: so the processes that are started from here can import the file too, and it
    may import what lies beside it.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: another module has its name already.
    """
    path = path.expanduser().resolve()
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; give the path of a Python file")
    folder, name = path.parent, path.stem
    while (folder / "__init__.py").exists():
        folder, name = folder.parent, f"{folder.name}.{name}"
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
    importlib.invalidate_caches()
    module = importlib.import_module(name)
    other = getattr(module, "__file__", None) or "built into Python"
    if Path(other).resolve() != path:
        raise ValueError(f"{path} cannot be imported: another module is called '{name}' ({other}); rename the file")
    return module


@cache
def entry_points(group: str) -> dict[str, importlib.metadata.EntryPoint]:
    """Return the entry points of installed packages in `group`, by name."""
    return {entry.name: entry for entry in importlib.metadata.entry_points(group=group)}


def load_entry_point(group: str, name: str, *, attribute: str | None, kind: str) -> Extension:
    """Load an entry point: the object that it names, or what the module that it names calls `attribute`.

    Raises:
        ValueError: the module does not define `attribute`.
    """
    entry = entry_points(group)[name]
    value = entry.load()
    if isinstance(value, ModuleType):
        return _get_attribute(
            value, attribute, where=f"the module '{entry.value}' of the entry point '{name}'", kind=kind
        )
    return Extension(value, sys.modules[entry.module])


def module_names(package: ModuleType) -> list[str]:
    """Return the names of the files and folders in a package, without private ones, sorted."""
    return sorted(info.name for info in pkgutil.iter_modules(package.__path__) if not info.name.startswith("_"))


def _get_attribute(module: ModuleType, name: str | None, *, where: str, kind: str) -> Extension:
    public = [other for other in vars(module) if not other.startswith("_")]
    if name is None:
        raise ValueError(f"say which {kind} of {where} you mean: {where}:NAME")
    if not hasattr(module, name):
        raise ValueError(
            f"{where} defines no {name}, which a {kind} needs; {suggest_names(name, public, listed='it has')}"
        )
    return Extension(getattr(module, name), module)
