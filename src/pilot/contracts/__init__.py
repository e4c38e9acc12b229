"""What every robot, data set, simulator, run and model must fulfil, pilot's own and those of users alike.

One file per kind. Each has `CHECKS`, functions of one thing that raise a `ValueError` if it breaks the rule that the
first line of their docstring states, and `find_in`, which lists what a Python file defines of the kind. Pilot's tests
apply them to whatever its folders hold, `pilot check path/to/file.py` to a file of yours.
"""

import importlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

KINDS = ("robot", "dataset", "sim", "run", "model")

Check = Callable[[Any], None]


@dataclass(frozen=True, kw_only=True)
class CheckResult:
    """One rule applied to one thing; `error` says how it is broken, None that it is kept."""

    kind: str
    name: str
    rule: str
    error: str | None = None


def require(condition: bool, message: str) -> None:
    """Raise a `ValueError` with `message` unless the condition holds."""
    if not condition:
        raise ValueError(message)


def rule_of(check: Check) -> str:
    """Return the rule that a check enforces: the first line of its docstring, without the full stop."""
    return (check.__doc__ or check.__name__).strip().splitlines()[0].rstrip(".")


def check_module(module: ModuleType, *, only: str | None = None) -> Iterator[CheckResult]:
    """Apply the contracts of all kinds to what a module defines; `only` takes one thing by its name in the module.

    Errors of other types than `ValueError` count too: whatever a check meets, the next one runs.

    Raises:
        ValueError: the module defines nothing that there is a contract for.
    """
    nothing = True
    for kind in KINDS:
        contract = importlib.import_module(f"{__name__}.{kind}")
        for name, thing in contract.find_in(module).items():
            if only in (None, name):
                nothing = False
                yield from apply_checks(contract.CHECKS, thing, kind=kind, name=name)
    if nothing:
        where = f"{module.__file__} defines no {only}" if only else f"{module.__file__} defines nothing"
        raise ValueError(f"{where} that there is a contract for: a {', a '.join(KINDS)}")


def apply_checks(checks: Sequence[Check], thing: Any, *, kind: str, name: str) -> Iterator[CheckResult]:
    """Apply checks to one thing, each whatever became of those before it."""
    for check in checks:
        try:
            check(thing)
        except Exception as error:
            message = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
            yield CheckResult(kind=kind, name=name, rule=rule_of(check), error=message)
        else:
            yield CheckResult(kind=kind, name=name, rule=rule_of(check))
