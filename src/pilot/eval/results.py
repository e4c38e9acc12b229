"""What an evaluation found: a result per suite and control, as a table and as files."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pilot.data.storage.files import atomic_write, write_json
from pilot.eval.rollout import EpisodeRecord
from pilot.eval.stats import wilson


@dataclass(frozen=True, kw_only=True)
class SuiteResult:
    """All episodes of one suite under one control, in order of scenes."""

    suite: str
    title: str
    control: str
    policy: str
    records: tuple[EpisodeRecord, ...]

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
        """The 95 % Wilson interval of the success rate."""
        return wilson(self.successes, self.n)

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
            "mean_steps": self.mean(lambda r: r.steps),
            "infer_ms": float(np.median([r.infer_ms for r in self.records])),
            "seed": self.records[0].seed,
            "replan_steps": self.records[0].replan_steps,
            "num_steps": self.records[0].num_steps,
        }


def to_markdown(results: Sequence[SuiteResult]) -> str:
    """Write the table of `evaluate_table` for a page or a terminal."""
    lines = ["| suite | control | success | 95 % | wrong object first | steps |", "|---|---|---|---|---|---|"]
    for result in results:
        low, high = result.interval
        wrong = result.mean(lambda r: r.wrong_object)
        lines.append(
            f"| {result.suite} | {result.control} | {result.successes}/{result.n} = {result.rate:.1%} "
            f"| {low:.1%} – {high:.1%} | {wrong:.1%} | {result.mean(lambda r: r.steps):.0f} |"
        )
    return "\n".join(lines)


def save_table(results: Sequence[SuiteResult], path: str | Path) -> None:
    """Write a summary of every result as JSON at `path` and as markdown beside it, each whole or not at all."""
    path = Path(path)
    write_json(path, [result.to_json() for result in results])
    with atomic_write(path.with_suffix(".md")) as temporary:
        temporary.write_text(to_markdown(results) + "\n")
