"""The π0 family in one model: π0, π0-FAST, π0.5 and π0-small are choices of `PiConfig`, not files.

A vision tower and a language backbone read pictures and text into a cache of keys and values, and write text (subtasks,
answers, FAST tokens). A small action expert reads the cache and turns noise into a chunk of actions. Who sees whom is
`data/layout.py`, the choices and shapes are `pi_config.py`, the flow convention is `flow.py`. Sources: π0 (arXiv
2410.24164), FAST (2501.09747), π0.5 (2504.16054), knowledge insulation (2505.23705).

Axes: `b` batch, `i` picture tokens, `l` text tokens, `s` backbone tokens, `k` noise draws, `r` chunks (rows times
draws), `n` target tokens, `ah` action horizon, `ad` action dims, `d` backbone width, `e` expert width, `v` vocabulary.
"""

import math
from dataclasses import replace
from typing import cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from pilot.data.layout import Batch, Kind, Observation, backbone_mask, flow_mask, flow_positions, token_positions
from pilot.models import flow, pointing
from pilot.models.base import Draws, Model, Terms
from pilot.models.context import FlowBlock, Prefix, TimeCondition
from pilot.models.generation import Greedy, Sampler, generate_tokens
from pilot.models.losses import (
    TEXT_LOSSES,
    Term,
    count_flow_elements,
    count_targets,
    flow_chunks,
    flow_terms,
    text_terms,
)
from pilot.models.pi_config import PiConfig, pi0, pi0_fast, pi0_small, pi05
from pilot.nn.attention import KV, additive_mask, detach, rotary_angles
from pilot.nn.cross_entropy import cross_entropy
from pilot.nn.encoder_decoder import Decoder, DecoderBlock, Towers
from pilot.nn.gemma import Gemma, GemmaBlock
from pilot.nn.norms import AdaRMSNorm
from pilot.nn.siglip import Siglip, SiglipBlock, fourier_features, sincos_table
from pilot.tokenizers.grammar import Allowed

__all__ = ["Pi", "PiConfig", "Prefix", "pi0", "pi0_fast", "pi0_small", "pi05"]


class Pi(Model):
    """A model of the family: `loss` to train, `generate_text` and `sample_actions` to act."""

    config: PiConfig

    def __init__(self, config: PiConfig) -> None:
        super().__init__()
        self.config = config
        width, text = config.vlm.width, config.text_encoder
        cameras = config.vision_towers
        self.vision = Towers(config.vision, width, cameras=cameras) if cameras else Siglip(config.vision, width)
        self.embedding = nn.Embedding(config.vocab_size, text.width if text else width)
        if text is not None:
            self.text_encoder = Gemma(text)
            self.text_out = nn.Linear(text.width, width)
        self.vlm = Gemma(config.vlm)
        if (expert := config.action_expert) is None:
            return
        self.action_expert = Gemma(expert) if config.expert_reads == "layers" else Decoder(expert, width)
        self.action_in = nn.Linear(config.action_dim, expert.width)
        self.action_out = nn.Linear(expert.width, config.action_dim)
        time_width = expert.width * (2 if config.time_conditioning == "concat" else 1)
        self.time_mlp_in = nn.Linear(time_width, expert.width)
        self.time_mlp_out = nn.Linear(expert.width, expert.width)
        if config.has_state_token:
            self.state_in = nn.Linear(config.action_dim, expert.width)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the weights. Inputs are converted to it; actions come out in the dtype of `x_t`."""
        return self.embedding.weight.dtype

    @property
    def default_replan_seconds(self) -> float:
        """What the config says; else what all models do."""
        return self.config.replan_seconds or super().default_replan_seconds

    # --- prefill: pictures and text into a cache ---------------------------------------------------------------------

    def embed_images(
        self, observation: Observation, *, run_all_cameras: bool = False, together: bool | None = None
    ) -> tuple[Float[Tensor, "b i d"], Int[Tensor, "b i"]]:
        """Return the patch tokens of all cameras and their kinds; rows without a camera are padded.

        Cameras whose pictures have one size go through their tower `together`, or each by itself. The default is
        together on a GPU and singly on a CPU: sums are rounded in another order, and recorded runs stay as they are.
        A camera that no row has costs nothing, or with `run_all_cameras` one picture.
        """
        # 1) Which rows have each camera, and which cameras go through a tower together.
        rows_by_camera: dict[str, Tensor] = {}
        groups: dict[tuple[nn.Module, torch.Size, str], list[str]] = {}
        for name, images in observation.images.items():
            rows = observation.rows_with(name)
            if not len(rows) and not run_all_cameras:
                continue
            rows_by_camera[name] = rows if len(rows) else rows.new_zeros(1)
            tower = self.vision.tower(name) if isinstance(self.vision, Towers) else self.vision
            joins = images.is_cuda if together is None else together
            groups.setdefault((tower, images.shape[1:3], "" if joins else name), []).append(name)
        if not groups:
            width = self.config.vlm.width
            return self.embedding.weight.new_zeros(observation.batch_size, 0, width), observation.tokens[:, :0]

        # 2) Pictures [b h w 3] of one camera, or of several behind each other, become tokens.
        patches: dict[str, Tensor] = {}
        for (tower, *_), names in groups.items():
            pictures = [observation.images[name][rows_by_camera[name]].to(self.dtype) for name in names]
            embedded = tower(torch.cat(pictures) if len(pictures) > 1 else pictures[0])
            patches |= dict(zip(names, embedded.split([len(x) for x in pictures]), strict=True))

        # 3) The tokens of the cameras in their order, with zeros in the rows that lack one.
        tokens, kinds = [], []
        for name, rows in rows_by_camera.items():
            present, embedded = observation.image_masks[name], patches[name]
            empty = embedded.new_zeros(len(present), *embedded.shape[1:])
            tokens.append(embedded if len(embedded) == len(present) else empty.index_put((rows,), embedded))
            kinds.append(present[:, None].long().expand(-1, embedded.shape[1]) * Kind.PREFIX)
        return torch.cat(tokens, dim=1), torch.cat(kinds, dim=1)

    def embed_tokens(self, tokens: Int[Tensor, "b l"]) -> Float[Tensor, "b l d"]:
        """Look up text tokens, scaled by the root of the width as in Gemma."""
        return self.embedding(tokens) * math.sqrt(self.embedding.embedding_dim)

    def embed_text(self, observation: Observation) -> Float[Tensor, "b l d"]:
        """Return the text as the backbone takes it: embedded, or in π0-small read by the text encoder."""
        x, kinds = self.embed_tokens(observation.tokens), observation.token_kinds
        if self.config.text_encoder is None:
            return x
        h, _ = self.text_encoder(x, **self.attention_inputs(token_positions(kinds), backbone_mask(kinds), x.dtype))
        return self.text_out(h)

    def prefill(
        self,
        observation: Observation,
        *,
        compute_hidden: bool = True,
        keep_block_inputs: bool = False,
        run_all_cameras: bool = False,
    ) -> Prefix:
        """Run the backbone over pictures and text.

        Without `compute_hidden` the last layer stops at its keys and values, which are all that acting needs.
        """
        images, image_kinds = self.embed_images(observation, run_all_cameras=run_all_cameras)
        x = torch.cat((images, self.embed_text(observation)), dim=1)  # [b s d]
        kinds = torch.cat((image_kinds, observation.token_kinds), dim=1)
        # Pictures stand in front and nothing is generated from them: the last layer is only needed for the text.
        tail = observation.tokens.shape[1] if compute_hidden else 0
        block_inputs: list[Tensor] = []
        attention = self.attention_inputs(token_positions(kinds), backbone_mask(kinds), x.dtype)
        if self.config.expert_reads == "output":
            h, _ = self.vlm(x, **attention)
            # π0-small's expert reads the output of the whole prefix, so nothing may be left out of the last layer.
            cache, h = cast(Decoder, self.action_expert).project_memory(h), h[:, h.shape[1] - tail :]
        else:
            h, cache = self.vlm(x, **attention, tail=tail, block_inputs=block_inputs if keep_block_inputs else None)
        return Prefix(cache=cache, kinds=kinds, hidden=h, block_inputs=block_inputs)

    def attention_inputs(self, positions: Int[Tensor, "b t"], mask: Bool[Tensor, "b t s"], dtype: torch.dtype) -> dict:
        """Return rotary angles and additive mask, which all layers of a stack share."""
        return {"angles": rotary_angles(positions, self.config.vlm.head_dim), "bias": additive_mask(mask, dtype)}

    def logits(self, hidden: Float[Tensor, "*b d"]) -> Float[Tensor, "*b v"]:
        """Return scores over the vocabulary; the head is the embedding table."""
        return hidden @ self.embedding.weight.T

    # --- training ----------------------------------------------------------------------------------------------------

    def loss(
        self,
        observation: Observation,
        actions: Float[Tensor, "b ah ad"],
        *,
        noise: Float[Tensor, "b *k ah ad"],
        time: Float[Tensor, "b *k"] | Float[Tensor, "b *k ah"],
        action_mask: Bool[Tensor, "b ah ad"] | None = None,
    ) -> dict[str, Float[Tensor, " b"]]:
        """Return the mean loss of each sample by name, 0 where it has none.

        "flow" is the mean over unmasked action elements, "text" and "fast" are over their tokens. With a `time` for
        each action, those at 0 are given and have no loss.
        """
        # Outside of training every element counts, unless the caller says otherwise.
        mask = torch.ones_like(actions, dtype=torch.bool) if action_mask is None else action_mask
        batch = Batch(observation=observation, actions=actions, action_mask=mask, sources=("",) * len(actions))
        terms = self.loss_terms(batch, {"noise": noise, "time": time}, losses=frozenset({"text", "fast", "flow"}))
        return {name: total / count.clamp(min=1) for name, (total, count) in terms.items()}

    def loss_terms(self, batch: Batch, draws: Draws, *, losses: frozenset[str], run_all_modules: bool = False) -> Terms:
        """Return the sum and the count of each loss per row (see `base.Model`), from one pass over pictures and text.

        With neither text nor flow among the losses the vision tower is alone, and learns to name what it sees and, if
        "place" is among them, to say where that is.
        """
        observation, config = batch.observation, self.config
        learn_text, learn_flow = self._select(losses)
        boxes = {"loc_start": config.loc_start, "grid": config.vision.grid}
        if not (learn_text or learn_flow):
            patches, _ = self.embed_images(observation, run_all_cameras=run_all_modules)
            return pointing.seeing_terms(observation, patches, self.logits, losses=losses, **boxes)
        terms: Terms = {}

        # 1) The backbone reads pictures and text, once for all losses. It runs without gradients where no loss would
        #    send it any: the flow loss alone, insulated.
        layer = config.point_layer if learn_text else None
        with torch.set_grad_enabled(torch.is_grad_enabled() and (learn_text or not config.insulate)):
            prefix = self.prefill(
                observation,
                compute_hidden=learn_text,
                keep_block_inputs=layer is not None,
                run_all_cameras=run_all_modules,
            )

        # 2) Cross-entropy: every target token is predicted from the hidden state of the token before it.
        if learn_text:
            row, column = observation.target_positions()
            targets = observation.tokens[row, column]
            # Only target tokens are scored: the vocabulary has 257,152 entries, and most tokens of a row are prompt.
            nll = cross_entropy(prefix.hidden[row, column - 1], self.embedding.weight, targets)  # [n]
            terms |= text_terms(observation, nll)

        # 3) For small models: look at what a box is about, and say what the box shows, and where it is.
        if layer is not None:
            block = self.vlm.blocks[layer]
            terms["point"] = pointing.pointing_terms(observation, prefix, block, layer=layer, **boxes)
            patches = prefix.block_inputs[0]
            terms |= pointing.seeing_terms(observation, patches, self.logits, losses=losses, **boxes)

        # 4) Flow matching. Insulation is this detach: the expert reads the cache and sends no gradient into it.
        if learn_flow:
            cache = detach(prefix.cache) if config.insulate else prefix.cache
            terms["flow"] = self._flow_terms(replace(prefix, cache=cache), batch, at_least_one=run_all_modules, **draws)
        return terms

    def _flow_terms(
        self,
        prefix: Prefix,
        batch: Batch,
        *,
        noise: Float[Tensor, "b *k ah ad"],
        time: Float[Tensor, "b *k"] | Float[Tensor, "b *k ah"],
        at_least_one: bool,
    ) -> Term:
        """Return the squared error of the velocity, for the rows that have actions."""
        batch_size = len(batch.actions)
        num_draws = noise[0].numel() // batch.actions[0].numel()
        chunks = flow_chunks(batch, time, num_draws=num_draws, at_least_one=at_least_one)
        row = chunks.row
        if not len(row):
            zeros = batch.actions.new_zeros(batch_size)
            return zeros, zeros

        # 1) A point on the way from noise to actions, for each row and draw.
        # Noise was drawn for every row of the step, so that it does not depend on which rows have actions.
        noise = noise[row[::num_draws]].reshape(-1, *batch.actions.shape[1:])
        x_t, u_t = flow.interpolate(batch.actions[row], noise, chunks.time)  # [r ah ad]

        # 2) The prefix of each row, kept once: its draws share the keys and values (`nn.attention.attend`).
        cache = prefix.cache
        if len(row) != batch_size * num_draws:  # not all rows have actions
            cache = [(k[row[::num_draws]], v[row[::num_draws]]) for k, v in cache]
        # Masks are made for every draw, though the cache is not: `attend` lines the draws of a row up as its queries.
        block = self.flow_block(cache, prefix.kinds[row], batch.observation.state[row], horizon=x_t.shape[1])

        # 3) The velocity that the expert predicts there, against the true one.
        v_t = self.velocity(block, x_t, self.embed_time(chunks.time, self.dtype))
        return flow_terms(chunks, v_t, u_t, batch_size=batch_size)

    def loss_counts(self, batch: Batch, draws: Draws, *, losses: frozenset[str]) -> dict[str, Float[Tensor, " b"]]:
        """Return the counts of `loss_terms`, from masks alone."""
        observation, config = batch.observation, self.config
        learn_text, learn_flow = self._select(losses)
        if not (learn_text or learn_flow):
            return pointing.count_seen(observation, config.loc_start, losses=losses)
        counts: dict[str, Tensor] = {}
        if learn_text:
            counts |= count_targets(observation)
        if learn_text and config.point_layer is not None:
            counts["point"] = pointing.count_boxes(observation, config.loc_start)
            counts |= pointing.count_seen(observation, config.loc_start, losses=losses)
        if learn_flow:
            num_draws = draws["noise"][0].numel() // batch.actions[0].numel()
            counts["flow"] = count_flow_elements(batch, draws["time"], num_draws=num_draws)
        return counts

    def _select(self, losses: frozenset[str]) -> tuple[bool, bool]:
        """Return whether text is learned, and whether the flow is: what is asked for and what the model has."""
        return bool(losses & TEXT_LOSSES.keys()) and self.generates_text, "flow" in losses and self.has_flow

    def draw(self, rows: int, generator: torch.Generator, *, flow_draws: int = 1, time_s: float = 0.999) -> Draws:
        """Draw noise [rows k ah ad] and flow times [rows k], or [rows k ah] where actions may be given."""
        c, device = self.config, generator.device
        shape = (rows, flow_draws, c.action_horizon, c.action_dim)
        noise = torch.randn(shape, generator=generator, device=device)
        time = flow.sample_time(rows * flow_draws, generator, s=time_s).view(rows, flow_draws)
        if c.rtc_max_delay:
            time = flow.zero_given_times(time, c.action_horizon, max_delay=c.rtc_max_delay, generator=generator)
        return {"noise": noise, "time": time}

    # --- acting: the flow block --------------------------------------------------------------------------------------

    def flow_block(
        self, cache: list[KV], kinds: Int[Tensor, "b s"], state: Float[Tensor, "b ad"], *, horizon: int
    ) -> FlowBlock:
        """Prepare what the denoising steps of a chunk share."""
        state_token = self.config.has_state_token
        mask = flow_mask(kinds, horizon=horizon, state_token=state_token)
        positions = flow_positions(kinds, length=mask.shape[1])
        # The state is the same at all denoising steps, so it is projected once.
        prefix = self.state_in(state.to(self.dtype))[:, None] if state_token else None
        return FlowBlock(cache=cache, state=prefix, attention=self.attention_inputs(positions, mask, self.dtype))

    def embed_time(self, time: Float[Tensor, " b"] | Float[Tensor, "b #ah"], dtype: torch.dtype) -> TimeCondition:
        """Return a flow time, one for all actions or one for each, as the action expert takes it.

        That is modulations of its norms (π0.5) or features beside each action (π0).
        """
        adaptive = self.config.time_conditioning == "adarms"
        if adaptive and self.config.has_state_token and time.ndim == 2 and time.shape[1] > 1:
            time = torch.cat((time[:, -1:], time), dim=1)  # the state token takes the time of the last action
        features = flow.time_features(time.reshape(time.shape[0], -1), self.action_expert.config.width).to(dtype)
        if not adaptive:
            return TimeCondition(features=features)
        cond = F.silu(self.time_mlp_out(F.silu(self.time_mlp_in(features))))
        return TimeCondition(modulations=self.action_expert.modulate(cond))

    def velocity(
        self, block: FlowBlock, x_t: Float[Tensor, "b ah ad"], time: TimeCondition
    ) -> Float[Tensor, "b ah ad"]:
        """Return the action expert's `v_t` for noisy actions, given what the backbone has read."""
        x = self.action_in(x_t.to(self.dtype))  # [b ah e]
        if time.features is not None:
            mixed = torch.cat((x, time.features.expand_as(x)), dim=-1)
            # π0 mixes the time into each action before the blocks; in π0.5 it has gone into their norms.
            x = self.time_mlp_out(F.silu(self.time_mlp_in(mixed)))
        if block.state is not None:
            x = torch.cat((block.state, x), dim=1)
        h, _ = self.action_expert(
            x, **block.attention, past=block.cache, modulations=time.modulations, tail=x.shape[1], use_cache=False
        )
        # A state token in front has no velocity.
        return self.action_out(h[:, -x_t.shape[1] :]).to(x_t.dtype)

    def sample_actions(
        self,
        observation: Observation,
        *,
        noise: Float[Tensor, "b ah ad"],
        num_steps: int = 10,
        padded_dims: Bool[Tensor, "#b ad"] | None = None,
    ) -> Float[Tensor, "b ah ad"]:
        """Return a chunk of normalised actions per row; `padded_dims` as in `flow.integrate`."""
        prefix = self.prefill(observation, compute_hidden=False)
        return self.denoise(
            prefix, observation.state, noise=noise, num_steps=num_steps, padded_dims=padded_dims
        )[-1]  # fmt: skip

    def denoise(
        self,
        prefix: Prefix,
        state: Float[Tensor, "b ad"],
        *,
        noise: Float[Tensor, "b ah ad"],
        num_steps: int = 10,
        solver: flow.Solver = "euler",
        padded_dims: Bool[Tensor, "#b ad"] | None = None,
    ) -> Float[Tensor, "n b ah ad"]:
        """Return all points on the way from noise to actions; the last is the chunk."""
        block = self.flow_block(prefix.cache, prefix.kinds, state, horizon=noise.shape[1])
        times = self.embed_time(flow.solver_times(num_steps, solver, device=noise.device), self.dtype).unbind()
        return flow.integrate(
            lambda x_t, i: self.velocity(block, x_t, times[i]), noise,
            num_steps=num_steps, solver=solver, padded_dims=padded_dims,
        )  # fmt: skip

    # --- acting: text ------------------------------------------------------------------------------------------------

    def generate_text(
        self, observation: Observation, *, eos: int, max_new_tokens: int = 32, kind: Kind = Kind.TEXT
    ) -> Int[Tensor, "b n"]:
        """Write text or FAST tokens greedily, up to and with `eos`; tokens behind it are 0."""
        prefix = self.prefill(observation)
        return self.generate(prefix, observation, eos=eos, max_new_tokens=max_new_tokens, kind=kind)[0]

    def generate(
        self,
        prefix: Prefix,
        observation: Observation,
        *,
        eos: int,
        max_new_tokens: int = 32,
        kind: Kind = Kind.TEXT,
        allowed: Allowed | None = None,
        sampler: Sampler | None = None,
        skip_rows: Bool[Tensor, " b"] | None = None,
    ) -> tuple[Int[Tensor, "b n"], Prefix]:
        """Decode from `prefix`, greedily or by `sampler`; return the tokens, and the prefix with them appended.

        `allowed` limits the vocabulary: a mask, or a grammar (one for all rows, or one each). Rows in `skip_rows`, and
        those that have written `eos`, are padded.
        """
        if not self.generates_text:
            raise ValueError("this model reads text and writes none; π0-small has no high level")
        # The hidden state of each row's last token; a prefix that text was appended to has one state per row.
        last = observation.token_kinds.count_nonzero(dim=1).clamp(max=prefix.hidden.shape[1]) - 1
        h = prefix.hidden[torch.arange(len(last)), last]  # [b d]
        cache, kinds = prefix.cache, prefix.kinds
        # A row to be skipped counts as finished from the start: it costs its place in the batch and changes nothing.
        finished = torch.zeros_like(last, dtype=torch.bool) if skip_rows is None else skip_rows

        def decode_step(token: Tensor) -> tuple[Tensor, Tensor]:
            """Read one token of each row; return the hidden state behind it, and which rows are finished."""
            nonlocal h, cache, kinds, finished
            # Rows that are finished read padding, which nothing sees and which takes no position.
            new = torch.full_like(last, kind).masked_fill(finished, Kind.PAD)
            kinds = torch.cat((kinds, new[:, None]), dim=1)
            x = self.embed_tokens(token[:, None])
            positions, mask = token_positions(kinds)[:, -1:], backbone_mask(kinds)[:, -1:]
            after, cache = self.vlm(x, **self.attention_inputs(positions, mask, x.dtype), past=cache)
            # A finished row keeps the state after its last token, from which more text may be appended later.
            h = torch.where(finished[:, None], h, after[:, 0])
            finished = finished | (token == eos)
            return h, finished

        tokens = generate_tokens(
            h, finished, decode_step=decode_step, logits=self.logits, max_new_tokens=max_new_tokens, allowed=allowed,
            sampler=sampler or Greedy(self.config.loc_token_range(kind)),
        )  # fmt: skip
        written = torch.stack(tokens, dim=1) if tokens else observation.tokens[:, :0]
        return written, Prefix(cache=cache, kinds=kinds, hidden=h[:, None])

    # --- what the trainer and the policy ask -------------------------------------------------------------------------

    @property
    def has_flow(self) -> bool:
        return self.config.has_flow

    @property
    def generates_text(self) -> bool:
        return self.config.generates_text

    @property
    def samples_actions(self) -> bool:
        return self.config.has_flow

    @property
    def needs_all_cameras(self) -> bool:
        return False

    def blocks(self) -> list[nn.Module]:
        """Return every transformer block: of vision towers, text encoder, backbone and action expert."""
        return [module for module in self.modules() if isinstance(module, SiglipBlock | GemmaBlock)]

    def separate_modules(self) -> list[nn.Module]:
        """Return what a condition or the memory goes through before the expert's blocks run."""
        norms: list[nn.Module] = [m.modulation for m in self.modules() if isinstance(m, AdaRMSNorm)]
        return norms + [module.memory_kv for module in self.modules() if isinstance(module, DecoderBlock)]

    @torch.no_grad()
    def initialize(self, generator: torch.Generator, *, ordered_tokens: tuple[list[int], ...] = ()) -> "Pi":
        """Draw fresh weights, to train a small model from scratch; a start from PaliGemma is `convert/paligemma.py`.

        Tokens that stand for positions or numbers (`ordered_tokens`, each list in order) and the picture positions
        start as Fourier features, so that near values are near from the first step: a small model learns to point much
        sooner.
        """
        # 1) Normal weights that keep the variance of their inputs; biases, modulations and the action head start at 0.
        for name, weight in self.named_parameters():
            if weight.ndim == 4:  # a convolution, and the GELU behind it halves the variance
                weight.normal_(0.0, (2 / weight[0].numel()) ** 0.5, generator=generator)
            elif weight.ndim == 2 and "modulation" not in name and name != "action_out.weight":
                weight.normal_(0.0, weight.shape[1] ** -0.5, generator=generator)
            elif not name.endswith("norm.weight"):
                weight.zero_()
        # 2) The branches of the backbone are scaled down with its depth, so that their sum keeps its size.
        for block in self.vlm.blocks:
            for branch in (block.out, block.down):
                branch.weight.mul_((2 * self.config.vlm.depth) ** -0.5)
        # 3) Positions and ordered tokens.
        for module in self.vision.modules():
            if isinstance(module, Siglip):
                module.position.copy_(sincos_table(module.config.grid, module.config.width))
        width = self.embedding.embedding_dim
        for ids in ordered_tokens:
            # A random direction that the group shares tells its tokens from all other words.
            codes = fourier_features(torch.arange(len(ids)) / len(ids), width)
            group = torch.randn(width, generator=generator)
            self.embedding.weight[ids] = (codes + 0.7 * group) * width**-0.5
        return self
