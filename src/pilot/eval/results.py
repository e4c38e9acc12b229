"""What an evaluation found: a result per suite and control, as a table and as files."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pilot.data.storage.files import atomic_write, read_json, write_json
from pilot.eval.records import EpisodeRecord
from pilot.eval.stats import anytime_interval, cluster_bootstrap, visible_difference, wilson

OTHER_COLUMNS = ("num_steps", "replan_steps", "high_level_options")
"""Settings that the column of settings leaves out: they have a column of their own, or are too long for one."""


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
        """The 95 % interval of the success rate over tasks like these; None where there is only one.

        Episodes without a task, which were lost before anybody knew it, stay out.
        """
        named = [record for record in self.records if record.task is not None]
        if len({record.task for record in named}) < 2:
            return None
        return cluster_bootstrap([record.success for record in named], [record.task for record in named], seed=0)

    def by_task(self) -> dict[str, tuple[int, int]]:
        """Return successes and episodes of each task, in the order in which they came; only of those that have one."""
        counts: dict[str, tuple[int, int]] = {}
        for record in self.records:
            if record.task is not None:
                successes, n = counts.get(record.task, (0, 0))
                counts[record.task] = (successes + record.success, n + 1)
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
        acted = next((r for r in self.records if r.lost is None), self.records[0])  # a lost one has no settings
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
            "replan_steps": acted.replan_steps,
            "num_steps": acted.num_steps,
            "until": self.until,
            "interval95_over_tasks": None if (over := self.interval_over_tasks) is None else list(over),
            "tasks": {
                task: {"successes": successes, "episodes": n, "interval95": list(wilson(successes, n))}
                for task, (successes, n) in self.by_task().items()
            },
        }


def to_markdown(results: Sequence[SuiteResult]) -> str:
    """Write the table of `evaluate_table` for a page or a terminal; one more for suites of several tasks."""
    return rows_to_markdown([result.to_json() for result in results])


def rows_to_markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """Write the rows of `results.json` as `to_markdown` does, with their settings where there are any to tell apart."""
    columns = ["suite", "control", "success", "95 %", "goals", "wrong object first", "steps"]
    columns += ["num_steps", "replan_steps"]
    seeds = {row["seed"] for row in rows}
    settings = [settings_in_words(row, has_seed=len(seeds) > 1) for row in rows]
    columns += ["settings"] if any(settings) else []
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for row, words in zip(rows, settings):
        cells = [row["suite"], row["control"], f"{row['successes']}/{row['episodes']} = {row['success']:.1%}"]
        cells += [_range(row["interval95"]), f"{row['placed']:.1%}", f"{row['wrong_object']:.1%}"]
        cells += [f"{row['mean_steps']:.0f}", f"{row['num_steps'] or '–'}", f"{row['replan_steps'] or '–'}"]
        lines.append(f"| {' | '.join([*cells, words or '–'][: len(columns)])} |")
    for row in rows:
        if len(tasks := row["tasks"]) > 1:
            over = row["interval95_over_tasks"]
            lines += ["", f"{row['suite']}, {row['control']}, by task"]
            lines[-1] += f" (over tasks like these 95 % {_range(over)}):" if over else ":"
            lines += ["", "| task | success | 95 % |", "|---|---|---|"]
            lines += [
                f"| {task} | {found['successes']}/{found['episodes']} | {_range(found['interval95'])} |"
                for task, found in tasks.items()
            ]
    lines += [line for row in rows for line in _remarks(row)]
    return "\n".join(lines)


def settings_in_words(row: Mapping[str, Any], *, has_seed: bool, leave_out: Sequence[str] = OTHER_COLUMNS) -> str:
    """Return a row's settings in words: those that were chosen, and have no column of their own."""
    settings = row.get("settings", {})
    chosen = {name: value for name, value in settings.items() if name not in leave_out and value}
    chosen |= {"seed": row["seed"]} if has_seed else {}
    return ", ".join(
        name.replace("_", " ") if value is True else f"{name.replace('_', ' ')} {value}"
        for name, value in chosen.items()
    )


def _remarks(row: Mapping[str, Any]) -> list[str]:
    """Return sentences on what is unusual in a row, each after a blank line."""
    where, remarks, lasting = f"{row['suite']}, {row['control']}:", [], row["successes_at_end"]
    if lasting is not None and lasting != row["successes"]:
        remarks.append(f"{where} of {row['successes']} successes {lasting} lasted to the end of the episode.")
    if row["restarts"]:
        remarks.append(f"{where} the simulator was restarted {row['restarts']} times.")
    if row["lost"]:
        remarks.append(f"{where} {row['lost']} episodes were lost to the simulator and count as failed.")
    if row["until"] is not None:
        remarks.append(f"{where} stopped once surely above or below {row['until']:.0%}; the interval allows for that.")
    return [line for remark in remarks for line in ("", remark)]


def _range(interval: Sequence[float]) -> str:
    return f"{interval[0]:.1%} – {interval[1]:.1%}"


def describe_plan(episodes: int) -> str:
    """Return what so many episodes can tell, in words for a terminal."""
    low, high = wilson(round(episodes / 2), episodes)
    return (
        f"{episodes} episodes of a suite: a success rate of 50 % has the 95 % interval {_range((low, high))}. Of two "
        f"policies, a difference shows with 80 % power from {visible_difference(episodes, rate=0.5):.0%} on at 50 %, "
        f"and from {visible_difference(episodes, rate=0.8):.0%} on at 80 %; on the same starts from less."
    )


def save_table(results: Sequence[SuiteResult], path: str | Path, *, settings: Mapping[str, Any] | None = None) -> None:
    """Write a summary of every result as JSON at `path` and as markdown beside it, each whole or not at all.

    Each row says the `settings` that it was measured with. Rows of the same policy that are there already stay, unless
    the same suite and control were measured again with the same settings and seed.

    Raises:
        ValueError: the table that is there is damaged.
    """
    path, how = Path(path), {} if settings is None else {"settings": dict(settings)}
    new = [result.to_json() | how for result in results]
    policies = {result.policy for result in results}  # a table is of one policy, as its manifest says
    before = [row for row in _read_rows(path) if row.get("policy") in policies]
    # Rows of older versions do not say their settings, and give way to any.
    cells = {
        (row["suite"], row["control"], row["seed"], json.dumps(row.get("settings", settings), sort_keys=True)): row
        for row in [*before, *new]
    }
    rows = list(cells.values())
    write_json(path, rows)
    with atomic_write(path.with_suffix(".md")) as temporary:
        temporary.write_text(rows_to_markdown(rows) + "\n")


def _read_rows(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a table; none where there is no table of ours."""
    if not path.exists():
        return []
    content = read_json(path, remedy="remove it and run the same command again: the log has every episode")
    return [row for row in content if isinstance(row, dict)] if isinstance(content, list) else []
