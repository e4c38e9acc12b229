"""What studies count of an episode."""

from collections.abc import Callable
from dataclasses import dataclass

from pilot.eval.records import EpisodeRecord
from pilot.eval.study.declare import Study
from pilot.names import check_name


@dataclass(frozen=True, kw_only=True)
class EpisodeMeasure:
    """A number of an episode; `is_share` is of 0 to 1 and shown in per cent."""

    title: str
    of: Callable[[EpisodeRecord], float]
    is_share: bool = True

    def write(self, value: float) -> str:
        """Write a value as tables show it."""
        return f"{100 * value:.1f}" if self.is_share else f"{value:.3g}"


MEASURES = {
    "success": EpisodeMeasure(title="success [%]", of=lambda record: record.success),
    "progress": EpisodeMeasure(title="goals reached [%]", of=lambda record: record.share),
    "follow": EpisodeMeasure(title="right object first [%]", of=lambda record: record.right_object_first),
    "wrong": EpisodeMeasure(title="wrong object first [%]", of=lambda record: record.wrong_object),
    "steps": EpisodeMeasure(title="steps", of=lambda record: record.steps, is_share=False),
    "ms": EpisodeMeasure(title="ms per chunk", of=lambda record: record.infer_ms, is_share=False),
}


def check_measures(study: Study) -> None:
    """Check that a study's measures are known, and that the first is a share: it is compared in points.

    Raises:
        ValueError: they are not.
    """
    for name in study.measures:
        check_name("measure", name, MEASURES)
    if not study.measures or not MEASURES[study.measures[0]].is_share:
        shares = ", ".join(name for name, measure in MEASURES.items() if measure.is_share)
        raise ValueError(f"the first measure of a study is a share ({shares}), got {study.measures[:1]}")
