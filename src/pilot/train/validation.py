"""How a run does on what it never trains on: losses, and how far sampled chunks are from those that were recorded.

A share of each source's episodes (`TrainConfig.held_out`), chosen by the run's seed, is drawn by no batch and counts in
no statistics. Of these, the same rows with the same noise are tried each time, so two values differ because the weights
do.

    val/<loss>/<source>                      as in training
    val/action_mse/<source>                  of normalised actions, over what the loss is over
    val/action_l1/<source>[/<group>]         in the robot's own units; groups are its grippers and all other dims

Axes: `n` rows, `ah` action horizon, `ad` action dims.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from zlib import crc32

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from pilot.data.formats.webdataset import WebDatasetRows
from pilot.data.loading.loader import Loader, RobotRows
from pilot.data.mixture import RowSource
from pilot.data.pipeline import Pipeline, Row, collate
from pilot.models.base import Model
from pilot.train.config import TrainConfig
from pilot.types import Robot, Sample

AT_ONCE = 16

Numbers = Int[np.ndarray, " n"]


class SourceSubset:
    """Some rows of a source, by their numbers there."""

    def __init__(self, rows: RowSource, numbers: Numbers) -> None:
        self.whole, self.numbers = rows, numbers

    def __len__(self) -> int:
        return len(self.numbers)

    def groups(self) -> dict[str, Numbers]:
        """Return the groups of the whole source, without the rows that are not in the subset."""
        groups = {name: np.intersect1d(numbers, self.numbers) for name, numbers in self.whole.groups().items()}
        return {name: numbers for name, numbers in groups.items() if len(numbers)}

    def sample(self, i: int, rng: np.random.Generator) -> Sample:
        return self.whole.sample(i, rng)


class TarSubset(SourceSubset):
    """Some rows of a set of tars, which can be read tar by tar and fetched ahead as the whole set can."""

    def __init__(self, rows: WebDatasetRows, numbers: Numbers) -> None:
        super().__init__(rows, numbers)
        self.tars, self.folder = rows, rows.folder

    def files_of(self, rows: Numbers) -> Numbers:
        """Return the number of the tar of each row."""
        return self.tars.files_of(rows)

    def prefetch(self, i: int) -> None:
        """Announce that row `i` of the whole set will be read."""
        self.tars.prefetch(i)


def hold_out(rows: RowSource, *, name: str, share: float, seed: int) -> tuple[RowSource, Numbers]:
    """Split a source into what training may draw, and the numbers of the rows that it may not.

    Whole episodes are held out, at least one and never all; of pictures, rows.

    Raises:
        ValueError: a share outside 0 to 1, or a source too small to be shared.
    """
    if not 0 <= share < 1:
        raise ValueError(f"held_out is a share of episodes from 0 to below 1, got {share}")
    if not share:
        return rows, np.zeros(0, np.int64)
    units = len(rows.dataset.episodes) if isinstance(rows, RobotRows) else len(rows)
    if units < 2:
        raise ValueError(f"source '{name}' has one episode: nothing can be held out of it; set held_out=0")
    count = min(units - 1, max(1, round(share * units)))
    chosen = np.random.default_rng((seed, crc32(name.encode()))).permutation(units)[:count]
    if not isinstance(rows, RobotRows):
        kept = np.setdiff1d(np.arange(units), chosen)
        is_tars = isinstance(rows, WebDatasetRows)
        return (TarSubset(rows, kept) if is_tars else SourceSubset(rows, kept)), np.sort(chosen)
    dataset = rows.dataset
    trainable = np.ones(len(dataset), bool) if dataset.trainable is None else dataset.trainable
    held = np.isin(dataset.episode_of, chosen)
    dataset.trainable = trainable & ~held
    return rows, np.flatnonzero(trainable & held)


@dataclass(frozen=True, kw_only=True)
class HeldOutRow:
    """A held-out row: the recording, and the model's input from it."""

    sample: Sample
    row: Row
    pipeline: Pipeline


class Validation:
    """Try a model on held-out rows: at most `validate_rows` of each source.

    Of many ranks each tries the same rows: those that share a model must run it together.

    Raises:
        ValueError: the run validates, but holds nothing out.
    """

    def __init__(
        self,
        config: TrainConfig,
        loader: Loader,
        held_out: Mapping[str, Numbers],
        *,
        device: str | torch.device = "cpu",
    ) -> None:
        if config.evaluation.validate_every and not any(len(numbers) for numbers in held_out.values()):
            raise ValueError(f"run '{config.name}' validates and holds nothing out; --set data.held_out=0.05")
        self.config, self.loader, self.device = config, loader, torch.device(device)
        self.numbers = {name: self._choose_rows(name, numbers) for name, numbers in held_out.items() if len(numbers)}

    def _choose_rows(self, name: str, numbers: Numbers) -> Numbers:
        rng = np.random.default_rng((self.config.seed, crc32(name.encode()), 1))
        return np.sort(rng.choice(numbers, min(self.config.evaluation.validate_rows, len(numbers)), replace=False))

    @torch.no_grad()
    def run(self, model: Model) -> dict[str, float]:
        """Return all that is measured of `model`, which is left in the mode it was in."""
        training = model.training
        model.eval()
        try:
            results = [self._source(model, name) for name in self.numbers]
        finally:
            model.train(training)
        return {name: value for values in results for name, value in values.items()}

    def _source(self, model: Model, name: str) -> dict[str, float]:
        generator = torch.Generator().manual_seed(self.config.seed)
        sums: defaultdict[str, float] = defaultdict(float)
        counts: defaultdict[str, float] = defaultdict(float)
        robot = self.loader.pipelines[name].robot
        numbers = self.numbers[name].tolist()
        for first in range(0, len(numbers), AT_ONCE):
            cases = [self._case(name, i) for i in numbers[first : first + AT_ONCE]]
            for term, total, count in self._losses(model, cases, generator):
                sums[f"val/{term}/{name}"] += total
                counts[f"val/{term}/{name}"] += count
            action_rows = [case for case in cases if case.row.action_mask.any()]
            if not action_rows or not model.samples_actions:
                continue
            for measure, errors in self._action_errors(model, action_rows, robot, generator):
                sums[f"val/{measure.format(name)}"] += float(errors.sum())
                counts[f"val/{measure.format(name)}"] += errors.size
        return {key: total / counts[key] for key, total in sums.items() if counts[key]}

    def _case(self, name: str, i: int) -> HeldOutRow:
        sample = self.loader.mixture.sources[name].sample(i, np.random.default_rng((self.config.seed, i)))
        pipeline = self.loader.pipelines[name]
        with_fast = self.loader.with_fast and sample.extra.get("whole", True)
        row = pipeline.encode(sample, with_fast=with_fast, flow=sample.extra.get("flow", True))
        return HeldOutRow(sample=sample, row=row, pipeline=pipeline)

    def _losses(
        self, model: Model, cases: list[HeldOutRow], generator: torch.Generator
    ) -> Iterator[tuple[str, float, float]]:
        draws = model.draw(len(cases), generator, time_s=self.config.objective.time_s)
        draws = {key: self._to_device(value) for key, value in draws.items()}
        batch = collate([case.row for case in cases]).map(self._to_device)
        for term, (total, count) in model.loss_terms(batch, draws, losses=self.config.objective.losses).items():
            yield term, float(total.sum()), float(count.sum())

    def _action_errors(
        self, model: Model, cases: list[HeldOutRow], robot: Robot, generator: torch.Generator
    ) -> Iterator[tuple[str, Float[np.ndarray, " n"]]]:
        """Yield errors of single numbers of sampled chunks, by what they are logged as; `{}` stands for the source."""
        rows = [case.pipeline.encode(case.sample, with_fast=False) for case in cases]
        observation = collate(rows).observation.map(self._to_device)
        noise = self._to_device(torch.randn(len(rows), *rows[0].actions.shape, generator=generator))
        if (padded_dims := model.padded_dims(robot.action_dim)) is not None:
            padded_dims = self._to_device(padded_dims)
        steps = {"noise": noise, "num_steps": model.default_num_steps, "padded_dims": padded_dims}
        chunks = model.sample_actions(observation, **steps).float().cpu().numpy()
        grips = np.array([any(name == gripper.action for gripper in robot.grippers) for name in robot.action_names])
        for case, chunk in zip(cases, chunks, strict=True):
            yield "action_mse/{}", np.square(chunk - case.row.actions)[case.row.action_mask]
            assert case.sample.state is not None and case.sample.actions is not None
            own = case.pipeline.decode_actions(chunk, case.sample.state)
            valid = np.repeat(np.any(case.row.action_mask, axis=1), case.pipeline.model.action_stride)
            valid = valid[: len(case.sample.actions)]
            if case.sample.action_is_pad is not None:  # between two actions of the chunk the episode may end
                valid &= ~case.sample.action_is_pad[: len(valid)]
            errors = np.abs(own[: len(valid)] - case.sample.actions[: len(valid)])[valid]  # [steps ad]
            yield "action_l1/{}", errors.ravel()
            if grips.any() and not grips.all():
                yield "action_l1/{}/gripper", errors[:, grips].ravel()
                yield "action_l1/{}/other", errors[:, ~grips].ravel()

    def _to_device(self, tensor: Tensor) -> Tensor:
        return tensor.to(self.device)
