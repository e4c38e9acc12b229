"""The engine in CUDA graphs: reading, each said token, and a whole chunk are launched as one.

At batch 1 a GPU finishes a kernel sooner than Python launches the next: a chunk of π0.5 is some thousand launches. A
graph launches them at once, but only what has the same shapes and addresses each time. So lengths are rounded up to
`STEP` tokens and what is filled in is hidden by masks; room for words stands between what is read and the flow block,
whether or not they are said; and each kind of reading (`GraphBuffers`) has inputs, cache and outputs at fixed places. A
reading lasts until the next of its kind.

On a device without graphs the same functions are called one by one: same numbers, no gain.

Axes: `b` batch, `s` cache slots, `n` pictures or points, `h w` pixels, `l` written tokens, `d` width, `ah` action
horizon, `ad` action dims.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from pilot.data.layout import Kind, Observation
from pilot.infer.engine.fast import FastEngine
from pilot.infer.engine.stack import Cache, Scratch
from pilot.infer.engine.state import DecodeState, DecodeStep, PrefillPlan, PrefillState
from pilot.models import flow
from pilot.models.pi import Pi

STEP = 32
MAX_BUFFERS = 16
LONGEST = 4096
"""Positions whose angles are there from the start: a graph keeps the addresses that it was made with."""


class Graph:
    """`function` as one launch. `changes` are tensors that it changes in place: making the graph leaves them alone.

    The result lies at a fixed place, and is overwritten by the next call. `keeps` is what must live as long.
    """

    def __init__(
        self, function: Callable[[], Any], *, device: torch.device, changes: Sequence[Tensor] = (), keeps: Any = None
    ) -> None:
        self.function, self.keeps, self.graph = function, keeps, None
        if device.type == "cuda":
            before = [tensor.clone() for tensor in changes]
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(2):  # what is allocated, chosen and compiled at a first call is not for the graph
                    function()
            torch.cuda.current_stream().wait_stream(side)
            for tensor, was in zip(changes, before, strict=True):
                tensor.copy_(was)
            self.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph):
                self.result = function()

    def __call__(self) -> Any:
        if self.graph is None:
            return self.function()
        self.graph.replay()
        return self.result


@dataclass(frozen=True, kw_only=True)
class GraphBuffers:
    """The fixed places of one kind of reading, and the graphs that work there. `slots`: cache before the flow block."""

    pictures: list[Float[Tensor, "_ _ _ 3"]]
    tokens: Int[Tensor, "b l"]
    order: Int[Tensor, "b n"]
    kinds: Int[Tensor, "b s"]
    cache: Cache
    state: Float[Tensor, "b ad"]
    noise: Float[Tensor, "b ah ad"]
    padded_dims: Bool[Tensor, "b ad"]
    next_token: Int[Tensor, " b"]
    decoding: DecodeState
    scratch: Scratch
    graphs: dict[Any, Graph] = field(default_factory=dict)

    @property
    def length(self) -> int:
        """How many tokens are prefilled, padding included."""
        return self.order.shape[1]

    def with_all_slots(self, slots: int) -> PrefillState:
        """Return the state in which all slots before the flow block are in use; masks hide those that are not."""
        return PrefillState(cache=self.cache, kinds=self.kinds, length=slots, hidden=None, ragged=True, fast=True)


class GraphEngine(FastEngine):
    """An engine for CUDA. Everything that `FastEngine` does, the usual things in graphs."""

    def __init__(self, model: Pi) -> None:
        super().__init__(model)
        self.angles.at(torch.zeros(1, 1, dtype=torch.long, device=self.angles.device), limit=LONGEST)
        self.buffers_by_kind: OrderedDict[Any, GraphBuffers] = OrderedDict()

    # --- reading -----------------------------------------------------------------------------------------------------

    @torch.inference_mode()
    def prefill(self, observation: Observation, *, max_new_tokens: int = 0) -> PrefillState:
        """As `FastEngine.prefill`; valid until the next reading of as many pictures and (about) as many words."""
        layout = self.plan_prefill(observation)
        pictures = [self.gather_images(observation, cameras) for _, cameras in layout.calls]
        buffers = self.buffers(layout, observation, pictures, max_new_tokens=max_new_tokens)
        order, kinds = layout.tensors(buffers.length, buffers.order.device)
        for place, value in zip(buffers.pictures, pictures, strict=True):
            place.copy_(value)
        buffers.tokens.copy_(observation.tokens)
        buffers.order.copy_(order)
        buffers.kinds.copy_(F.pad(kinds, (0, buffers.kinds.shape[1] - buffers.length), value=int(Kind.PAD)))
        hidden = self.run(
            buffers,
            ("prefill", layout.causal, max_new_tokens > 0),
            lambda: self.prefill_graph(buffers, layout, max_new_tokens),
        )
        return PrefillState(
            cache=buffers.cache,
            kinds=buffers.kinds,
            length=buffers.length,
            hidden=hidden,
            ragged=True,
            fast=layout.fast,
        )

    def buffers(
        self, layout: PrefillPlan, observation: Observation, pictures: list[Tensor], *, max_new_tokens: int
    ) -> GraphBuffers:
        """The arena for such a reading, a new one for the first of its kind. The oldest makes room for it."""
        length, max_new_tokens = round_up(layout.length), round_up(max_new_tokens)
        towers = tuple((id(tower), x.shape) for (tower, _), x in zip(layout.calls, pictures, strict=True))
        key = (towers, observation.tokens.shape, length, max_new_tokens)
        if key not in self.buffers_by_kind:
            if length + max_new_tokens + self.flow_tokens > LONGEST:
                raise ValueError(
                    f"{length} tokens to read and {max_new_tokens} to generate are more than {LONGEST}: "
                    "see infer/engine/graphs.py"
                )
            if len(self.buffers_by_kind) == MAX_BUFFERS:
                self.buffers_by_kind.popitem(last=False)
            self.buffers_by_kind[key] = self.make_buffers(
                pictures, observation.tokens, length=length, max_new_tokens=max_new_tokens
            )
        self.buffers_by_kind.move_to_end(key)
        return self.buffers_by_kind[key]

    def make_buffers(self, pictures: list[Tensor], tokens: Tensor, *, length: int, max_new_tokens: int) -> GraphBuffers:
        """Nothing that is hidden may be NaN, so the cache is empty and not unset."""
        config, batch, slots = self.config, len(tokens), length + max_new_tokens + self.flow_tokens
        cache = Cache.empty(config.vlm, batch=batch, slots=slots, like=self.vlm.like)
        cache.keys.zero_()
        cache.values.zero_()
        kinds, numbers = tokens.new_zeros(batch, slots), {"device": tokens.device, "dtype": torch.float32}
        return GraphBuffers(
            pictures=[torch.empty_like(x) for x in pictures],
            tokens=torch.empty_like(tokens),
            order=tokens.new_zeros(batch, length),
            kinds=kinds,
            cache=cache,
            state=torch.zeros(batch, config.action_dim, **numbers),
            noise=torch.zeros(batch, config.action_horizon, config.action_dim, **numbers),
            padded_dims=torch.zeros(batch, config.action_dim, dtype=torch.bool, device=tokens.device),
            next_token=tokens.new_zeros(batch),
            scratch=self.vlm.scratch(batch=batch, tokens=1),
            decoding=DecodeState(
                hidden=self.vlm.like.new_zeros(batch, config.vlm.width),
                kinds=kinds,
                bias=self.vlm.like.new_zeros(batch, 1, 1, slots),
                finished=torch.zeros(batch, dtype=torch.bool, device=tokens.device),
                positions=tokens.new_zeros(batch, 1),
            ),
        )

    def prefill_graph(
        self, buffers: GraphBuffers, layout: PrefillPlan, max_new_tokens: int
    ) -> Float[Tensor, "b d"] | None:
        x = self.embed(layout, buffers.pictures, buffers.tokens, buffers.order)
        kinds = buffers.kinds[:, : buffers.length]
        return self.run_backbone(x, kinds, buffers.cache, causal=layout.causal, ragged=True, stop=not max_new_tokens)

    def run(
        self, buffers: GraphBuffers, key: Any, function: Callable[[], Any], *, changes: Sequence[Tensor] = ()
    ) -> Any:
        """Run `function` as the graph of that name, captured at its first run."""
        if key not in buffers.graphs:
            plans = list(self.plans.values())
            buffers.graphs[key] = Graph(function, device=buffers.order.device, changes=changes, keeps=plans)
        return buffers.graphs[key]()

    def buffers_of(self, prefilled: PrefillState) -> GraphBuffers | None:
        """Where a reading was made; None for one that was made of others."""
        return next((buffers for buffers in self.buffers_by_kind.values() if buffers.cache is prefilled.cache), None)

    # --- saying ------------------------------------------------------------------------------------------------------

    def start_decoding(self, prefilled: PrefillState) -> DecodeState:
        decoding, buffers = super().start_decoding(prefilled), self.buffers_of(prefilled)
        if buffers is None:
            return decoding
        for name, place in vars(buffers.decoding).items():
            if name != "kinds":
                place.copy_(getattr(decoding, name))
        return buffers.decoding

    def make_decode_step(self, prefilled: PrefillState, decoding: DecodeState, *, kind: Kind, eos: int) -> DecodeStep:
        """A graph for each slot."""
        buffers = self.buffers_of(prefilled)
        if buffers is None:
            return super().make_decode_step(prefilled, decoding, kind=kind, eos=eos)
        inputs = buffers.next_token
        fixed = {"cache": buffers.cache, "kind": kind, "eos": eos, "scratch": buffers.scratch}
        changes = [decoding.hidden, decoding.finished, decoding.positions, decoding.kinds, cast(Tensor, decoding.bias)]

        def decode_step(token: Tensor, end: int) -> None:
            inputs.copy_(token)
            key = ("decode", end, kind, eos)
            self.run(buffers, key, lambda: self.decode_step(inputs, end, decoding, **fixed), changes=changes)

        return decode_step

    # --- acting ------------------------------------------------------------------------------------------------------

    @torch.inference_mode()
    def denoise(
        self,
        prefilled: PrefillState,
        state: Float[Tensor, "b ad"],
        *,
        noise: Float[Tensor, "b ah ad"],
        num_steps: int = 10,
        solver: flow.Solver = "euler",
        padded_dims: Bool[Tensor, "#b ad"] | None = None,
    ) -> Float[Tensor, "n b ah ad"]:
        buffers = self.buffers_of(prefilled)
        if buffers is None or noise.shape != buffers.noise.shape:
            return super().denoise(
                prefilled, state, noise=noise, num_steps=num_steps, solver=solver, padded_dims=padded_dims
            )
        self.denoise_plan(num_steps, solver=solver)  # before the graph, which only points to it
        buffers.state.copy_(state)
        buffers.noise.copy_(noise)
        pads = padded_dims is not None
        if padded_dims is not None:
            buffers.padded_dims.copy_(padded_dims)
        points = self.run(
            buffers,
            ("denoise", num_steps, solver, pads),
            lambda: self.denoise_graph(buffers, num_steps=num_steps, solver=solver, pads=pads),
        )
        return points.clone()

    def denoise_graph(
        self, buffers: GraphBuffers, *, num_steps: int, solver: flow.Solver, pads: bool
    ) -> Float[Tensor, "n b ah ad"]:
        """The flow block stands behind all the room for words, and is kept from what is not said."""
        slots = buffers.kinds.shape[1] - self.flow_tokens
        prefilled = buffers.with_all_slots(slots)
        padded_dims = buffers.padded_dims if pads else None
        return super().denoise(
            prefilled, buffers.state, noise=buffers.noise, num_steps=num_steps, solver=solver, padded_dims=padded_dims
        )


def round_up(count: int) -> int:
    return -(-count // STEP) * STEP
