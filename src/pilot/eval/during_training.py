"""`pilot train` tries its policy in a simulator as it goes: settings `evaluation.suite` and `evaluation.every`."""

from collections.abc import Callable
from pathlib import Path

from pilot.eval.evaluate import evaluate
from pilot.eval.suites import load_suite
from pilot.infer.policy import load_policy
from pilot.train.config import TrainConfig


def evaluator(config: TrainConfig) -> Callable[[Path], dict[str, float]] | None:
    """Return a function from a policy's folder to its success and 95 % interval, as logged; None if no suite is set.

    Raises:
        ValueError: an unknown suite, or no episodes.
    """
    if config.evaluation.suite is None:
        return None
    suite, episodes = load_suite(config.evaluation.suite), config.evaluation.episodes
    if episodes < 1:
        raise ValueError(f"evaluation.episodes is at least 1, got {episodes}")

    def evaluate_policy(policy: Path) -> dict[str, float]:
        result = evaluate(load_policy(policy), suite=suite, episodes=episodes, seed=config.seed, progress=False)
        low, high = result.interval
        name = f"eval/{suite.name}"
        return {f"{name}/success": result.rate, f"{name}/low": low, f"{name}/high": high, f"{name}/n": result.n}

    return evaluate_policy
