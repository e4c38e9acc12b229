"""Everything that a recorded case of π0 or π0.5 has numbers for, computed by pilot under the names of the recording.

Pilot leaves out a camera that no row has, so tokens are compared row by row where they are not masked. What the
reference computes at masked tokens nobody sees.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from parity.cases import Case
from torch import Tensor, nn

from pilot.data.layout import Kind, Observation, backbone_mask, flow_mask, flow_positions, token_positions
from pilot.models import flow
from pilot.models.pi import Pi, Prefix

IMPLIED = {"prefix_att_masks", "suffix_att_masks", "suffix_pad_masks", "suffix_att_2d_masks", "suffix_position_ids"}
"""Recorded outputs that others contain: the attention mask and the positions of all tokens together."""


@dataclass(frozen=True)
class Trace:
    """Named results; `valid` marks the tokens of the recording that are not masked, prefix and then suffix."""

    values: dict[str, Tensor]
    valid: Tensor
    prefix: int

    def recorded(self, name: str, value: Tensor) -> Tensor:
        """What the recording has under `name`, without masked tokens."""
        prefix, suffix = self.valid[:, : self.prefix], self.valid[:, self.prefix :]
        pick: dict[str, Callable[[Tensor], Tensor]] = {
            "prefix_embs": lambda x: x[prefix],
            "prefix_tokens": lambda x: x[prefix],
            "prefix_hidden": lambda x: x[prefix],
            "suffix_hidden": lambda x: x[:, suffix.shape[1] - self.values["v_t"].shape[1] :],
            "position_ids": lambda x: x[self.valid],
            "positions": lambda x: x[self.valid],
            "att_2d_masks": self.seen,
            "attn_mask": self.seen,
            "kv_cache": lambda x: x.transpose(1, 2)[prefix],
        }
        return pick.get(name.split("/")[0], lambda x: x)(value)

    def seen(self, mask: Tensor) -> Tensor:
        """Who sees whom, of the tokens that are not masked, row by row."""
        return torch.cat([rows[keep][:, keep].flatten() for rows, keep in zip(mask, self.valid, strict=True)])


def recorded_valid(case: Case) -> Tensor:
    prefix = case.arrays.get("outputs/prefix_mask", case.arrays.get("outputs/prefix_pad_masks"))
    assert prefix is not None
    suffix = case.arrays["inputs/actions"].shape[1] + (case.config.state_input == "token")
    return torch.cat((prefix, prefix.new_ones(len(prefix), suffix)), dim=1)


@torch.no_grad()
def trace(case: Case, model: Pi) -> Trace:
    """Run `model` over the case."""
    observation, arrays = case.observation(), case.arrays
    noise, time, actions = arrays["inputs/noise"], arrays["inputs/time"], arrays["inputs/actions"]
    context = model.prefill(observation, keep_block_inputs=True)
    values = prefix_values(model, observation, context)
    values["x_t"], values["u_t"] = flow.interpolate(actions, noise, time)
    values |= suffix_values(model, context, observation.state, values["x_t"], time)
    error = (values["v_t"] - values["u_t"]).square()
    values["loss_elementwise"], values["loss"] = error, error if case.framework == "torch" else error.mean(-1)
    points = model.denoise(context, observation.state, noise=noise, num_steps=10)
    values["sample_v_t"] = (points[:-1] - points[1:]) * 10
    for name in case.below("outputs/sample_actions_"):
        values[f"sample_actions_{name}"] = model.sample_actions(observation, noise=noise, num_steps=int(name))
    valid = recorded_valid(case)
    return Trace(values, valid, valid.shape[1] - values["suffix_length"].item())


def prefix_values(model: Pi, observation: Observation, context: Prefix) -> dict[str, Tensor]:
    kinds = context.kinds
    shown = kinds != Kind.PAD
    x = context.block_inputs[0]
    hidden, _ = model.vlm(x, **model.attention_inputs(token_positions(kinds), backbone_mask(kinds), x.dtype))
    values = {f"image_embs/{name}": model.vision(images.to(model.dtype)) for name, images in observation.images.items()}
    values |= {"prefix_embs": x[shown], "prefix_tokens": x[shown], "prefix_hidden": hidden[shown]}
    for layer, (k, v) in enumerate(context.cache):
        values |= {f"kv_cache/layer{layer}/{n}": part.transpose(1, 2)[shown] for n, part in (("k", k), ("v", v))}
    return values


def suffix_values(model: Pi, context: Prefix, state: Tensor, x_t: Tensor, time: Tensor) -> dict[str, Tensor]:
    seen = watch(model.action_expert), watch(model.action_out)
    block = model.flow_block(context.cache, context.kinds, state, horizon=x_t.shape[1])
    values = {"v_t": model.velocity(block, x_t, model.embed_time(time, model.dtype))}
    expert, out = (calls[0] for calls in seen)
    values |= {"suffix_embs": expert, "suffix_tokens": expert, "suffix_hidden": out}
    features = flow.time_features(time, model.action_in.out_features)
    silu = nn.functional.silu
    values["time_emb"] = features
    if model.config.time_conditioning == "adarms":
        values["adarms_cond"] = silu(model.time_mlp_out(silu(model.time_mlp_in(features.to(model.dtype)))))
    values |= attention_values(context.kinds, horizon=x_t.shape[1], state_token=model.config.state_input == "token")
    return values


def attention_values(kinds: Tensor, *, horizon: int, state_token: bool) -> dict[str, Tensor]:
    """Positions and masks of prefix and suffix together, of the tokens that are not masked."""
    mask = flow_mask(kinds, horizon=horizon, state_token=state_token)
    length = mask.shape[1]
    valid = torch.cat((kinds != Kind.PAD, torch.ones(len(kinds), length, dtype=torch.bool)), dim=1)
    positions = torch.cat((token_positions(kinds), flow_positions(kinds, length=length)), dim=1)[valid]
    above = torch.nn.functional.pad(backbone_mask(kinds), (0, length))
    whole = torch.cat((above, mask), dim=1)
    seen = torch.cat([rows[keep][:, keep].flatten() for rows, keep in zip(whole, valid, strict=True)])
    return {
        "positions": positions, "position_ids": positions, "attn_mask": seen, "att_2d_masks": seen,
        "suffix_length": torch.tensor(length),
    }  # fmt: skip


def watch(module: nn.Module) -> list[Any]:
    """The first argument of each call of a module from now on, as long as the list lives."""
    calls: list[Any] = []
    module.register_forward_pre_hook(lambda _, inputs: calls.append(inputs[0]))
    return calls
