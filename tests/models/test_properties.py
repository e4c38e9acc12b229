"""What holds for every member of the family: caching, batching and absent cameras change nothing; who sees whom is as
drawn; who learns from what is as promised.

Drawn masks: a row is a query, a column a key; `1` sees, `.` does not. Axes: `b` batch, `l` text, `s` backbone tokens.
"""

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from pilot.data.layout import Kind, Observation, backbone_mask, flow_mask, flow_positions, token_positions
from pilot.models.generation import argmax_token
from pilot.models.pi import Pi, PiConfig, pi0, pi0_fast, pi0_small, pi05
from pilot.nn.attention import additive_mask, attend, rotary_angles
from pilot.nn.encoder_decoder import Towers
from pilot.nn.gemma import residual

FAMILY = {"pi0": pi0("debug"), "pi05": pi05("debug"), "pi0_fast": pi0_fast("debug"), "pi0_small": pi0_small("debug")}
WITH_FLOW = [name for name, config in FAMILY.items() if config.action_expert is not None]
SPEAKING = [name for name, config in FAMILY.items() if config.generates_text]
CLOSE = {"atol": 2e-5, "rtol": 1e-4}

P, T, A, PAD = int(Kind.PREFIX), int(Kind.TEXT), int(Kind.FAST), int(Kind.PAD)
RAGGED = [[P, P, P, T, T, A, A], [P, P, T, A, PAD, PAD, PAD], [P, PAD, PAD, PAD, PAD, PAD, PAD]]
CAMERAS = {"room": [True, False, True], "wrist": [True, True, False]}


def model(config: PiConfig) -> Pi:
    pi = Pi(config).initialize(torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(1)
    for p in pi.parameters():  # nothing zero, so that nothing passes by being closed
        if not p.any():
            torch.nn.init.normal_(p, std=0.1, generator=generator)
    return pi.eval()


@pytest.fixture(scope="module")
def models() -> dict[str, Pi]:
    return {name: model(config) for name, config in FAMILY.items()}


def observation(kinds: list[list[int]], *, masks: dict[str, list[bool]] | None = None) -> Observation:
    generator = torch.Generator().manual_seed(0)
    batch, token_kinds = len(kinds), torch.tensor(kinds)
    given = masks or {camera: [True] * batch for camera in CAMERAS}
    return Observation(
        images={c: torch.rand(batch, 16, 16, 3, generator=generator) * 2 - 1 for c in given},
        image_masks={c: torch.tensor(mask) for c, mask in given.items()},
        state=torch.randn(batch, 8, generator=generator),
        tokens=torch.randint(4, 1800, token_kinds.shape, generator=generator),
        token_kinds=token_kinds,
        token_loss=token_kinds >= Kind.TEXT,
    )


def drawn(batch: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    return torch.randn(batch, 6, 8, generator=generator), torch.rand(batch, generator=generator)


def losses(pi: Pi, obs: Observation, noise: Tensor, time: Tensor) -> dict[str, Tensor]:
    return pi.loss(obs, torch.zeros(len(noise), 6, 8), noise=noise, time=time)


# --- caching ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SPEAKING)
@torch.no_grad()
def test_what_is_said_from_a_cache_is_what_a_whole_pass_says(models, name):
    """Words, keys, values and the last hidden state, for rows of two lengths."""
    pi, obs = models[name], observation([[P, P, P], [P, P, PAD]], masks={"room": [True, True], "wrist": [True, False]})
    said, context = pi.generate(pi.prefill(obs), obs, eos=-1, max_new_tokens=4)
    kinds = torch.cat((obs.token_kinds, torch.full_like(said, T)), dim=1)
    whole = replace(obs, tokens=torch.cat((obs.tokens, said), dim=1), token_kinds=kinds, token_loss=kinds == T)
    again = pi.prefill(whole)
    there = context.kinds != Kind.PAD
    assert torch.equal(context.kinds, again.kinds)
    for cached, uncached in zip(context.cache, again.cache, strict=True):
        for one, other in zip(cached, uncached, strict=True):
            torch.testing.assert_close(one.transpose(1, 2)[there], other.transpose(1, 2)[there], **CLOSE)
    torch.testing.assert_close(context.hidden[:, -1], again.hidden[:, -1], **CLOSE)
    places = (pi.config.loc_start, pi.config.loc_start + 1024)
    last = [2, 1]  # where each row's prompt ends
    for row in range(2):
        ends = torch.tensor([last[row], 3, 4, 5])  # from these the four words are said
        logits = pi.logits(again.hidden[row, ends])
        assert argmax_token(logits, loc_range=places).tolist() == said[row].tolist()


def in_one_pass(pi: Pi, obs: Observation, x_t: Tensor, time: Tensor) -> Tensor:
    """`v_t` with backbone and expert side by side under one mask: the mixture of experts as the papers draw it."""
    images, image_kinds = pi.embed_images(obs)
    kinds = torch.cat((image_kinds, obs.token_kinds), dim=1)
    state_token = pi.config.has_state_token
    below = flow_mask(kinds, horizon=x_t.shape[1], state_token=state_token)  # [b t s+t]
    above = F.pad(backbone_mask(kinds), (0, below.shape[1]))  # nothing sees the flow block
    bias = additive_mask(torch.cat((above, below), dim=1), x_t.dtype)
    positions = torch.cat((token_positions(kinds), flow_positions(kinds, length=below.shape[1])), dim=1)
    angles = rotary_angles(positions, pi.config.vlm.head_dim)
    x = torch.cat((images, pi.embed_text(obs)), dim=1)  # [b s d]
    y, condition = pi.action_in(x_t), pi.embed_time(time, x_t.dtype)
    if condition.features is not None:
        y = pi.time_mlp_out(F.silu(pi.time_mlp_in(torch.cat((y, condition.features.expand_as(y)), dim=-1))))
    if state_token:
        y = torch.cat((pi.state_in(obs.state)[:, None], y), dim=1)
    modulations = condition.modulations or [None] * (2 * pi.config.vlm.depth + 1)
    split = [x.shape[1], y.shape[1]]
    own_angles = [tuple(part) for part in zip(*(a.split(split, dim=2) for a in angles), strict=True)]
    for i in range(pi.config.vlm.depth):
        blocks = pi.vlm.blocks[i], pi.action_expert.blocks[i]
        pairs = [(None, None), (modulations[2 * i], modulations[2 * i + 1])]
        stacks = list(zip(blocks, (x, y), own_angles, pairs, strict=True))
        parts = [block.project(block.attention_norm(h, pair[0]), a) for block, h, a, pair in stacks]
        q, k, v = (torch.cat(part, dim=2) for part in zip(*parts, strict=True))
        seen = attend(q, k, v, bias).split(split, dim=1)
        after = []
        for (block, h, _, pair), out in zip(stacks, seen, strict=True):
            h = residual(h, block.out(out), pair[0])
            gate, up = block.gate_up(block.mlp_norm(h, pair[1])).chunk(2, dim=-1)
            after.append(residual(h, block.down(F.gelu(gate, approximate="tanh") * up), pair[1]))
        x, y = after
    return pi.action_out(pi.action_expert.final_norm(y, modulations[-1])[:, -x_t.shape[1] :])


@pytest.mark.parametrize("name", ["pi0", "pi05"])
@torch.no_grad()
def test_denoising_from_a_cache_is_one_pass_through_both_experts(models, name):
    pi, obs = models[name], observation(RAGGED, masks=CAMERAS)
    x_t = noise = drawn(3)[0]
    for step in range(3):
        x_t = x_t - in_one_pass(pi, obs, x_t, torch.full((3,), 1 - step / 3)) / 3
    torch.testing.assert_close(pi.sample_actions(obs, noise=noise, num_steps=3), x_t, **CLOSE)


@pytest.mark.parametrize("name", WITH_FLOW)
@torch.no_grad()
def test_denoising_carries_nothing_from_step_to_step(models, name):
    """Each step of a chunk is what that step is alone, with everything read anew."""
    pi, obs = models[name], observation(RAGGED, masks=CAMERAS)
    x_t = noise = drawn(3)[0]
    for step in range(3):
        context, time = pi.prefill(obs), torch.full((3,), 1 - step / 3)
        block = pi.flow_block(context.cache, context.kinds, obs.state, horizon=6)
        x_t = x_t - pi.velocity(block, x_t, pi.embed_time(time, x_t.dtype)) / 3
    torch.testing.assert_close(pi.sample_actions(obs, noise=noise, num_steps=3), x_t, **CLOSE)


# --- batching, cameras -----------------------------------------------------------------------------------------------


def alone(obs: Observation, row: int) -> Observation:
    """A row as it would be without neighbours: no padding, no camera that it lacks."""
    length = int(obs.token_kinds[row].count_nonzero())
    one = obs.map(lambda x: x[row : row + 1])
    there = [camera for camera, mask in one.image_masks.items() if mask.item()]
    return replace(
        one,
        images={camera: one.images[camera] for camera in there},
        image_masks={camera: one.image_masks[camera] for camera in there},
        tokens=one.tokens[:, :length],
        token_kinds=one.token_kinds[:, :length],
        token_loss=one.token_loss[:, :length],
    )


@pytest.mark.parametrize("name", FAMILY)
@torch.no_grad()
def test_a_ragged_batch_of_different_cameras_is_its_rows_alone(models, name):
    pi, obs, (noise, time) = models[name], observation(RAGGED, masks=CAMERAS), drawn(3)
    together = losses(pi, obs, noise, time)
    assert set(together) == (
        {"flow"} if name == "pi0_small" else {"text", "fast", *(["flow"] if name in WITH_FLOW else [])}
    )
    for row in range(3):
        one = slice(row, row + 1)
        for kind, value in losses(pi, alone(obs, row), noise[one], time[one]).items():
            torch.testing.assert_close(value, together[kind][one], **CLOSE)
        if name in WITH_FLOW:
            chunk = pi.sample_actions(alone(obs, row), noise=noise[one], num_steps=3)
            torch.testing.assert_close(chunk, pi.sample_actions(obs, noise=noise, num_steps=3)[one], **CLOSE)


@pytest.mark.parametrize("name", SPEAKING)
@torch.no_grad()
def test_a_ragged_batch_says_what_its_rows_say_alone(models, name):
    prompts = [[P, P, P, P], [P, P, PAD, PAD], [P, PAD, PAD, PAD]]
    pi, obs = models[name], observation(prompts, masks=CAMERAS)
    together = pi.generate_text(obs, eos=-1, max_new_tokens=5)
    for row in range(3):
        assert pi.generate_text(alone(obs, row), eos=-1, max_new_tokens=5).tolist() == together[row : row + 1].tolist()


@pytest.mark.parametrize("name", FAMILY)
@pytest.mark.parametrize("masks", [CAMERAS, {"room": [True] * 3, "wrist": [False] * 3}], ids=["ragged", "one camera"])
def test_cameras_go_through_a_tower_together_or_one_by_one(models, name, masks):
    pi, obs = models[name], observation(RAGGED, masks=masks)
    seen: list[int] = []
    towers = list(pi.vision.values()) if isinstance(pi.vision, Towers) else [pi.vision]
    hooks = [tower.register_forward_hook(lambda _, inputs, __: seen.append(len(inputs[0]))) for tower in towers]
    singly, together = (pi.embed_images(obs, together=way) for way in (False, True))
    for hook in hooks:
        hook.remove()
    torch.testing.assert_close(together[0], singly[0], **CLOSE)
    assert torch.equal(together[1], singly[1])
    each = [n for n in (sum(mask) for mask in masks.values()) if n]
    assert seen == each + (each if len(towers) > 1 else [sum(each)]), "rows without a camera cost nothing"


@pytest.mark.parametrize("name", FAMILY)
@pytest.mark.parametrize("camera", CAMERAS)
@torch.no_grad()
def test_a_camera_dropped_is_that_camera_masked(models, name, camera):
    """For everyone: all losses and the chunk; its pixels reach nobody. `room` leads, `wrist` trails."""
    pi, (noise, time) = models[name], drawn(2)
    masked = observation([RAGGED[0]] * 2, masks={c: [c != camera] * 2 for c in CAMERAS})
    other = next(c for c in CAMERAS if c != camera)
    dropped = replace(masked, images={other: masked.images[other]}, image_masks={other: masked.image_masks[other]})
    for kind, value in losses(pi, masked, noise, time).items():
        torch.testing.assert_close(value, losses(pi, dropped, noise, time)[kind], **CLOSE)
    if name in WITH_FLOW:
        chunks = [pi.sample_actions(o, noise=noise, num_steps=3) for o in (masked, dropped)]
        torch.testing.assert_close(*chunks, **CLOSE)


@pytest.mark.parametrize("name", FAMILY)
@torch.no_grad()
def test_pixels_of_a_camera_that_one_row_lacks_reach_nobody(models, name):
    pi, obs, (noise, time) = models[name], observation([RAGGED[0]] * 3, masks=CAMERAS), drawn(3)
    images = {camera: picture.clone() for camera, picture in obs.images.items()}
    images["room"][1] += 1
    images["wrist"][2] -= 1
    changed = losses(pi, replace(obs, images=images), noise, time)
    assert all(torch.equal(value, changed[kind]) for kind, value in losses(pi, obs, noise, time).items())


# --- who sees whom ---------------------------------------------------------------------------------------------------


def picture(rows: str) -> Tensor:
    return torch.tensor([[cell == "1" for cell in row] for row in rows.split()])


def test_mask_of_pi0():
    """Two patches, two words | a state token, three actions; π0-small's expert sees its memory and itself likewise."""
    kinds = torch.tensor([[P, P, P, P]])
    assert torch.equal(
        backbone_mask(kinds)[0],
        picture("""
        1111
        1111
        1111
        1111
        """),
    )
    assert torch.equal(
        flow_mask(kinds, horizon=3, state_token=True)[0],
        picture("""
        11111...
        11111111
        11111111
        11111111
        """),
    )
    assert flow_positions(kinds, length=4).tolist() == [[4, 5, 6, 7]]


def test_mask_of_pi0_fast():
    """A patch, two words with the state in them | four FAST tokens, one after the other."""
    kinds = torch.tensor([[P, P, P, A, A, A, A]])
    assert torch.equal(
        backbone_mask(kinds)[0],
        picture("""
        111....
        111....
        111....
        1111...
        11111..
        111111.
        1111111
        """),
    )
    assert token_positions(kinds).tolist() == [[0, 1, 2, 3, 4, 5, 6]]


def test_mask_of_pi05_stage_1():
    """A patch, a word | subtask of two words | three FAST tokens, which read the subtask; two of padding."""
    kinds = torch.tensor([[P, P, T, T, A, A, A, PAD, PAD]])
    assert torch.equal(
        backbone_mask(kinds)[0],
        picture("""
        11.......
        11.......
        111......
        1111.....
        11111....
        111111...
        1111111..
        .........
        .........
        """),
    )


def test_mask_of_pi05_stage_2():
    """As stage 1, and a flow block that sees prefix, subtask and itself, and whose positions skip the FAST tokens."""
    kinds = torch.tensor([[P, P, T, T, A, A, A, PAD, PAD]])
    assert torch.equal(
        flow_mask(kinds, horizon=3)[0],
        picture("""
        1111.....111
        1111.....111
        1111.....111
        """),
    )
    assert token_positions(kinds)[0, :7].tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert flow_positions(kinds, length=3).tolist() == [[4, 5, 6]]


def test_mask_of_a_web_row():
    """A patch, a question of two words | an answer of two; beside a longer neighbour."""
    kinds = torch.tensor([[P, P, P, T, T, PAD]])
    assert torch.equal(
        backbone_mask(kinds)[0],
        picture("""
        111...
        111...
        111...
        1111..
        11111.
        ......
        """),
    )


def test_mask_of_an_openvla_row():
    """A patch, two words | one bin token per action dim."""
    kinds = torch.tensor([[P, P, P, A, A]])
    assert torch.equal(
        backbone_mask(kinds)[0],
        picture("""
        111..
        111..
        111..
        1111.
        11111
        """),
    )


def test_masks_of_a_mixed_batch_with_absent_cameras():
    """Three rows: the leading camera masked, the trailing one, none; two patches each."""
    kinds = torch.tensor([[PAD, PAD, P, P, P, T], [P, P, PAD, PAD, P, A], [P, P, P, P, P, PAD]])
    expected = [
        """
        ......
        ......
        ..111.
        ..111.
        ..111.
        ..1111
        """,
        """
        11..1.
        11..1.
        ......
        ......
        11..1.
        11..11
        """,
        """
        11111.
        11111.
        11111.
        11111.
        11111.
        ......
        """,
    ]
    assert torch.equal(backbone_mask(kinds), torch.stack([picture(rows) for rows in expected]))
    from_the_flow = torch.stack([picture(row) for row in ("..11111", "11..1.1", "11111.1")])
    assert torch.equal(flow_mask(kinds, horizon=1), from_the_flow)
    assert flow_positions(kinds, length=1).tolist() == [[4], [3], [5]]
    assert token_positions(kinds)[0, 2:].tolist() == [0, 1, 2, 3]


# --- who learns from what --------------------------------------------------------------------------------------------

BACKBONE = ("vision", "vlm", "embedding", "text_encoder", "text_out")


def reached(pi: Pi, loss: Tensor) -> dict[str, bool]:
    """Which weights of the backbone a loss has any gradient on."""
    named = {name: p for name, p in pi.named_parameters() if name.startswith(BACKBONE)}
    grads = torch.autograd.grad(loss.sum(), list(named.values()), allow_unused=True, retain_graph=True)
    return {name: g is not None and bool(g.any()) for name, g in zip(named, grads, strict=True)}


@pytest.mark.parametrize("name", ["pi0", "pi05"])
def test_insulated_the_flow_loss_has_no_gradient_on_the_backbone_and_words_have(name):
    pi, obs, (noise, time) = model(replace(FAMILY[name], insulate=True)), observation([RAGGED[0]] * 2), drawn(2)
    values = losses(pi, obs, noise, time)
    assert not any(reached(pi, values["flow"]).values())
    for kind in ("text", "fast"):
        assert all(reached(pi, values[kind]).values()), kind
    expert = [p for n, p in pi.named_parameters() if not n.startswith(BACKBONE)]
    assert all(g.any() for g in torch.autograd.grad(values["flow"].sum(), expert, retain_graph=True))


@pytest.mark.parametrize("name", WITH_FLOW)
def test_open_the_flow_loss_teaches_the_backbone(name):
    pi, obs, (noise, time) = model(replace(FAMILY[name], insulate=False)), observation([RAGGED[0]] * 2), drawn(2)
    taught = reached(pi, losses(pi, obs, noise, time)["flow"])
    # The last layer's keys and values are read and nothing behind them is, where the expert reads layers.
    unread = ("vlm.final_norm", *(f"vlm.blocks.1.{part}" for part in ("out", "mlp_norm", "gate_up", "down")))
    assert {n for n, is_taught in taught.items() if not is_taught} == (
        set() if name == "pi0_small" else {n for n in taught if n.startswith(unread)}
    )


@pytest.mark.parametrize("name", WITH_FLOW)
@torch.no_grad()
def test_fast_tokens_cannot_influence_the_flow_block_and_words_do(models, name):
    pi, obs, (noise, time) = models[name], observation([RAGGED[0]] * 2, masks={"room": [True, True]}), drawn(2)
    right = losses(pi, obs, noise, time)["flow"], pi.sample_actions(obs, noise=noise, num_steps=2)
    for kind, influences in ((Kind.FAST, False), (Kind.TEXT, True), (Kind.PREFIX, True)):
        changed = replace(obs, tokens=torch.where(obs.token_kinds == kind, obs.tokens + 7, obs.tokens))
        got = losses(pi, changed, noise, time)["flow"], pi.sample_actions(changed, noise=noise, num_steps=2)
        assert all(torch.equal(*pair) != influences for pair in zip(right, got, strict=True))
