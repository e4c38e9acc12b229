"""What Prometheus reads."""

from pilot.serve.metrics import Counter, Histogram, Metrics


def test_counters_count_by_label():
    counter = Counter("robots_total", "Robots.")
    counter.add(policy="a")
    counter.add(policy="a")
    counter.add(2, policy='b"\\\n')
    assert list(counter.lines()) == ['robots_total{policy="a"} 2', 'robots_total{policy="b\\"\\\\\\n"} 2']


def test_histograms_are_cumulative():
    histogram = Histogram("seconds", "Time.", (0.1, 1.0))
    for value in (0.05, 0.1, 0.5, 7.0):
        histogram.add(value)
    assert list(histogram.lines()) == [
        'seconds_bucket{le="0.1"} 2', 'seconds_bucket{le="1.0"} 3', 'seconds_bucket{le="+Inf"} 4',
        "seconds_sum 7.650000", "seconds_count 4",
    ]  # fmt: skip


def test_every_metric_says_what_it_is():
    metrics = Metrics()
    metrics.batch.add(3, policy="nano")
    text = metrics.text({"pilot_robots": ("Robots that are connected.", 2.0)})
    assert "# TYPE pilot_robots gauge\npilot_robots 2\n" in text
    assert (
        'pilot_batch_robots_bucket{policy="nano",le="2"} 0\npilot_batch_robots_bucket{policy="nano",le="4"} 1' in text
    )
    names = [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")]
    assert len(names) == len(set(names)) and all(f"# HELP {name} " in text for name in names)


def test_large_numbers_keep_their_digits():
    counter = Counter("robots_total", "Robots.")
    counter.add(12_345_678)
    assert list(counter.lines()) == ["robots_total 12345678"]
    assert "\nstarted 1795316426.5\n" in Metrics().text({"started": ("When.", 1795316426.5)})
