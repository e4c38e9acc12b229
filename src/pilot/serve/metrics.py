"""Numbers for machines: Prometheus' text format, of what a server has done since it started.

Times are in seconds, as Prometheus wants them. Counted in the server's event loop only.
"""

import bisect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
ROBOTS = (1, 2, 4, 8, 16, 32, 64)

Labels = tuple[tuple[str, str], ...]


@dataclass
class Counter:
    """How often something happened, by its labels."""

    name: str
    help: str
    values: dict[Labels, float] = field(default_factory=dict)
    kind: str = "counter"

    def add(self, amount: float = 1.0, /, **labels: str) -> None:
        key = tuple(sorted(labels.items()))
        self.values[key] = self.values.get(key, 0.0) + amount

    def lines(self) -> Iterable[str]:
        for labels, value in self.values.items():
            yield f"{self.name}{braces(labels)} {exact(value)}"


@dataclass
class Histogram:
    """How large something was: counts up to each bound, their sum and number, by its labels."""

    name: str
    help: str
    bounds: tuple[float, ...]
    counts: dict[Labels, list[int]] = field(default_factory=dict)
    sums: dict[Labels, float] = field(default_factory=dict)
    kind: str = "histogram"

    def add(self, value: float, /, **labels: str) -> None:
        key = tuple(sorted(labels.items()))
        counts = self.counts.setdefault(key, [0] * (len(self.bounds) + 1))
        counts[bisect.bisect_left(self.bounds, value)] += 1
        self.sums[key] = self.sums.get(key, 0.0) + value

    def lines(self) -> Iterable[str]:
        for labels, counts in self.counts.items():
            total = 0
            for bound, count in zip((*map(str, self.bounds), "+Inf"), counts):
                total += count
                yield f"{self.name}_bucket{braces((*labels, ('le', bound)))} {total}"
            yield f"{self.name}_sum{braces(labels)} {self.sums[labels]:.6f}"
            yield f"{self.name}_count{braces(labels)} {total}"


class Metrics:
    """Everything that one server counts."""

    def __init__(self) -> None:
        self.answers = Counter("pilot_answers_total", "Observations answered with actions.")
        self.refused = Counter("pilot_refused_total", "Observations answered with an error, by whose fault it was.")
        self.turned_away = Counter("pilot_turned_away_total", "Connections refused, by reason.")
        self.commands = Counter("pilot_commands_total", "What people said to robots.")
        self.reloads = Counter("pilot_reloads_total", "Policies loaded anew, by result.")
        self.total = Histogram("pilot_answer_seconds", "From an observation's arrival to its answer.", SECONDS)
        self.queued = Histogram("pilot_queue_seconds", "Of that, waiting for the model.", SECONDS)
        self.infer = Histogram("pilot_infer_seconds", "Of that, in the model.", SECONDS)
        self.batch = Histogram("pilot_batch_robots", "Robots answered together.", ROBOTS)

    def text(self, gauges: Mapping[str, tuple[str, float]]) -> str:
        """All of it, and `gauges`: what holds now, as name → (help, value)."""
        lines: list[str] = []
        for metric in vars(self).values():
            lines += [f"# HELP {metric.name} {metric.help}", f"# TYPE {metric.name} {metric.kind}", *metric.lines()]
        for name, (help, value) in gauges.items():
            lines += [f"# HELP {name} {help}", f"# TYPE {name} gauge", f"{name} {exact(value)}"]
        return "\n".join(lines) + "\n"


def braces(labels: Iterable[tuple[str, str]]) -> str:
    """`{policy="nano",le="0.1"}`, escaped."""
    parts = [f'{name}="{escaped(value)}"' for name, value in labels]
    return "{" + ",".join(parts) + "}" if parts else ""


def exact(value: float) -> str:
    """All of its digits: a counter that is rounded to six stands still, then jumps."""
    return str(int(value)) if float(value).is_integer() else repr(value)


def escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
