"""One file per family of data sets, each with `DATASETS`; the folder is the list.

An entry says where a set lies, what robot recorded it, which reader opens it and what it teaches; for sets that this
library makes, the arguments that make it; for sets of others, how their features become the robot's state and actions.
"""

import importlib
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from pilot.data.formats.rlds import RldsLayout
from pilot.names import choose

Reader = Literal["robot", "web"]


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """One data set by name.

    `path` is relative to the data folder. `reader`: "robot" is a set of demonstrations, "web" is rows of pictures with
    questions and answers. `collect`: arguments of `collect` ("robot") or `collect_web` in `pilot.sims`. `layout`: for
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
        """Where it lies under the data folder `root`."""
        return Path(root) / self.path


def all_datasets() -> dict[str, Dataset]:
    """Every data set there is, by name."""
    modules = [importlib.import_module(f"{__name__}.{module.name}") for module in pkgutil.iter_modules(__path__)]
    return {dataset.name: dataset for module in modules for dataset in module.DATASETS}


def load_layout(name: str) -> RldsLayout:
    """How the RLDS set of that name says what its robot did; a ValueError for one that no entry describes."""
    known = {entry.name: entry.layout for entry in all_datasets().values() if entry.layout}
    if name not in known:
        raise ValueError(
            f"no entry describes the RLDS set '{name}', known are {sorted(known)}; say what its features mean in a "
            f"file in {__path__[0]}, such as bridge.py"
        )
    return known[name]


def load_dataset(name: str) -> Dataset:
    """The entry of that name; an unknown name is a ValueError that suggests the nearest."""
    known = all_datasets()
    return known[choose("data set", name, sorted(known), note=f" (new ones are one file in {__path__[0]})")]
