"""The fast engine: the numbers of `Pi.prefill`, `generate` and `denoise`, with nothing computed twice.

What is read goes into a cache that is allocated once, with room for the text to be said and for the flow block. A
camera that a robot lacks and the padding of a prompt are left out before the backbone sees them: the tokens of each row
are moved together, so that their places in the cache are their positions and a batch of one needs no mask at all.
Pictures of one size take one call of the vision tower. What the denoising steps have in common (norm factors of every
step and layer, rotary angles, masks, the state token's keys and values) is computed before them, and that which depends
on the weights alone once for each number of steps and solver.

An engine takes constants from the weights: make a new one when they have changed.

Axes: `b` batch, `s` cache slots, `n` said tokens, `ah` action horizon, `ad` action dims, `d` backbone width, `e`
expert width, `p` patches, `v` vocabulary.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from pilot.data.layout import Kind, Observation, backbone_mask, seen_by_flow
from pilot.infer.engine.sampling import Greedy, Sampler
from pilot.infer.engine.stack import Angles, AngleTable, Cache, InferenceStack, NormScale, Scratch, Span, check_weights
from pilot.models import flow
from pilot.models.pi import Pi
from pilot.nn.attention import KV, MASKED, additive_mask
from pilot.nn.encoder_decoder import Towers
from pilot.nn.gemma import Gemma
from pilot.nn.siglip import Siglip
from pilot.tokenizers.grammar import Allowed, allowed_mask

MAX_PLANS = 16

DecodeStep = Callable[[Tensor, int], None]
"""Takes in a token [b] of each row at a slot."""


def pad(rows: list[list[int]], length: int) -> list[list[int]]:
    """Rows of one length; what is filled in is never seen."""
    assert int(Kind.PAD) == 0
    return [row + [0] * (length - len(row)) for row in rows]


@dataclass(frozen=True, kw_only=True)
class PrefillState:
    """What has been read and said of each row so far. `kinds` are those of all slots, PAD where nothing is.

    `hidden` is that of each row's last token, if the reading was made to speak. `ragged` says that rows differ in
    length, `fast` that FAST tokens are among them: the flow block must be kept from some slots. A reading that goes on
    from another (`Engine.generate`) shares its cache and writes behind it: go on from one reading once.
    """

    cache: Cache
    kinds: Int[Tensor, "b s"]
    length: int
    hidden: Float[Tensor, "b d"] | None
    ragged: bool
    fast: bool

    @property
    def batch_size(self) -> int:
        return self.kinds.shape[0]

    @property
    def seen(self) -> tuple[list[KV], Int[Tensor, "b s"]]:
        """What the plain model would have in its cache, and its kinds."""
        keys, values = (part[:, :, :, : self.length] for part in (self.cache.keys, self.cache.values))
        return list(zip(keys.unbind(0), values.unbind(0), strict=True)), self.filled

    @property
    def filled(self) -> Int[Tensor, "b s"]:
        """The kinds of the slots that are in use."""
        return self.kinds[:, : self.length]


@dataclass(frozen=True, kw_only=True)
class Layout:
    """What is to be read and in which order, known before anything is computed.

    `calls` are the towers, with the pictures that each takes in one go: cameras, and the rows that have them. `rows`
    are the places of each row's tokens, moved together, among all patches and then all written tokens; `kinds` are
    theirs.
    """

    calls: list[tuple[nn.Module, dict[str, list[int]]]]
    rows: list[list[int]]
    kinds: list[list[int]]

    @property
    def length(self) -> int:
        return max(map(len, self.rows))

    @property
    def ragged(self) -> bool:
        return len(set(map(len, self.rows))) > 1

    @property
    def causal(self) -> bool:
        """Whether some tokens see only what comes before them."""
        return any(kind != Kind.PREFIX for row in self.kinds for kind in row)

    @property
    def fast(self) -> bool:
        return any(Kind.FAST in row for row in self.kinds)

    def tensors(self, length: int, device: torch.device) -> tuple[Int[Tensor, "b s"], Int[Tensor, "b s"]]:
        """`rows` and `kinds` with padding up to `length`."""
        order, kinds = (torch.tensor(pad(lists, length), device=device) for lists in (self.rows, self.kinds))
        return order, kinds


@dataclass(frozen=True, kw_only=True)
class DecodeState:
    """What changes with every token that is said, in place."""

    hidden: Float[Tensor, "b d"]
    kinds: Int[Tensor, "b s"]
    bias: Float[Tensor, "b 1 1 s"] | None
    finished: Bool[Tensor, " b"]
    positions: Int[Tensor, "b 1"]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What the evaluations of the expert take from the weights, the number of steps and the solver alone.

    `norms` of each evaluation. For π0, noisy actions and time go into an MLP side by side: its first layer is taken
    apart into `mixing`, which takes the actions, and the `time_bias` of each evaluation. Where some actions are given
    (`Engine.with_given`), every row of actions has norms and bias of its own.
    """

    norms: list[list[NormScale]]
    mixing: Float[Tensor, "e ad"] | None = None
    time_bias: tuple[Float[Tensor, "*r e"], ...] = ()


class Engine:
    """A `Pi` as it acts: weights and constants, nothing of any robot."""

    def __init__(self, model: Pi) -> None:
        config = model.config
        if config.expert_reads != "layers" or not config.generates_text:
            raise ValueError("the engine runs experts that read the backbone's layers; take engine_for(model)")
        check_weights(model)
        self.model, self.config = model, config
        self.vlm = self.stack(model.vlm)
        self.angles = AngleTable(config.vlm.head_dim, model.embedding.weight.device)
        self.plans: dict[tuple[int, flow.Solver], Plan] = {}
        self.state_tokens = int(config.state_input == "token")
        self.flow_tokens = 0
        if config.action_expert is not None:
            self.expert = self.stack(cast(Gemma, model.action_expert))
            self.flow_tokens = self.state_tokens + config.action_horizon

    def stack(self, gemma: Gemma) -> InferenceStack:
        """A stack as this engine runs it."""
        return InferenceStack(gemma)

    def sample_actions(
        self,
        observation: Observation,
        *,
        noise: Float[Tensor, "b ah ad"],
        num_steps: int = 10,
        solver: flow.Solver = "euler",
    ) -> Float[Tensor, "b ah ad"]:
        """A chunk of normalised actions per row."""
        reading = self.prefill(observation)
        return self.denoise(reading, observation.state, noise=noise, num_steps=num_steps, solver=solver)[-1]

    def generate_text(self, observation: Observation, *, eos: int, max_new_tokens: int = 32) -> Int[Tensor, "b n"]:
        """What the model says next, greedily, up to and with `eos`; 0 behind it."""
        return self.generate(
            self.prefill(observation, max_new_tokens=max_new_tokens), eos=eos, max_new_tokens=max_new_tokens
        )[0]

    # --- prefill -----------------------------------------------------------------------------------------------------

    @torch.inference_mode()
    def prefill(self, observation: Observation, *, max_new_tokens: int = 0) -> PrefillState:
        """Pictures and text into the cache, with room for text to be said: none, and the last layer is cut short."""
        layout = self.arrange(observation)
        order, kinds = layout.tensors(layout.length, observation.tokens.device)
        slots = layout.length + max_new_tokens + self.flow_tokens
        cache = Cache.empty(self.config.vlm, batch=len(kinds), slots=slots, like=self.vlm.like)
        pictures = [self.pictures(observation, cameras) for _, cameras in layout.calls]
        x = self.embed(layout, pictures, observation.tokens, order)
        hidden = self.take_in(x, kinds, cache, causal=layout.causal, ragged=layout.ragged, stop=not max_new_tokens)
        return PrefillState(
            cache=cache,
            kinds=F.pad(kinds, (0, slots - layout.length), value=int(Kind.PAD)),
            length=layout.length,
            hidden=hidden,
            ragged=layout.ragged,
            fast=layout.fast,
        )

    def arrange(self, observation: Observation) -> Layout:
        """Pictures that share a size and a tower go through it together; what is not there has no place."""
        calls: dict[tuple[nn.Module, torch.Size], dict[str, list[int]]] = {}
        for camera, images in observation.images.items():
            if there := [row for row, present in enumerate(observation.image_masks[camera].tolist()) if present]:
                calls.setdefault((self.tower(camera), images.shape[1:]), {})[camera] = there
        places: dict[tuple[str, int], range] = {}
        first = 0
        for (tower, size), cameras in calls.items():
            patches = math.prod(size[:2]) // cast(Siglip, tower).config.patch_size ** 2
            for place in [(camera, row) for camera, there in cameras.items() for row in there]:
                places[place] = range(first, first + patches)
                first += patches
        rows, kinds, width = [], [], observation.tokens.shape[1]
        for row, written in enumerate(observation.token_kinds.tolist()):
            seen = [i for camera in observation.images for i in places.get((camera, row), ())]
            said = [column for column in range(width) if written[column] != Kind.PAD]
            rows.append(seen + [first + row * width + column for column in said])
            kinds.append([int(Kind.PREFIX)] * len(seen) + [written[column] for column in said])
        return Layout(calls=[(tower, cameras) for (tower, _), cameras in calls.items()], rows=rows, kinds=kinds)

    def tower(self, camera: str) -> nn.Module:
        vision = self.model.vision
        return vision.tower(camera) if isinstance(vision, Towers) else vision

    def pictures(self, observation: Observation, cameras: dict[str, list[int]]) -> Float[Tensor, "n h w 3"]:
        """The pictures of these cameras and rows, camera after camera."""
        images = [(observation.images[camera], there) for camera, there in cameras.items()]
        return torch.cat([x if len(there) == len(x) else x[there] for x, there in images]).to(self.model.dtype)

    def embed(
        self,
        layout: Layout,
        pictures: list[Float[Tensor, "_ _ _ 3"]],
        tokens: Int[Tensor, "b l"],
        order: Int[Tensor, "b s"],
    ) -> Float[Tensor, "r d"]:
        """All that there is to read, embedded, then brought into the order of each row."""
        patches = [self.see(tower, x).flatten(0, 1) for (tower, _), x in zip(layout.calls, pictures, strict=True)]
        return torch.cat((*patches, self.embed_tokens(tokens.flatten())))[order.flatten()]

    def see(self, tower: nn.Module, pictures: Float[Tensor, "n h w 3"]) -> Float[Tensor, "n p d"]:
        """What a tower makes of pictures."""
        return tower(pictures)

    def embed_tokens(self, tokens: Int[Tensor, " n"]) -> Float[Tensor, "n d"]:
        return self.model.embedding.weight[tokens].mul_(math.sqrt(self.config.vlm.width))

    def take_in(
        self,
        x: Float[Tensor, "r d"],
        kinds: Int[Tensor, "b s"],
        cache: Cache,
        *,
        causal: bool,
        ragged: bool,
        stop: bool,
    ) -> Float[Tensor, "b d"] | None:
        """Through the backbone and into the first slots of the cache; the last token of each row, unless to `stop`."""
        length = kinds.shape[1]
        positions = torch.arange(length, device=kinds.device)[None]
        bias = self.reading_bias(kinds, causal=causal, ragged=ragged)
        return self.vlm.run(
            x,
            self.vlm.span(cache, 0, angles=self.angles.at(positions, limit=length), bias=bias),
            norms=self.vlm.norms,
            only=(kinds != Kind.PAD).sum(1) - 1,
            stop=stop,
        )

    def reading_bias(self, kinds: Int[Tensor, "b s"], *, causal: bool, ragged: bool) -> Float[Tensor, "b 1 t s"] | None:
        """Who sees whom while reading; nothing to say if all rows are prefixes of one length."""
        dtype = self.model.dtype
        if causal:  # the heads of a token are queries that follow one another
            heads = self.config.vlm.num_heads // self.config.vlm.num_kv_heads
            return additive_mask(backbone_mask(kinds), dtype).repeat_interleave(heads, dim=2)
        return additive_mask((kinds != Kind.PAD)[:, None], dtype) if ragged else None

    # --- saying ------------------------------------------------------------------------------------------------------

    @torch.inference_mode()
    def generate(
        self,
        reading: PrefillState,
        *,
        eos: int,
        max_new_tokens: int = 32,
        kind: Kind = Kind.TEXT,
        allowed: Allowed | None = None,
        sampler: Sampler | None = None,
        skip_rows: Bool[Tensor, " b"] | None = None,
    ) -> tuple[Int[Tensor, "b n"], PrefillState]:
        """Generate tokens up to and with `eos`, 0 behind it, greedily or by `sampler`; also return the state after.

        Rows in `skip_rows` say nothing and stay as they are; where all are, there are no tokens.

        Raises:
            ValueError: the reading has no room for so many tokens.
        """
        room = reading.cache.capacity - self.flow_tokens - reading.length
        if reading.hidden is None or max_new_tokens > room:
            asked = f"{max_new_tokens} tokens may be generated, but the prefill left room for {room}"
            raise ValueError(f"{asked}: prefill(…, max_new_tokens=…)")
        sampler = sampler or Greedy(self.config.loc_token_range(kind))
        saying = self.begin(reading)
        if skip_rows is not None:
            saying.finished.logical_or_(skip_rows)
        decode_step = self.decoder(reading, saying, kind=kind, eos=eos)
        said: list[Tensor] = []
        while len(said) < max_new_tokens and not saying.finished.all():
            may = None if allowed is None else allowed_mask(allowed, said, saying.finished)
            token = sampler(torch.mm(saying.hidden, self.model.embedding.weight.T), may)
            said.append(token.masked_fill(saying.finished, 0))
            decode_step(said[-1], reading.length + len(said) - 1)
        going_on = replace(
            reading,
            length=reading.length + len(said),
            hidden=saying.hidden,
            ragged=saying.bias is not None,
            fast=reading.fast or kind == Kind.FAST,
        )
        return torch.stack(said, dim=1) if said else saying.kinds[:, :0], going_on

    def begin(self, reading: PrefillState) -> DecodeState:
        """Nothing said yet. One row without padding sees all that there is, and needs no mask."""
        assert reading.hidden is not None
        masked = reading.batch_size > 1 or reading.ragged
        return DecodeState(
            hidden=reading.hidden.clone(),
            kinds=reading.kinds,
            bias=additive_mask((reading.kinds != Kind.PAD)[:, None], reading.hidden.dtype) if masked else None,
            finished=torch.zeros(reading.batch_size, dtype=torch.bool, device=reading.hidden.device),
            positions=(reading.filled != Kind.PAD).sum(1, keepdim=True),
        )

    def decoder(self, reading: PrefillState, saying: DecodeState, *, kind: Kind, eos: int) -> DecodeStep:
        """Takes in a token that was said."""
        scratch = self.vlm.scratch(batch=reading.batch_size, tokens=1)
        return lambda token, end: self.decode_step(
            token, end, saying, cache=reading.cache, kind=kind, eos=eos, scratch=scratch
        )  # fmt: skip

    def decode_step(
        self,
        token: Int[Tensor, " b"],
        end: int,
        saying: DecodeState,
        *,
        cache: Cache,
        kind: Kind,
        eos: int,
        scratch: Scratch,
    ) -> None:
        """A token of each row into slot `end`; of rows that have finished nothing is kept."""
        saying.kinds[:, end] = torch.where(saying.finished, int(Kind.PAD), int(kind))
        if saying.bias is not None:
            saying.bias[:, 0, 0, end] = torch.where(saying.finished, MASKED, 0.0)
        bias = None if saying.bias is None else saying.bias[..., : end + 1]
        angles = self.angles.at(saying.positions, limit=end + 1)
        span = self.vlm.span(cache, end, angles=angles, bias=bias, scratch=scratch)
        hidden = cast(Tensor, self.vlm.run(self.embed_tokens(token), span, norms=self.vlm.norms))
        torch.where(saying.finished[:, None], saying.hidden, hidden, out=saying.hidden)
        saying.finished.logical_or_(token == eos)
        saying.positions.add_(1)

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
        """All points on the way from noise to actions; the last is the chunk. A reading can be acted on many times.

        Raises:
            ValueError: the model has no action expert; no such number of steps or solver.
        """
        velocity = self.velocity(reading, state, horizon=noise.shape[1], num_steps=num_steps, solver=solver)
        return flow.integrate(velocity, noise, num_steps=num_steps, solver=solver)

    def velocity(
        self,
        reading: PrefillState,
        state: Float[Tensor, "b ad"],
        *,
        horizon: int,
        num_steps: int = 10,
        solver: flow.Solver = "euler",
        given: Bool[Tensor, "b ah"] | None = None,
    ) -> flow.Velocity:
        """`v_t` at each of the `solver_times`, for `flow.integrate`; actions that are `given` are at t = 0.

        For callers in inference mode. One velocity at a time: they are worked in the same slots of the cache.
        """
        if self.config.action_expert is None:
            raise ValueError("this model has no action expert: it says its actions (speak with kind=Kind.FAST)")
        plan = self.plan(num_steps, solver=solver)
        of_actions = plan if given is None else self.with_given(plan, given)
        read_state, actions = self.flow_spans(reading, horizon=horizon)
        adaptive = self.config.time_conditioning == "adarms"
        if read_state is not None and not adaptive:  # sees neither the actions nor the time: once is enough
            self.expert.run(self.model.state_in(state.to(self.model.dtype)), read_state, norms=plan.norms[0], stop=True)

        def velocity(x_t: Tensor, i: int) -> Tensor:
            if read_state is not None and adaptive:
                self.expert.run(
                    self.model.state_in(state.to(self.model.dtype)), read_state, norms=plan.norms[i], stop=True
                )
            x = self.embed_actions(x_t.flatten(0, 1).to(self.model.dtype), of_actions, i)
            h = self.expert.run(x, actions, norms=of_actions.norms[i])
            return self.model.action_out(h).to(x_t.dtype).view_as(x_t)

        return velocity

    def with_given(self, plan: Plan, given: Bool[Tensor, "b ah"]) -> Plan:
        """The plan for chunks of which some actions are given: each row of actions has the constants of its own time.

        Without adaptive norms the time is beside the actions alone.
        """
        clean, rows = self.clean_plan, given.flatten()[:, None]
        if plan.mixing is not None:
            return replace(plan, time_bias=tuple(torch.where(rows, clean.time_bias[0], b) for b in plan.time_bias))

        def own(zero: NormScale, norm: NormScale) -> NormScale:
            parts = zip(cast(list[Tensor], zero[:3]), cast(list[Tensor], norm[:3]), strict=True)  # none is missing
            return NormScale(*(torch.where(rows, a, b) for a, b in parts))

        norms = [[own(*pair) for pair in zip(clean.norms[0], norms, strict=True)] for norms in plan.norms]
        return replace(plan, norms=norms)

    @cached_property
    def clean_plan(self) -> Plan:
        """The constants of one evaluation at t = 0."""
        with torch.inference_mode():
            return self.make_plan(torch.zeros(1, device=self.angles.device))

    def flow_spans(self, reading: PrefillState, *, horizon: int) -> tuple[Span | None, Span]:
        """Where the state token (if there is one) and the actions go: behind what has been said.

        No action is hidden from another, and neither sees FAST tokens or the padding of shorter rows.
        """
        first, state_tokens = reading.length, self.state_tokens
        tokens = state_tokens + horizon
        cache = reading.cache.with_room(first + tokens)
        seen = seen_by_flow(reading.filled)
        positions = seen.sum(1, keepdim=True) + torch.arange(tokens, device=seen.device)
        angles = self.angles.at(positions, limit=first + tokens)
        bias = None
        if reading.ragged or reading.fast:
            bias = F.pad(additive_mask(seen[:, None], self.model.dtype), (0, tokens))
        of_actions = Angles(*(part[:, state_tokens:] for part in angles))
        actions = self.expert.span(cache, first + state_tokens, angles=of_actions, bias=bias)
        if not state_tokens:
            return None, actions
        of_state = Angles(*(part[:, :state_tokens] for part in angles))
        bias = None if bias is None else bias[..., : first + state_tokens]
        return self.expert.span(cache, first, angles=of_state, bias=bias), actions

    def embed_actions(self, x_t: Float[Tensor, "r ad"], plan: Plan, i: int) -> Float[Tensor, "r e"]:
        """Noisy actions as the expert takes them; for π0 mixed with the time of evaluation `i`."""
        if plan.mixing is None:
            return self.model.action_in(x_t)
        mixed = torch.addmm(plan.time_bias[i], x_t, plan.mixing.T)
        return self.model.time_mlp_out(F.silu(mixed))

    @torch.inference_mode()
    def plan(self, num_steps: int, *, solver: flow.Solver = "euler") -> Plan:
        """The constants of a number of steps and a solver: computed at their first use, and kept."""
        key = (num_steps, solver)
        if key not in self.plans:
            if len(self.plans) >= MAX_PLANS:
                self.plans.pop(next(iter(self.plans)))
            self.plans[key] = self.make_plan(flow.solver_times(num_steps, solver, device=self.angles.device))
        return self.plans[key]

    def make_plan(self, times: Float[Tensor, " n"]) -> Plan:
        model = self.model
        time = model.embed_time(times, model.dtype)
        if time.modulations is not None:
            return Plan(norms=self.expert.adaptive(time.modulations))
        assert time.features is not None
        of_action, of_time = model.time_mlp_in.weight.chunk(2, dim=1)
        bias = F.linear(time.features[:, 0], of_time, model.time_mlp_in.bias) + of_action @ model.action_in.bias
        mixing = of_action @ model.action_in.weight
        return Plan(norms=[self.expert.norms] * len(times), time_bias=bias.unbind(), mixing=mixing)
