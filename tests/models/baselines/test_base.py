"""What every baseline keeps: it learns, acts the same from the same noise, and only the robot's actions count."""

from dataclasses import replace

import pytest
import torch

from models.baseline_rows import rows
from pilot.data.layout import Batch, Kind, Observation
from pilot.models.base import Model
from pilot.models.baselines.act import Act
from pilot.models.baselines.configs import act, diffusion_policy, octo
from pilot.models.baselines.diffusion_policy import DiffusionPolicy
from pilot.models.baselines.octo import Octo

MODELS = {"act": (Act, act), "diffusion_policy": (DiffusionPolicy, diffusion_policy), "octo": (Octo, octo)}
LOSSES = frozenset({"flow"})
WEIGHTS = {"kl": 10.0}


@pytest.fixture(params=MODELS)
def model(request) -> Model:
    kind, config = MODELS[request.param]
    return kind(config("debug")).initialize(torch.Generator().manual_seed(0))


@pytest.fixture
def batch(model) -> Batch:
    return rows(model.config)


def draws(model: Model, *, count: int = 3, seed: int = 0, each: int = 1) -> dict[str, torch.Tensor]:
    return dict(model.draw(count, torch.Generator().manual_seed(seed), flow_draws=each))


def losses(model: Model, batch: Batch, *, seed: int = 0, each: int = 1) -> dict[str, torch.Tensor]:
    terms = model.loss_terms(batch, draws(model, count=len(batch.actions), seed=seed, each=each), losses=LOSSES)
    return {name: total / count.clamp(min=1) for name, (total, count) in terms.items()}


def objective(model: Model, batch: Batch, **options: int) -> torch.Tensor:
    return sum(WEIGHTS.get(name, 1.0) * value.mean() for name, value in losses(model, batch, **options).items())


def opened(model: Model) -> Model:
    """No weight at zero, so that nothing passes by being closed."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in model.parameters():
            p += 0.05 * torch.randn(p.shape, generator=generator)
    return model


def test_it_learns_two_chunks_and_acts_on_them(model, no_shape_checks):
    batch = rows(model.config, count=2)
    noise = torch.randn(batch.actions.shape, generator=torch.Generator().manual_seed(5))
    noise *= batch.action_mask.any(1)[:, None]

    def measured() -> tuple[float, float]:
        with torch.no_grad():
            error = (model.sample_actions(batch.observation, noise=noise, num_steps=10) - batch.actions).abs()
            return objective(model, batch, seed=99, each=8).item(), error[batch.action_mask].mean().item()

    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    loss, error = measured()
    for step in range(50):
        optimizer.zero_grad()
        objective(model, batch, seed=step, each=4).backward()
        optimizer.step()
    assert measured()[0] < 0.75 * loss
    assert measured()[1] < 0.95 * error


def test_every_weight_learns(model, batch):
    objective(opened(model), batch).backward()
    dead = [name for name, weight in model.named_parameters() if weight.grad is None or not weight.grad.any()]
    first = {"decoder.0.attention.v.weight"} if isinstance(model, Act) else set()  # its values are of nothing yet
    assert set(dead) == first, f"no loss reaches {dead}"


def test_counts_are_known_before_anything_is_computed(model, batch):
    drawn = draws(model)
    counts = model.loss_counts(batch, drawn, losses=LOSSES)
    terms = model.loss_terms(batch, drawn, losses=LOSSES)
    assert counts.keys() == terms.keys() == ({"l1", "kl"} if isinstance(model, Act) else {"noise"})
    assert all(torch.equal(counts[name], terms[name][1]) and counts[name].shape == (3,) for name in counts)


def test_masked_dims_and_padded_steps_carry_no_loss(model, batch):
    """Whatever the model answers there; and what a dim that no row has holds is never seen."""
    opened(model)
    before = losses(model, batch)
    outside = ~batch.action_mask.any(1, keepdim=True).expand_as(batch.action_mask)
    other = replace(batch, actions=batch.actions + 7.0 * outside)
    assert outside.any() and all(torch.equal(losses(model, other)[name], before[name]) for name in before)
    batch.actions.requires_grad_()
    wanted = torch.autograd.grad(sum(loss.sum() for loss in before.values()), batch.actions, allow_unused=True)[0]
    nothing = replace(batch, action_mask=torch.zeros_like(batch.action_mask))
    assert wanted is None or not wanted[outside].any()
    assert all(not value.any() for value in losses(model, nothing).values())


def test_a_row_does_not_depend_on_its_neighbours(model, batch):
    opened(model)
    drawn = draws(model)
    together = model.loss_terms(batch, drawn, losses=LOSSES)
    for i in range(3):
        one = replace(
            batch, observation=batch.observation.map(lambda t, i=i: t[i : i + 1]), actions=batch.actions[i : i + 1],
            action_mask=batch.action_mask[i : i + 1], sources=batch.sources[i : i + 1],
        )  # fmt: skip
        alone = model.loss_terms(one, {name: t[i : i + 1] for name, t in drawn.items()}, losses=LOSSES)
        assert all(torch.allclose(alone[name][0], together[name][0][i], atol=1e-3) for name in alone)


@torch.no_grad()
def test_the_same_noise_gives_the_same_chunk(model, batch):
    opened(model)
    noise = torch.randn(batch.actions.shape, generator=torch.Generator().manual_seed(0))
    first, again = (model.sample_actions(batch.observation, noise=noise, num_steps=4) for _ in range(2))
    other = model.sample_actions(batch.observation, noise=noise.flip(0), num_steps=4)
    assert first.shape == batch.actions.shape and torch.equal(first, again)
    assert torch.equal(first, other) == isinstance(model, Act)


@torch.no_grad()
def test_a_dim_without_noise_stays_still(model, batch):
    noise = torch.randn(batch.actions.shape, generator=torch.Generator().manual_seed(0))
    noise[..., 4:] = 0
    chunk = opened(model).sample_actions(batch.observation, noise=noise, num_steps=3)
    assert isinstance(model, Act) or not chunk[..., 4:].any()


def seen(model: Model, observation: Observation) -> torch.Tensor:
    """What a model makes of an observation, before it is cut off at the range of actions."""
    if isinstance(model, Act):
        return model.decode(observation, torch.zeros(observation.batch_size, model.config.style_dim))
    return model.encode(observation)


@torch.no_grad()
def test_it_hears_the_prompt_and_not_the_subtask(model, batch):
    before, observation = seen(opened(model), batch.observation), batch.observation
    for kind, heard in ((Kind.PREFIX, True), (Kind.TEXT, False)):
        column = int((observation.token_kinds[0] == kind).nonzero()[-1, 0])
        tokens = observation.tokens.clone()
        tokens[:, column] += 1
        assert torch.equal(before, seen(model, replace(observation, tokens=tokens))) != heard


@torch.no_grad()
def test_a_camera_that_is_not_there_is_not_seen(model, batch):
    observation, gone = batch.observation, torch.zeros(3, dtype=torch.bool)
    masked = replace(observation, image_masks=observation.image_masks | {"wrist": gone})
    other = replace(masked, images=observation.images | {"wrist": torch.ones_like(observation.images["wrist"])})
    images, masks = ({"room": part["room"]} for part in (observation.images, observation.image_masks))
    without = replace(observation, images=images, image_masks=masks)
    before = seen(opened(model), masked)
    assert not torch.allclose(before, seen(model, observation))
    assert torch.equal(before, seen(model, other))
    assert torch.allclose(before, seen(model, without), atol=1e-5)


def test_more_draws_are_the_mean_of_single_ones(model, batch):
    opened(model)
    many = draws(model, each=3)
    if isinstance(model, Act):
        assert many["style"].shape == (3, model.config.style_dim), "a chunk has one style"
        return
    together = model.loss_terms(batch, many, losses=LOSSES)["noise"][0]
    single = [
        model.loss_terms(batch, {name: t[:, k : k + 1] for name, t in many.items()}, losses=LOSSES)["noise"][0]
        for k in range(3)
    ]
    assert torch.allclose(together, torch.stack(single).mean(0), rtol=1e-5)


def test_the_blocks_are_layers_of_the_model(model):
    inside = set(model.modules())
    blocks = model.blocks()
    assert blocks and len(set(blocks)) == len(blocks) and inside.issuperset(blocks)
