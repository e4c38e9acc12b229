"""All that can be measured of a checkpoint on a data set, whatever it holds: `pilot eval CHECKPOINT --offline DATA`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from pilot.data.formats.episodes import EpisodeDataset
from pilot.data.formats.open_dataset import is_image_text, open_episodes, open_image_text
from pilot.data.storage.files import write_json
from pilot.datasets import layouts_from
from pilot.eval.offline.actions import measure_actions, measure_tokens, probe_language
from pilot.eval.offline.high_level import measure_high_level
from pilot.eval.offline.questions import measure_questions

PROBE_SHARE = 4  # of the frames, one in so many is asked three times


class Measure(Protocol):
    """A result that can be written down."""

    def to_json(self) -> dict[str, Any]:
        """Return what programs read."""
        ...

    def to_markdown(self) -> str:
        """Write what people read."""
        ...


@dataclass(frozen=True, kw_only=True)
class OfflineResult:
    """What was measured on one set, by name; `skipped` says what could not be, and why."""

    data: str
    measures: Mapping[str, Measure]
    skipped: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return all measures."""
        found = {name: measure.to_json() for name, measure in self.measures.items()}
        return {"data": self.data, **found, "skipped": dict(self.skipped)}

    def to_markdown(self) -> str:
        """Write all measures below each other."""
        parts = [f"## {self.data}", *(measure.to_markdown() for measure in self.measures.values())]
        return "\n\n".join([*parts, *(f"No {name}: {why}" for name, why in self.skipped.items())])


def measure_offline(
    policy: Any, path: str | Path, *, robot: str | None = None, rows: int = 512, seed: int = 0
) -> OfflineResult:
    """Measure what the set at `path` allows: demonstrations, with subtasks or without, or questions about pictures.

    Raises:
        FileNotFoundError: there is no set that can be read.
        ValueError: its robot is not the policy's.
    """
    if is_image_text(path):
        own = policy.bundle.find_robot(robot).robot
        questions = open_image_text(path, camera=own.cameras[0], loc_stride=policy.bundle.loc_stride)
        answers = measure_questions(policy, questions, robot=robot, rows=rows, seed=seed)
        return OfflineResult(data=str(path), measures={"questions": answers})
    dataset = open_episodes(path, policy.model.config.chunk_steps, layouts=layouts_from(None))
    return measure_episodes(policy, dataset, robot=robot, rows=rows, seed=seed)


def measure_episodes(policy: Any, dataset: EpisodeDataset, *, robot: str | None, rows: int, seed: int) -> OfflineResult:
    """Measure actions, action tokens, the high level and whether words matter on demonstrations."""
    drawn: dict[str, Any] = {"robot": robot, "rows": rows, "seed": seed}
    measures: dict[str, Measure] = {"actions": measure_actions(policy, dataset, **drawn)}
    skipped = {}
    if (tokens := measure_tokens(policy, dataset, **drawn)) is not None:
        measures["tokens"] = tokens
    else:
        skipped["action tokens"] = "the policy has no action tokenizer"
    if (probe := probe_language(policy, dataset, robot=robot, rows=max(1, rows // PROBE_SHARE), seed=seed)) is not None:
        measures["language"] = probe
    else:
        skipped["language probe"] = "the set has one task only, or its actions never move"
    if policy.subtask_codec is None:
        skipped["high level"] = "the policy writes no subtasks"
    elif not (np.asarray(dataset.subtask_index) >= 0).any():
        skipped["high level"] = "the set has no subtasks; write them: pilot data annotate"
    else:
        measures["high_level"] = measure_high_level(policy, dataset, robot=robot, rows=rows, seed=seed)
    return OfflineResult(data=str(dataset.path), measures=measures, skipped=skipped)


def save_results(results: Sequence[OfflineResult], folder: Path) -> None:
    """Write the results as `offline.json` and `offline.md`."""
    write_json(folder / "offline.json", [result.to_json() for result in results])
    (folder / "offline.md").write_text("\n\n".join(result.to_markdown() for result in results) + "\n")
