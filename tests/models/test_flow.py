"""The flow convention: t = 1 is noise, t = 0 is data."""

import pytest
import torch

from pilot.models import flow


def test_the_ends_of_the_path():
    actions, noise = torch.randn(2, 3, 4), torch.randn(2, 3, 4)
    at_data, velocity = flow.interpolate(actions, noise, torch.zeros(2))
    at_noise, _ = flow.interpolate(actions, noise, torch.ones(2))
    assert torch.equal(at_data, actions) and torch.equal(at_noise, noise) and torch.equal(velocity, noise - actions)


def test_each_action_may_have_a_time_of_its_own():
    actions, noise = torch.full((2, 3, 4), 2.0), torch.full((2, 3, 4), 10.0)
    at, _ = flow.interpolate(actions, noise, torch.tensor([[0.0, 0.25, 1.0], [0.5, 0.5, 0.75]]))
    assert at[:, :, 0].tolist() == [[2, 4, 10], [6, 6, 8]] and at.shape == (2, 3, 4)
    at, _ = flow.interpolate(actions, noise, torch.tensor([0.25, 0.75]))
    assert at[:, :, 3].tolist() == [[4] * 3, [8] * 3]


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


def test_the_midpoint_solver_takes_the_velocity_halfway():
    """Of dx/dt = x a step of h leads to 1 − h + h²/2 times the point, which is exact to the second order."""
    noise = torch.ones(1, 1, 1)
    looked = []

    def velocity(x, i):
        looked.append(i)
        return x

    points = flow.integrate(velocity, noise, num_steps=4, solver="midpoint")
    expected = [(1 - 0.25 + 0.25**2 / 2) ** step for step in range(5)]
    torch.testing.assert_close(points.flatten(), torch.tensor(expected))
    assert looked == list(range(8))
    times = flow.solver_times(4, "midpoint")
    torch.testing.assert_close(times, torch.tensor([1, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125]))
    torch.testing.assert_close(
        flow.integrate(lambda x, i: x, noise, num_steps=4).flatten(), torch.tensor([0.75**step for step in range(5)])
    )


def test_each_evaluation_is_told_its_number():
    for solver, count in (("euler", 3), ("midpoint", 6)):
        seen = []

        def velocity(x, i, seen=seen):
            seen.append(i)
            return x

        flow.integrate(velocity, torch.zeros(1, 1, 1), num_steps=3, solver=solver)
        assert seen == list(range(count)) and len(flow.solver_times(3, solver)) == count


@pytest.mark.parametrize("s", [0.5, 0.9, 0.999])
def test_times_lie_between_one_minus_s_and_one(s):
    """`s` is a share of the way from noise that is trained: what is nearer to the data is never drawn."""
    times = flow.sample_time(20_000, torch.Generator().manual_seed(0), s=s)
    assert 1 - s <= times.min() < 1 - s + 0.01 and 1 - 1e-3 < times.max() <= 1
    below = (times < (1 - s) + s * 0.5).float().mean().item()
    assert below == pytest.approx(0.5**1.5, abs=0.015), "Beta(1.5, 1) has the distribution x^1.5"


def test_given_actions_have_time_zero_and_all_delays_come():
    times = flow.zero_given_times(torch.full((4000,), 0.7), 5, max_delay=3, generator=torch.Generator().manual_seed(0))
    delays = (times == 0).sum(dim=1)
    assert delays.unique().tolist() == [0, 1, 2, 3]
    counts = torch.bincount(delays).float() / 4000
    torch.testing.assert_close(counts, torch.full((4,), 0.25), atol=0.03, rtol=0)
    for row, delay in zip(times[:50], delays[:50], strict=True):
        assert row.tolist() == pytest.approx([0.0] * int(delay) + [0.7] * (5 - int(delay)))


def test_times_are_beta_and_never_zero():
    times = flow.sample_time(20_000, torch.Generator().manual_seed(0))
    assert times.min() >= 0.001 and times.max() <= 1.0
    assert times.mean().item() == pytest.approx(0.001 + 0.999 * 0.6, abs=0.01)  # Beta(1.5, 1) has mean 0.6


def test_time_features_are_sines_then_cosines_from_fast_to_slow():
    features = flow.time_features(torch.tensor([0.0, 0.002]), 8)
    torch.testing.assert_close(features[0], torch.tensor([0.0] * 4 + [1.0] * 4))
    assert features[1, 0].item() == pytest.approx(0.0, abs=1e-5)  # half of the fastest period
    assert features[1, 4].item() == pytest.approx(-1.0, abs=1e-5)


def test_periods_of_time_features_are_geometric():
    """From 4 ms to 4 s; the last of them turns by π/2 from noise to data."""
    time = torch.tensor([[0.25, 0.5, 1.0], [0.0, 0.125, 0.75]])
    features = flow.time_features(time, 8)
    assert features.shape == (2, 3, 8)
    periods = torch.tensor([4e-3 * 1000 ** (i / 3) for i in range(4)], dtype=torch.float64)
    angles = 2 * torch.pi * time[..., None].double() / periods
    torch.testing.assert_close(features[..., :4].double(), angles.sin(), atol=5e-4, rtol=0)
    torch.testing.assert_close(features[..., 4:].double(), angles.cos(), atol=5e-4, rtol=0)
    two = flow.time_features(torch.tensor([0.001]), 2)
    torch.testing.assert_close(two, torch.tensor([[1.0, 0.0]]), atol=1e-5, rtol=0)
    other = flow.time_features(torch.tensor([1.0]), 4, min_period=2.0, max_period=8.0)
    torch.testing.assert_close(other, torch.tensor([[0.0, 0.5**0.5, -1.0, 0.5**0.5]]), atol=1e-5, rtol=0)
    for width in (3, 9):
        with pytest.raises(ValueError, match=f"an even width, got {width}"):
            flow.time_features(torch.zeros(2), width)


def test_frequencies_are_kept_on_devices_that_a_copy_would_hold_up():
    flow._kept_frequencies.cache_clear()
    for _ in range(3):
        assert flow.time_features(torch.zeros(2, device="meta"), 8).shape == (2, 8)
    assert flow._kept_frequencies.cache_info()[:2] == (2, 1)
    flow.time_features(torch.zeros(2), 8)
    flow.time_features(torch.nn.Parameter(torch.zeros(2, device="meta")), 8)  # a subclass, as a tracer's tensor is
    flow.time_features(torch.nn.Parameter(torch.zeros(2)), 8)
    assert flow._kept_frequencies.cache_info()[:2] == (2, 1)


def test_one_step_looks_once(no_shape_checks):
    assert flow.euler_times(1).tolist() == [1.0] and flow.solver_times(1, "midpoint").tolist() == [1.0, 0.5]
    with pytest.raises(ValueError, match="no solver 'heun'"):
        flow.solver_times(4, "heun")


def test_no_action_is_given_where_there_is_no_delay():
    times = flow.zero_given_times(torch.full((50,), 0.7), 4, max_delay=0, generator=torch.Generator().manual_seed(0))
    assert times.shape == (50, 4) and (times == 0.7).all()
