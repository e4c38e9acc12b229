"""The fast engine: the numbers of `Pi.prefill`, `generate` and `denoise`, with nothing computed twice.

Pictures and text go into a cache that is allocated once, with room for new tokens and for the flow block. A
camera that a robot lacks and the padding of a prompt are left out before the backbone sees them: the tokens of each row
are moved together, so that their places in the cache are their positions and a batch of one needs no mask at all.
Pictures of one size take one call of the vision tower. What the denoising steps have in common (norm factors of every
step and layer, rotary angles, masks, the state token's keys and values) is computed before them, and that which depends
on the weights alone once for each number of steps and solver.

An engine takes constants from the weights: make a new one when they have changed.

Axes: `b` batch, `s` cache slots, `n` new tokens, `ah` action horizon, `ad` action dims, `d` backbone width, `e`
expert width, `p` patches, `v` vocabulary.
"""

import itertools
import math
from dataclasses import replace
from functools import cached_property
from typing import cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from pilot.data.layout import Kind, Observation, backbone_mask, seen_by_flow
from pilot.infer.engine.stack import Angles, AngleTable, Cache, InferenceStack, NormScale, Scratch, Span, check_weights
from pilot.infer.engine.state import DecodeState, DecodeStep, DenoisePlan, PrefillPlan, PrefillState
from pilot.models import flow
from pilot.models.generation import Greedy, Sampler, generate_tokens
from pilot.models.pi import Pi
from pilot.nn.attention import MASKED, additive_mask
from pilot.nn.encoder_decoder import Towers
from pilot.nn.gemma import Gemma
from pilot.nn.siglip import Siglip
from pilot.tokenizers.grammar import Allowed

MAX_PLANS = 16


class FastEngine:
    """A `Pi` as it acts: weights and constants, nothing of any robot."""

    def __init__(self, model: Pi) -> None:
        config = model.config
        if config.expert_reads != "layers" or not config.generates_text:
            raise ValueError("the engine runs experts that read the backbone's layers; take engine_for(model)")
        check_weights(model)
        self.model, self.config = model, config
        self.vlm = self.stack(model.vlm)
        self.input_device = model.embedding.weight.device
        self.angles = AngleTable(config.vlm.head_dim, self.input_device)
        self.plans: dict[tuple[int, flow.Solver], DenoisePlan] = {}
        self.state_tokens = int(config.has_state_token)
        self.flow_tokens = 0
        if config.action_expert is not None:
            self.expert = self.stack(cast(Gemma, model.action_expert))
            self.flow_tokens = self.state_tokens + config.action_horizon

    def stack(self, gemma: Gemma) -> InferenceStack:
        """Return a stack of blocks as this engine runs it."""
        return InferenceStack(gemma)

    def sample_actions(
        self,
        observation: Observation,
        *,
        noise: Float[Tensor, "b ah ad"],
        num_steps: int = 10,
        solver: flow.Solver = "euler",
        padded_dims: Bool[Tensor, "#b ad"] | None = None,
    ) -> Float[Tensor, "b ah ad"]:
        """Return a chunk of normalised actions per row."""
        steps = {"num_steps": num_steps, "solver": solver, "padded_dims": padded_dims}
        return self.denoise(self.prefill(observation), observation.state, noise=noise, **steps)[-1]

    # --- prefill -----------------------------------------------------------------------------------------------------

    @torch.inference_mode()
    def prefill(self, observation: Observation, *, max_new_tokens: int = 0) -> PrefillState:
        """Bring pictures and text into the cache. Without room for new tokens the last layer is cut short."""
        plan = self.plan_prefill(observation)
        order, kinds = plan.tensors(plan.length, observation.tokens.device)
        # One cache for all that will ever stand in it: growing it later would copy every key and value.
        slots = plan.length + max_new_tokens + self.flow_tokens
        cache = Cache.empty(self.config.vlm, batch=len(kinds), slots=slots, like=self.vlm.like)
        pictures = [self.gather_images(observation, cameras) for _, cameras in plan.calls]
        x = self.embed(plan, pictures, observation.tokens, order)
        hidden = self.run_backbone(x, kinds, cache, causal=plan.causal, ragged=plan.ragged, stop=not max_new_tokens)
        return PrefillState(
            cache=cache,
            kinds=F.pad(kinds, (0, slots - plan.length), value=int(Kind.PAD)),
            length=plan.length,
            hidden=hidden,
            ragged=plan.ragged,
            fast=plan.fast,
        )

    def plan_prefill(self, observation: Observation) -> PrefillPlan:
        """Plan which pictures go through a tower together (those of one size), and where each row's tokens lie.

        Absent pictures and the padding of text get no place.
        """
        calls: dict[tuple[nn.Module, torch.Size], dict[str, list[int]]] = {}
        for camera, images in observation.images.items():
            if rows_with := [row for row, present in enumerate(observation.image_masks[camera].tolist()) if present]:
                # Read from the masks on the host: what is absent is not computed at all, so shapes depend on it.
                calls.setdefault((self.tower(camera), images.shape[1:]), {})[camera] = rows_with
        patches_of: dict[tuple[str, int], range] = {}
        first = 0
        for (tower, size), cameras in calls.items():
            count = math.prod(size[:2]) // cast(Siglip, tower).config.patch_size ** 2
            for picture in [(camera, row) for camera, rows_with in cameras.items() for row in rows_with]:
                patches_of[picture] = range(first, first + count)
                first += count
        rows, kinds, width = [], [], observation.tokens.shape[1]
        for row, token_kinds in enumerate(observation.token_kinds.tolist()):
            patches = [i for camera in observation.images for i in patches_of.get((camera, row), ())]
            columns = [column for column in range(width) if token_kinds[column] != Kind.PAD]
            rows.append(patches + [first + row * width + column for column in columns])
            kinds.append([int(Kind.PREFIX)] * len(patches) + [token_kinds[column] for column in columns])
        return PrefillPlan(calls=[(tower, cameras) for (tower, _), cameras in calls.items()], rows=rows, kinds=kinds)

    def tower(self, camera: str) -> nn.Module:
        """Return the vision tower that sees a camera."""
        vision = self.model.vision
        return vision.tower(camera) if isinstance(vision, Towers) else vision

    def gather_images(self, observation: Observation, cameras: dict[str, list[int]]) -> Float[Tensor, "n h w 3"]:
        """Concatenate the pictures of these cameras and rows, camera after camera."""
        images = [(observation.images[camera], rows) for camera, rows in cameras.items()]
        return torch.cat([x if len(rows) == len(x) else x[rows] for x, rows in images]).to(self.model.dtype)

    def embed(
        self,
        plan: PrefillPlan,
        pictures: list[Float[Tensor, "_ _ _ 3"]],
        tokens: Int[Tensor, "b l"],
        order: Int[Tensor, "b s"],
    ) -> Float[Tensor, "r d"]:
        """Embed all pictures and tokens, then bring them into the order of each row."""
        towers = [tower for tower, _ in plan.calls]
        patches = [self.embed_images(tower, x).flatten(0, 1) for tower, x in zip(towers, pictures, strict=True)]
        # One gather moves the tokens of each row together and leaves the padding behind.
        return torch.cat((*patches, self.embed_tokens(tokens.flatten())))[order.flatten()]

    def embed_images(self, tower: nn.Module, pictures: Float[Tensor, "n h w 3"]) -> Float[Tensor, "n p d"]:
        """Return the patch tokens of pictures."""
        return tower(pictures)

    def embed_tokens(self, tokens: Int[Tensor, " n"]) -> Float[Tensor, "n d"]:
        """Look up text tokens, scaled by the root of the width as in `Pi.embed_tokens`."""
        return self.model.embedding.weight[tokens].mul_(math.sqrt(self.config.vlm.width))

    def run_backbone(
        self,
        x: Float[Tensor, "r d"],
        kinds: Int[Tensor, "b s"],
        cache: Cache,
        *,
        causal: bool,
        ragged: bool,
        stop: bool,
    ) -> Float[Tensor, "b d"] | None:
        """Run the backbone, into the first slots of the cache; return the last token of each row unless `stop`."""
        length = kinds.shape[1]
        positions = torch.arange(length, device=kinds.device)[None]
        bias = self.prefill_bias(kinds, causal=causal, ragged=ragged)
        return self.vlm.run(
            x,
            self.vlm.span(cache, 0, angles=self.angles.at(positions, limit=length), bias=bias),
            norms=self.vlm.norms,
            # Text is generated behind each row's last token, so the last layer is computed for that token alone.
            only=(kinds != Kind.PAD).sum(1) - 1,
            stop=stop,
        )

    def prefill_bias(self, kinds: Int[Tensor, "b s"], *, causal: bool, ragged: bool) -> Float[Tensor, "b 1 t s"] | None:
        """Return the mask of who sees whom in the prefill; None if all rows are prefixes of one length."""
        dtype = self.model.dtype
        if causal:  # the heads of a token are queries that follow one another
            heads = self.config.vlm.num_heads // self.config.vlm.num_kv_heads
            return additive_mask(backbone_mask(kinds), dtype).repeat_interleave(heads, dim=2)
        return additive_mask((kinds != Kind.PAD)[:, None], dtype) if ragged else None

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
    ) -> tuple[Int[Tensor, "b n"], PrefillState]:
        """See `Engine.generate`."""
        room = self.room_for_text(prefilled)
        if prefilled.hidden is None or max_new_tokens > room:
            raise ValueError(
                f"{max_new_tokens} tokens may be generated, but the prefill left room for {room}: "
                "prefill(…, max_new_tokens=…)"
            )
        sampler = sampler or Greedy(self.config.loc_token_range(kind))
        decoding = self.start_decoding(prefilled)
        if skip_rows is not None:
            decoding.finished.logical_or_(skip_rows)
        decode_step = self.make_decode_step(prefilled, decoding, kind=kind, eos=eos)
        # All rows write to the same slot, whatever their lengths; positions tell where each of them is.
        slots = itertools.count(prefilled.length)

        def step(token: Tensor) -> tuple[Tensor, Tensor]:
            decode_step(token, next(slots))
            return decoding.hidden, decoding.finished

        tokens = generate_tokens(
            decoding.hidden, decoding.finished, decode_step=step, logits=self.model.logits, sampler=sampler,
            max_new_tokens=max_new_tokens, allowed=allowed,
        )  # fmt: skip
        after = replace(  # the same cache, with the new tokens behind
            prefilled,
            length=prefilled.length + len(tokens),
            hidden=decoding.hidden,
            ragged=decoding.bias is not None,
            fast=prefilled.fast or kind == Kind.FAST,
        )
        return torch.stack(tokens, dim=1) if tokens else decoding.kinds[:, :0], after

    def room_for_text(self, prefilled: PrefillState) -> int:
        """Return how many tokens can be generated behind a state; the flow block has slots of its own."""
        return prefilled.cache.capacity - self.flow_tokens - prefilled.length

    def start_decoding(self, prefilled: PrefillState) -> DecodeState:
        """Return the state before the first new token. One row without padding sees everything, and needs no mask."""
        assert prefilled.hidden is not None
        masked = prefilled.batch_size > 1 or prefilled.ragged
        return DecodeState(
            hidden=prefilled.hidden.clone(),
            kinds=prefilled.kinds,
            bias=additive_mask((prefilled.kinds != Kind.PAD)[:, None], prefilled.hidden.dtype) if masked else None,
            finished=torch.zeros(prefilled.batch_size, dtype=torch.bool, device=prefilled.hidden.device),
            positions=(prefilled.filled != Kind.PAD).sum(1, keepdim=True),
        )

    def make_decode_step(self, prefilled: PrefillState, decoding: DecodeState, *, kind: Kind, eos: int) -> DecodeStep:
        """Return the function that takes in a new token; the graph engine has one of its own."""
        scratch = self.vlm.scratch(batch=prefilled.batch_size, tokens=1)
        return lambda token, end: self.decode_step(
            token, end, decoding, cache=prefilled.cache, kind=kind, eos=eos, scratch=scratch
        )  # fmt: skip

    def decode_step(
        self,
        token: Int[Tensor, " b"],
        end: int,
        decoding: DecodeState,
        *,
        cache: Cache,
        kind: Kind,
        eos: int,
        scratch: Scratch,
    ) -> None:
        """Take in a token of each row at slot `end`; nothing is kept of rows that have finished."""
        # A finished row writes its key too, and the mask hides it from all that comes.
        decoding.kinds[:, end] = torch.where(decoding.finished, int(Kind.PAD), int(kind))
        if decoding.bias is not None:
            decoding.bias[:, 0, 0, end] = torch.where(decoding.finished, MASKED, 0.0)
        # Slots behind the new token hold whatever memory held, and are left out instead of masked.
        bias = None if decoding.bias is None else decoding.bias[..., : end + 1]
        angles = self.angles.at(decoding.positions, limit=end + 1)
        span = self.vlm.span(cache, end, angles=angles, bias=bias, scratch=scratch)
        hidden = cast(Tensor, self.vlm.run(self.embed_tokens(token), span, norms=self.vlm.norms))
        torch.where(decoding.finished[:, None], decoding.hidden, hidden, out=decoding.hidden)
        decoding.finished.logical_or_(token == eos)
        decoding.positions.add_(1)

    # --- denoise -----------------------------------------------------------------------------------------------------

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
        """See `Engine.denoise`; all points on the way are returned."""
        velocity = self.velocity(prefilled, state, horizon=noise.shape[1], num_steps=num_steps, solver=solver)
        return flow.integrate(velocity, noise, num_steps=num_steps, solver=solver, padded_dims=padded_dims)

    def velocity(
        self,
        prefilled: PrefillState,
        state: Float[Tensor, "b ad"],
        *,
        horizon: int,
        num_steps: int = 10,
        solver: flow.Solver = "euler",
        given: Bool[Tensor, "b ah"] | None = None,
    ) -> flow.Velocity:
        """See `Engine.velocity`.

        For callers in inference mode. One velocity at a time: they work in the same slots of the cache.
        """
        if self.config.action_expert is None:
            raise ValueError("this model has no action expert: it writes its actions (generate with kind=Kind.FAST)")
        plan = self.denoise_plan(num_steps, solver=solver)
        # Given actions are at time 0 and the others at the step's time, so their norms differ row by row.
        of_actions = plan if given is None else self.with_given_actions(plan, given)
        read_state, actions = self.flow_spans(prefilled, horizon=horizon)
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

    def with_given_actions(self, plan: DenoisePlan, given: Bool[Tensor, "b ah"]) -> DenoisePlan:
        """Return the plan for chunks of which some actions are given: each action has the constants of its own time.

        Without adaptive norms the time is beside the actions alone.
        """
        # Both plans are computed already; each row of actions takes its constants from one of them.
        clean, rows = self.clean_denoise_plan, given.flatten()[:, None]
        if plan.mixing is not None:
            return replace(plan, time_bias=tuple(torch.where(rows, clean.time_bias[0], b) for b in plan.time_bias))

        def scale_each_row(zero: NormScale, norm: NormScale) -> NormScale:
            parts = zip(cast(list[Tensor], zero[:3]), cast(list[Tensor], norm[:3]), strict=True)  # none is missing
            return NormScale(*(torch.where(rows, a, b) for a, b in parts))

        norms = [[scale_each_row(*pair) for pair in zip(clean.norms[0], norms, strict=True)] for norms in plan.norms]
        return replace(plan, norms=norms)

    @cached_property
    def clean_denoise_plan(self) -> DenoisePlan:
        """The constants of one evaluation at t = 0."""
        with torch.inference_mode():
            return self.make_denoise_plan(torch.zeros(1, device=self.angles.device))

    def flow_spans(self, prefilled: PrefillState, *, horizon: int) -> tuple[Span | None, Span]:
        """Return the spans of the state token (if there is one) and of the actions, behind all text.

        No action is hidden from another, and neither sees FAST tokens or the padding of shorter rows.
        """
        first, state_tokens = prefilled.length, self.state_tokens
        tokens = state_tokens + horizon
        # A state that more text was written into than planned has no room left: then it is copied.
        cache = prefilled.cache.with_room(first + tokens)
        seen = seen_by_flow(prefilled.filled)
        positions = seen.sum(1, keepdim=True) + torch.arange(tokens, device=seen.device)
        angles = self.angles.at(positions, limit=first + tokens)
        bias = None
        # Otherwise every slot before the block is seen by all of it, and no mask is faster than one of zeros.
        if prefilled.ragged or prefilled.fast:
            bias = F.pad(additive_mask(seen[:, None], self.model.dtype), (0, tokens))
        of_actions = Angles(*(part[:, state_tokens:] for part in angles))
        actions = self.expert.span(cache, first + state_tokens, angles=of_actions, bias=bias)
        if not state_tokens:
            return None, actions
        of_state = Angles(*(part[:, :state_tokens] for part in angles))
        bias = None if bias is None else bias[..., : first + state_tokens]
        return self.expert.span(cache, first, angles=of_state, bias=bias), actions

    def embed_actions(self, x_t: Float[Tensor, "r ad"], plan: DenoisePlan, i: int) -> Float[Tensor, "r e"]:
        """Embed noisy actions for the expert; for π0 they are mixed with the time of evaluation `i`."""
        if plan.mixing is None:
            return self.model.action_in(x_t)
        mixed = torch.addmm(plan.time_bias[i], x_t, plan.mixing.T)
        return self.model.time_mlp_out(F.silu(mixed))

    @torch.inference_mode()
    def denoise_plan(self, num_steps: int, *, solver: flow.Solver = "euler") -> DenoisePlan:
        """Return the constants for a number of steps and a solver: computed at their first use, and kept."""
        key = (num_steps, solver)
        if key not in self.plans:
            if len(self.plans) >= MAX_PLANS:
                # Dicts keep the order of insertion: the oldest goes.
                self.plans.pop(next(iter(self.plans)))
            self.plans[key] = self.make_denoise_plan(flow.solver_times(num_steps, solver, device=self.angles.device))
        return self.plans[key]

    def make_denoise_plan(self, times: Float[Tensor, " n"]) -> DenoisePlan:
        """Compute the constants of evaluations at these times."""
        model = self.model
        time = model.embed_time(times, model.dtype)
        if time.modulations is not None:
            return DenoisePlan(norms=self.expert.adaptive(time.modulations))
        assert time.features is not None
        # A layer over [action, time] is the sum of a layer over each. The action's is folded into `action_in` before
        # it.
        of_action, of_time = model.time_mlp_in.weight.chunk(2, dim=1)
        bias = F.linear(time.features[:, 0], of_time, model.time_mlp_in.bias) + of_action @ model.action_in.bias
        mixing = of_action @ model.action_in.weight
        return DenoisePlan(norms=[self.expert.norms] * len(times), time_bias=bias.unbind(), mixing=mixing)
