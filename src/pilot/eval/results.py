"""What an evaluation found: a result per suite and control, as a table and as files."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pilot.data.storage.files import atomic_write, write_json
from pilot.eval.records import EpisodeRecord
from pilot.eval.stats import anytime_interval, cluster_bootstrap, visible_difference, wilson


@dataclass(frozen=True, kw_only=True)
class SuiteResult:
    """All episodes of one suite under one control, in order of scenes."""

    suite: str
    title: str
    control: str
    policy: str
    records: tuple[EpisodeRecord, ...]
    until: float | None = None  # the rate at which it could stop early

    @property
    def n(self) -> int:
        """The number of episodes."""
        return len(self.records)

    @property
    def successes(self) -> int:
        """The number of episodes that succeeded."""
        return sum(record.success for record in self.records)

    @property
    def rate(self) -> float:
        """The share that succeeded, 0 to 1."""
        return self.successes / self.n

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the success rate: Wilson's, or of a run that could stop early, one that allows that."""
        return (wilson if self.until is None else anytime_interval)(self.successes, self.n)

    @property
    def interval_over_tasks(self) -> tuple[float, float] | None:
        """The 95 % interval of the success rate over tasks like these; None where there is only one."""
        tasks = [record.task for record in self.records]
        if len(set(tasks)) < 2:
            return None
        return cluster_bootstrap([record.success for record in self.records], tasks, seed=0)

    def by_task(self) -> dict[str, tuple[int, int]]:
        """Return successes and episodes of each task, in the order in which they came."""
        counts: dict[str, tuple[int, int]] = {}
        for record in self.records:
            successes, n = counts.get(name := record.task or self.suite, (0, 0))
            counts[name] = (successes + record.success, n + 1)
        return counts

    @property
    def lost(self) -> int:
        """The number of episodes that count as failed because their simulator crashed or hung at every attempt."""
        return sum(record.lost is not None for record in self.records)

    @property
    def restarts(self) -> int:
        """How often a simulator was begun anew."""
        return sum(record.restarts for record in self.records)

    @property
    def lasting(self) -> int | None:
        """The number of episodes that were still a success when they ended; None in logs that do not say so."""
        if any(record.success_at_end is None for record in self.records):
            return None
        return sum(bool(record.success_at_end) for record in self.records)

    def mean(self, of: Callable[[EpisodeRecord], float]) -> float:
        """Average a number over the episodes."""
        return float(np.mean([of(record) for record in self.records]))

    def to_json(self) -> dict[str, Any]:
        """Return the summary that is stored: counts, rates, the interval, and the settings that it was run at."""
        low, high = self.interval
        return {
            "suite": self.suite,
            "control": self.control,
            "policy": self.policy,
            "episodes": self.n,
            "successes": self.successes,
            "success": self.rate,
            "interval95": [low, high],
            "wrong_object": self.mean(lambda r: r.wrong_object),
            "right_object_first": self.mean(lambda r: r.right_object_first),
            "placed": self.mean(lambda r: r.placed / max(r.targets, 1)),
            "progress": self.mean(lambda r: r.share),
            "successes_at_end": self.lasting,
            "restarts": self.restarts,
            "lost": self.lost,
            "mean_steps": self.mean(lambda r: r.steps),
            "infer_ms": float(np.median([r.infer_ms for r in self.records])),
            "seed": self.records[0].seed,
            "replan_steps": self.records[0].replan_steps,
            "num_steps": self.records[0].num_steps,
            "until": self.until,
            "interval95_over_tasks": None if (over := self.interval_over_tasks) is None else list(over),
            "tasks": {
                task: {"successes": successes, "episodes": n, "interval95": list(wilson(successes, n))}
                for task, (successes, n) in self.by_task().items()
            },
        }


def to_markdown(results: Sequence[SuiteResult]) -> str:
    """Write the table of `evaluate_table` for a page or a terminal; one more for suites of several tasks."""
    columns = ("suite", "control", "success", "95 %", "goals", "wrong object first", "steps")
    columns += ("num_steps", "replan_steps")
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for result in results:
        wrong, goals = result.mean(lambda r: r.wrong_object), result.mean(lambda r: r.placed / max(r.targets, 1))
        first = next((r for r in result.records if r.lost is None), result.records[0])  # settings are the same in all
        lines.append(
            f"| {result.suite} | {result.control} | {result.successes}/{result.n} = {result.rate:.1%} "
            f"| {_range(result.interval)} | {goals:.1%} | {wrong:.1%} | {result.mean(lambda r: r.steps):.0f} "
            f"| {first.num_steps or '–'} | {first.replan_steps or '–'} |"
        )
    for result in results:
        if len(tasks := result.by_task()) > 1:
            over = result.interval_over_tasks
            lines += ["", f"{result.suite}, {result.control}, by task"]
            lines[-1] += f" (over tasks like these 95 % {_range(over)}):" if over else ":"
            lines += ["", "| task | success | 95 % |", "|---|---|---|"]
            lines += [f"| {task} | {s}/{n} | {_range(wilson(s, n))} |" for task, (s, n) in tasks.items()]
    lines += [line for result in results for line in _remarks(result)]
    if any(result.until is not None for result in results):
        lines += ["", f"Stopped once surely above or below {results[0].until:.0%}; the intervals allow for that."]
    return "\n".join(lines)


def _remarks(result: SuiteResult) -> list[str]:
    """Return sentences on what is unusual in a result, each after a blank line."""
    where, remarks = f"{result.suite}, {result.control}:", []
    if result.lasting is not None and result.lasting != result.successes:
        remarks.append(f"{where} of {result.successes} successes {result.lasting} lasted to the end of the episode.")
    if result.restarts:
        remarks.append(f"{where} the simulator was restarted {result.restarts} times.")
    if result.lost:
        remarks.append(f"{where} {result.lost} episodes were lost to the simulator and count as failed.")
    return [line for remark in remarks for line in ("", remark)]


def _range(interval: tuple[float, float]) -> str:
    return f"{interval[0]:.1%} – {interval[1]:.1%}"


def describe_plan(episodes: int) -> str:
    """Return what so many episodes can tell, in words for a terminal."""
    low, high = wilson(round(episodes / 2), episodes)
    return (
        f"{episodes} episodes of a suite: a success rate of 50 % has the 95 % interval {_range((low, high))}. Of two "
        f"policies, a difference shows with 80 % power from {visible_difference(episodes, rate=0.5):.0%} on at 50 %, "
        f"and from {visible_difference(episodes, rate=0.8):.0%} on at 80 %; on the same starts from less."
    )


def save_table(results: Sequence[SuiteResult], path: str | Path) -> None:
    """Write a summary of every result as JSON at `path` and as markdown beside it, each whole or not at all."""
    path = Path(path)
    write_json(path, [result.to_json() for result in results])
    with atomic_write(path.with_suffix(".md")) as temporary:
        temporary.write_text(to_markdown(results) + "\n")
