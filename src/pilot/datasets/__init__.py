"""One file per family of data sets, each with `DATASETS`; the folder is the list, and a file of your own is as good.

An entry says where a set lies, what robot recorded it, which reader opens it and what it teaches; for sets that this
library makes, the arguments that make it; for sets of others, how their features become the robot's state and actions.
"""

import importlib
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from pilot.data.formats.rlds import RldsLayout
from pilot.extensions import Extension, entry_points, load_entry_point, load_file, module_names
from pilot.names import check_name

Reader = Literal["robot", "web"]
GROUP, ATTRIBUTE = "pilot.datasets", "DATASETS"


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """One data set by name.

    `path` is relative to the data folder. `reader`: "robot" is a set of demonstrations, "web" is rows of pictures with
    questions and answers. `collect`: arguments of `collect` ("robot") or `collect_web` in
    `pilot.sims`, the suite by its name. `layout`: for
    RLDS sets, whose `name` is then the one in `dataset_info.json`.
    """

    name: str
    path: str
    robot: str
    reader: Reader
    objective: str  # what its rows teach, in words
    collect: Mapping[str, Any] = field(default_factory=dict)
    layout: RldsLayout | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "collect", MappingProxyType(dict(self.collect)))

    def at(self, root: str | Path) -> Path:
        """Return the folder of the set under the data folder `root`."""
        return Path(root) / self.path


def all_datasets() -> dict[str, Dataset]:
    """Return every data set of this folder and of entry points, by name."""
    modules = [importlib.import_module(f"{__name__}.{name}") for name in module_names(sys.modules[__name__])]
    own = {dataset.name: dataset for module in modules for dataset in module.DATASETS}
    extensions = [load_entry_point(GROUP, name, attribute=ATTRIBUTE, kind="data set") for name in entry_points(GROUP)]
    return {name: dataset for extension in extensions for name, dataset in _entries(extension).items()} | own


def datasets_in(reference: str) -> dict[str, Dataset]:
    """Return the data sets that a file of your own defines, by name: `path/to/file.py`, or `path/to/file.py:NAME`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it has no `DATASETS`, or something else by that name.
    """
    return _entries(load_file(reference, attribute=ATTRIBUTE, kind="data set"))


def load_dataset(name: str, *, file: str | None = None) -> Dataset:
    """Return the entry of that name, from a file of your own if one is given.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: there is no such entry; the nearest is suggested.
    """
    known = all_datasets() if file is None else datasets_in(file)
    return known[check_name("data set", name, sorted(known), note=f" (new ones are one file in {__path__[0]})")]


def load_layout(name: str) -> RldsLayout:
    """Return how the RLDS set of that name says what its robot did; a ValueError for one that no entry describes."""
    return _layout(name, all_datasets())


def layouts_from(reference: str | None) -> Callable[[str], RldsLayout]:
    """Return the `layouts` of `open_episodes`: `load_layout`, or the same for the entries of a file of your own."""
    if reference is None:
        return load_layout
    entries = datasets_in(reference)
    return lambda name: _layout(name, entries)


def _layout(name: str, entries: Mapping[str, Dataset]) -> RldsLayout:
    known = {entry.name: entry.layout for entry in entries.values() if entry.layout}
    if name not in known:
        raise ValueError(
            f"no entry describes the RLDS set '{name}', known are {sorted(known)}; say what its features mean in a "
            f"file such as {__path__[0]}/bridge.py"
        )
    return known[name]


def _entries(extension: Extension) -> dict[str, Dataset]:
    """Return the data sets of an extension, which may define one or several."""
    value = extension.value
    several = value if isinstance(value, tuple | list) else (value,)
    if not several or not all(isinstance(each, Dataset) for each in several):
        raise ValueError(f"{extension.module.__file__}: {ATTRIBUTE} should be a tuple of Dataset, got {value!r}")
    return {dataset.name: dataset for dataset in several}
