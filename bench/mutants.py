"""Mutation testing: the source is changed in one place, and its tests must fail.

    python bench/mutants.py                          all files of TARGETS; an hour of one core
    python bench/mutants.py executor flow --sample 40
    python bench/mutants.py --save /tmp/mutants.jsonl --page     goes on where it was; writes the table of the docs

A comparison, an operator, a branch, a number or a statement is changed, one at a time. A mutant is killed if a test
fails or the time is up, and survives if all tests pass: then nothing says that this place matters, or the change is
none. `equivalent_mutants.json` names those that are none, each with the reason; they are not tried and not counted.
Killed, survived and their share are printed for each file, and each survivor with its line. Exits with 1 if fewer than
`--at-least` percent were killed.

The tests of a file are collected once. Each mutant gets a fork of that process, in which the changed functions are put
in place of the old ones, and only the tests that run the changed line are run, the quickest first. A change that takes
effect when a module is imported (a default, a constant) is tried in a copy of the package instead.
"""

import argparse
import ast
import gc
import hashlib
import json
import os
import random
import re
import resource
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

import pytest
from hypothesis import Phase, settings

from mutations import Mutant, mutate

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "promises.md"
EQUIVALENT = Path(__file__).with_name("equivalent_mutants.json")
TARGETS = {
    "src/pilot/data/layout.py": ["tests/data/test_layout.py"],
    "src/pilot/nn/attention.py": ["tests/nn/test_blocks.py"],
    "src/pilot/models/losses.py": ["tests/models/test_losses.py"],
    "src/pilot/models/flow.py": ["tests/models/test_flow.py"],
    "src/pilot/infer/rtc.py": ["tests/infer/test_rtc.py"],
    "src/pilot/infer/executor.py": ["tests/infer/test_executor.py", "tests/infer/test_executor_limits.py"],
    "src/pilot/infer/safety.py": ["tests/infer/test_safety.py"],
    "src/pilot/data/transforms.py": ["tests/data/test_transforms.py"],
}
SECONDS = 10.0  # of CPU time that a mutant has beyond three times what its tests take without it
EXAMPLES = 40  # of each property, which for most mutants is far more than enough
EVENTS = 30_000  # of a test that are watched for the lines that it runs; watching is slow
STUCK_AFTER = 30.0  # seconds without any CPU time: it waits for something that never comes
OPTIONS = ["-q", "--tb=no", "-p", "no:cacheprovider", "-p", "no:xdist"]


# --- running ----------------------------------------------------------------------------------------------------------


def in_fork(work: Callable[[], Any], *, cpu_seconds: float) -> Any:
    """Return what `work` returns in a fork of this process, as JSON; "timeout" if it takes too long."""
    reader, writer = os.pipe()
    if (child := os.fork()) == 0:
        os.close(reader)
        resource.setrlimit(resource.RLIMIT_CPU, (int(cpu_seconds) + 1, int(cpu_seconds) + 2))
        _silence()
        with os.fdopen(writer, "w") as pipe:
            json.dump(work(), pipe)
        os._exit(0)
    os.close(writer)
    watch = threading.Thread(target=_kill_when_stuck, args=(child,), daemon=True)
    watch.start()
    with os.fdopen(reader) as pipe:
        answer = pipe.read()
    os.waitpid(child, 0)
    watch.join()
    return json.loads(answer) if answer else "timeout"


def _kill_when_stuck(child: int) -> None:
    used, since = -1, time.monotonic()
    while True:
        time.sleep(0.05)
        try:
            fields = Path(f"/proc/{child}/stat").read_text().rsplit(")", 1)[1].split()
        except OSError:
            return
        if fields[0] == "Z":
            return
        if (now := int(fields[11]) + int(fields[12])) != used:
            used, since = now, time.monotonic()
        if time.monotonic() - since > STUCK_AFTER:
            os.kill(child, signal.SIGKILL)
            return


def _silence() -> None:
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)


def preload() -> None:
    """Import what all tests need and no mutant changes."""
    import beartype  # noqa: F401
    import jaxtyping  # noqa: F401
    import numpy  # noqa: F401
    import torch

    torch.set_num_threads(1)  # threads would not survive the fork
    # The same examples for every mutant; and one that fails is enough, the simplest is not looked for.
    phases = (Phase.explicit, Phase.generate)
    settings.register_profile("mutants", derandomize=True, database=None, deadline=None, phases=phases)
    settings.load_profile("mutants")


class Trials:
    """A plugin of pytest that runs the collected tests once as they are, then against one mutant after another."""

    def __init__(self, file: Path, mutants: Sequence[Mutant], tell: Callable[[int, str], None]) -> None:
        self.file, self.name, self.mutants, self.tell = file, str(file), mutants, tell
        self.is_profiling, self.events = False, 0  # of the watched test
        self.old = _functions(compile(file.read_text(), file, "exec"))
        self.live: list[FunctionType] = []
        self.seen: set[int] = set()
        self.called: set[int] = set()

    def pytest_runtestloop(self, session: Any) -> bool:
        """Run every mutant in a fork, and tell how it ended."""
        for item in session.items:
            if known := getattr(item.obj, "_hypothesis_internal_use_settings", None):
                fewer = settings(known, max_examples=min(EXAMPLES, known.max_examples))
                item.obj._hypothesis_internal_use_settings = fewer
        profile = in_fork(lambda: self.profile(session), cpu_seconds=1200)
        if isinstance(profile, str) or not session.items:
            self.tell(-1, profile if isinstance(profile, str) else "no tests")
            return True
        found = gc.get_objects()
        self.live = [f for f in found if isinstance(f, FunctionType) and f.__code__.co_filename == self.name]
        gc.freeze()
        common, tests = set(profile[0]), [(seconds, set(lines)) for seconds, lines in profile[1]]
        for number, mutant in enumerate(self.mutants):
            changed = self.changed(mutant)
            if not changed:
                self.tell(number, "at import")
                continue
            lines = set(range(mutant.line, mutant.last_line + 1))
            chosen = [i for i, (_, called) in enumerate(tests) if (called | common) & lines]
            chosen.sort(key=lambda i: tests[i][0])
            limit = 3 * sum(tests[i][0] for i in chosen) + SECONDS
            attempt = partial(self.attempt, session, changed, chosen)
            self.tell(number, in_fork(attempt, cpu_seconds=limit))
        return True

    def profile(self, session: Any) -> Any:
        """Return the lines that fixtures run, and CPU seconds and lines of each test; or the first that fails."""
        tests = []
        self.is_profiling = True
        sys.settrace(self._trace)  # of fixtures, too
        threading.settrace(self._trace)
        for number, item in enumerate(session.items):
            start = time.process_time()
            following = session.items[number + 1] if number + 1 < len(session.items) else None
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            if session.testsfailed:
                return f"{item.nodeid} fails without a change"
            tests.append([time.process_time() - start, sorted(self.called)])
        return [sorted(self.seen), tests]

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self) -> Iterator[None]:
        """Keep the lines that a test runs itself apart from those of its fixtures, which others may share."""
        of_fixtures, self.seen = self.seen, set()
        self.events = 0
        sys.settrace(self._trace if self.is_profiling else None)
        try:
            return (yield)
        finally:
            # A test that was not watched to its end may run any line.
            self.called = self.seen if self.events <= EVENTS else set(range(1, 10_000))
            self.seen = of_fixtures

    def _trace(self, frame: Any, event: str, argument: Any) -> Any:
        self.events += 1
        if self.events > EVENTS:
            sys.settrace(None)
        if frame.f_code.co_filename != self.name:
            return None
        self.seen.add(frame.f_lineno)
        return self._trace

    def changed(self, mutant: Mutant) -> dict[tuple[str, int], CodeType]:
        """Return the functions that differ, by name and first line; none if the change takes effect at import."""
        with mutant.planted() as tree:
            new = _functions(compile(tree, self.file, "exec"))
        return {key: code for key, code in new.items() if code != self.old.get(key)}

    def attempt(self, session: Any, changed: dict[tuple[str, int], CodeType], chosen: list[int]) -> str:
        """Put the changed functions in place and run some of the tests."""
        gc.disable()  # it would touch, and so copy, all that the parent has in memory
        swapped = 0
        for function in self.live:
            code = changed.get((function.__code__.co_qualname, function.__code__.co_firstlineno))
            if code is not None and len(code.co_freevars) != len(function.__code__.co_freevars):
                return "at import"
            if code is not None:
                function.__code__ = code
                swapped += 1
        if not swapped:
            return "at import"
        items = [session.items[i] for i in chosen]
        for item, following in zip(items, [*items[1:], None], strict=True):
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            if session.testsfailed:
                return "failed"
        return "passed"


def _functions(code: CodeType) -> dict[tuple[str, int], CodeType]:
    """Return the functions of a module or class, those inside functions left out, by name and first line."""
    found = {}
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            is_function = inner.co_flags & 1  # the body of a class has no optimised locals
            found |= {(inner.co_qualname, inner.co_firstlineno): inner} if is_function else _functions(inner)
    return found


def run_collected(file: str, tests: Sequence[str], mutants: Sequence[Mutant]) -> Iterator[tuple[int, str]]:
    """Yield the number of each mutant and how its tests ended: `passed`, `failed`, `timeout` or `at import`."""
    reader, writer = os.pipe()
    if (child := os.fork()) == 0:
        os.close(reader)
        _silence()
        pipe = os.fdopen(writer, "w", buffering=1)
        _prepare(ROOT / "src")
        trials = Trials(ROOT / file, mutants, lambda number, end: print(json.dumps([number, end]), file=pipe))
        pytest.main([*OPTIONS, *tests], plugins=[trials])
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        for line in pipe:
            number, end = json.loads(line)
            if number < 0:
                raise SystemExit(f"{file}: {end}; mend it first")
            yield number, end
    os.waitpid(child, 0)


def run_copy(file: str, tests: Sequence[str], mutant: Mutant) -> str:
    """Run all tests against a copy of the package with this mutant in it; return how they ended."""
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        package = shutil.copytree(ROOT / "src", Path(folder) / "src")
        with mutant.planted() as tree:
            (package / Path(file).relative_to("src")).write_text(ast.unparse(tree))

        def run() -> str:
            _prepare(package)
            return "passed" if pytest.main([*OPTIONS, "-x", *tests]) == 0 else "failed"

        return in_fork(run, cpu_seconds=300)


def _prepare(source: Path) -> None:
    os.chdir(ROOT)
    sys.path.insert(0, str(source))
    os.environ["PYTHONPATH"] = str(source)


# --- results ----------------------------------------------------------------------------------------------------------


def check_file(file: str, tests: Sequence[str], *, sample: int | None, seed: int, save: Path | None) -> dict[str, int]:
    """Try the mutants of a file; return how many were `killed`, by the `timeout`, `survived`, or are `equivalent`."""
    source = (ROOT / file).read_text()
    listed = [one for one in json.loads(EQUIVALENT.read_text()) if one["file"] == file]
    reasons = {(one["code"], one["column"], one["change"]) for one in listed}
    every = mutate(source)
    mutants = [mutant for mutant in every if mutant.key not in reasons]
    counts = {"killed": 0, "timeout": 0, "survived": 0, "equivalent": len(every) - len(mutants)}
    if sample is not None and sample < len(mutants):
        mutants = sorted(random.Random(seed).sample(mutants, sample), key=lambda mutant: mutant.line)
    # What was killed stays killed, however many tests are written for the others.
    digest = hashlib.sha256(source.encode()).hexdigest()[:16]
    saved = [json.loads(line) for line in save.read_text().splitlines()] if save and save.exists() else []
    killed = {
        (one["line"], one["column"], one["change"])
        for one in saved
        if (one["file"], one["digest"]) == (file, digest) and one["end"] != "passed"
    }
    known = [mutant for mutant in mutants if (mutant.line, mutant.column, mutant.change) in killed]
    counts["killed"] += len(known)
    rest = [mutant for mutant in mutants if mutant not in known]
    for mutant, end in _try(file, tests, rest):
        counts["survived" if end == "passed" else "killed"] += 1
        counts["timeout"] += end == "timeout"
        if end == "passed":
            print(f"  survived  {file} {mutant}", flush=True)
        if save:
            line = {"file": file, "digest": digest, "end": end, "line": mutant.line}
            line |= {"code": mutant.code, "column": mutant.column, "change": mutant.change}
            with save.open("a") as out:
                print(json.dumps(line), file=out)
    return counts


def _try(file: str, tests: Sequence[str], mutants: Sequence[Mutant]) -> Iterator[tuple[Mutant, str]]:
    """Yield each mutant and how it ended; those that take effect at import come last, for they cost most."""
    at_import = []
    for number, end in run_collected(file, tests, mutants) if mutants else ():
        if end == "at import":
            at_import.append(mutants[number])
        else:
            yield mutants[number], end
    for mutant in at_import:
        yield mutant, run_copy(file, tests, mutant)


def table(found: dict[str, dict[str, int]]) -> list[str]:
    """Return the counts as lines of a Markdown table."""
    lines = ["| changed in | killed | survived | equivalent | killed, of those that are not |", "|---|--:|--:|--:|--:|"]
    total = {name: sum(counts[name] for counts in found.values()) for name in ("killed", "survived", "equivalent")}
    for name, counts in [*((f"`{file}`", counts) for file, counts in found.items()), ("all", total)]:
        share = counts["killed"] / max(1, counts["killed"] + counts["survived"])
        lines.append(f"| {name} | {counts['killed']} | {counts['survived']} | {counts['equivalent']} | {share:.0%} |")
    return lines


def write(page: Path, lines: list[str]) -> None:
    """Put a table between its marks on a page, in place of the one that is there."""
    between = re.compile(r"(<!-- mutants -->\n).*(<!-- /mutants -->)", re.DOTALL)
    text, count = between.subn(lambda marks: marks[1] + "\n".join(lines) + "\n\n" + marks[2], page.read_text())
    assert count == 1, page
    page.write_text(text)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("file", nargs="*", help="only files of TARGETS with one of these words in their path")
    parser.add_argument("--sample", type=int, help="so many mutants of each file, drawn at random")
    parser.add_argument("--seed", type=int, default=0, help="of the draw (default: %(default)s)")
    parser.add_argument("--at-least", type=float, default=90.0, help="percent to kill (default: %(default)g)")
    parser.add_argument(
        "--save", type=Path, help="keep each result here, and run no mutant again that it has as killed"
    )
    parser.add_argument("--page", action="store_true", help=f"write the table into {PAGE.relative_to(ROOT)}")
    args = parser.parse_args()
    chosen = {f: tests for f, tests in TARGETS.items() if not args.file or any(word in f for word in args.file)}
    if not chosen:
        parser.error(f"no file of TARGETS has one of {args.file} in its path; there are {', '.join(TARGETS)}")
    preload()
    found = {}
    for file, tests in chosen.items():
        found[file] = check_file(file, tests, sample=args.sample, seed=args.seed, save=args.save)
        print(f"{file}: {', '.join(f'{count} {name}' for name, count in found[file].items())}", flush=True)
    print("\n".join(table(found)))
    if args.page:
        write(PAGE, table(found))
    killed, survived = (sum(counts[name] for counts in found.values()) for name in ("killed", "survived"))
    raise SystemExit(100 * killed / max(1, killed + survived) < args.at_least)


if __name__ == "__main__":
    main()
