"""The one place that writes the order: robot → delta → normalise → resize → tokens → pad → augment, and back for
actions.

Training, statistics, policies and tests use the same `Pipeline`, so what a model is trained on is what it sees later.

Axes: `h w` pixels, `ah` action horizon, `ad` the model's action dims, `rd` the robot's, `sd` the robot's state dims.
"""

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from graphlib import CycleError, TopologicalSorter
from typing import Any, Protocol

import numpy as np
import torch
from jaxtyping import Float

from pilot.data import transforms
from pilot.data.augment import UNCHANGED, Augmentation, augment, draw_augmentation
from pilot.data.layout import Batch, Kind, Observation
from pilot.tokenizers.base import ActionTokenizer
from pilot.tokenizers.prompts import FORMATS, encode_actions, encode_prompt, encode_target, state_bins
from pilot.tokenizers.text import TextTokenizer, split_box
from pilot.types import Adapter, NormStats, Robot, Sample, is_step, moment_before, require_adapter


class ModelInputs(Protocol):
    """The fields of a model's config that the pipeline needs (`PiConfig` has them)."""

    @property
    def action_dim(self) -> int:
        """Dims of states and actions, those that pad included."""
        ...

    @property
    def action_horizon(self) -> int:
        """The number of actions in a chunk."""
        ...

    @property
    def action_stride(self) -> int:
        """The control steps from one action of a chunk to the next."""
        ...

    @property
    def chunk_steps(self) -> int:
        """The control steps of a chunk."""
        ...

    @property
    def vocab_size(self) -> int:
        """The number of tokens, those of actions included."""
        ...

    @property
    def fast_offset(self) -> int:
        """Tokens between the end of the vocabulary and the first action token."""
        ...

    @property
    def max_tokens(self) -> int:
        """Text tokens of a row at most."""
        ...

    @property
    def state_input(self) -> str:
        """The place of the state: in the text, a token of the flow block, both, or nowhere."""
        ...

    @property
    def norm(self) -> transforms.NormKind:
        """The normalisation of states and actions."""
        ...

    @property
    def prompt(self) -> str:
        """The name of the prompt's format."""
        ...

    @property
    def always_shown(self) -> tuple[str, ...]:
        """Cameras that every row has, black where the robot lacks them."""
        ...

    def image_size(self, *, wrist: bool) -> int:
        """Return the side in pixels to which pictures of a camera are scaled."""
        ...


_MOST_DEVIATIONS = 3.0  # from the mean, of an action whose step has a scale of its own


@dataclass(kw_only=True)
class Row:
    """One row of a batch, before it is padded to its neighbours.

    `augmentations`: what training does to its pictures. `row_id`: which row of its step's batch it is.
    `fast_dropped`: its FAST tokens did not fit into the model's `max_tokens`, and are left out.
    """

    images: dict[str, np.ndarray]
    tokens: list[int]
    token_kinds: list[int]
    token_loss: list[bool]
    state: Float[np.ndarray, " s"]  # `action_dim` numbers for each moment that the model sees
    actions: Float[np.ndarray, "ah ad"]
    action_mask: np.ndarray
    source: str
    augmentations: dict[str, Augmentation] = field(default_factory=dict)
    row_id: int = 0
    fast_dropped: bool = False

    def add_tokens(self, tokens: list[int], kind: Kind, *, loss: bool) -> None:
        """Append tokens of one kind; with `loss` they are targets."""
        self.tokens += tokens
        self.token_kinds += [int(kind)] * len(tokens)
        self.token_loss += [loss] * len(tokens)


class Pipeline:
    """Samples of one robot to rows of one model, and the model's actions back to the robot.

    `norm_stats` has "state" and "actions" (actions after the delta step). Without `action_tokenizer` rows have no FAST
    tokens. `adapter` is what `robots.load_adapter` gives for a robot that names one.

    Raises:
        ValueError: statistics or the adapter missing, or dims that differ from the robot's.
    """

    def __init__(
        self,
        robot: Robot,
        model: ModelInputs,
        *,
        norm_stats: dict[str, NormStats],
        text: TextTokenizer,
        action_tokenizer: ActionTokenizer | None = None,
        adapter: Adapter | None = None,
    ) -> None:
        self.adapter = require_adapter(robot, adapter)
        self.robot, self.model, self.text, self.action_tokenizer = robot, model, text, action_tokenizer
        for name, dims in (("state", robot.state_dim), ("actions", robot.action_dim)):
            if name not in norm_stats:
                raise ValueError(
                    f"norm stats have no '{name}' (got {sorted(norm_stats)}); make them: pilot data stats PATH"
                )
            # Statistics of another robot would move arms to wrong places without any error: refuse them here.
            if (got := len(norm_stats[name].q01)) != dims:
                raise ValueError(f"norm stats of '{name}' have {got} dims, robot '{robot.name}' declares {dims}")
            used = ("mean", "std") if model.norm == "zscore" else ("q01", "q99")
            if not all(np.isfinite(getattr(norm_stats[name], value)).all() for value in used):
                raise ValueError(f"norm stats of '{name}' hold NaN or infinity; make them anew: pilot data stats PATH")
        if model.action_stride > 1 and (steps := [unit for unit in robot.action_units if is_step(unit)]):
            raise ValueError(
                f"robot '{robot.name}' moves by {steps[0]}, so no step can be left out: action_stride is 1, not "
                f"{model.action_stride}"
            )
        self.norm_stats = norm_stats
        self.moments: int = getattr(model, "observation_steps", 1)  # that a row shows: now, or one step earlier too
        self._warned = False

    # --- towards the model -------------------------------------------------------------------------------------------

    def encode(
        self,
        sample: Sample,
        *,
        with_fast: bool = True,
        flow: bool = True,
        rng: np.random.Generator | None = None,
        bounded: bool = True,
    ) -> Row:
        """Encode everything that the sample has as a row: prompt, target text, actions.

        `with_fast=False` leaves the FAST tokens out (a chunk that is not whole has none to teach), `flow=False` takes
        the actions out of the flow loss. With `rng` the pictures will be augmented (`data/augment.py`); where words
        hold boxes only their colours, so that boxes stay right. If it is not `bounded`, text may be longer than
        `max_tokens`.
        """
        row = self._empty(sample)
        if rng is not None:
            row.augmentations = self._draw_augmentations(sample, rng)
        if sample.answer is not None:
            row.add_tokens(encode_prompt(self.text, "web", text=sample.prompt), Kind.PREFIX, loss=False)
            row.add_tokens(encode_target(self.text, "web", text=sample.answer), Kind.TEXT, loss=True)
            return self._within_budget(row)
        state = self.normalized_state(sample)
        # Normalised first: padding is then 0, the middle of the range, for every robot.
        row.state = transforms.pad_dims(state, self.model.action_dim)
        if self.moments > 1:
            row.state = np.concatenate((row.state, self._past_state(sample, row.state)))
        self._add_prompt(row, sample, state)
        if sample.actions is not None:
            self._add_actions(row, sample, with_fast=with_fast, flow=flow)
        return self._within_budget(row) if bounded else row

    def normalized_state(self, sample: Sample) -> Float[np.ndarray, " sd"]:
        """Check a state against the robot, and return it normalised."""
        if sample.state is None or sample.state.shape != (self.robot.state_dim,):
            got = None if sample.state is None else list(sample.state.shape)
            raise ValueError(
                f"robot '{self.robot.name}' has {self.robot.state_dim} state dims {self.robot.state_names}, got {got}; "
                f"see robots/{self.robot.name}.py"
            )
        if not np.isfinite(sample.state).all():
            raise ValueError(f"the state of robot '{self.robot.name}' holds NaN or infinity: {sample.state}")
        state = self.adapter.state(np.asarray(sample.state, np.float32))
        return transforms.normalize(state, self.norm_stats["state"], self.model.norm)

    def _past_state(self, sample: Sample, state: Float[np.ndarray, " ad"]) -> Float[np.ndarray, " ad"]:
        """Return the state of the moment before, normalised and padded; at the start of an episode the present one."""
        if sample.past is None:
            return state
        past = self.normalized_state(replace(sample, state=sample.past.state))
        return transforms.pad_dims(past, self.model.action_dim)

    def _empty(self, sample: Sample) -> Row:
        if unknown := [camera for camera in sample.images if camera not in self.robot.cameras]:
            raise ValueError(f"robot '{self.robot.name}' has cameras {self.robot.cameras}, not '{unknown[0]}'")
        size = self.model.image_size(wrist=False)
        images = {slot: np.zeros((size, size, 3), np.uint8) for slot in self.model.always_shown}
        for camera in (camera for camera in self.robot.cameras if camera in sample.images):  # in the robot's order
            size = self.model.image_size(wrist=camera in self.robot.wrist_cameras)
            if (slot := self.robot.slot(camera)) is None:
                continue
            try:
                images[slot] = transforms.resize_with_pad(transforms.picture(sample.images[camera]), size)
                if self.moments > 1:
                    past = sample.images if sample.past is None else sample.past.images
                    earlier = transforms.resize_with_pad(transforms.picture(past[camera]), size)
                    images[moment_before(slot)] = earlier
            except ValueError as error:
                raise ValueError(f"camera '{camera}': {error}") from error
        shape = (self.model.action_horizon, self.model.action_dim)
        return Row(
            images=images, tokens=[], token_kinds=[], token_loss=[],
            state=np.zeros(self.moments * shape[1], np.float32),
            actions=np.zeros(shape, np.float32), action_mask=np.zeros(shape, bool), source=sample.source,
        )  # fmt: skip

    def picture_sizes(self) -> dict[str, int]:
        """Return the cameras that rows may have, in the robot's order, and the size of their pictures."""
        robot, size = self.robot, self.model.image_size
        sizes = {slot: size(wrist=False) for slot in self.model.always_shown}
        for camera, slot in robot.shown_cameras.items():
            names = (slot, moment_before(slot)) if self.moments > 1 else (slot,)
            sizes |= dict.fromkeys(names, size(wrist=camera in robot.wrist_cameras))
        return sizes

    def _draw_augmentations(self, sample: Sample, rng: np.random.Generator) -> dict[str, Augmentation]:
        """Draw one augmentation for all outer cameras, and one for all wrist cameras."""
        # A crop would move what the words point at.
        has_box = any("<loc" in words for words in (sample.prompt, sample.subtask, sample.answer) if words)
        # Wrist pictures show where the gripper is by where things are in them: only their colours change.
        augmentations = {False: draw_augmentation(rng, moves=not has_box), True: draw_augmentation(rng, moves=False)}
        slots = {camera: self.robot.slot(camera) for camera in sample.images}
        return {
            name: augmentations[camera in self.robot.wrist_cameras]
            for camera, slot in slots.items()
            if slot is not None
            for name in ((slot, moment_before(slot)) if self.moments > 1 else (slot,))  # alike at both moments
        }

    def _add_prompt(self, row: Row, sample: Sample, state: np.ndarray) -> None:
        without_state = self.model.prompt == "subtask" and self.model.state_input not in ("text", "both")
        name = "subtask_stateless" if without_state else self.model.prompt
        form = FORMATS[name]
        bins = state_bins(state, clip=form.clips_state).tolist() if form.reads_state else None
        budget = self.model.max_tokens if form.truncates else None
        mode = self.robot.control_mode
        tokens = encode_prompt(
            self.text, name, text=sample.prompt, bins=bins, control_mode=mode, max_tokens=budget
        )  # fmt: skip
        row.add_tokens(tokens, Kind.PREFIX, loss=False)
        if sample.subtask is not None:
            row.add_tokens(encode_target(self.text, name, text=sample.subtask), Kind.TEXT, loss=True)

    def _add_actions(self, row: Row, sample: Sample, *, with_fast: bool, flow: bool) -> None:
        actions, stride = self.normalized_actions(sample), self.model.action_stride
        steps = min(len(actions), self.model.action_horizon)
        is_pad = sample.action_is_pad
        valid = np.ones(steps, bool) if is_pad is None else ~is_pad[::stride][:steps]
        row.actions[:steps] = transforms.pad_dims(self.scale_steps(actions[:steps]), self.model.action_dim)
        # Padded dims and steps behind the end of an episode carry no loss.
        row.action_mask[:steps, : self.robot.action_dim] = valid[:, None] & flow
        if self.action_tokenizer is not None and with_fast:
            # FAST compresses the robot's own dims; padding would cost tokens that say nothing. It needs smooth chunks,
            # which they are no more once each step has its own scale.
            ids = self.action_tokenizer.encode(actions)
            tokens = encode_actions(self.text, ids, vocab_size=self.model.vocab_size, offset=self.model.fast_offset)
            row.add_tokens(tokens, Kind.FAST, loss=True)

    def normalized_actions(self, sample: Sample) -> Float[np.ndarray, "ah rd"]:
        """Return the chunk relative to its first state, normalised, in the robot's own dims, every `action_stride`."""
        assert sample.actions is not None and sample.state is not None
        if sample.actions.shape[-1] != self.robot.action_dim:
            raise ValueError(
                f"the data has {sample.actions.shape[-1]} action dims, robot '{self.robot.name}' declares "
                f"{self.robot.action_dim}; see robots/{self.robot.name}.py"
            )
        if not np.isfinite(sample.actions).all():
            raise ValueError(f"the actions of robot '{self.robot.name}' hold NaN or infinity ({sample.source})")
        actions = self.adapter.actions(transforms.take_every(sample.actions, self.model.action_stride))
        state = self.adapter.state(sample.state)
        delta = transforms.to_delta(actions, state, self.robot.delta_mask)
        return transforms.normalize(delta, self.norm_stats["actions"], self.model.norm)

    def scale_steps(self, actions: Float[np.ndarray, "h rd"]) -> Float[np.ndarray, "h rd"]:
        """Return a normalised chunk, or its beginning, with each step at its own scale, if the statistics have one.

        Then what is farther from the mean than three standard deviations is brought to three: after a push or a slip
        commands are ten away, and a squared loss would learn little but those.
        """
        mean, std = self.norm_stats["actions"].step_mean, self.norm_stats["actions"].step_std
        if mean is None or std is None:
            return actions
        scaled = (actions - mean[: len(actions)]) / std[: len(actions)]
        return np.clip(scaled, -_MOST_DEVIATIONS, _MOST_DEVIATIONS).astype(np.float32)

    def _within_budget(self, row: Row) -> Row:
        over = len(row.tokens) - self.model.max_tokens
        if over <= 0:
            return row
        # Words are never cut in training: half a prompt would be another task.
        if over > row.token_kinds.count(int(Kind.FAST)):
            raise ValueError(
                f"a row has {len(row.tokens)} text tokens, but max_tokens is {self.model.max_tokens}; shorten "
                f"{self.text.decode(row.tokens[:20])!r}… or raise max_tokens"
            )
        self._drop_fast(row, over=over)
        return row

    def _drop_fast(self, row: Row, *, over: int) -> None:
        """Take the FAST tokens out of a row that they do not fit into: half a chunk would be another chunk."""
        if not self._warned:  # once, for it may be many rows
            count = row.token_kinds.count(int(Kind.FAST))
            warnings.warn(
                f"a chunk has {count} FAST tokens, max_tokens={self.model.max_tokens} leaves room for {count - over}: "
                "rows whose chunk does not fit teach no FAST tokens; raise max_tokens, or fit a coarser tokenizer",
                stacklevel=4,
            )
            self._warned = True
        keep = [number for number, kind in enumerate(row.token_kinds) if kind != Kind.FAST]
        row.tokens = [row.tokens[number] for number in keep]
        row.token_loss = [row.token_loss[number] for number in keep]
        row.token_kinds = [row.token_kinds[number] for number in keep]
        row.fast_dropped = True

    # --- back to the robot -------------------------------------------------------------------------------------------

    def decode_actions(
        self, actions: Float[np.ndarray, "ah ad"], state: Float[np.ndarray, " sd"], *, from_tokens: bool = False
    ) -> Float[np.ndarray, "t rd"]:
        """Convert a model's chunk to the robot's own units, absolute where the robot commands are, one for each step.

        `from_tokens`: it was written as FAST tokens, which never have a scale of their own for each step.
        """
        stats, own = self.norm_stats["actions"], actions[:, : self.robot.action_dim]
        if stats.step_mean is not None and stats.step_std is not None and not from_tokens:
            own = own * stats.step_std[: len(own)] + stats.step_mean[: len(own)]
        own = transforms.unnormalize(own, stats, self.model.norm)
        if self.model.action_stride > 1:
            own = transforms.interpolate(own, self.model.action_stride)
        # The way back in reverse: deltas are relative to the state as the model saw it, not as the robot reports it.
        start = self.adapter.state(np.asarray(state, np.float32))
        absolute = transforms.to_absolute(own, start, self.robot.delta_mask)
        return self.adapter.actions_inverse(absolute).astype(np.float32)

    @staticmethod
    def split_subtask(subtask: str) -> tuple[str, tuple[float, float, float, float] | None]:
        """Split generated text into its words, and the box in front of them if there is a proper one."""
        box, words = split_box(subtask)
        return words.strip(), box


def collate(
    rows: Sequence[Row], *, device: Any = "cpu", cameras: Mapping[str, int] | None = None, length: int = 0
) -> Batch:
    """Collate rows of one robot or of many: text is padded at its end to the longest, cameras that a row lacks are
    black and masked, pictures are floats in −1 to 1, augmented where the rows ask for it.

    `cameras`, with the sizes of their pictures, are there in any case; text is at least `length` tokens long. A row is
    read in the order of its own cameras, whichever of them its neighbours have.

    Raises:
        ValueError: robots that show the same cameras in different orders.
    """
    length = max(length, *(len(row.tokens) for row in rows))

    def pad_rows(name: str, kind: type) -> torch.Tensor:
        out = np.zeros((len(rows), length), kind)
        for i, row in enumerate(rows):
            values = getattr(row, name)
            out[i, : len(values)] = values
        return torch.from_numpy(out).to(device)

    shapes = {camera: (size, size, 3) for camera, size in (cameras or {}).items()}
    shapes |= {camera: image.shape for row in rows for camera, image in row.images.items()}
    shapes = {camera: shapes[camera] for camera in common_camera_order([cameras or {}, *(row.images for row in rows)])}
    images = {camera: _pictures(rows, camera, shape, device) for camera, shape in shapes.items()}
    if any(row.augmentations for row in rows):
        images = {
            camera: augment(pictures, [row.augmentations.get(camera, UNCHANGED) for row in rows])
            for camera, pictures in images.items()
        }
    shown = np.array([[camera in row.images for row in rows] for camera in shapes], bool).reshape(
        len(shapes), len(rows)
    )
    observation = Observation(
        images=images,
        image_masks=dict(zip(shapes, torch.from_numpy(shown).to(device), strict=True)),
        state=torch.from_numpy(np.stack([row.state for row in rows])).to(device),
        tokens=pad_rows("tokens", np.int64),
        token_kinds=pad_rows("token_kinds", np.int64),
        token_loss=pad_rows("token_loss", bool),
    )
    return Batch(
        observation=observation,
        actions=torch.from_numpy(np.stack([row.actions for row in rows])).to(device),
        action_mask=torch.from_numpy(np.stack([row.action_mask for row in rows])).to(device),
        sources=tuple(row.source for row in rows),
        row_ids=tuple(row.row_id for row in rows),
    )


def common_camera_order(rows: Iterable[Iterable[str]]) -> list[str]:
    """Return all cameras of some rows, in an order that agrees with that of every row.

    Raises:
        ValueError: there is none.
    """
    orders = list(dict.fromkeys(map(tuple, rows)))
    sorter: TopologicalSorter[str] = TopologicalSorter()
    for order in orders:
        for place, camera in enumerate(order):
            # Each camera comes after the one before it in every row: a topological order satisfies all rows at once.
            sorter.add(camera, *order[max(0, place - 1) : place])
    try:
        return list(sorter.static_order())
    except CycleError as error:
        raise ValueError(
            f"robots of one batch show their cameras in different orders: {orders}; the model reads them in the order "
            "it is shown, so give them one order"
        ) from error


def _pictures(rows: Sequence[Row], camera: str, shape: tuple[int, ...], device: Any) -> torch.Tensor:
    """Return a camera's pictures as floats, copied as seldom as possible: new memory costs more than arithmetic."""
    images = [row.images[camera] if camera in row.images else np.zeros(shape, np.uint8) for row in rows]
    alone = len(images) == 1 and images[0].flags.writeable  # torch takes no memory that may not be written
    together = images[0][None] if alone else np.stack(images)
    return _to_float(together, device)


def _to_float(images: np.ndarray, device: Any) -> torch.Tensor:
    """Convert levels to −1 … 1; on a CPU by numpy, which divides what it has just cast while it is in the cache."""
    if torch.device(device).type != "cpu":
        return torch.from_numpy(images).to(device).div(127.5).sub_(1)
    floats = np.divide(images, np.float32(127.5))
    return torch.from_numpy(np.subtract(floats, np.float32(1), out=floats))
