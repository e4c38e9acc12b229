"""The engine in CUDA graphs: prefill, some generated tokens, and a whole chunk are one launch each.

At batch 1 a GPU finishes a kernel sooner than Python launches the next, and a chunk of π0.5 is some thousand launches.
A graph launches them at once, but only with the same shapes and addresses each time. So lengths are rounded up to
`STEP` tokens and the padding is hidden by masks; room for new tokens stands between what is prefilled and the flow
block, whether or not it is used; and each kind of prefill (`GraphBuffers`) has inputs, cache and outputs at fixed
places. A prefilled state lasts until the next one of its kind.

The host never waits for the device between an observation and its actions: observations, states and noise may lie on
the host (`input_device`) and are copied from pinned memory. While text is generated, the host looks after every
`TOKENS_PER_LOOK` tokens.

On a device without graphs the same functions are called one by one: same numbers, no gain.

Axes: `b` batch, `s` cache slots, `n` prefilled tokens, pictures or points, `h w` pixels, `l` text tokens, `d` width,
`ah` action horizon, `ad` action dims, `t` generated tokens.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pilot.data.layout import Kind, Observation
from pilot.infer.engine.device_grammar import DeviceGrammar, compile_grammar
from pilot.infer.engine.fast import FastEngine
from pilot.infer.engine.stack import Cache, Scratch, Span
from pilot.infer.engine.staging import Staging
from pilot.infer.engine.state import DecodeState, DecodeStep, PrefillPlan, PrefillState
from pilot.models import flow
from pilot.models.generation import Greedy, Sampler, argmax_token, mask_logits
from pilot.models.pi import Pi
from pilot.nn.attention import MASKED
from pilot.tokenizers.grammar import Allowed

STEP = 4
"""Tokens that lengths of a prefill are rounded up to: fewer waste less, and need more graphs. On an H200 a prefill of
828 tokens takes 7.3 ms, and 7.8 when it is rounded up to 832."""
ROOM_STEP = 32
"""The same for the room for new tokens, which costs little."""
TOKENS_PER_LOOK = 4
MAX_BUFFERS, MAX_GRAPHS, MAX_LAYOUTS, MAX_GRAMMARS = 16, 24, 64, 8
LONGEST = 4096
"""Positions whose angles are there from the start: a graph keeps the addresses that it was made with."""


class Graph:
    """`function` as one launch. `changes` are tensors that it changes in place: making the graph leaves them alone.

    The result lies at a fixed place until any graph of the same memory `pool` is launched. `keeps` is what must live as
    long as the graph.
    """

    def __init__(
        self,
        function: Callable[[], Any],
        *,
        device: torch.device,
        changes: Sequence[Tensor] = (),
        keeps: Any = None,
        pool: Any = None,
    ) -> None:
        self.function, self.keeps, self.graph = function, keeps, None
        if device.type == "cuda":
            before = [tensor.clone() for tensor in changes]
            # Captured work may not be on the default stream, and what it does first (compiling, allocating) may not be
            # captured.
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(2):  # what is allocated, chosen and compiled at a first call is not for the graph
                    function()
                    for tensor, was in zip(changes, before, strict=True):
                        tensor.copy_(was)
            torch.cuda.current_stream().wait_stream(side)
            self.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph, pool=pool):
                self.result = function()

    def __call__(self) -> Any:
        if self.graph is None:
            return self.function()
        self.graph.replay()
        return self.result


@dataclass(frozen=True, kw_only=True)
class GraphBuffers:
    """The fixed places of one kind of prefill, and the graphs that work there.

    `slot` is where the next token goes; `grammars` are those that the host has met, None for one that it must apply.
    """

    pictures: list[Float[Tensor, "_ _ _ 3"]]
    tokens: Int[Tensor, "b l"]
    order: Int[Tensor, "b n"]
    kinds: Int[Tensor, "b s"]
    cache: Cache
    state: Float[Tensor, "b ad"]
    noise: Float[Tensor, "b ah ad"]
    padded_dims: Bool[Tensor, "b ad"]
    next_token: Int[Tensor, " b"]
    slot: Int[Tensor, " 1"]
    last_hidden: Float[Tensor, "b d"]
    decoding: DecodeState
    scratch: Scratch
    graphs: dict[Any, Graph] = field(default_factory=dict)
    grammars: dict[int, tuple[Any, DeviceGrammar | None]] = field(default_factory=dict)
    inputs: Staging = field(default_factory=Staging)
    noises: Staging = field(default_factory=Staging)

    @property
    def length(self) -> int:
        """The number of tokens that are prefilled, padding included."""
        return self.order.shape[1]

    def with_all_slots(self, slots: int) -> PrefillState:
        """Return the state in which all slots before the flow block are in use; masks hide those that are not."""
        return PrefillState(cache=self.cache, kinds=self.kinds, length=slots, hidden=None, ragged=True, fast=True)


class GraphEngine(FastEngine):
    """A `FastEngine` that runs the usual things as CUDA graphs."""

    def __init__(self, model: Pi) -> None:
        super().__init__(model)
        # Robots' observations come over a socket: from pinned memory they reach the GPU without anybody waiting.
        self.input_device = torch.device("cpu")
        self.device = self.angles.device
        # Make the table as large as it can ever be: if it grew, graphs would read the old one.
        self.angles.at(torch.zeros(1, 1, dtype=torch.long, device=self.device), limit=LONGEST)
        self.buffers_by_kind: OrderedDict[Any, GraphBuffers] = OrderedDict()
        self.layouts: OrderedDict[Any, tuple[PrefillPlan, Tensor, Tensor]] = OrderedDict()
        self.pool = torch.cuda.graph_pool_handle() if self.device.type == "cuda" else None

    # --- prefill -----------------------------------------------------------------------------------------------------

    @torch.inference_mode()
    def prefill(self, observation: Observation, *, max_new_tokens: int = 0) -> PrefillState:
        """Prefill as `FastEngine` does; valid until the next prefill of as many pictures and about as much text.

        The observation may lie on the host: then nothing waits for the device.
        """
        layout, order, kinds = self.layout_of(observation)
        pictures = [pictures_of(observation, cameras) for _, cameras in layout.calls]
        buffers = self.buffers(layout, observation, pictures, max_new_tokens=max_new_tokens)
        # The last upload may still be on its way out of the pinned memory that is to be written now.
        buffers.inputs.wait()
        for place, parts in zip(buffers.pictures, pictures, strict=True):
            buffers.inputs.upload(place, parts)
        buffers.inputs.upload(buffers.tokens, [observation.tokens])
        buffers.inputs.mark()
        buffers.order.copy_(order)
        # PAD in all slots: those behind may hold tokens of the prefill before.
        buffers.kinds.zero_()
        buffers.kinds[:, : buffers.length].copy_(kinds)
        self.run(
            buffers,
            ("prefill", layout.causal, max_new_tokens > 0),
            lambda: self.prefill_graph(buffers, layout, max_new_tokens),
        )
        return PrefillState(
            cache=buffers.cache,
            kinds=buffers.kinds,
            length=buffers.length,
            hidden=buffers.last_hidden if max_new_tokens else None,
            ragged=True,
            fast=layout.fast,
        )

    def layout_of(self, observation: Observation) -> tuple[PrefillPlan, Int[Tensor, "b n"], Int[Tensor, "b n"]]:
        """Return the plan of such an observation, with its order and kinds on the device; the last ones are kept."""
        masks = {camera: mask.cpu() for camera, mask in observation.image_masks.items()}
        token_kinds = observation.token_kinds.cpu()
        shapes = tuple((camera, x.shape, masks[camera].numpy().tobytes()) for camera, x in observation.images.items())
        # A robot's prompts differ in words and not in kinds, so nearly every observation finds its plan here.
        key = (shapes, token_kinds.shape, token_kinds.numpy().tobytes())
        if key not in self.layouts:
            if len(self.layouts) == MAX_LAYOUTS:
                self.layouts.popitem(last=False)
            plan = self.plan_prefill(replace(observation, image_masks=masks, token_kinds=token_kinds))
            self.layouts[key] = (plan, *plan.tensors(round_up(plan.length, STEP), self.device))
        self.layouts.move_to_end(key)
        return self.layouts[key]

    def buffers(
        self, layout: PrefillPlan, observation: Observation, pictures: list[list[Tensor]], *, max_new_tokens: int
    ) -> GraphBuffers:
        """Return the buffers for such a prefill, made at the first of its kind. The least recent make room for them."""
        length, max_new_tokens = round_up(layout.length, STEP), round_up(max_new_tokens, ROOM_STEP)
        shapes = [(sum(map(len, parts)), *parts[0].shape[1:]) for parts in pictures]
        towers = tuple((id(tower), shape) for (tower, _), shape in zip(layout.calls, shapes, strict=True))
        key = (towers, observation.tokens.shape, length, max_new_tokens)
        if key not in self.buffers_by_kind:
            if length + max_new_tokens + self.flow_tokens > LONGEST:
                raise ValueError(
                    f"{length} tokens to prefill and {max_new_tokens} to generate are more than {LONGEST}: "
                    "see infer/engine/graphs.py"
                )
            if len(self.buffers_by_kind) == MAX_BUFFERS:
                self.buffers_by_kind.popitem(last=False)
            self.buffers_by_kind[key] = self.make_buffers(
                shapes, observation.tokens.shape, length=length, max_new_tokens=max_new_tokens
            )
        self.buffers_by_kind.move_to_end(key)
        return self.buffers_by_kind[key]

    def make_buffers(
        self, pictures: list[tuple[int, ...]], tokens: torch.Size, *, length: int, max_new_tokens: int
    ) -> GraphBuffers:
        """Allocate all at once. Nothing that is hidden may be NaN, so the cache is zero and not unset."""
        config, batch, slots = self.config, tokens[0], length + max_new_tokens + self.flow_tokens
        cache = Cache.empty(config.vlm, batch=batch, slots=slots, like=self.vlm.like)
        cache.keys.zero_()
        cache.values.zero_()

        def zeros(*shape: int, dtype: torch.dtype = torch.long) -> Tensor:
            return torch.zeros(shape, dtype=dtype, device=self.device)

        kinds, numbers = zeros(batch, slots), self.vlm.like
        return GraphBuffers(
            pictures=[numbers.new_empty(shape) for shape in pictures],
            tokens=zeros(*tokens),
            order=zeros(batch, length),
            kinds=kinds,
            cache=cache,
            state=zeros(batch, config.action_dim, dtype=torch.float32),
            noise=zeros(batch, config.action_horizon, config.action_dim, dtype=torch.float32),
            padded_dims=zeros(batch, config.action_dim, dtype=torch.bool),
            next_token=zeros(batch),
            slot=zeros(1),
            last_hidden=numbers.new_zeros(batch, config.vlm.width),
            scratch=self.vlm.scratch(batch=batch, tokens=1),
            decoding=DecodeState(
                hidden=numbers.new_zeros(batch, config.vlm.width),
                kinds=kinds,
                bias=numbers.new_zeros(batch, 1, 1, slots),
                finished=zeros(batch, dtype=torch.bool),
                positions=zeros(batch, 1),
            ),
        )

    def prefill_graph(self, buffers: GraphBuffers, layout: PrefillPlan, max_new_tokens: int) -> None:
        """Run the prefill between fixed buffers: this is what a CUDA graph records."""
        x = self.embed(layout, buffers.pictures, buffers.tokens, buffers.order)
        kinds = buffers.kinds[:, : buffers.length]
        hidden = self.run_backbone(
            x, kinds, buffers.cache, causal=layout.causal, ragged=True, stop=not max_new_tokens
        )  # fmt: skip
        if hidden is not None:
            buffers.last_hidden.copy_(hidden)

    def run(
        self, buffers: GraphBuffers, key: Any, function: Callable[[], Any], *, changes: Sequence[Tensor] = ()
    ) -> Any:
        """Run `function` as the graph of that name, captured at its first run."""
        if key not in buffers.graphs:
            if len(buffers.graphs) == MAX_GRAPHS:
                buffers.graphs.pop(next(iter(buffers.graphs)))
            # A graph holds addresses, not tensors: what they belong to must not be freed while it lives.
            keeps = (list(self.plans.values()), list(buffers.grammars.values()))
            buffers.graphs[key] = Graph(function, device=self.device, changes=changes, keeps=keeps, pool=self.pool)
        return buffers.graphs[key]()

    def buffers_of(self, prefilled: PrefillState) -> GraphBuffers | None:
        """Return where a state was made; None for one that was made of others (`select_rows`)."""
        return next((buffers for buffers in self.buffers_by_kind.values() if buffers.cache is prefilled.cache), None)

    # --- generate ----------------------------------------------------------------------------------------------------

    @torch.inference_mode()
    def generate(
        self,
        prefilled: PrefillState,
        *,
        eos: int,
        max_new_tokens: int = 32,
        kind: Kind = Kind.TEXT,
        allowed: Allowed | None = None,
        sampler: Sampler | None = None,
        skip_rows: Bool[Tensor, " b"] | None = None,
    ) -> tuple[Int[Tensor, "b t"], PrefillState]:
        """Generate as `FastEngine` does: greedily some tokens in one graph, with other samplers token by token."""
        buffers = self.buffers_of(prefilled)
        if isinstance(allowed, Sequence) and len(set(map(id, allowed))) == 1:
            allowed = allowed[0]
        grammar = None if buffers is None else self.grammar_of(buffers, allowed)
        # A sampler that draws, or a grammar that only the host knows, has to be asked at every token.
        greedy = sampler is None or isinstance(sampler, Greedy)
        fits = prefilled.hidden is not None and max_new_tokens <= self.room_for_text(prefilled)
        if buffers is None or grammar is None or not greedy or not fits:
            return super().generate(
                prefilled, eos=eos, max_new_tokens=max_new_tokens, kind=kind, allowed=allowed, sampler=sampler,
                skip_rows=skip_rows,
            )  # fmt: skip
        loc_range = sampler.loc_range if isinstance(sampler, Greedy) else self.config.loc_token_range(kind)
        decoding = self.start_decoding(prefilled)
        if skip_rows is not None:
            decoding.finished.logical_or_(skip_rows.to(self.device))
        grammar.start()
        buffers.slot.fill_(prefilled.length)
        tokens, over = decoding.kinds.new_zeros(len(decoding.finished), 0).cpu(), not max_new_tokens
        while not over and not (skip_rows is not None and tokens.shape[1] == 0 and bool(skip_rows.all())):
            count = min(TOKENS_PER_LOOK, max_new_tokens - tokens.shape[1])
            some, all_finished = self.generate_some(
                buffers, grammar, count, kind=kind, eos=eos, loc_range=loc_range
            )  # fmt: skip
            # The graph goes on to the end of its tokens; those after the last row has finished are thrown away.
            used = some.shape[1] if not any(all_finished) else all_finished.index(True) + 1
            tokens = torch.cat((tokens, some[:, :used]), dim=1)
            over = any(all_finished) or tokens.shape[1] == max_new_tokens
        after = replace(
            prefilled,
            length=prefilled.length + tokens.shape[1],
            hidden=decoding.hidden,
            fast=prefilled.fast or kind == Kind.FAST,
        )
        return tokens.to(self.device), after

    def grammar_of(self, buffers: GraphBuffers, allowed: Allowed | None) -> DeviceGrammar | None:
        """Return the tensors of a grammar, made when it is first met; when there are too many, graphs go with them."""
        if id(allowed) not in buffers.grammars:
            if len(buffers.grammars) == MAX_GRAMMARS:
                # Graphs have the addresses of these grammars in them.
                buffers.grammars.clear()
                for key in [key for key in buffers.graphs if key[0] == "generate"]:
                    del buffers.graphs[key]
            batch, size = len(buffers.next_token), self.config.vocab_size
            grammar = compile_grammar(allowed, batch=batch, vocab_size=size, device=self.device)
            buffers.grammars[id(allowed)] = (allowed, grammar)
        return buffers.grammars[id(allowed)][1]

    def generate_some(
        self,
        buffers: GraphBuffers,
        grammar: DeviceGrammar,
        count: int,
        *,
        kind: Kind,
        eos: int,
        loc_range: tuple[int, int] | None,
    ) -> tuple[Int[Tensor, "b t"], list[bool]]:
        """Generate `count` tokens in one launch; return them on the host, and after which of them all rows are done."""
        decoding = buffers.decoding

        def several() -> Int[Tensor, "_ t"]:
            made = []
            for _ in range(count):
                scores = mask_logits(self.model.logits(decoding.hidden), grammar.allowed())
                token = argmax_token(scores, loc_range=loc_range).masked_fill(decoding.finished, 0)
                grammar.advance(token)
                self.decode_at_slot(buffers, token, kind=kind, eos=eos)
                # Whether all have finished travels with the tokens: one copy to the host, one wait.
                made.append(torch.cat((token, decoding.finished.all()[None].long())))
            return torch.stack(made, dim=1)

        key = ("generate", count, kind, eos, loc_range, id(grammar))
        result = self.run(buffers, key, several, changes=self.changed_by_decoding(buffers) + grammar.state).cpu()
        return result[:-1], result[-1].bool().tolist()

    def changed_by_decoding(self, buffers: GraphBuffers) -> list[Tensor]:
        """Return the tensors that a new token changes, but for the cache: what lies behind the last token is unseen."""
        d = buffers.decoding
        return [d.hidden, d.finished, d.positions, d.kinds, cast(Tensor, d.bias), buffers.slot]

    def decode_at_slot(self, buffers: GraphBuffers, token: Int[Tensor, " b"], *, kind: Kind, eos: int) -> None:
        """Take in a token as `decode_step` does, at the slot that the device knows: one graph serves all."""
        decoding, slot = buffers.decoding, buffers.slot
        bias = cast(Tensor, decoding.bias)
        finished = decoding.finished[:, None]
        decoding.kinds.index_copy_(1, slot, torch.where(finished, int(Kind.PAD), int(kind)))
        bias[:, 0, 0].index_copy_(1, slot, torch.where(finished, MASKED, 0.0).to(bias.dtype))
        angles = self.angles.at(decoding.positions, limit=1)
        # The slot is a tensor here and the mask covers all slots: a Python number would be captured with the graph.
        span = Span(slots=buffers.cache.slots_at(slot), angles=angles, bias=bias, scratch=buffers.scratch)
        hidden = cast(Tensor, self.vlm.run(self.embed_tokens(token), span, norms=self.vlm.norms))
        torch.where(finished, decoding.hidden, hidden, out=decoding.hidden)
        decoding.finished.logical_or_(token == eos)
        decoding.positions.add_(1)
        slot.add_(1)

    def start_decoding(self, prefilled: PrefillState) -> DecodeState:
        decoding, buffers = super().start_decoding(prefilled), self.buffers_of(prefilled)
        if buffers is None:
            return decoding
        for name, place in vars(buffers.decoding).items():
            if name != "kinds":
                place.copy_(getattr(decoding, name))
        return buffers.decoding

    def make_decode_step(self, prefilled: PrefillState, decoding: DecodeState, *, kind: Kind, eos: int) -> DecodeStep:
        """Return the function that takes in a token of each row: a graph, the same for all slots."""
        buffers = self.buffers_of(prefilled)
        if buffers is None:
            return super().make_decode_step(prefilled, decoding, kind=kind, eos=eos)
        buffers.slot.fill_(prefilled.length)
        changes = self.changed_by_decoding(buffers)

        def decode_step(token: Tensor, end: int) -> None:
            buffers.next_token.copy_(token)
            self.run(
                buffers,
                ("decode", kind, eos),
                lambda: self.decode_at_slot(buffers, buffers.next_token, kind=kind, eos=eos),
                changes=changes,
            )

        return decode_step

    # --- denoise ------------------------------------------------------------------------------------------------------

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
        """Denoise as `FastEngine` does; state and noise may lie on the host."""
        buffers = self.buffers_of(prefilled)
        if buffers is None or noise.shape != buffers.noise.shape:
            state, noise = state.to(self.device), noise.to(self.device)
            return super().denoise(
                prefilled, state, noise=noise, num_steps=num_steps, solver=solver, padded_dims=padded_dims
            )
        self.denoise_plan(num_steps, solver=solver)  # before the graph, which only points to it
        buffers.noises.wait()
        buffers.noises.upload(buffers.state, [state])
        buffers.noises.upload(buffers.noise, [noise])
        buffers.noises.mark()
        pads = padded_dims is not None
        if padded_dims is not None:
            buffers.padded_dims.copy_(padded_dims)
        points = self.run(
            buffers,
            ("denoise", num_steps, solver, pads),
            lambda: self.denoise_graph(buffers, num_steps=num_steps, solver=solver, pads=pads),
        )
        # The next launch in this pool writes over the graph's own result.
        return points.clone()

    def denoise_graph(
        self, buffers: GraphBuffers, *, num_steps: int, solver: flow.Solver, pads: bool
    ) -> Float[Tensor, "n b ah ad"]:
        """Return all points on the way. The flow block is behind the room for new tokens; masks hide what is unused."""
        # Always behind all room for text, used or not, so that one graph serves texts of every length.
        slots = buffers.kinds.shape[1] - self.flow_tokens
        prefilled = buffers.with_all_slots(slots)
        padded_dims = buffers.padded_dims if pads else None
        return super().denoise(
            prefilled, buffers.state, noise=buffers.noise, num_steps=num_steps, solver=solver, padded_dims=padded_dims
        )


def round_up(count: int, step: int) -> int:
    """Return the smallest multiple of `step` that is not below `count`."""
    return -(-count // step) * step


def pictures_of(observation: Observation, cameras: dict[str, list[int]]) -> list[Float[Tensor, "_ h w 3"]]:
    """Return the pictures of each camera, of the rows that have it."""
    images = [(observation.images[camera], there) for camera, there in cameras.items()]
    return [x if len(there) == len(x) else x[there] for x, there in images]
