"""π0-small is its parts: a tower per camera, a text encoder, an encoder, and an expert that cross-attends to it."""

import pytest
import torch

from pilot.data.layout import Kind, Observation
from pilot.models.pi import Pi, PiConfig, pi0_small
from pilot.nn.encoder_decoder import Decoder


def model(config: PiConfig | None = None) -> Pi:
    pi = Pi(config or pi0_small("debug")).initialize(torch.Generator().manual_seed(0))
    torch.manual_seed(1)
    for p in pi.parameters():  # open the gates of the adaptive norms
        if not p.any():
            torch.nn.init.normal_(p, std=0.1)
    return pi.eval()


def observation(batch: int = 2, *, seed: int = 0) -> Observation:
    generator = torch.Generator().manual_seed(seed)
    kinds = torch.full((batch, 4), int(Kind.PREFIX))
    return Observation(
        images={c: torch.rand(batch, 16, 16, 3, generator=generator) * 2 - 1 for c in ("room", "wrist")},
        image_masks={c: torch.ones(batch, dtype=torch.bool) for c in ("room", "wrist")},
        state=torch.randn(batch, 8, generator=generator),
        tokens=torch.randint(4, 1800, kinds.shape, generator=generator), token_kinds=kinds, token_loss=kinds > 1,
    )  # fmt: skip


def test_its_parts_and_their_sizes():
    """Near the paper's 470 M; the text encoder is DistilBERT's 66 M (embeddings of positions aside)."""
    with torch.device("meta"):
        counts = {name: sum(p.numel() for p in part.parameters()) for name, part in Pi(pi0_small()).named_children()}
    assert sum(counts.values()) == 473_721_088
    assert counts["embedding"] + counts["text_encoder"] == pytest.approx(66e6, rel=0.01)
    assert counts["vision"] / 3 == pytest.approx(23e6, rel=0.05)  # ViT-S


def test_it_has_a_flow_loss_and_writes_no_text():
    pi, obs = model(), observation()
    losses = pi.loss(obs, torch.zeros(2, 6, 8), noise=torch.randn(2, 6, 8), time=torch.rand(2))
    assert set(losses) == {"flow"} and losses["flow"].shape == (2,)
    with pytest.raises(ValueError, match="writes none"):
        pi.generate_text(obs, eos=1)


def test_it_learns_a_chunk_and_samples_it(no_shape_checks):
    pi = Pi(pi0_small("debug")).initialize(torch.Generator().manual_seed(0))
    obs, generator = observation(), torch.Generator().manual_seed(3)
    actions = torch.rand(2, 6, 8, generator=generator) * 2 - 1
    optimizer = torch.optim.Adam(pi.parameters(), lr=5e-3)
    curve = []
    for _ in range(60):
        noise, time = torch.randn(2, 8, 6, 8, generator=generator), torch.rand(2, 8, generator=generator)
        loss = pi.loss(obs, actions, noise=noise, time=time)["flow"].mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        curve.append(loss.item())
    assert sum(curve[-5:]) < 0.5 * sum(curve[:5]), curve
    with torch.no_grad():
        noise = torch.randn(2, 6, 8, generator=generator)
        sampled = pi.sample_actions(obs, noise=noise)
    assert (sampled - actions).abs().mean() < 0.6 * (noise - actions).abs().mean()


def test_each_camera_has_a_tower_of_its_own():
    pi, obs = model(), observation(1)
    swapped = {"room": obs.images["wrist"], "wrist": obs.images["room"]}
    same = [pi.vision.tower("room")(obs.images["room"]), pi.vision.tower("wrist")(obs.images["room"])]
    assert not torch.allclose(*same)
    masks = obs.image_masks
    images, _ = pi.embed_images(obs)
    other, _ = pi.embed_images(Observation(**(vars(obs) | {"images": swapped, "image_masks": masks})))
    assert not torch.allclose(images, other)


def test_a_camera_without_a_tower_is_named():
    obs = observation()
    extra = Observation(
        **(vars(obs) | {"images": obs.images | {"rear": obs.images["room"]},
                        "image_masks": obs.image_masks | {"rear": obs.image_masks["room"]}})
    )  # fmt: skip
    with pytest.raises(ValueError, match="no vision tower for camera 'rear'; vision_towers names room, wrist"):
        model().prefill(extra)


def test_the_expert_reads_what_the_encoder_puts_out():
    """Keys and values come from the last layer's output, one pair per layer of the expert, as many as it has."""
    pi, obs = model(), observation()
    decoder = pi.action_expert
    assert isinstance(decoder, Decoder) and pi.config.vlm.depth != pi.config.action_expert.depth
    context = pi.prefill(obs)
    assert len(context.cache) == pi.config.action_expert.depth
    assert context.cache[0][0].shape == (2, 2, context.kinds.shape[1], 16)
    h = torch.randn(2, 5, 32)
    k, v = decoder.project_memory(h)[1]
    by_hand = decoder.blocks[1].memory_kv(h).view(2, 5, 4, 16).permute(0, 2, 1, 3)
    assert torch.equal(k, by_hand[:, :2]) and torch.equal(v, by_hand[:, 2:])


def test_the_text_encoder_stands_between_the_words_and_the_backbone():
    pi, obs = model(), observation(1)
    assert pi.embed_text(obs).shape == (1, 4, 32) and pi.embed_tokens(obs.tokens).shape == (1, 4, 16)
    changed = obs.tokens.clone()
    changed[0, 3] += 1
    before, after = pi.embed_text(obs), pi.embed_text(Observation(**(vars(obs) | {"tokens": changed})))
    assert (before != after).any(-1).all(), "a prompt is read both ways: each word knows of the last"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"insulate": True}, "insulate=False"),
        ({"time_conditioning": "concat"}, "'adarms'"),
        ({"expert_reads": "layers"}, "share their cache, but differ in depth, num_kv_heads"),
        ({"text_encoder": pi0_small("nano").text_encoder}, "text encoder and backbone .* differ in head_dim"),
    ],
)
def test_a_config_that_cannot_work_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        pi0_small("debug", **changes)
