"""The building blocks against their definitions."""

import pytest
import torch
from torch.nn import functional as F

from pilot.nn.attention import additive_mask, append_kv, attend, repeat_for_groups, rotary_angles, rotate
from pilot.nn.configs import GemmaConfig, SiglipConfig
from pilot.nn.gemma import Gemma
from pilot.nn.norms import AdaRMSNorm, RMSNorm
from pilot.nn.siglip import Siglip

CONFIG = GemmaConfig(width=16, depth=3, mlp_dim=32, num_heads=4, num_kv_heads=2, head_dim=8)


def gemma(config: GemmaConfig = CONFIG) -> Gemma:
    torch.manual_seed(0)
    model = Gemma(config)
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.2)
    return model


def attention(tokens: int, *, batch: int = 2) -> dict:
    mask = torch.ones(tokens, tokens, dtype=torch.bool).tril().expand(batch, -1, -1)
    positions = torch.arange(tokens).expand(batch, -1)
    return {"angles": rotary_angles(positions, CONFIG.head_dim), "bias": additive_mask(mask, torch.float32)}


def test_rotation_depends_on_the_distance_only():
    q, k = torch.randn(1, 1, 1, 8), torch.randn(1, 1, 1, 8)

    def score(i: int, j: int) -> float:
        a, b = (rotary_angles(torch.tensor([[n]]), 8) for n in (i, j))
        return (rotate(q, a) * rotate(k, b)).sum().item()

    assert score(5, 3) == pytest.approx(score(12, 10), abs=1e-5)
    assert score(5, 3) != pytest.approx(score(5, 4), abs=1e-3)


def test_rotation_pairs_the_halves():
    x = torch.zeros(1, 1, 1, 4)
    x[..., 0] = 1.0
    out = rotate(x, rotary_angles(torch.tensor([[1]]), 4))
    torch.testing.assert_close(out[0, 0, 0], torch.tensor([1.0, 0, 1.0, 0]) * torch.tensor([1.0]).cos() * torch.tensor(
        [1.0, 0, 0, 0]) + torch.tensor([0, 0, 1.0, 0]) * torch.tensor([1.0]).sin())  # fmt: skip


def test_angles_fall_geometrically_from_the_position_to_a_ten_thousandth_of_it():
    cos, signed_sin = rotary_angles(torch.tensor([[3, 0]]), 6)
    angles = torch.tensor([3.0, 3 * 10_000 ** (-1 / 3), 3 * 10_000 ** (-2 / 3)])
    assert cos.shape == signed_sin.shape == (1, 1, 2, 6)
    torch.testing.assert_close(cos[0, 0, 0], torch.cat((angles.cos(), angles.cos())))
    torch.testing.assert_close(signed_sin[0, 0, 0], torch.cat((-angles.sin(), angles.sin())))
    assert cos[0, 0, 1].tolist() == [1] * 6 and not signed_sin[0, 0, 1].any()
    slower, _ = rotary_angles(torch.tensor([[3]]), 6, base=20_000.0)
    torch.testing.assert_close(slower[0, 0, 0, 1], torch.tensor(3 * 20_000 ** (-1 / 3)).cos())


def test_a_query_may_look_where_the_mask_says():
    mask = torch.tensor([[[True, False, True]]])
    bias = additive_mask(mask, torch.float32)
    assert bias.shape == (1, 1, 1, 3) and bias[0, 0, 0, 0] == bias[0, 0, 0, 2] == 0 and -3e38 < bias[0, 0, 0, 1] < -2e38
    values = torch.tensor([1.0, 10.0, 100.0])[None, None, :, None]
    out = attend(torch.zeros(1, 1, 1, 1), torch.zeros(1, 1, 3, 1), values, bias)
    torch.testing.assert_close(out, torch.tensor([[[50.5]]]))


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_grouped_attention_equals_copied_heads(kv_heads):
    q, k, v = torch.randn(2, 4, 3, 8), torch.randn(2, kv_heads, 5, 8), torch.randn(2, kv_heads, 5, 8)
    mask = additive_mask(torch.rand(2, 3, 5) > 0.3, torch.float32)
    copies = 4 // kv_heads
    whole = F.scaled_dot_product_attention(q, *(x.repeat_interleave(copies, 1) for x in (k, v)), attn_mask=mask)
    torch.testing.assert_close(attend(q, k, v, mask), whole.transpose(1, 2).flatten(2))


@pytest.mark.parametrize("kv_heads", [1, 2])
def test_few_queries_of_a_group_are_those_of_one_head(kv_heads):
    """The same numbers and gradients, whichever way heads share."""
    torch.manual_seed(0)
    q, k, v = torch.randn(2, 4, 3, 8), torch.randn(2, kv_heads, 20, 8), torch.randn(2, kv_heads, 20, 8)
    mask = additive_mask(torch.rand(2, 3, 20) > 0.3, torch.float32)
    grouped = repeat_for_groups(mask, 4 // kv_heads)
    assert repeat_for_groups(mask, 6).shape == (2, 1, 18, 20)
    assert repeat_for_groups(mask[..., :18], 6).shape[2] == 18, "as many queries as keys are few"
    assert grouped.shape[2] == 3 * 4 // kv_heads and repeat_for_groups(mask, 7) is mask, (
        "21 queries of 20 keys are not few"
    )
    found = []
    for bias in (mask, grouped):
        leaves = [x.clone().requires_grad_() for x in (q, k, v)]
        out = attend(*leaves, bias)
        found.append((out, *torch.autograd.grad(out.square().sum(), leaves)))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


def test_a_single_key_gives_its_value_to_every_head():
    v = torch.randn(1, 2, 1, 8)
    out = attend(torch.randn(1, 4, 1, 8), torch.randn(1, 2, 1, 8), v, torch.zeros(1, 1, 1, 1))
    torch.testing.assert_close(out, v.repeat_interleave(2, dim=1).reshape(1, 1, 32))


@pytest.mark.parametrize(("rows", "several", "kv_heads"), [(2, 3, 1), (2, 2, 1), (2, 2, 2), (2, 1, 2), (1, 2, 2)])
def test_a_past_of_fewer_rows_stands_before_several(rows, several, kv_heads):
    torch.manual_seed(0)
    past, new = torch.randn(rows, kv_heads, 5, 8), torch.randn(rows * several, kv_heads, 3, 8)
    k, v = append_kv((past, past + 1), new, new + 1)
    copied = past.repeat_interleave(several, dim=0)
    assert k.equal(torch.cat((copied, new), dim=2)) and v.equal(torch.cat((copied, new), dim=2) + 1)
    q, mask = torch.randn(rows * several, 4, 3, 8), additive_mask(torch.rand(rows * several, 3, 5) > 0.3, torch.float32)
    torch.testing.assert_close(attend(q, past, past + 1, mask), attend(q, copied, copied + 1, mask))


def test_without_remembering_the_output_is_the_same():
    model, x = gemma(), torch.randn(2, 5, CONFIG.width)
    h, cache = model(x, **attention(5), use_cache=False)
    assert not cache and h.equal(model(x, **attention(5))[0])


def test_a_row_that_sees_nothing_is_not_nan():
    q, k = torch.randn(1, 1, 1, 8), torch.randn(1, 1, 4, 8)
    assert attend(q, k, k, additive_mask(torch.zeros(1, 1, 4, dtype=torch.bool), torch.float32)).isfinite().all()


def test_rms_norm_starts_as_the_identity_scale():
    x = torch.randn(2, 3, 16)
    torch.testing.assert_close(RMSNorm(16)(x).square().mean(-1), torch.ones(2, 3), atol=1e-4, rtol=0)


def test_adaptive_norm_starts_plain_with_a_closed_gate():
    norm, x = AdaRMSNorm(16, 4), torch.randn(2, 3, 16)
    modulation = norm.modulate(torch.randn(2, 1, 4))
    torch.testing.assert_close(norm(x, modulation), RMSNorm(16)(x))
    assert not modulation[2].any()


def test_cached_equals_uncached():
    model, x = gemma(), torch.randn(2, 6, 16)
    whole, _ = model(x, **attention(6))
    first, cache = model(x[:, :4], **attention(4))
    angles = rotary_angles(torch.arange(4, 6).expand(2, -1), 8)
    bias = attention(6)["bias"][:, :, 4:]
    rest, _ = model(x[:, 4:], angles=angles, bias=bias, past=cache)
    torch.testing.assert_close(torch.cat((first, rest), 1), whole, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("tail", [0, 2])
def test_a_tail_is_the_end_of_the_whole_and_leaves_the_cache_alone(tail):
    model, x = gemma(), torch.randn(2, 6, 16)
    whole, cache = model(x, **attention(6))
    end, same = model(x, **attention(6), tail=tail)
    torch.testing.assert_close(end, whole[:, 6 - tail :])
    for (k, v), (k_, v_) in zip(cache, same, strict=True):
        assert torch.equal(k, k_) and torch.equal(v, v_)


def test_patches_are_a_convolution():
    model = Siglip(SiglipConfig(image_size=16, patch_size=4, width=8, depth=0, mlp_dim=8, num_heads=2), 8)
    image = torch.randn(2, 16, 16, 3)
    kernel = model.patch.weight.unflatten(1, (4, 4, 3)).permute(0, 3, 1, 2)
    wanted = F.conv2d(image.permute(0, 3, 1, 2), kernel, model.patch.bias, stride=4).flatten(2).transpose(1, 2)
    torch.testing.assert_close(model(image), model.head(model.final_norm(wanted)), atol=1e-5, rtol=1e-5)


def test_a_smaller_picture_resamples_the_positions():
    model = Siglip(SiglipConfig(image_size=16, patch_size=4, width=8, depth=1, mlp_dim=8, num_heads=2), 6)
    assert model(torch.randn(1, 8, 8, 3)).shape == (1, 4, 6)
    torch.testing.assert_close(model.positions(4, 4), model.position)


def test_a_picture_that_does_not_divide_is_refused():
    model = Siglip(SiglipConfig(image_size=16, patch_size=4, width=8, depth=1, mlp_dim=8, num_heads=2), 6)
    with pytest.raises(ValueError, match="do not divide into patches of 4"):
        model(torch.randn(1, 10, 16, 3))


def test_heads_must_divide():
    with pytest.raises(ValueError, match="not a multiple"):
        GemmaConfig(width=16, depth=1, mlp_dim=32, num_heads=4, num_kv_heads=3, head_dim=8)
