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
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from pilot.data.layout import Kind, Observation
from pilot.infer.engine.fast import DecodeState, DecodeStep, Engine, Layout, PrefillState
from pilot.infer.engine.stack import Cache, Scratch
from pilot.models import flow
from pilot.models.pi import Pi

STEP = 32
MAX_ARENAS = 16
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
    order: Int[Tensor, "b s"]
    kinds: Int[Tensor, "b s"]
    cache: Cache
    state: Float[Tensor, "b ad"]
    noise: Float[Tensor, "b ah ad"]
    heard: Int[Tensor, " b"]
    saying: DecodeState
    scratch: Scratch
    graphs: dict[Any, Graph] = field(default_factory=dict)

    @property
    def length(self) -> int:
        """What is read, padding included."""
        return self.order.shape[1]


class GraphEngine(Engine):
    """An engine for CUDA. Everything that `Engine` does, the usual things in graphs."""

    def __init__(self, model: Pi) -> None:
        super().__init__(model)
        self.angles.at(torch.zeros(1, 1, dtype=torch.long, device=self.angles.device), limit=LONGEST)
        self.arenas: OrderedDict[Any, GraphBuffers] = OrderedDict()

    # --- reading -----------------------------------------------------------------------------------------------------

    @torch.inference_mode()
    def prefill(self, observation: Observation, *, max_new_tokens: int = 0) -> PrefillState:
        """As `Engine.prefill`; valid until the next reading of as many pictures and (about) as many words."""
        layout = self.arrange(observation)
        pictures = [self.pictures(observation, cameras) for _, cameras in layout.calls]
        arena = self.arena(layout, observation, pictures, max_new_tokens=max_new_tokens)
        order, kinds = layout.tensors(arena.length, arena.order.device)
        for place, value in zip(arena.pictures, pictures, strict=True):
            place.copy_(value)
        arena.tokens.copy_(observation.tokens)
        arena.order.copy_(order)
        arena.kinds.copy_(F.pad(kinds, (0, arena.kinds.shape[1] - arena.length), value=int(Kind.PAD)))
        hidden = self.run(
            arena,
            ("read", layout.causal, max_new_tokens > 0),
            lambda: self.take_in_arena(arena, layout, max_new_tokens),
        )
        return PrefillState(
            cache=arena.cache,
            kinds=arena.kinds,
            length=arena.length,
            hidden=hidden,
            ragged=True,
            fast=layout.fast,
        )

    def arena(
        self, layout: Layout, observation: Observation, pictures: list[Tensor], *, max_new_tokens: int
    ) -> GraphBuffers:
        """The arena for such a reading, a new one for the first of its kind. The oldest makes room for it."""
        length, max_new_tokens = round_up(layout.length), round_up(max_new_tokens)
        towers = tuple((id(tower), x.shape) for (tower, _), x in zip(layout.calls, pictures, strict=True))
        key = (towers, observation.tokens.shape, length, max_new_tokens)
        if key not in self.arenas:
            if length + max_new_tokens + self.flow_tokens > LONGEST:
                raise ValueError(
                    f"{length} tokens to read and {max_new_tokens} to generate are more than {LONGEST}: "
                    "see infer/engine/graphs.py"
                )
            if len(self.arenas) == MAX_ARENAS:
                self.arenas.popitem(last=False)
            self.arenas[key] = self.make_arena(
                pictures, observation.tokens, length=length, max_new_tokens=max_new_tokens
            )
        self.arenas.move_to_end(key)
        return self.arenas[key]

    def make_arena(self, pictures: list[Tensor], tokens: Tensor, *, length: int, max_new_tokens: int) -> GraphBuffers:
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
            heard=tokens.new_zeros(batch),
            scratch=self.vlm.scratch(batch=batch, tokens=1),
            saying=DecodeState(
                hidden=self.vlm.like.new_zeros(batch, config.vlm.width),
                kinds=kinds,
                bias=self.vlm.like.new_zeros(batch, 1, 1, slots),
                finished=torch.zeros(batch, dtype=torch.bool, device=tokens.device),
                positions=tokens.new_zeros(batch, 1),
            ),
        )

    def take_in_arena(self, arena: GraphBuffers, layout: Layout, max_new_tokens: int) -> Float[Tensor, "b d"] | None:
        x = self.embed(layout, arena.pictures, arena.tokens, arena.order)
        kinds = arena.kinds[:, : arena.length]
        return self.take_in(x, kinds, arena.cache, causal=layout.causal, ragged=True, stop=not max_new_tokens)

    def run(self, arena: GraphBuffers, key: Any, function: Callable[[], Any], *, changes: Sequence[Tensor] = ()) -> Any:
        """`function` as the graph of that name in an arena."""
        if key not in arena.graphs:
            plans = list(self.plans.values())
            arena.graphs[key] = Graph(function, device=arena.order.device, changes=changes, keeps=plans)
        return arena.graphs[key]()

    def home(self, reading: PrefillState) -> GraphBuffers | None:
        """Where a reading was made; None for one that was made of others."""
        return next((arena for arena in self.arenas.values() if arena.cache is reading.cache), None)

    # --- saying ------------------------------------------------------------------------------------------------------

    def begin(self, reading: PrefillState) -> DecodeState:
        saying, arena = super().begin(reading), self.home(reading)
        if arena is None:
            return saying
        for place, value in ((p, getattr(saying, name)) for name, p in vars(arena.saying).items() if name != "kinds"):
            place.copy_(value)
        return arena.saying

    def decoder(self, reading: PrefillState, saying: DecodeState, *, kind: Kind, eos: int) -> DecodeStep:
        """A graph for each slot."""
        arena = self.home(reading)
        if arena is None:
            return super().decoder(reading, saying, kind=kind, eos=eos)
        inputs, fixed = arena.heard, {"cache": arena.cache, "kind": kind, "eos": eos, "scratch": arena.scratch}
        changes = [saying.hidden, saying.finished, saying.positions, saying.kinds, cast(Tensor, saying.bias)]

        def decode_step(token: Tensor, end: int) -> None:
            inputs.copy_(token)
            key = ("hear", end, kind, eos)
            self.run(arena, key, lambda: self.decode_step(inputs, end, saying, **fixed), changes=changes)

        return decode_step

    # --- acting ------------------------------------------------------------------------------------------------------

    @torch.inference_mode()
    def denoise(
        self,
        reading: PrefillState,
        state: Float[Tensor, "b ad"],
        *,
        noise: Float[Tensor, "b ah ad"],
        num_steps: int = 10,
        solver: flow.Solver = "euler",
    ) -> Float[Tensor, "n b ah ad"]:
        arena = self.home(reading)
        if arena is None or noise.shape != arena.noise.shape:
            return super().denoise(reading, state, noise=noise, num_steps=num_steps, solver=solver)
        self.plan(num_steps, solver=solver)  # before the graph, which only points to it
        arena.state.copy_(state)
        arena.noise.copy_(noise)
        points = self.run(
            arena, ("act", num_steps, solver), lambda: self.act_arena(arena, num_steps=num_steps, solver=solver)
        )
        return points.clone()

    def act_arena(self, arena: GraphBuffers, *, num_steps: int, solver: flow.Solver) -> Float[Tensor, "n b ah ad"]:
        """The flow block stands behind all the room for words, and is kept from what is not said."""
        slots = arena.kinds.shape[1] - self.flow_tokens
        reading = PrefillState(cache=arena.cache, kinds=arena.kinds, length=slots, hidden=None, ragged=True, fast=True)
        return super().denoise(reading, arena.state, noise=arena.noise, num_steps=num_steps, solver=solver)


def round_up(count: int) -> int:
    return -(-count // STEP) * STEP
