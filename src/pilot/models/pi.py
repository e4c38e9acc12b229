"""The π0 family in one model: π0, π0-FAST, π0.5 and π0-small are choices of `PiConfig`, not files.

A vision tower and a language backbone read pictures and text into a cache of keys and values, and say text (subtasks,
answers, FAST tokens). A small action expert reads the cache and turns noise into a chunk of actions. Who sees whom is
`data/layout.py`; the flow convention is `flow.py`. Sources: π0 (arXiv 2410.24164), FAST (2501.09747), π0.5
(2504.16054), knowledge insulation (2505.23705).

Axes: `b` batch, `i` picture tokens, `l` text tokens, `s` backbone tokens, `k` noise draws, `ah` action horizon, `ad`
action dims, `d` backbone width, `e` expert width, `v` vocabulary.
"""

import math
from dataclasses import dataclass, field, replace
from typing import Literal, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from pilot.data.layout import Batch, Kind, Observation, backbone_mask, flow_mask, flow_positions, token_positions
from pilot.models import flow, pointing
from pilot.models.base import Draws, Model
from pilot.models.flow import FlowBlock, TimeCondition
from pilot.models.losses import SAID, flow_counts, flow_terms, text_counts, text_terms
from pilot.models.sizes import SIZES, SMALL_SIZES, Size, SmallSize
from pilot.nn.attention import KV, additive_mask, detach, rotary_angles
from pilot.nn.encoder_decoder import Decoder, DecoderBlock, Towers
from pilot.nn.gemma import Gemma, GemmaBlock, GemmaConfig
from pilot.nn.norms import AdaRMSNorm
from pilot.nn.siglip import Siglip, SiglipBlock, SiglipConfig, fourier_features, sincos_table
from pilot.tokenizers.grammar import Allowed, allowed_mask
from pilot.tokenizers.text import LOC_BINS


@dataclass(frozen=True, kw_only=True)
class PiConfig:
    """Every choice that tells the members of the family apart.

    `state_input`: `text` (in the prompt, π0.5), `token` (a state token in the flow block, π0) or `none`.
    `time_conditioning`: `adarms` (π0.5) or `concat` (time beside each action, π0). `action_expert=None` is π0-FAST.
    `norm`: state and actions are scaled by their quantiles (π0.5, FAST) or to z-scores (π0). `prompt`: the format of
    `tokenizers/prompts.py` for robot rows; with any but `subtask`, those of released weights, no subtask is asked for.
    `wrist_image_size` lets wrist pictures be smaller than the others. Cameras in `always_shown` are in every row, in
    that order, black where the robot has none: π0-FAST was trained so. `fast_offset` clears the top of the vocabulary:
    FAST id `i` is token `vocab_size − 1 − fast_offset − i`. `loc_start` is the id of `<loc0000>`. With `point_layer`
    the first head of that layer can be taught to look at what a box is about to be said of (`models/pointing.py`).
    With `rtc_max_delay` the flow learns to go on from up to that many actions that are given (`infer/rtc.py`).

    For π0-small: `vision_towers` are cameras with a vision tower of their own (none named: one tower for all),
    `text_encoder` reads the prompt before the backbone does (and then nothing is said), and the action expert reads
    the backbone's `output` by cross-attention instead of its `layers`.
    """

    vision: SiglipConfig
    vlm: GemmaConfig
    action_expert: GemmaConfig | None
    vocab_size: int = 257_152
    action_dim: int = 32
    action_horizon: int = 50
    state_input: Literal["text", "token", "none"] = "text"
    time_conditioning: Literal["adarms", "concat"] = "adarms"
    insulate: bool = True
    wrist_image_size: int | None = None
    always_shown: tuple[str, ...] = ()
    fast_vocab_size: int = 2048
    fast_offset: int = 128
    loc_start: int = 256_000
    point_layer: int | None = None
    rtc_max_delay: int = 0
    max_tokens: int = 200
    norm: Literal["quantile", "zscore"] = "quantile"
    prompt: Literal["subtask", "pi05", "pi0", "pi0_fast", "openvla"] = "subtask"
    vision_towers: tuple[str, ...] = ()
    text_encoder: GemmaConfig | None = None
    expert_reads: Literal["layers", "output"] = "layers"

    def __post_init__(self) -> None:
        expert = self.action_expert
        if not 0 <= self.rtc_max_delay < self.action_horizon:
            raise ValueError(
                f"rtc_max_delay is below the action_horizon of {self.action_horizon}, got {self.rtc_max_delay}"
            )
        if self.text_encoder is not None and self.text_encoder.head_dim != self.vlm.head_dim:
            raise ValueError("text encoder and backbone take the same rotary angles, but differ in head_dim")
        if expert is None:
            return
        shared = ("depth", "num_kv_heads", "head_dim") if self.expert_reads == "layers" else ("head_dim",)
        if different := [n for n in shared if getattr(expert, n) != getattr(self.vlm, n)]:
            raise ValueError(f"backbone and action expert share their cache, but differ in {', '.join(different)}")
        if self.expert_reads == "output" and (self.insulate or self.time_conditioning != "adarms"):
            raise ValueError("an expert that reads the backbone's output teaches it: insulate=False, with 'adarms'")
        if (expert.cond_width > 0) != (self.time_conditioning == "adarms"):
            raise ValueError("time_conditioning 'adarms' needs an expert with cond_width > 0, and 'concat' one without")

    def image_size(self, *, wrist: bool) -> int:
        return self.wrist_image_size if wrist and self.wrist_image_size else self.vision.image_size

    @property
    def generates_text(self) -> bool:
        """Whether text comes out; not where another encoder stands between the words and the backbone."""
        return self.text_encoder is None

    def loc_token_range(self, kind: Kind) -> tuple[int, int] | None:
        """First and last + 1 of the `<loc>` tokens, where they may be said: in text, not among (published) FAST ids."""
        start, stop = self.loc_start, self.loc_start + LOC_BINS
        return (start, stop) if kind == Kind.TEXT and stop <= self.vocab_size else None


def pi05(size: Size = "2b", **changes: object) -> PiConfig:
    """π0.5: state as text, adaptive norms for the flow time, subtask and FAST tokens beside the flow."""
    vision, vlm, expert, extra = SIZES[size]
    expert = replace(expert, cond_width=expert.width)
    return replace(PiConfig(vision=vision, vlm=vlm, action_expert=expert, **extra), **changes)


def pi0(size: Size = "2b", **changes: object) -> PiConfig:
    """π0: a state token and time beside each noisy action, no insulation."""
    vision, vlm, expert, extra = SIZES[size]
    base = PiConfig(
        vision=vision, vlm=vlm, action_expert=expert,
        state_input="token", time_conditioning="concat", insulate=False, norm="zscore", **extra,
    )  # fmt: skip
    return replace(base, **({"max_tokens": 48} if size == "2b" else {}), **changes)


def pi0_fast(size: Size = "2b", **changes: object) -> PiConfig:
    """π0-FAST: the backbone alone, actions as tokens."""
    vision, vlm, _, extra = SIZES[size]
    return replace(PiConfig(vision=vision, vlm=vlm, action_expert=None, insulate=False, **extra), **changes)


def pi0_small(size: SmallSize = "470m", **changes: object) -> PiConfig:
    """π0-small, the paper's baseline without a VLM (appendix C): an encoder of its own, and an expert that reads it.

    `vision_towers` are the robot's cameras. It says nothing: it has a flow loss only.
    """
    vision, text, vlm, expert, extra = SMALL_SIZES[size]
    expert = replace(expert, cond_width=expert.width)
    base = PiConfig(
        vision=vision, vlm=vlm, action_expert=expert, text_encoder=text, expert_reads="output",
        state_input="token", insulate=False, **extra,
    )  # fmt: skip
    return replace(base, **changes)


@dataclass(frozen=True, kw_only=True)
class Prefix:
    """What the backbone has read: its cache, the kind of every cached token, and the hidden states of the text."""

    cache: list[KV]
    kinds: Int[Tensor, "b s"]
    hidden: Float[Tensor, "b l d"]
    inputs: list[Tensor] = field(default_factory=list)


def argmax_token(logits: Float[Tensor, "b v"], *, places: tuple[int, int] | None) -> Int[Tensor, " b"]:
    """The most likely token, where first all `places` together, if there are any, are weighed against each other word.

    "Somewhere here" spreads its probability over many `<loc>` tokens, each of which may be less likely than a word that
    is wrong. Nothing changes where no word stands against the places.
    """
    if places is None:
        return logits.argmax(-1)
    start, stop = places
    anywhere = logits[:, start:stop].logsumexp(-1)
    words = torch.cat((logits[:, :start], logits[:, stop:]), dim=1).amax(-1)
    nowhere = logits.clone()
    nowhere[:, start:stop] = -torch.inf
    where = logits[:, start:stop].argmax(-1) + start
    return torch.where(anywhere > words, where, nowhere.argmax(-1))


class Pi(Model):
    """A policy of the family: `loss` to train, `generate_text` and `sample_actions` to act."""

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
        if config.state_input == "token":
            self.state_in = nn.Linear(config.action_dim, expert.width)

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights; what enters is converted to it, and what comes out has the dtype of `x_t`."""
        return self.embedding.weight.dtype

    # --- prefill: pictures and text into a cache ---------------------------------------------------------------------

    def embed_images(
        self, observation: Observation, *, every: bool = False
    ) -> tuple[Float[Tensor, "b i d"], Int[Tensor, "b i"]]:
        """Patch tokens of all cameras and their kinds; rows without a camera are padded.

        A camera that no row has costs nothing, or with `every` one picture.
        """
        tokens, kinds = [], []
        for name, images in observation.images.items():
            present, rows = observation.image_masks[name], observation.rows_with(name)
            if not len(rows):
                if not every:
                    continue
                rows = rows.new_zeros(1)
            tower = self.vision.of(name) if isinstance(self.vision, Towers) else self.vision
            patches = tower(images[rows].to(self.dtype))
            padded = patches.new_zeros(len(present), *patches.shape[1:])
            tokens.append(patches if len(patches) == len(present) else padded.index_put((rows,), patches))
            kinds.append(present[:, None].long().expand(-1, patches.shape[1]) * Kind.PREFIX)
        if not tokens:
            width = self.config.vlm.width
            return self.embedding.weight.new_zeros(observation.batch_size, 0, width), observation.tokens[:, :0]
        return torch.cat(tokens, dim=1), torch.cat(kinds, dim=1)

    def embed_tokens(self, tokens: Int[Tensor, "b l"]) -> Float[Tensor, "b l d"]:
        return self.embedding(tokens) * math.sqrt(self.embedding.embedding_dim)

    def embed_text(self, observation: Observation) -> Float[Tensor, "b l d"]:
        """The words as the backbone takes them."""
        x, kinds = self.embed_tokens(observation.tokens), observation.token_kinds
        if self.config.text_encoder is None:
            return x
        h, _ = self.text_encoder(x, **self.attention(token_positions(kinds), backbone_mask(kinds), x.dtype))
        return self.text_out(h)

    def prefill(
        self, observation: Observation, *, hidden: bool = True, inputs: bool = False, every_camera: bool = False
    ) -> Prefix:
        """Run the backbone over pictures and text. Without `hidden` the last layer stops at its keys and values.

        With `inputs` the context keeps what entered each block.
        """
        images, image_kinds = self.embed_images(observation, every=every_camera)
        x = torch.cat((images, self.embed_text(observation)), dim=1)  # [b s d]
        kinds = torch.cat((image_kinds, observation.token_kinds), dim=1)
        tail = observation.tokens.shape[1] if hidden else 0
        kept: list[Tensor] = []
        attention = self.attention(token_positions(kinds), backbone_mask(kinds), x.dtype)
        if self.config.expert_reads == "output":
            h, _ = self.vlm(x, **attention)
            cache, h = cast(Decoder, self.action_expert).remember(h), h[:, h.shape[1] - tail :]
        else:
            h, cache = self.vlm(x, **attention, tail=tail, inputs=kept if inputs else None)
        return Prefix(cache=cache, kinds=kinds, hidden=h, inputs=kept)

    def attention(self, positions: Int[Tensor, "b t"], mask: Bool[Tensor, "b t s"], dtype: torch.dtype) -> dict:
        """Rotary angles and additive mask, shared by all layers of a stack."""
        return {"angles": rotary_angles(positions, self.config.vlm.head_dim), "bias": additive_mask(mask, dtype)}

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
        """Mean loss per sample, 0 where it has none.

        "flow" is the mean over unmasked action elements, "text" and "fast" are over their tokens. With a `time` for
        each action, those at 0 are given and have no loss.
        """
        mask = torch.ones_like(actions, dtype=torch.bool) if action_mask is None else action_mask
        batch = Batch(observation=observation, actions=actions, action_mask=mask, sources=("",) * len(actions))
        terms = self.loss_terms(batch, {"noise": noise, "time": time}, losses=frozenset({"text", "fast", "flow"}))
        return {name: total / count.clamp(min=1) for name, (total, count) in terms.items()}

    def loss_terms(
        self, batch: Batch, draws: Draws, *, losses: frozenset[str], run_all_modules: bool = False
    ) -> dict[str, tuple[Float[Tensor, " b"], Float[Tensor, " b"]]]:
        """Sum and count of each loss per sample (`base.Model`), from one reading of pictures and text.

        With neither text nor flow the vision tower is alone, and learns to name what it sees.
        """
        observation, terms = batch.observation, {}
        words, actions = self._asked(losses)
        if not (words or actions):
            return {
                "name": pointing.naming_terms(
                    self, observation, self.embed_images(observation, every=run_all_modules)[0]
                )
            }
        pointed = words and self.config.point_layer is not None
        with torch.set_grad_enabled(torch.is_grad_enabled() and (words or not self.config.insulate)):
            context = self.prefill(observation, hidden=words, inputs=pointed, every_camera=run_all_modules)
        if words:
            terms |= text_terms(self, observation, context)
        if pointed:
            terms["point"] = pointing.terms(self, observation, context)
            terms["name"] = pointing.naming_terms(self, observation, context.inputs[0])
        if actions:
            context = replace(context, cache=detach(context.cache)) if self.config.insulate else context
            terms["flow"] = flow_terms(self, context, batch, **draws, at_least_one=run_all_modules)
        return terms

    def loss_counts(self, batch: Batch, draws: Draws, *, losses: frozenset[str]) -> dict[str, Float[Tensor, " b"]]:
        """The counts of `loss_terms`, from masks alone."""
        observation, counts = batch.observation, {}
        words, actions = self._asked(losses)
        if not (words or actions):
            return {"name": pointing.naming_counts(self.config.loc_start, observation)}
        if words:
            counts |= text_counts(observation)
        if words and self.config.point_layer is not None:
            counts["point"] = pointing.counts(self.config.loc_start, observation)
            counts["name"] = pointing.naming_counts(self.config.loc_start, observation)
        if actions:
            k = draws["noise"][0].numel() // batch.actions[0].numel()
            counts["flow"] = flow_counts(batch, draws["time"], draws=k)
        return counts

    def _asked(self, losses: frozenset[str]) -> tuple[bool, bool]:
        """Whether there are words to be learned, and actions."""
        words = bool(losses & SAID.keys()) and self.config.generates_text
        return words, "flow" in losses and self.config.action_expert is not None

    def draw(self, rows: int, generator: torch.Generator, *, flow_draws: int = 1, time_s: float = 0.999) -> Draws:
        """Noise [rows k ah ad] and flow times [rows k], or [rows k ah] where actions may be given."""
        c, device = self.config, generator.device
        shape = (rows, flow_draws, c.action_horizon, c.action_dim)
        noise = torch.randn(shape, generator=generator, device=device)
        time = flow.sample_time(rows * flow_draws, generator, s=time_s).view(rows, flow_draws)
        if c.rtc_max_delay:
            time = flow.zero_given_times(time, c.action_horizon, max_delay=c.rtc_max_delay, generator=generator)
        return {"noise": noise, "time": time}

    def blocks(self) -> list[nn.Module]:
        """Every transformer block: of the vision towers, the text encoder, the backbone and the action expert."""
        return [module for module in self.modules() if isinstance(module, SiglipBlock | GemmaBlock)]

    def separate_modules(self) -> list[nn.Module]:
        """What a condition or the memory goes through before the expert's blocks run."""
        norms: list[nn.Module] = [m.modulation for m in self.modules() if isinstance(m, AdaRMSNorm)]
        return norms + [module.memory_kv for module in self.modules() if isinstance(module, DecoderBlock)]

    # --- acting ------------------------------------------------------------------------------------------------------

    def flow_block(
        self, cache: list[KV], kinds: Int[Tensor, "b s"], state: Float[Tensor, "b ad"], *, horizon: int
    ) -> FlowBlock:
        """All that the denoising steps of a chunk have in common."""
        state_token = self.config.state_input == "token"
        mask = flow_mask(kinds, horizon=horizon, state_token=state_token)
        positions = flow_positions(kinds, length=mask.shape[1])
        prefix = self.state_in(state.to(self.dtype))[:, None] if state_token else None
        return FlowBlock(cache=cache, state=prefix, attention=self.attention(positions, mask, self.dtype))

    def embed_time(self, time: Float[Tensor, " b"] | Float[Tensor, "b #ah"], dtype: torch.dtype) -> TimeCondition:
        """What the expert is told of the flow time, one for all or one for each action.

        That is modulations of its norms (π0.5) or features beside each action (π0).
        """
        adaptive = self.config.time_conditioning == "adarms"
        if adaptive and self.config.state_input == "token" and time.ndim == 2 and time.shape[1] > 1:
            time = torch.cat((time[:, -1:], time), dim=1)  # the state is read at the time of what is sought
        features = flow.time_features(time.reshape(len(time), -1), self.action_expert.config.width).to(dtype)
        if not adaptive:
            return TimeCondition(features=features)
        cond = F.silu(self.time_mlp_out(F.silu(self.time_mlp_in(features))))
        return TimeCondition(modulations=self.action_expert.modulate(cond))

    def velocity(
        self, block: FlowBlock, x_t: Float[Tensor, "b ah ad"], time: TimeCondition
    ) -> Float[Tensor, "b ah ad"]:
        """The action expert's `v_t` for noisy actions, given what the backbone has read."""
        x = self.action_in(x_t.to(self.dtype))  # [b ah e]
        if time.features is not None:
            mixed = torch.cat((x, time.features.expand_as(x)), dim=-1)
            x = self.time_mlp_out(F.silu(self.time_mlp_in(mixed)))
        if block.state is not None:
            x = torch.cat((block.state, x), dim=1)
        h, _ = self.action_expert(
            x, **block.attention, past=block.cache, modulations=time.modulations, tail=x.shape[1], remember=False
        )
        return self.action_out(h[:, -x_t.shape[1] :]).to(x_t.dtype)

    def sample_actions(
        self, observation: Observation, *, noise: Float[Tensor, "b ah ad"], num_steps: int = 10
    ) -> Float[Tensor, "b ah ad"]:
        """A chunk of normalised actions per row."""
        return self.denoise(
            self.prefill(observation, hidden=False), observation.state, noise=noise, num_steps=num_steps
        )[-1]

    def denoise(
        self,
        context: Prefix,
        state: Float[Tensor, "b ad"],
        *,
        noise: Float[Tensor, "b ah ad"],
        num_steps: int = 10,
        solver: flow.Solver = "euler",
    ) -> Float[Tensor, "n b ah ad"]:
        """All points on the way from noise to actions; the last is the chunk."""
        block = self.flow_block(context.cache, context.kinds, state, horizon=noise.shape[1])
        times = self.embed_time(flow.solver_times(num_steps, solver, device=noise.device), self.dtype).unbind()
        return flow.integrate(
            lambda x_t, i: self.velocity(block, x_t, times[i]), noise, num_steps=num_steps, solver=solver
        )

    def generate_text(
        self, observation: Observation, *, eos: int, max_tokens: int = 32, kind: Kind = Kind.TEXT
    ) -> Int[Tensor, "b n"]:
        """What the model says next, words or FAST tokens, greedily, up to and with `eos`; 0 behind it."""
        return self.generate(self.prefill(observation), observation, eos=eos, max_new_tokens=max_tokens, kind=kind)[0]

    def generate(
        self,
        context: Prefix,
        observation: Observation,
        *,
        eos: int,
        max_new_tokens: int = 32,
        kind: Kind = Kind.TEXT,
        allowed: Allowed | None = None,
        skip_rows: Bool[Tensor, " b"] | None = None,
    ) -> tuple[Int[Tensor, "b n"], Prefix]:
        """Decode greedily on from `context` (`argmax_token`); return the tokens and the context with them.

        `allowed` limits the vocabulary: a mask, or a grammar (one for all rows, or one each). Rows in `skip_rows`, or
        that have said `eos`, are padded.
        """
        if not self.config.generates_text:
            raise ValueError("this model reads text and says none; π0-small has no high level")
        last = observation.token_kinds.count_nonzero(dim=1).clamp(max=context.hidden.shape[1]) - 1  # 0 behind speech
        h = context.hidden[torch.arange(len(last)), last]  # [b d]
        cache, kinds, said = context.cache, context.kinds, []
        finished = torch.zeros_like(last, dtype=torch.bool) if skip_rows is None else skip_rows
        while len(said) < max_new_tokens and not finished.all():
            logits = self.logits(h)
            if allowed is not None:
                logits = logits.masked_fill(~allowed_mask(allowed, said, finished), -torch.inf)
            token = argmax_token(logits, places=self.config.loc_token_range(kind))
            said.append(token.masked_fill(finished, 0))
            new = torch.full_like(last, kind).masked_fill(finished, Kind.PAD)
            kinds = torch.cat((kinds, new[:, None]), dim=1)
            x = self.embed_tokens(said[-1][:, None])
            positions, mask = token_positions(kinds)[:, -1:], backbone_mask(kinds)[:, -1:]
            after, cache = self.vlm(x, **self.attention(positions, mask, x.dtype), past=cache)
            h = torch.where(finished[:, None], h, after[:, 0])
            finished = finished | (token == eos)
        tokens = torch.stack(said, dim=1) if said else observation.tokens[:, :0]
        return tokens, Prefix(cache=cache, kinds=kinds, hidden=h[:, None])

    def logits(self, hidden: Float[Tensor, "*b d"]) -> Float[Tensor, "*b v"]:
        """Scores over the vocabulary; the head is the embedding table."""
        return hidden @ self.embedding.weight.T

    # --- starting ----------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def initialize(self, generator: torch.Generator, *, ordered_tokens: tuple[list[int], ...] = ()) -> "Pi":
        """Fresh weights for training a small model from scratch; a start from PaliGemma is `convert/paligemma.py`.

        Tokens that stand for places or numbers (`ordered_tokens`, each list in order) and the picture positions start
        as Fourier features, so that near values are near from the first step: a small model learns to point much
        sooner.
        """
        for name, weight in self.named_parameters():
            if weight.ndim == 4:  # a convolution, and the GELU behind it halves the variance
                weight.normal_(0.0, (2 / weight[0].numel()) ** 0.5, generator=generator)
            elif weight.ndim == 2 and "modulation" not in name and name != "action_out.weight":
                weight.normal_(0.0, weight.shape[1] ** -0.5, generator=generator)
            elif not name.endswith("norm.weight"):
                weight.zero_()
        for block in self.vlm.blocks:
            for branch in (block.out, block.down):
                branch.weight.mul_((2 * self.config.vlm.depth) ** -0.5)
        for module in self.vision.modules():
            if isinstance(module, Siglip):
                module.position.copy_(sincos_table(module.config.grid, module.config.width))
        width = self.embedding.embedding_dim
        for ids in ordered_tokens:
            codes = fourier_features(torch.arange(len(ids)) / len(ids), width)
            group = torch.randn(width, generator=generator)
            self.embedding.weight[ids] = (codes + 0.7 * group) * width**-0.5
        return self
