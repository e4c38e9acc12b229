"""The model's promises: sizes, who learns from what, who sees whom, and that caching and batching change nothing."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from pilot.data.layout import Kind, Observation
from pilot.models.generation import argmax_token
from pilot.models.pi import Pi, PiConfig, pi0, pi0_fast, pi05

EOS = 1


def model(config: PiConfig | None = None) -> Pi:
    pi = Pi(config or pi05("debug")).initialize(torch.Generator().manual_seed(0))
    torch.manual_seed(1)
    for p in pi.parameters():  # nothing zero, so that nothing passes by being closed
        if not p.any():
            torch.nn.init.normal_(p, std=0.1)
    return pi.eval()


def observation(kinds: list[list[int]], *, masks: dict[str, list[bool]] | None = None, seed: int = 0) -> Observation:
    generator = torch.Generator().manual_seed(seed)
    batch, kinds_ = len(kinds), torch.tensor(kinds)
    tokens = torch.randint(4, 1800, kinds_.shape, generator=generator)
    images = {c: torch.rand(batch, 16, 16, 3, generator=generator) * 2 - 1 for c in ("room", "wrist")}
    given = {c: torch.tensor((masks or {}).get(c, [True] * batch)) for c in images}
    state = torch.randn(batch, 8, generator=generator)
    return Observation(
        images=images, image_masks=given, state=state, tokens=tokens, token_kinds=kinds_, token_loss=kinds_ >= Kind.TEXT
    )


def noise_time(batch: int, *, horizon: int = 6, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, horizon, 8, generator=generator), torch.rand(batch, generator=generator)


ROBOT_ROW = [1, 1, 1, 2, 2, 3, 3]


def test_published_parameter_counts():
    with torch.device("meta"):
        counts = {name: sum(p.numel() for p in Pi(f()).parameters()) for name, f in (("pi05", pi05), ("pi0", pi0))}
    assert counts["pi05"] == 3_353_433_872
    assert round(counts["pi0"] / 1e6, 2) == 3238.05


def test_nano_is_between_one_and_eight_million():
    count = sum(p.numel() for p in Pi(pi05("nano")).parameters())
    assert 1e6 <= count <= 8e6


@pytest.mark.parametrize("family", [pi0, pi05, pi0_fast])
def test_every_family_member_runs(family):
    pi, obs = model(family("debug")), observation([ROBOT_ROW] * 2)
    noise, time = noise_time(2)
    losses = pi.loss(obs, torch.zeros(2, 6, 8), noise=noise, time=time)
    assert set(losses) == ({"text", "fast"} if family is pi0_fast else {"text", "fast", "flow"})
    assert all(value.isfinite().all() and (value > 0).all() for value in losses.values())


def test_insulation_stops_the_flow_loss_at_the_backbone_and_nothing_else():
    for insulate in (True, False):
        pi, obs = model(pi05("debug", insulate=insulate)), observation([ROBOT_ROW] * 2)
        noise, time = noise_time(2)
        losses = pi.loss(obs, torch.zeros(2, 6, 8), noise=noise, time=time)
        backbone = {n: p for n, p in pi.named_parameters() if n.startswith(("vision", "vlm", "embedding"))}
        grads = torch.autograd.grad(losses["flow"].sum(), list(backbone.values()), allow_unused=True, retain_graph=True)
        touched = [g is not None and bool(g.any()) for g in grads]
        assert not any(touched) if insulate else sum(touched) > len(touched) / 2
        for name in ("text", "fast"):
            grad = torch.autograd.grad(losses[name].sum(), pi.embedding.weight, retain_graph=True)[0]
            assert grad.any()


def test_fast_tokens_cannot_influence_the_flow_and_the_subtask_does():
    pi, obs = model(), observation([ROBOT_ROW])
    noise, time = noise_time(1)

    def flow_loss(tokens: Tensor) -> Tensor:
        return pi.loss(replace(obs, tokens=tokens), torch.zeros(1, 6, 8), noise=noise, time=time)["flow"]

    changed_fast, changed_text = obs.tokens.clone(), obs.tokens.clone()
    changed_fast[0, 5:] += 7
    changed_text[0, 3] += 7
    assert torch.equal(flow_loss(obs.tokens), flow_loss(changed_fast))
    assert not torch.equal(flow_loss(obs.tokens), flow_loss(changed_text))


def test_fast_tokens_in_training_leave_the_flow_where_acting_has_it():
    pi = model()
    noise, time = noise_time(1)
    obs = observation([ROBOT_ROW])
    without = obs.map(lambda x: x)
    without = replace(
        without, tokens=obs.tokens[:, :5], token_kinds=obs.token_kinds[:, :5], token_loss=obs.token_loss[:, :5]
    )
    losses = [pi.loss(o, torch.zeros(1, 6, 8), noise=noise, time=time)["flow"] for o in (obs, without)]
    torch.testing.assert_close(losses[0], losses[1])


def test_a_batch_of_ragged_rows_equals_its_rows_alone():
    pi = model()
    obs = observation([[1, 1, 1, 2, 2], [1, 1, 0, 0, 0], [1, 2, 0, 0, 0]], masks={"wrist": [True, False, True]})
    noise, _ = noise_time(3)
    together = pi.sample_actions(obs, noise=noise, num_steps=4)
    for i in range(3):
        alone = obs.map(lambda x, i=i: x[i : i + 1])
        torch.testing.assert_close(pi.sample_actions(alone, noise=noise[i : i + 1], num_steps=4), together[i : i + 1])


def test_a_dropped_camera_equals_a_masked_one_and_hides_its_pixels():
    pi, noise = model(), noise_time(2)[0]
    masked = observation([[1, 1, 2]] * 2, masks={"wrist": [False, False]})
    dropped = replace(masked, images={"room": masked.images["room"]}, image_masks={"room": masked.image_masks["room"]})
    torch.testing.assert_close(pi.sample_actions(masked, noise=noise), pi.sample_actions(dropped, noise=noise))
    half = observation([[1, 1, 2]] * 2, masks={"wrist": [True, False]})
    leaked = replace(half, images=half.images | {"wrist": half.images["wrist"].clone()})
    leaked.images["wrist"][1] += 1
    assert torch.equal(pi.sample_actions(half, noise=noise), pi.sample_actions(leaked, noise=noise))


def test_greedy_words_are_the_arg_max_of_a_full_pass():
    pi, obs = model(), observation([[1, 1, 1], [1, 1, 0]])
    said = pi.generate_text(obs, eos=-1, max_new_tokens=5)
    for row, length in ((0, 3), (1, 2)):
        tokens = obs.tokens[row : row + 1, :length]
        for word in said[row].tolist():
            kinds = torch.tensor([[1] * length + [2] * (tokens.shape[1] - length)])
            alone = replace(
                obs.map(lambda x, row=row: x[row : row + 1]), tokens=tokens, token_kinds=kinds, token_loss=kinds > 1
            )
            logits = pi.logits(pi.prefill(alone).hidden[:, -1])
            places = (pi.config.loc_start, pi.config.loc_start + 1024)
            assert argmax_token(logits, loc_range=places).item() == word
            tokens = torch.cat((tokens, torch.tensor([[word]])), 1)


def test_acting_after_speaking_equals_acting_on_the_spoken_text():
    pi, obs = model(), observation([[1, 1, 1]])
    noise = noise_time(1)[0]
    said, context = pi.generate(pi.prefill(obs), obs, eos=-1, max_new_tokens=4)
    kinds = torch.tensor([[1, 1, 1, 2, 2, 2, 2]])
    told = replace(obs, tokens=torch.cat((obs.tokens, said), 1), token_kinds=kinds, token_loss=kinds > 1)
    spoken = pi.denoise(context, obs.state, noise=noise)[-1]
    torch.testing.assert_close(spoken, pi.sample_actions(told, noise=noise), atol=1e-5, rtol=1e-5)


def test_rows_stop_at_their_own_end():
    pi, obs = model(), observation([[1, 1, 1], [1, 1, 0]])
    first = pi.generate_text(obs, eos=-1, max_new_tokens=6).tolist()
    stop = first[0][0]
    said = pi.generate_text(obs, eos=stop, max_new_tokens=6).tolist()
    ends = [row.index(stop) if stop in row else 5 for row in first]
    for row, whole, end in zip(said, first, ends, strict=True):
        assert row[: end + 1] == whole[: end + 1] and not any(row[end + 1 :])
    assert len(said[0]) == max(ends) + 1


def test_only_allowed_words_are_said():
    pi, obs = model(), observation([[1, 1, 1]])
    allowed = torch.zeros(pi.config.vocab_size, dtype=torch.bool)
    allowed[[10, 20]] = True
    said, _ = pi.generate(pi.prefill(obs), obs, eos=-1, max_new_tokens=5, allowed=allowed)
    assert set(said.flatten().tolist()) <= {10, 20}


def test_places_are_weighed_together_against_each_word():
    logits = torch.log(torch.tensor([[0.4, 0.3, 0.3], [0.6, 0.3, 0.1], [0.1, 0.2, 0.7]]))  # a word and two places
    assert argmax_token(logits, loc_range=(1, 3)).tolist() == [1, 0, 2]


def test_masked_elements_carry_no_flow_loss():
    pi, obs = model(), observation([ROBOT_ROW] * 2)
    noise, time = noise_time(2)
    actions, mask = torch.zeros(2, 6, 8), torch.ones(2, 6, 8, dtype=torch.bool)
    mask[0, 3:], mask[1] = False, False
    losses = pi.loss(obs, actions, noise=noise, time=time, action_mask=mask)
    assert losses["flow"][0] > 0 and losses["flow"][1] == 0
    grad_input = actions.clone().requires_grad_()
    u = pi.loss(obs, grad_input, noise=noise, time=time, action_mask=mask)["flow"].sum()
    assert torch.autograd.grad(u, grad_input)[0][1].abs().sum() == 0


def test_several_draws_are_the_mean_of_single_ones():
    pi, obs = model(), observation([ROBOT_ROW] * 2)
    draws = [noise_time(2, seed=s) for s in range(3)]
    noise, time = torch.stack([n for n, _ in draws], 1), torch.stack([t for _, t in draws], 1)
    many = pi.loss(obs, torch.zeros(2, 6, 8), noise=noise, time=time)["flow"]
    single = torch.stack([pi.loss(obs, torch.zeros(2, 6, 8), noise=n, time=t)["flow"] for n, t in draws]).mean(0)
    torch.testing.assert_close(many, single)


def test_it_overfits_a_batch_and_reproduces_its_actions(no_shape_checks):
    pi = Pi(pi05("debug")).initialize(torch.Generator().manual_seed(0))
    obs, actions = observation([[1, 1, 1]] * 2), torch.rand(2, 6, 8, generator=torch.Generator().manual_seed(3)) * 2 - 1
    optimizer = torch.optim.Adam(pi.parameters(), lr=4e-3)
    generator = torch.Generator().manual_seed(4)
    for step in range(500):
        noise = torch.randn(2, 16, 6, 8, generator=generator)
        time = torch.rand(2, 16, generator=generator)
        loss = pi.loss(obs, actions, noise=noise, time=time)["flow"].mean()
        optimizer.zero_grad()
        loss.backward()
        for group in optimizer.param_groups:
            group["lr"] = 4e-3 * (1 - step / 500)
        optimizer.step()
    assert loss.item() < 0.03
    sampled = pi.sample_actions(obs, noise=noise_time(2, seed=9)[0])
    assert (sampled - actions).abs().mean() < 0.05


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"action_expert": replace(pi05("debug").action_expert, depth=3)}, "differ in depth"),
        ({"time_conditioning": "concat"}, "cond_width"),
    ],
)
def test_a_config_that_cannot_work_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        pi05("debug", **changes)
