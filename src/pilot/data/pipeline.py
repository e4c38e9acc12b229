"""The one place that writes the order: robot → delta → normalise → resize → tokens → pad, and back for actions.

Training, statistics, policies and tests use the same `Pipeline`, so what a model is trained on is what it sees later.

Axes: `h w` pixels, `ah` action horizon, `ad` the model's action dims, `rd` the robot's, `sd` the robot's state dims.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from jaxtyping import Float

from pilot.data import transforms
from pilot.data.layout import Batch, Kind, Observation
from pilot.tokenizers.base import ActionTokenizer
from pilot.tokenizers.prompts import encode_actions, encode_prompt, encode_target, state_bins
from pilot.tokenizers.text import TextTokenizer, split_box
from pilot.types import NormStats, Robot, Sample


class ModelInputs(Protocol):
    """What the pipeline must know of a model (`PiConfig` has it)."""

    @property
    def action_dim(self) -> int: ...
    @property
    def action_horizon(self) -> int: ...
    @property
    def vocab_size(self) -> int: ...
    @property
    def fast_offset(self) -> int: ...
    @property
    def max_tokens(self) -> int: ...
    @property
    def state_input(self) -> str: ...
    def image_size(self, *, wrist: bool) -> int: ...


@dataclass(kw_only=True)
class Row:
    """One row of a batch, before it is padded to its neighbours."""

    images: dict[str, np.ndarray]
    tokens: list[int]
    kinds: list[int]
    spoken: list[bool]
    state: Float[np.ndarray, " ad"]
    actions: Float[np.ndarray, "ah ad"]
    action_mask: np.ndarray
    source: str

    def say(self, tokens: list[int], kind: Kind, *, loss: bool) -> None:
        self.tokens += tokens
        self.kinds += [int(kind)] * len(tokens)
        self.spoken += [loss] * len(tokens)


class Pipeline:
    """Samples of one robot to rows of one model, and the model's actions back to the robot.

    `norm_stats` has "state" and "actions" (actions after the delta step). Without `action_tokenizer` rows have no FAST
    tokens.

    Raises:
        ValueError: statistics missing, or their dims differ from the robot's.
    """

    def __init__(
        self,
        robot: Robot,
        model: ModelInputs,
        *,
        norm_stats: dict[str, NormStats],
        text: TextTokenizer,
        action_tokenizer: ActionTokenizer | None = None,
    ) -> None:
        self.robot, self.model, self.text, self.action_tokenizer = robot, model, text, action_tokenizer
        for name, dims in (("state", robot.state_dim), ("actions", robot.action_dim)):
            if name not in norm_stats:
                raise ValueError(
                    f"norm stats have no '{name}' (got {sorted(norm_stats)}); make them: pilot data stats PATH"
                )
            if (got := len(norm_stats[name].q01)) != dims:
                raise ValueError(f"norm stats of '{name}' have {got} dims, robot '{robot.name}' declares {dims}")
        self.norm_stats = norm_stats

    # --- towards the model -------------------------------------------------------------------------------------------

    def encode(self, sample: Sample, *, say_actions: bool = True) -> Row:
        """A row with everything that the sample has: prompt, what is to be said, actions.

        `say_actions=False` leaves the FAST tokens out (a chunk that is not whole has none to teach).
        """
        row = self._empty(sample)
        if sample.answer is not None:
            row.say(encode_prompt(self.text, "web", text=sample.prompt), Kind.PREFIX, loss=False)
            row.say(encode_target(self.text, "web", text=sample.answer), Kind.TEXT, loss=True)
            return self._within_budget(row)
        state = self.normalized_state(sample)
        row.state = transforms.pad_dims(state, self.model.action_dim)
        self._say_prompt(row, sample, state)
        if sample.actions is not None:
            self._add_actions(row, sample, say_actions)
        return self._within_budget(row)

    def normalized_state(self, sample: Sample) -> Float[np.ndarray, " sd"]:
        if sample.state is None or sample.state.shape != (self.robot.state_dim,):
            got = None if sample.state is None else list(sample.state.shape)
            raise ValueError(
                f"robot '{self.robot.name}' has {self.robot.state_dim} state dims {self.robot.state_names}, got {got}; "
                f"see robots/{self.robot.name}.py"
            )
        if not np.isfinite(sample.state).all():
            raise ValueError(f"the state of robot '{self.robot.name}' holds NaN or infinity: {sample.state}")
        return transforms.normalize(np.asarray(sample.state, np.float32), self.norm_stats["state"])

    def _empty(self, sample: Sample) -> Row:
        images = {}
        for camera, image in sample.images.items():
            if camera not in self.robot.cameras:
                raise ValueError(f"robot '{self.robot.name}' has cameras {self.robot.cameras}, not '{camera}'")
            size = self.model.image_size(wrist=camera in self.robot.wrist_cameras)
            try:
                images[camera] = transforms.resize_with_pad(np.asarray(image), size)
            except ValueError as error:
                raise ValueError(f"camera '{camera}': {error}") from error
        shape = (self.model.action_horizon, self.model.action_dim)
        return Row(
            images=images, tokens=[], kinds=[], spoken=[], state=np.zeros(shape[1], np.float32),
            actions=np.zeros(shape, np.float32), action_mask=np.zeros(shape, bool), source=sample.source,
        )  # fmt: skip

    def _say_prompt(self, row: Row, sample: Sample, state: np.ndarray) -> None:
        bins = state_bins(state).tolist() if self.model.state_input == "text" else None
        name = "subtask" if bins is not None else "subtask_stateless"
        row.say(encode_prompt(self.text, name, text=sample.prompt, bins=bins), Kind.PREFIX, loss=False)
        if sample.subtask is not None:
            row.say(encode_target(self.text, name, text=sample.subtask), Kind.TEXT, loss=True)

    def _add_actions(self, row: Row, sample: Sample, say_actions: bool) -> None:
        actions = self.normalized_actions(sample)
        steps = min(len(actions), self.model.action_horizon)
        valid = np.ones(steps, bool) if sample.action_is_pad is None else ~sample.action_is_pad[:steps]
        row.actions[:steps] = transforms.pad_dims(actions[:steps], self.model.action_dim)
        row.action_mask[:steps, : self.robot.action_dim] = valid[:, None]
        if self.action_tokenizer is not None and say_actions:
            ids = self.action_tokenizer.encode(actions)
            tokens = encode_actions(self.text, ids, vocab_size=self.model.vocab_size, offset=self.model.fast_offset)
            row.say(tokens, Kind.FAST, loss=True)

    def normalized_actions(self, sample: Sample) -> Float[np.ndarray, "ah rd"]:
        """The chunk relative to its first state, normalised, in the robot's own dims."""
        assert sample.actions is not None and sample.state is not None
        if sample.actions.shape[-1] != self.robot.action_dim:
            raise ValueError(
                f"the data has {sample.actions.shape[-1]} action dims, robot '{self.robot.name}' declares "
                f"{self.robot.action_dim}; see robots/{self.robot.name}.py"
            )
        delta = transforms.to_delta(sample.actions, sample.state, self.robot.delta_mask)
        return transforms.normalize(delta, self.norm_stats["actions"])

    def _within_budget(self, row: Row) -> Row:
        over = len(row.tokens) - self.model.max_tokens
        if over <= 0:
            return row
        if row.kinds[-1] != Kind.FAST or row.kinds.count(int(Kind.FAST)) <= over:
            raise ValueError(
                f"{len(row.tokens)} text tokens and the model's max_tokens is {self.model.max_tokens}; shorten "
                f"{self.text.decode(row.tokens[:20])!r}… or raise max_tokens"
            )
        warnings.warn(f"FAST tokens cut by {over}: a chunk is longer than max_tokens allows", stacklevel=2)
        row.tokens, row.kinds, row.spoken = row.tokens[:-over], row.kinds[:-over], row.spoken[:-over]
        return row

    # --- back to the robot -------------------------------------------------------------------------------------------

    def decode_actions(
        self, actions: Float[np.ndarray, "ah ad"], state: Float[np.ndarray, " sd"]
    ) -> Float[np.ndarray, "ah rd"]:
        """A model's chunk in the robot's own units, absolute where the robot commands are."""
        own = transforms.unnormalize(actions[:, : self.robot.action_dim], self.norm_stats["actions"])
        return transforms.to_absolute(own, np.asarray(state, np.float32), self.robot.delta_mask)

    @staticmethod
    def words_and_box(subtask: str) -> tuple[str, tuple[float, float, float, float] | None]:
        """What was said, and where: the words, and the box in front of them if there is a proper one."""
        box, words = split_box(subtask)
        return words.strip(), box


def collate(rows: Sequence[Row], *, device: Any = "cpu") -> Batch:
    """Rows side by side: text padded at its end to the longest, cameras that a row lacks black and masked."""
    length = max(len(row.tokens) for row in rows)

    def padded(name: str, kind: type) -> torch.Tensor:
        out = np.zeros((len(rows), length), kind)
        for i, row in enumerate(rows):
            values = getattr(row, name)
            out[i, : len(values)] = values
        return torch.from_numpy(out).to(device)

    shapes = {camera: image.shape for row in rows for camera, image in row.images.items()}
    images = {
        camera: _to_float(np.stack([row.images.get(camera, np.zeros(shape, np.uint8)) for row in rows]), device)
        for camera, shape in shapes.items()
    }
    masks = {camera: torch.tensor([camera in row.images for row in rows], device=device) for camera in shapes}
    observation = Observation(
        images=images,
        image_masks=masks,
        state=torch.from_numpy(np.stack([row.state for row in rows])).to(device),
        tokens=padded("tokens", np.int64),
        token_kinds=padded("kinds", np.int64),
        token_loss=padded("spoken", bool),
    )
    return Batch(
        observation=observation,
        actions=torch.from_numpy(np.stack([row.actions for row in rows])).to(device),
        action_mask=torch.from_numpy(np.stack([row.action_mask for row in rows])).to(device),
        sources=tuple(row.source for row in rows),
    )


def _to_float(images: np.ndarray, device: Any) -> torch.Tensor:
    return torch.from_numpy(images).to(device).float() / 127.5 - 1
