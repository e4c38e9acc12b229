"""The flow convention: t = 1 is noise, t = 0 is data."""

import pytest
import torch

from pilot.models import flow


def test_the_ends_of_the_path():
    actions, noise = torch.randn(2, 3, 4), torch.randn(2, 3, 4)
    at_data, velocity = flow.interpolate(actions, noise, torch.zeros(2))
    at_noise, _ = flow.interpolate(actions, noise, torch.ones(2))
    assert torch.equal(at_data, actions) and torch.equal(at_noise, noise) and torch.equal(velocity, noise - actions)


@pytest.mark.parametrize("steps", [1, 4, 10])
def test_the_true_velocity_leads_to_the_actions(steps):
    actions, noise = torch.randn(2, 3, 4), torch.randn(2, 3, 4)
    points = flow.integrate(lambda x, step: noise - actions, noise, num_steps=steps)
    assert len(points) == steps + 1
    torch.testing.assert_close(points[-1], actions, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("solver", ["euler", "midpoint"])
def test_padded_dims_are_where_they_were_in_training(solver):
    """At every evaluation at `t·noise`, as `interpolate` has it for actions of 0, whatever the model says of them."""
    noise, padded = torch.randn(2, 3, 4), torch.tensor([[False, False, True, True], [False, False, False, True]])
    times, seen = flow.solver_times(4, solver), []

    def velocity(x_t, i):
        seen.append(x_t)
        return torch.full_like(x_t, 3.0)

    points = flow.integrate(velocity, noise, num_steps=4, solver=solver, padded_dims=padded)
    where = padded[:, None].expand_as(noise)
    for x_t, t in zip(seen, times, strict=True):
        trained, _ = flow.interpolate(torch.zeros_like(noise), noise, t.expand(2))
        torch.testing.assert_close(x_t[where], trained[where], atol=1e-6, rtol=1e-6)
    assert points[-1][where].abs().max() < 1e-6
    torch.testing.assert_close(points[-1][~where], (noise - 3.0)[~where], atol=1e-5, rtol=1e-5)


def test_euler_looks_at_one_down_to_one_over_n():
    torch.testing.assert_close(flow.euler_times(4), torch.tensor([1.0, 0.75, 0.5, 0.25]))
    with pytest.raises(ValueError, match="at least 1"):
        flow.euler_times(0)


def test_times_are_rounded_at_each_step():
    """1 − 0.1 − 0.1 … in fp32, not 1 − n·0.1: the fast time features tell the difference."""
    time, expected = torch.tensor(1.0), []
    for _ in range(10):
        expected.append(time.item())
        time = time + torch.tensor(-0.1)
    assert flow.euler_times(10).tolist() == expected
    assert expected[5] != 0.5


def test_times_are_beta_and_never_zero():
    times = flow.sample_time(20_000, torch.Generator().manual_seed(0))
    assert times.min() >= 0.001 and times.max() <= 1.0
    assert times.mean().item() == pytest.approx(0.001 + 0.999 * 0.6, abs=0.01)  # Beta(1.5, 1) has mean 0.6


def test_time_features_are_sines_then_cosines_from_fast_to_slow():
    features = flow.time_features(torch.tensor([0.0, 0.002]), 8)
    torch.testing.assert_close(features[0], torch.tensor([0.0] * 4 + [1.0] * 4))
    assert features[1, 0].item() == pytest.approx(0.0, abs=1e-5)  # half of the fastest period
    assert features[1, 4].item() == pytest.approx(-1.0, abs=1e-5)
