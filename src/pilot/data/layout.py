"""One layout for the whole family: a token sequence, an attention rule, and which loss each token carries.

    pictures | prompt, state as text | subtask or answer | FAST tokens      flow block (action expert)
    PREFIX     PREFIX                  TEXT                FAST               [state token,] noisy actions

Who sees whom (a row is a query, `#` sees, `\\` sees itself and what came before):

              PREFIX  TEXT  FAST  flow
    PREFIX      #
    TEXT        #      \\
    FAST        #      #     \\
    flow        #      #            #

A row leaves out what it does not have: web rows have no flow block, π0 rows no TEXT and no FAST. Padding is seen by
nobody and takes no position. The positions of the flow block continue those of PREFIX and TEXT and skip FAST, so that
training equals acting.

Axes: `b` batch, `i` picture tokens, `l` text tokens, `s` all backbone tokens, `t` flow tokens, `h w` pixels, `ad`
action dims.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pilot.types import Kind


@dataclass(frozen=True, kw_only=True)
class Observation:
    """The input of a model: pictures, state, prompt, and the text that it is trained to write behind the prompt."""

    images: dict[str, Float[Tensor, "b h w 3"]]  # by camera, in [-1, 1]
    image_masks: dict[str, Bool[Tensor, " b"]]  # False where a row has no such camera
    state: Float[Tensor, "b ad"]  # normalised, padded with zeros; of two moments both, one behind the other
    tokens: Int[Tensor, "b l"]
    token_kinds: Int[Tensor, "b l"]  # of `Kind`
    token_loss: Bool[Tensor, "b l"]  # the targets of the text head
    indices: dict[str, Int[Tensor, " n"]] = field(default_factory=dict)  # of these very rows: see `with_indices`

    @property
    def batch_size(self) -> int:
        """Rows of the batch."""
        return self.tokens.shape[0]

    def rows_with(self, camera: str) -> Int[Tensor, " r"]:
        """Return the rows that have this camera."""
        rows = self.indices.get(f"camera/{camera}")
        return self.image_masks[camera].nonzero()[:, 0] if rows is None else rows

    def target_positions(self) -> tuple[Int[Tensor, " n"], Int[Tensor, " n"]]:
        """Return row and column of every target token; none is in the first column, where no token is before it."""
        if "target/row" in self.indices:
            return self.indices["target/row"], self.indices["target/column"]
        row, before = self.token_loss[:, 1:].nonzero(as_tuple=True)
        return row, before + 1

    def with_indices(self) -> "Observation":
        """Return the observation with these indices found in advance, while it is still on the CPU.

        On a GPU each of the questions above would make the CPU wait for everything that the GPU has yet to do.
        """
        row, column = self.target_positions()
        cameras = {f"camera/{camera}": self.rows_with(camera) for camera in self.images}
        return replace(self, indices=cameras | {"target/row": row, "target/column": column})

    def pad_targets(self, length: int) -> "Observation":
        """Return the observation with indices, among them at least `length` target positions.

        Those that are added point at a token that is neither text nor action, and so count for no loss. With them
        batches have one shape, however much their rows say.
        """
        known = self.with_indices()
        row, column = known.target_positions()
        # A padded target has to point somewhere; prompt and padding carry no loss.
        free_row, free_column = (self.token_kinds[:, 1:] < Kind.TEXT).nonzero(as_tuple=True)
        missing = max(0, length - len(row)) if len(free_row) else 0
        padded = {
            "target/row": torch.cat((row, free_row[:1].expand(missing))),
            "target/column": torch.cat((column, free_column[:1].expand(missing) + 1)),
        }
        return replace(self, indices=known.indices | padded)

    def map(self, f: Any) -> "Observation":
        """Apply `f` to every tensor, for instance to move them to a device."""
        changed = {}
        for item in fields(self):
            value = getattr(self, item.name)
            changed[item.name] = {k: f(v) for k, v in value.items()} if isinstance(value, dict) else f(value)
        return replace(self, **changed)


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Rows of any kind together: what the model sees, and the actions that it is to learn."""

    observation: Observation
    actions: Float[Tensor, "b ah ad"]
    action_mask: Bool[Tensor, "b ah ad"]  # False in padded steps and dims, and all over rows without actions
    sources: tuple[str, ...]  # the data set of each row
    row_ids: tuple[int, ...] = ()  # which rows of the step's whole batch these are, where they are a part of it
    action_rows: Int[Tensor, " r"] | None = None  # see `with_indices`

    def rows_with_actions(self) -> Int[Tensor, " r"]:
        """Return the rows that have actions."""
        return self.action_mask.flatten(1).any(1).nonzero()[:, 0] if self.action_rows is None else self.action_rows

    def with_indices(self) -> "Batch":
        """Return the batch with its indices found in advance, see `Observation.with_indices`."""
        return replace(self, observation=self.observation.with_indices(), action_rows=self.rows_with_actions())

    def map(self, f: Callable[[Tensor], Tensor]) -> "Batch":
        """Apply `f` to every tensor."""
        return replace(
            self,
            observation=self.observation.map(f),
            actions=f(self.actions),
            action_mask=f(self.action_mask),
            action_rows=None if self.action_rows is None else f(self.action_rows),
        )


def token_positions(kinds: Int[Tensor, "b s"]) -> Int[Tensor, "b s"]:
    """Return the position of each token: how many tokens that are not padding stand before it."""
    return (kinds != Kind.PAD).long().cumsum(1) - 1


def backbone_mask(kinds: Int[Tensor, "b s"]) -> Bool[Tensor, "b s s"]:
    """Return True where query `s₁` sees key `s₂`: the upper three rows of the table above."""
    causal = kinds >= Kind.TEXT
    order = torch.arange(kinds.shape[1], device=kinds.device)
    # Written tokens see those before them; that a FAST token sees the text is the same rule, for it stands behind.
    earlier = causal[:, :, None] & causal[:, None, :] & (order[None, :, None] >= order[None, None, :])
    valid = (kinds != Kind.PAD)[:, :, None]
    # Rows of padding are all False; `additive_mask` makes such queries harmless.
    return (earlier | (kinds == Kind.PREFIX)[:, None, :]) & valid


def seen_by_flow(kinds: Int[Tensor, "b s"]) -> Bool[Tensor, "b s"]:
    """Return the backbone tokens that the flow block sees: its prompt and the text behind it, no FAST tokens."""
    return (kinds == Kind.PREFIX) | (kinds == Kind.TEXT)


def flow_mask(kinds: Int[Tensor, "b s"], *, horizon: int, state_token: bool = False) -> Bool[Tensor, "b t st"]:
    """Return the mask of the flow block's queries over backbone keys and then its own: the last row of the table.

    A state token (π0) stands first and does not see the actions.
    """
    own = torch.ones(horizon + state_token, horizon + state_token, dtype=torch.bool, device=kinds.device)
    if state_token:
        # As in π0: the state is the same whatever the noise, so its token may not look at it.
        own[0, 1:] = False
    prefix = seen_by_flow(kinds)[:, None, :].expand(-1, own.shape[0], -1)
    return torch.cat((prefix, own.expand(kinds.shape[0], -1, -1)), dim=-1)


def flow_positions(kinds: Int[Tensor, "b s"], *, length: int) -> Int[Tensor, "b t"]:
    """Return positions of the flow block's `length` tokens, which continue those of what the block sees."""
    return seen_by_flow(kinds).long().sum(1, keepdim=True) + torch.arange(length, device=kinds.device)
