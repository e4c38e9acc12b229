"""Metrics for Prometheus: what a server has done since it started, and what it is doing now. Times are in seconds."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64)


class ServerMetrics:
    """The metrics of one server, in a registry of their own: a process may run several servers."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.answers = self._counter("pilot_answers_total", "Observations answered with actions.", "policy")
        self.refused = self._counter(
            "pilot_refused_total", "Observations answered with an error, by who caused it.", "policy", "by"
        )
        self.turned_away = self._counter("pilot_turned_away_total", "Connections refused, by reason.", "reason")
        self.commands = self._counter("pilot_commands_total", "Commands that people gave to robots.")
        self.reloads = self._counter("pilot_reloads_total", "Policies loaded again, by result.", "policy", "result")
        self.total_seconds = self._histogram(
            "pilot_answer_seconds", "From an observation's arrival to its answer.", SECONDS_BUCKETS
        )
        self.queue_seconds = self._histogram(
            "pilot_queue_seconds", "The part of it spent waiting for the model.", SECONDS_BUCKETS
        )
        self.infer_seconds = self._histogram(
            "pilot_infer_seconds", "The part of it spent in the model.", SECONDS_BUCKETS
        )
        self.batch_size = self._histogram("pilot_batch_robots", "Robots answered together.", BATCH_BUCKETS)
        self.ready = self._gauge("pilot_ready", "Whether the server accepts robots.")
        self.robots = self._gauge("pilot_robots", "Robots that are connected.")
        self.viewers = self._gauge("pilot_viewers", "People who watch.")
        self.answering = self._gauge("pilot_answering", "Observations being answered.")
        self.start_time = self._gauge("pilot_start_time_seconds", "When the server started, in seconds since 1970.")

    def to_text(self) -> str:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self.registry).decode()

    def _counter(self, name: str, help: str, *labels: str) -> Counter:
        return Counter(name, help, labels, registry=self.registry)

    def _gauge(self, name: str, help: str) -> Gauge:
        return Gauge(name, help, registry=self.registry)

    def _histogram(self, name: str, help: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(name, help, ("policy",), buckets=buckets, registry=self.registry)
