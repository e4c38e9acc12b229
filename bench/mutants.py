"""Mutation testing: the source is changed in one place, and its tests must fail.

    python bench/mutants.py                          all files of TARGETS; an hour and more
    python bench/mutants.py executor flow --sample 40

A comparison, an operator, a branch, a number or a statement is changed, one at a time, in a copy of the package. A
mutant is killed if a test fails or the time is up, and survives if all tests pass: then nothing says that this place
matters, or the change is none. Killed, survived and their share are printed for each file, and each survivor with its
line. Exits with 1 if fewer than `--at-least` percent were killed.
"""

import argparse
import ast
import copy
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TARGETS = {
    "src/pilot/data/layout.py": ["tests/data/test_layout.py", "tests/models/test_properties.py"],
    "src/pilot/nn/attention.py": ["tests/nn/test_blocks.py"],
    "src/pilot/models/losses.py": ["tests/models/test_losses.py"],
    "src/pilot/models/flow.py": ["tests/models/test_flow.py"],
    "src/pilot/infer/rtc.py": ["tests/infer/test_rtc.py"],
    "src/pilot/infer/executor.py": ["tests/infer/test_executor.py"],
    "src/pilot/infer/safety.py": ["tests/infer/test_safety.py"],
    "src/pilot/data/transforms.py": ["tests/data/test_transforms.py"],
}
OTHER_COMPARISON: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
OTHER_OPERATOR: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.Pow: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
}  # fmt: skip
SECONDS = 20.0  # of CPU time that a mutant has beyond three times what its tests take without it


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """One changed place of a file: its line, what stood there and what stands there now, and the whole new source."""

    line: int
    before: str
    after: str
    source: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.before}  ->  {self.after}"


def mutate(source: str) -> list[Mutant]:
    """Return all mutants of a source, in the order of its lines."""
    tree = ast.parse(source)
    skipped = set(_untouched(tree))
    places = [node for node in ast.walk(tree) if id(node) not in skipped]
    mutants = []
    for node in places:
        for changed in _changes(node):
            new = _Replace(node, changed).visit(copy.deepcopy(tree, {id(node): node}))
            text = ast.unparse(ast.fix_missing_locations(new))
            line = getattr(node, "lineno", 0)
            mutants.append(Mutant(line=line, before=_short(node), after=_short(changed), source=text))
    return sorted(mutants, key=lambda mutant: mutant.line)


class _Replace(ast.NodeTransformer):
    def __init__(self, node: ast.AST, by: ast.AST) -> None:
        self.node, self.by = node, by

    def visit(self, node: ast.AST) -> ast.AST:
        return self.by if node is self.node else super().generic_visit(node)


def _untouched(tree: ast.Module) -> Iterator[int]:
    """Yield what has no behaviour or only words: annotations, docstrings, raised errors, log messages, decorators."""
    for node in ast.walk(tree):
        words: list[ast.AST | None] = []
        if isinstance(node, ast.Raise | ast.Assert | ast.Import | ast.ImportFrom):
            words.append(node)
        elif isinstance(node, ast.ClassDef):
            words += node.decorator_list
        elif isinstance(node, ast.FunctionDef):
            words += [*node.decorator_list, node.returns, *(argument.annotation for argument in node.args.args)]
            words += [argument.annotation for argument in node.args.kwonlyargs]
        elif isinstance(node, ast.AnnAssign):
            words.append(node.annotation)
        elif _is_only_words(node):
            words.append(node)
        for word in words:
            if word is not None:
                yield from (id(part) for part in ast.walk(word))


def _is_only_words(node: ast.AST) -> bool:
    """Return whether a node is a docstring, a message to a log, or a name for a type."""
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Constant)
    if isinstance(node, ast.Call):
        return ast.unparse(node.func).startswith(("log.", "warnings."))
    return isinstance(node, ast.Assign) and isinstance(node.value, ast.Subscript)


def _changes(node: ast.AST) -> Iterator[ast.AST]:
    """Yield what may stand in place of a node."""
    if isinstance(node, ast.Compare):
        for number, operator in enumerate(node.ops):
            operators = [*node.ops]
            operators[number] = OTHER_COMPARISON[type(operator)]()
            yield ast.Compare(node.left, operators, node.comparators)
    elif isinstance(node, ast.BinOp) and type(node.op) in OTHER_OPERATOR:
        yield ast.BinOp(node.left, OTHER_OPERATOR[type(node.op)](), node.right)
    elif isinstance(node, ast.AugAssign):
        if type(node.op) in OTHER_OPERATOR:
            yield ast.AugAssign(node.target, OTHER_OPERATOR[type(node.op)](), node.value)
        yield ast.Pass()
    elif isinstance(node, ast.BoolOp):
        yield ast.BoolOp(ast.Or() if isinstance(node.op, ast.And) else ast.And(), node.values)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub | ast.Invert):
        yield node.operand
    elif isinstance(node, ast.If | ast.IfExp) and not isinstance(node.test, ast.Compare | ast.BoolOp):
        changed = copy.copy(node)
        changed.test = ast.UnaryOp(ast.Not(), node.test)
        yield changed
    elif isinstance(node, ast.Constant):
        yield from _other_constants(node.value)
    elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        yield ast.Pass()


def _other_constants(value: object) -> Iterator[ast.Constant]:
    if isinstance(value, bool):
        yield ast.Constant(not value)
    elif isinstance(value, int):
        yield ast.Constant(value + 1)
    elif isinstance(value, float):
        yield ast.Constant(value * 2 if value else 1.0)


def _short(node: ast.AST) -> str:
    text = " ".join(ast.unparse(node).split())
    return text if len(text) <= 60 else f"{text[:57]}…"


def run_tests(tests: Sequence[str], source: Path, *, cpu_seconds: float) -> tuple[str, float]:
    """Run tests against a copy of the package, in a fork of this process; return how it ended and how long it took.

    `passed`, `failed` or `timeout`. This process has torch in memory, and nothing of pilot.
    """
    start = time.monotonic()
    if (child := os.fork()) == 0:
        _run_in_child(tests, source, cpu_seconds)
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            break
        if time.monotonic() - start > 20 * cpu_seconds:  # it waits for something that never comes
            os.kill(child, signal.SIGKILL)
        time.sleep(0.02)
    seconds = time.monotonic() - start
    if os.WIFSIGNALED(status):
        return "timeout", seconds
    return ("passed" if os.WEXITSTATUS(status) == 0 else "failed"), seconds


def _run_in_child(tests: Sequence[str], source: Path, cpu_seconds: float) -> None:
    import pytest

    resource.setrlimit(resource.RLIMIT_CPU, (int(cpu_seconds) + 1, int(cpu_seconds) + 2))
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    os.chdir(ROOT)
    sys.path.insert(0, str(source))
    sys.dont_write_bytecode = True
    os.environ["PYTHONPATH"] = str(source)
    code = pytest.main(["-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist", *tests])
    os._exit(int(code))


def preload() -> None:
    """Import what all tests need and no mutant changes."""
    import beartype  # noqa: F401
    import hypothesis  # noqa: F401
    import jaxtyping  # noqa: F401
    import numpy  # noqa: F401
    import torch

    torch.set_num_threads(1)  # threads would not survive the fork


def check_file(file: str, tests: Sequence[str], *, sample: int | None, seed: int) -> tuple[int, list[Mutant], int]:
    """Return how many mutants of a file were killed, those that survived, and how many ran out of time."""
    mutants = mutate((ROOT / file).read_text())
    if sample is not None and sample < len(mutants):
        mutants = sorted(random.Random(seed).sample(mutants, sample), key=lambda mutant: mutant.line)
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        package = shutil.copytree(ROOT / "src", Path(folder) / "src", ignore=shutil.ignore_patterns("__pycache__"))
        # The tree as it is unparsed, so that nothing but the change differs.
        place = package / Path(file).relative_to("src")
        place.write_text(ast.unparse(ast.parse(place.read_text())))
        result, seconds = run_tests(tests, package, cpu_seconds=600)
        if result != "passed":
            raise SystemExit(f"{file}: its tests do not pass without a change ({result}); mend them first")
        survivors, timeouts = [], 0
        for number, mutant in enumerate(mutants, 1):
            place.write_text(mutant.source)
            result, _ = run_tests(tests, package, cpu_seconds=3 * seconds + SECONDS)
            timeouts += result == "timeout"
            if result == "passed":
                survivors.append(mutant)
                print(f"  survived  {file} {mutant}", flush=True)
            elif sys.stderr.isatty():
                print(f"\r  {number} of {len(mutants)}", end="", file=sys.stderr)
    return len(mutants) - len(survivors), survivors, timeouts


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("file", nargs="*", help="only files of TARGETS with one of these words in their path")
    parser.add_argument("--sample", type=int, help="so many mutants of each file, drawn at random")
    parser.add_argument("--seed", type=int, default=0, help="of the draw (default: %(default)s)")
    parser.add_argument("--at-least", type=float, default=90.0, help="percent to kill (default: %(default)g)")
    args = parser.parse_args()
    chosen = {f: tests for f, tests in TARGETS.items() if not args.file or any(word in f for word in args.file)}
    if not chosen:
        parser.error(f"no file of TARGETS has one of {args.file} in its path; there are {', '.join(TARGETS)}")
    preload()
    rows = []
    for file, tests in chosen.items():
        killed, survivors, timeouts = check_file(file, tests, sample=args.sample, seed=args.seed)
        rows.append((file, killed, len(survivors), timeouts))
        print(f"{file}: {killed} killed ({timeouts} by the time limit), {len(survivors)} survived", flush=True)
    killed, survived = sum(row[1] for row in rows), sum(row[2] for row in rows)
    share = 100 * killed / max(1, killed + survived)
    print(f"{killed} of {killed + survived} killed, {share:.0f} %")
    raise SystemExit(share < args.at_least)


if __name__ == "__main__":
    main()
