"""A run tries its policy in a simulator as it goes."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from pilot import configs
from pilot.cli.settings import override
from pilot.eval import during_training
from pilot.eval.during_training import evaluator
from pilot.eval.stats import wilson


def debug(*assignments: str):
    return override(configs.get("debug"), assignments)


def test_success_comes_with_its_interval(monkeypatch):
    asked = []

    def evaluate(policy, **options):
        asked.append((policy, options["suite"].name, options["episodes"]))
        return SimpleNamespace(rate=0.25, n=4, interval=wilson(1, 4))

    monkeypatch.setattr(during_training, "load_policy", lambda path: f"policy in {path}")
    monkeypatch.setattr(during_training, "evaluate", evaluate)
    run = evaluator(debug("eval_suite=homes-l1", "eval_every=10", "eval_episodes=4"))
    assert run is not None
    found = run(Path("out/policy"))
    assert asked == [("policy in out/policy", "homes-l1", 4)]
    low, high = wilson(1, 4)
    assert found == {
        "eval/homes-l1/success": 0.25, "eval/homes-l1/low": low, "eval/homes-l1/high": high, "eval/homes-l1/n": 4
    }  # fmt: skip


def test_what_cannot_be_evaluated_is_said_before_the_run():
    assert evaluator(debug()) is None
    with pytest.raises(ValueError, match="did you mean 'homes-l1'"):
        evaluator(debug("eval_suite=homes-11"))
    with pytest.raises(ValueError, match="at least 1"):
        evaluator(debug("eval_suite=homes-l1", "eval_episodes=0"))
