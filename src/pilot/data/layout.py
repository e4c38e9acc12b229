"""One layout for the whole family: a token sequence, an attention rule, and which loss each token carries.

    pictures | prompt, state as text | subtask or answer | FAST tokens      flow block (action expert)
    PREFIX     PREFIX                  TEXT                FAST               [state token,] noisy actions

Who sees whom (a row is a query, `#` sees, `\\` sees itself and what came before):

              PREFIX  TEXT  FAST  flow
    PREFIX      #
    TEXT        #      \\
    FAST        #      #     \\
    flow        #      #            #

A row leaves out what it has not: web rows have no flow block, π0 rows no TEXT and no FAST. Padding is seen by nobody
and takes no position. The flow block's positions follow on PREFIX and TEXT and skip FAST, so that training equals
acting.

Axes: `b` batch, `i` picture tokens, `l` text tokens, `s` all backbone tokens, `t` flow tokens, `h w` pixels, `ad`
action dims.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from enum import IntEnum
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


class Kind(IntEnum):
    """What a token is; decides what it sees and which loss it carries."""

    PAD = 0
    PREFIX = 1
    TEXT = 2
    FAST = 3


@dataclass(frozen=True, kw_only=True)
class Observation:
    """What a model sees. `token_loss` marks the tokens that the text head is trained to say.

    `found` holds what `with_indices` has found on the host; it is for these very rows.
    """

    images: dict[str, Float[Tensor, "b h w 3"]]
    image_masks: dict[str, Bool[Tensor, " b"]]
    state: Float[Tensor, "b ad"]
    tokens: Int[Tensor, "b l"]
    token_kinds: Int[Tensor, "b l"]
    token_loss: Bool[Tensor, "b l"]
    indices: dict[str, Int[Tensor, " n"]] = field(default_factory=dict)

    @property
    def batch_size(self) -> int:
        return self.tokens.shape[0]

    def rows_with(self, camera: str) -> Int[Tensor, " r"]:
        """The rows that have this camera."""
        known = self.indices.get(f"camera/{camera}")
        return self.image_masks[camera].nonzero()[:, 0] if known is None else known

    def target_positions(self) -> tuple[Int[Tensor, " n"], Int[Tensor, " n"]]:
        """Row and column of every token to be said, without those in the first column."""
        if "said/row" in self.indices:
            return self.indices["said/row"], self.indices["said/column"]
        row, before = self.token_loss[:, 1:].nonzero(as_tuple=True)
        return row, before + 1

    def with_indices(self) -> "Observation":
        """With all this found beforehand: asked of a GPU, each answer would be waited for."""
        row, column = self.target_positions()
        cameras = {f"camera/{camera}": self.rows_with(camera) for camera in self.images}
        return replace(self, indices=cameras | {"said/row": row, "said/column": column})

    def map(self, f: Any) -> "Observation":
        """The observation with `f` applied to every tensor, for instance to move or to select rows."""
        changed = {}
        for item in fields(self):
            value = getattr(self, item.name)
            changed[item.name] = {k: f(v) for k, v in value.items()} if isinstance(value, dict) else f(value)
        return replace(self, **changed)


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Rows of any kind together. A row with no True in `action_mask` has no flow loss.

    `row_ids` are those of the rows in the batch of the step, of which this may be a part. `action_rows` is
    what `with_indices` has found on the host.
    """

    observation: Observation
    actions: Float[Tensor, "b ah ad"]
    action_mask: Bool[Tensor, "b ah ad"]
    sources: tuple[str, ...]
    row_ids: tuple[int, ...] = ()
    action_rows: Int[Tensor, " r"] | None = None

    def rows_with_actions(self) -> Int[Tensor, " r"]:
        """The rows that have actions."""
        return self.action_mask.flatten(1).any(1).nonzero()[:, 0] if self.action_rows is None else self.action_rows

    def with_indices(self) -> "Batch":
        """As `Observation.with_indices`."""
        return replace(self, observation=self.observation.with_indices(), action_rows=self.rows_with_actions())

    def map(self, f: Callable[[Tensor], Tensor]) -> "Batch":
        """The batch with `f` applied to every tensor."""
        return replace(
            self,
            observation=self.observation.map(f),
            actions=f(self.actions),
            action_mask=f(self.action_mask),
            action_rows=None if self.action_rows is None else f(self.action_rows),
        )


def token_positions(kinds: Int[Tensor, "b s"]) -> Int[Tensor, "b s"]:
    """Position of each token: how many tokens that are not padding stand before it."""
    return (kinds != Kind.PAD).long().cumsum(1) - 1


def backbone_mask(kinds: Int[Tensor, "b s"]) -> Bool[Tensor, "b s s"]:
    """True where query `s₁` sees key `s₂`: the upper left three rows of the table above."""
    causal = kinds >= Kind.TEXT
    order = torch.arange(kinds.shape[1], device=kinds.device)
    earlier = causal[:, :, None] & causal[:, None, :] & (order[None, :, None] >= order[None, None, :])
    valid = (kinds != Kind.PAD)[:, :, None]
    return (earlier | (kinds == Kind.PREFIX)[:, None, :]) & valid


def seen_by_flow(kinds: Int[Tensor, "b s"]) -> Bool[Tensor, "b s"]:
    return (kinds == Kind.PREFIX) | (kinds == Kind.TEXT)


def flow_mask(kinds: Int[Tensor, "b s"], *, horizon: int, state_token: bool = False) -> Bool[Tensor, "b t st"]:
    """Mask of the flow block's queries over backbone keys and then its own: the last row of the table.

    With a state token (π0) the token stands first and does not see the actions.
    """
    own = torch.ones(horizon + state_token, horizon + state_token, dtype=torch.bool, device=kinds.device)
    if state_token:
        own[0, 1:] = False
    prefix = seen_by_flow(kinds)[:, None, :].expand(-1, own.shape[0], -1)
    return torch.cat((prefix, own.expand(kinds.shape[0], -1, -1)), dim=-1)


def flow_positions(kinds: Int[Tensor, "b s"], *, length: int) -> Int[Tensor, "b t"]:
    """Positions of the flow block's `length` tokens: on from what the block sees."""
    return seen_by_flow(kinds).long().sum(1, keepdim=True) + torch.arange(length, device=kinds.device)
