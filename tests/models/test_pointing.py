"""One head learns to look at a box while its tokens are predicted."""

from dataclasses import replace

import torch

from pilot.data.layout import Batch, Observation
from pilot.models import pointing
from pilot.models.pi import Pi, pi05
from pilot.train.config import ObjectiveConfig

CONFIG = pi05("debug", point_layer=1)
LOC = CONFIG.loc_start


def observation() -> Observation:
    """Row 0 has a box of the upper left patch as its target, row 1 none; pictures are 2 × 2 patches."""
    words = torch.tensor([[2, 2000, LOC + 10, LOC + 20, LOC + 400, LOC + 500, 2001], [2, 2000, 2001, 2002, 0, 0, 0]])
    kinds = torch.tensor([[1, 1, 2, 2, 2, 2, 2], [1, 1, 2, 2, 0, 0, 0]])
    generator = torch.Generator().manual_seed(0)
    return Observation(
        images={"room": torch.rand(2, 16, 16, 3, generator=generator)},
        image_masks={"room": torch.ones(2, dtype=torch.bool)},
        state=torch.zeros(2, 8), tokens=words, token_kinds=kinds, token_loss=kinds >= 2,
    )  # fmt: skip


def test_boxes_are_found_in_the_target_text():
    row, first = pointing.find_boxes(observation(), LOC)
    assert row.tolist() == [0] and first.tolist() == [2]
    question = replace(observation(), token_loss=torch.zeros(2, 7, dtype=torch.bool))
    assert not len(pointing.find_boxes(question, LOC)[0])


def test_patches_that_a_box_touches():
    boxes = torch.tensor([[0.0, 0.0, 0.4, 0.4], [0.3, 0.3, 0.6, 0.4], [0.7, 0.7, 0.7, 0.7]])
    assert pointing.covers(boxes, 2).long().tolist() == [[1, 0, 0, 0], [1, 0, 1, 0], [0, 0, 0, 1]]


def test_shares_of_a_box_in_the_patches():
    boxes = torch.tensor([[0.0, 0.0, 0.4, 0.4], [0.25, 0.25, 0.75, 0.5], [0.7, 0.7, 0.7, 0.7]])
    shares = pointing.overlap(boxes, 2)
    torch.testing.assert_close(shares, torch.tensor([[1.0, 0, 0, 0], [0.5, 0, 0.5, 0], [0, 0, 0, 1]]))


def test_learning_to_name_needs_the_vision_tower_alone(no_shape_checks):
    model, obs = Pi(CONFIG).initialize(torch.Generator().manual_seed(0)), observation()
    mask = torch.ones(2, 6, 8, dtype=torch.bool)
    batch = Batch(observation=obs, actions=torch.zeros(2, 6, 8), action_mask=mask, sources=("web", "web"))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(30):
        terms = model.loss_terms(batch, {}, losses=frozenset({"name"}))
        assert set(terms) == {"name"} and terms["name"][1].tolist() == [1.0, 0.0]
        optimizer.zero_grad()
        terms["name"][0].sum().backward()
        optimizer.step()
    assert terms["name"][0][0].item() < 0.1
    assert all(p.grad is None for p in model.vlm.parameters())


def test_what_and_where_are_learned_beside_the_words_too(no_shape_checks):
    model, obs = Pi(CONFIG).initialize(torch.Generator().manual_seed(0)), observation()
    mask = torch.ones(2, 6, 8, dtype=torch.bool)
    batch = Batch(observation=obs, actions=torch.zeros(2, 6, 8), action_mask=mask, sources=("web", "web"))
    losses = ObjectiveConfig(alpha=0.0, place_weight=1.0).losses
    beside = model.loss_terms(batch, {}, losses=losses)
    alone = model.loss_terms(batch, {}, losses=frozenset({"name", "place"}))
    assert set(beside) == losses == {"text", "fast", "point", "name", "place"}
    for name in alone:
        torch.testing.assert_close(beside[name], alone[name])
    counts = model.loss_counts(batch, {}, losses=losses)
    assert {name: count.tolist() for name, count in counts.items()} == {n: c.tolist() for n, (_, c) in beside.items()}


def test_rows_without_boxes_have_nothing_to_name_and_a_gradient_of_zero():
    model, obs = Pi(CONFIG).initialize(torch.Generator().manual_seed(0)), observation()
    obs = replace(obs, token_loss=torch.zeros_like(obs.token_loss))
    mask = torch.ones(2, 6, 8, dtype=torch.bool)
    batch = Batch(observation=obs, actions=torch.zeros(2, 6, 8), action_mask=mask, sources=("web", "web"))
    loss, count = model.loss_terms(batch, {}, losses=frozenset({"name"}))["name"]
    assert count.tolist() == [0.0, 0.0] and loss.tolist() == [0.0, 0.0]
    loss.sum().backward()
    assert all((p.grad == 0).all() for p in model.vision.parameters())


def test_the_tower_alone_learns_to_say_where_a_box_is(no_shape_checks):
    model, obs = Pi(CONFIG).initialize(torch.Generator().manual_seed(0)), observation()
    mask = torch.ones(2, 6, 8, dtype=torch.bool)
    batch = Batch(observation=obs, actions=torch.zeros(2, 6, 8), action_mask=mask, sources=("web", "web"))
    optimizer, losses = torch.optim.Adam(model.parameters(), lr=1e-2), frozenset({"name", "place"})
    for _ in range(60):
        terms = model.loss_terms(batch, {}, losses=losses)
        counts = model.loss_counts(batch, {}, losses=losses)
        assert {name: count.tolist() for name, (_, count) in terms.items()} == {"name": [1.0, 0.0], "place": [1.0, 0.0]}
        assert all(torch.equal(counts[name], count) for name, (_, count) in terms.items())
        optimizer.zero_grad()
        torch.stack([loss.sum() for loss, _ in terms.values()]).sum().backward()
        optimizer.step()
    assert terms["place"][0][0].item() < 0.2 and terms["name"][0][0].item() < 0.2
    # Four edges in their order, each by its own turn.
    patches, _ = model.embed_images(obs)
    edges = [10, 20, 400, 500]
    region = patches[0, 0]  # the box touches the first patch alone
    scores = [model.logits(region.roll(i * len(region) // 5)).argmax().item() - LOC for i in range(1, 5)]
    assert scores == edges


def test_attention_is_the_layers_own():
    model, obs = Pi(CONFIG).initialize(torch.Generator().manual_seed(0)), observation()
    context = model.prefill(obs, keep_block_inputs=True)
    row, queries = torch.tensor([0, 1]), torch.tensor([[5], [5]])
    weights = pointing.log_attention(model.vlm.blocks[1], context, layer=1, row=row, queries=queries).exp()
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 1))
    assert not weights[:, :, 6:].any()  # none to later tokens


def test_learning_to_point_moves_the_attention_into_the_box(no_shape_checks):
    model, obs = Pi(CONFIG).initialize(torch.Generator().manual_seed(0)), observation()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(30):
        optimizer.zero_grad()
        prefix, block = model.prefill(obs, keep_block_inputs=True), model.vlm.blocks[1]
        total, count = pointing.pointing_terms(obs, prefix, block, layer=1, loc_start=LOC, grid=2)
        total.sum().backward()
        optimizer.step()
    assert count.tolist() == [1.0, 0.0] and total[1] == 0
    assert total[0].item() < 0.1
