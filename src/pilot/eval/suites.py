"""What a policy can be asked, by name: the suites of every simulator, and controls that take a sense away from it.

A suite is evaluated in its scenes 0, 1, 2, …, one episode in each, so that the episodes are independent: 200 episodes
of a suite of homes see 200 homes. The names are read without importing any physics. A simulator of your own is a file
with `SUITES` (see `sims/base.py`): name it by its path, `--suite path/to/mine.py`, or declare it as an entry point
(`pilot.extensions`). Where several robots can act in a suite, `NAME@ROBOT` chooses another than its own.

A *control* takes away one thing that the policy needs, so that its success can be told from luck: `blank_images` (flat
grey pictures), `shuffled_prompts` (the instruction of another scene). `oracle` gives instead: the true subtask in
words, with its box, so that only the low level is left to fail. All of them run from the same starts.
"""

import importlib
import pkgutil
from collections.abc import Iterable

import pilot.sims
from pilot.extensions import Extension, ExtensionPoint, is_file_reference
from pilot.names import check_name
from pilot.sims.base import Lesson, Suite

CONTROLS = ("none", "blank_images", "shuffled_prompts", "oracle")
NOT_SIMULATORS = (
    "base",
    "collect",
    "demonstrate",
    "experts",
    "gl",
    "questions",
    "vocabulary",
    "world",
)  # modules of `pilot.sims` that serve all simulators


def _own_names() -> list[str]:
    """Our own simulators, which are folders, come before the adapters of others, which are single files."""
    infos = sorted(pkgutil.iter_modules(pilot.sims.__path__), key=lambda info: (not info.ispkg, info.name))
    return [info.name for info in infos if info.name not in NOT_SIMULATORS]


def _load_own(name: str) -> Extension:
    module = importlib.import_module(f"pilot.sims.{name}")
    return Extension(module.SUITES, module)


SIMULATORS = ExtensionPoint(
    kind="simulator",
    group="pilot.sims",
    own_names=_own_names,
    load_own=_load_own,
    attribute="SUITES",
    instance_of=tuple,
)


def simulators() -> list[Extension]:
    """Return the suites and the module of every simulator that is known without a path."""
    own = _own_names()
    return [SIMULATORS.load(name) for name in [*own, *(name for name in SIMULATORS.names() if name not in own)]]


def all_suites() -> dict[str, Suite]:
    """Return every suite by name."""
    return {suite.name: suite for simulator in simulators() for suite in simulator.value}


def load_suites(references: Iterable[str]) -> list[Suite]:
    """Return the suites of these names, and all suites of the files among them.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: an unknown name (the nearest is suggested), a robot that cannot act there, or a file without
            `SUITES`.
    """
    known, chosen = all_suites(), []
    for reference in references:
        if is_file_reference(reference):
            chosen += SIMULATORS.load(reference).value
            continue
        name, at, robot = reference.partition("@")
        note = " (one of your own: path/to/file.py)" + "".join(f". {reason}" for reason in why_missing(name))
        suite = known[check_name("suite", name, known, note=note)]
        chosen.append(suite.with_robot(robot) if at else suite)
    return chosen


def why_missing(name: str) -> list[str]:
    """Return what simulators say about suites of such a name that they do not have: `MISSING_SUITES`, by beginning."""
    known = [getattr(simulator.module, "MISSING_SUITES", {}) for simulator in simulators()]
    return [why for reasons in known for start, why in reasons.items() if name.startswith(start)]


def load_suite(reference: str) -> Suite:
    """Return the suite of that name, or the only one of a file; raises as `load_suites` does."""
    suites = load_suites([reference])
    if len(suites) != 1:
        raise ValueError(f"{reference} has {len(suites)} suites ({', '.join(s.name for s in suites)}), give one suite")
    return suites[0]


def suites_for(*robots: str) -> list[Suite]:
    """Return the suites that robots of these names act in, without those that are part of another.

    Raises:
        ValueError: there are none.
    """
    known = all_suites().values()
    pairs = [(suite, robot) for suite in known for robot in robots if robot in suite.robots and not suite.is_part]
    if pairs:
        return [suite.with_robot(robot) for suite, robot in pairs]
    own, simulated = (", ".join(f"'{name}'" for name in names) for names in (
        robots, dict.fromkeys(name for suite in known for name in suite.robots)
    ))  # fmt: skip
    raise ValueError(f"no simulator has a suite for robot {own or 'of this policy'}; there are suites for {simulated}")


def lesson_for(robot: str) -> Lesson:
    """Return the lesson of the simulator that the robot of that name acts in.

    Raises:
        ValueError: no simulator teaches that robot anything.
    """
    known = lessons()
    if robot not in known:
        taught = ", ".join(f"'{name}'" for name in known)
        raise ValueError(f"there is no demo for robot '{robot}'; there is one for {taught}")
    return known[robot]


def lessons() -> dict[str, Lesson]:
    """Return the lessons of all simulators by the robot that they teach; of two for one robot the first."""
    found = [simulator.module.LESSON for simulator in simulators() if hasattr(simulator.module, "LESSON")]
    return {lesson.new.robot.name: lesson for lesson in reversed(found)}


def check_control(name: str, suite: Suite | None = None) -> None:
    """Check the name of a control, and that it works in `suite`.

    Raises:
        ValueError: an unknown control (the nearest is suggested), or one that the suite cannot give.
    """
    check_name("control", name, CONTROLS)
    if name == "oracle" and suite is not None and not suite.has_subtasks:
        raise ValueError(f"suite '{suite.name}' knows no subtasks, so there is no control 'oracle' in it")
