"""What Prometheus reads."""

from pilot.serve.metrics import ServerMetrics


def samples(metrics: ServerMetrics) -> dict[str, float]:
    """Every sample of the text by its name and labels."""
    lines = [line for line in metrics.to_text().splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}


def test_counters_count_by_label():
    metrics = ServerMetrics()
    metrics.refused.labels("a", "robot").inc()
    metrics.refused.labels("a", "robot").inc()
    metrics.refused.labels('b"\\\n', "policy").inc()
    counted = samples(metrics)
    assert counted['pilot_refused_total{by="robot",policy="a"}'] == 2
    assert counted['pilot_refused_total{by="policy",policy="b\\"\\\\\\n"}'] == 1


def test_histograms_are_cumulative():
    metrics = ServerMetrics()
    for robots in (1, 3, 3, 100):
        metrics.batch_size.labels("nano").observe(robots)
    counted = samples(metrics)
    buckets = {
        bound: counted[f'pilot_batch_robots_bucket{{le="{bound}",policy="nano"}}']
        for bound in ("1.0", "2.0", "4.0", "64.0", "+Inf")
    }
    assert buckets == {"1.0": 1, "2.0": 1, "4.0": 3, "64.0": 3, "+Inf": 4}
    assert (
        counted['pilot_batch_robots_sum{policy="nano"}'] == 107
        and counted['pilot_batch_robots_count{policy="nano"}'] == 4
    )


def test_the_names_that_dashboards_use_stay():
    text = ServerMetrics().to_text()
    kinds = dict(line.split()[2:] for line in text.splitlines() if line.startswith("# TYPE pilot_"))
    assert {name: kind for name, kind in kinds.items() if not name.endswith("_created")} == {
        "pilot_answers_total": "counter",
        "pilot_refused_total": "counter",
        "pilot_turned_away_total": "counter",
        "pilot_commands_total": "counter",
        "pilot_reloads_total": "counter",
        "pilot_answer_seconds": "histogram",
        "pilot_queue_seconds": "histogram",
        "pilot_infer_seconds": "histogram",
        "pilot_batch_robots": "histogram",
        "pilot_ready": "gauge",
        "pilot_robots": "gauge",
        "pilot_viewers": "gauge",
        "pilot_answering": "gauge",
        "pilot_start_time_seconds": "gauge",
    }


def test_two_servers_in_a_process_count_apart():
    first, second = ServerMetrics(), ServerMetrics()
    first.commands.inc()
    assert samples(first)["pilot_commands_total"] == 1 and samples(second)["pilot_commands_total"] == 0
