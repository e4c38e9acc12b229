"""The studies by name: each file here defines `STUDY`, and the folder is the list.

Studies of your own are found by their path, `pilot study path/to/mine.py`, or by an entry point of the group
`pilot.studies` (`pilot.extensions`). They are free of torch, so that the list is instant.
"""

import importlib
import sys

from pilot.eval.study.declare import Study
from pilot.extensions import Extension, ExtensionPoint, module_names


def _load_own(name: str) -> Extension:
    module = importlib.import_module(f"{__name__}.{name}")
    return Extension(module.STUDY, module)


STUDIES = ExtensionPoint(
    kind="study",
    group="pilot.studies",
    own_names=lambda: module_names(sys.modules[__name__]),
    load_own=_load_own,
    attribute="STUDY",
    instance_of=Study,
)


def load_study(reference: str) -> Study:
    """Return the study that `reference` names: `high_level`, or `path/to/mine.py`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: no study has that name (the nearest is suggested), or it does not hold together.
    """
    study = STUDIES.load(reference).value
    study.check()
    return study
