"""Real-time chunking against closed forms, finite differences and an independent sampler in the paper's time."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from infer.weights import model
from pilot.data.layout import Batch, Kind, Observation
from pilot.data.pipeline import Pipeline
from pilot.infer.engine.choose import engine_for
from pilot.infer.engine.fast import FastEngine
from pilot.infer.engine.plain import PlainEngine
from pilot.infer.rtc import (
    Leftover,
    Previous,
    Rtc,
    denoise,
    encode_leftover,
    guidance_weight,
    guide_velocity,
    prefix_weights,
    read_previous,
)
from pilot.models import flow
from pilot.models.pi import Pi, pi0, pi0_small, pi05
from pilot.tokenizers.text import TextTokenizer
from pilot.types import NormStats, Robot, make_bool_mask

CLOSE = {"atol": 1e-5, "rtol": 1e-5}
HORIZON, DIMS = 6, 8
CONFIGS = {
    "pi0": pi0("debug", rtc_max_delay=4),
    "pi05": pi05("debug", rtc_max_delay=4),
    "pi05-state-token": pi05("debug", state_input="token", rtc_max_delay=4),
    "pi0-small": pi0_small("debug", rtc_max_delay=4),
}

# --- the vector-Jacobian product -------------------------------------------------------------------------------------

Guide = Callable[..., flow.Velocity]


def curved(x: Tensor, i: int) -> Tensor:
    """A velocity in which every element depends on every other, and not linearly."""
    generator = torch.Generator().manual_seed(0)
    n = x[0].numel()
    into, out = (torch.randn(n, n, generator=generator, dtype=x.dtype) / n**0.5 for _ in range(2))
    return (torch.tanh(x.flatten(1) @ into) @ out).view_as(x) + 0.3 * x


def identity_guide(velocity, target, weights, *, times: Sequence[float], max_guidance: float):
    """A public mistake: the velocity is taken before the gradient is asked for, and its Jacobian drops out."""

    def steered(x_t: Tensor, i: int) -> Tensor:
        v_t = velocity(x_t, i)
        error = weights * (target - (x_t - times[i] * v_t))
        return v_t - guidance_weight(times[i], max_guidance=max_guidance) * error

    return steered


def squared_guide(velocity, target, weights, *, times: Sequence[float], max_guidance: float):
    """Another: `r²` squared once more."""
    paper = guide_velocity(velocity, target, weights, times=times, max_guidance=1.0)

    def steered(x_t: Tensor, i: int) -> Tensor:
        t, v_t = times[i], velocity(x_t, i)
        r2 = t**2 / ((1 - t) ** 2 + t**2)
        pull = v_t - paper(x_t, i)
        return v_t - min(max_guidance, t / ((1 - t) * r2**2)) * pull

    return steered


def check_against_finite_differences(guide: Guide) -> None:
    """The pull is minus the gradient of `½·Σ weights·(target − x_0(x))²`, differentiated numerically."""
    generator = torch.Generator().manual_seed(1)
    x, target = (torch.randn(1, 4, 3, generator=generator, dtype=torch.float64) for _ in range(2))
    weights = torch.rand(1, 4, 3, generator=generator, dtype=torch.float64)
    t = 0.4

    def energy(x: Tensor) -> Tensor:
        return 0.5 * (weights * (target - (x - t * curved(x, 0))).square()).sum()

    steps = 1e-5 * torch.eye(x.numel(), dtype=x.dtype).view(-1, *x.shape)
    gradient = torch.stack([(energy(x + e) - energy(x - e)) / 2e-5 for e in steps]).view_as(x)
    wanted = curved(x, 0) + (0.4**2 + 0.6**2) / (0.4 * 0.6) * gradient
    ours = guide(curved, target, weights, times=[t], max_guidance=5.0)(x, 0)
    torch.testing.assert_close(ours, wanted, atol=1e-7, rtol=1e-7)


def test_the_pull_goes_through_the_network():
    check_against_finite_differences(guide_velocity)


@pytest.mark.parametrize("mistake", [identity_guide, squared_guide])
def test_the_public_mistakes_do_not_pass(mistake):
    with pytest.raises(AssertionError):
        check_against_finite_differences(mistake)


def test_a_linear_velocity_has_a_closed_form():
    """`v = A·x`: `x_0 = (1 − t·A)·x`, and the pull is `(1 − t·A)ᵀ·W·(target − x_0)`."""
    generator = torch.Generator().manual_seed(2)
    matrix = torch.randn(6, 6, generator=generator)
    x, target, weights = (torch.rand(3, 6, 1, generator=generator) for _ in range(3))
    steered = guide_velocity(lambda x, i: matrix @ x, target, weights, times=[0.9, 0.3], max_guidance=100.0)
    for i, t in enumerate((0.9, 0.3)):
        jacobian = torch.eye(6) - t * matrix
        pull = jacobian.T @ (weights * (target - jacobian @ x))
        torch.testing.assert_close(steered(x, i), matrix @ x - (t**2 + (1 - t) ** 2) / (t * (1 - t)) * pull, **CLOSE)


def test_without_guidance_the_velocity_is_the_plain_one():
    x, target = torch.randn(2, 4, 3), torch.randn(2, 4, 3)
    steered = guide_velocity(curved, target, torch.ones(2, 4, 3), times=[0.5], max_guidance=0.0)
    assert torch.equal(steered(x, 0), curved(x, 0))


# --- weights ---------------------------------------------------------------------------------------------------------


def rows(*values: int) -> Tensor:
    return torch.tensor(values)


def test_weights_are_those_of_the_paper():
    linear = prefix_weights(10, delay=rows(2), left=rows(6), schedule="linear")
    w = torch.tensor([[1, 1, 4 / 5, 3 / 5, 2 / 5, 1 / 5, 0, 0, 0, 0]])
    torch.testing.assert_close(linear, w)
    bent = prefix_weights(10, delay=rows(2), left=rows(6))
    torch.testing.assert_close(bent, w * torch.expm1(w) / (math.e - 1))
    hard = prefix_weights(10, delay=rows(2), left=rows(6), schedule="hard")
    assert hard[0].tolist() == [1, 1] + [0] * 8


@pytest.mark.parametrize("schedule", ["linear", "exponential", "hard"])
def test_a_delay_behind_the_end_is_cut_and_nothing_left_weighs_nothing(schedule):
    weights = prefix_weights(6, delay=rows(5, 3, 0), left=rows(3, 0, 6), schedule=schedule)
    assert weights[0].tolist() == [1, 1, 1, 0, 0, 0] and weights[1].tolist() == [0] * 6
    assert weights[2, 0] < 1


def test_the_guidance_weight_is_symmetric_bounded_and_smallest_in_the_middle():
    for t in (0.1, 0.3, 0.45):
        tau = 1 - t
        r2 = (1 - tau) ** 2 / (tau**2 + (1 - tau) ** 2)
        assert guidance_weight(t, max_guidance=99) == pytest.approx((1 - tau) / (tau * r2))
        assert guidance_weight(t, max_guidance=99) == pytest.approx(guidance_weight(1 - t, max_guidance=99))
    assert guidance_weight(0.5, max_guidance=99) == 2
    assert guidance_weight(1.0, max_guidance=5) == guidance_weight(0.0, max_guidance=5) == 5


def in_the_papers_time(matrix: np.ndarray, noise: np.ndarray, old: np.ndarray, *, delay: int, left: int, beta: float):
    """The reference's loop, τ from 0 (noise) to 1, for the velocity `−A·x`; five Euler steps. Numpy, by hand."""
    index = np.arange(len(noise))
    w = np.clip((delay - 1 - index) / (left - delay + 1) + 1, 0, 1)
    w = np.where(index < left, w * np.expm1(w) / (math.e - 1), 0)[:, None]
    x, n = noise, 5
    for step in range(n):
        tau = step / n
        v = -matrix @ x
        x_1 = x + (1 - tau) * v
        pull = (np.eye(len(noise)) - (1 - tau) * matrix).T @ (w * (old - x_1))
        r2 = (1 - tau) ** 2 / (tau**2 + (1 - tau) ** 2)
        x = x + (v + min(beta, (1 - tau) / (tau * r2) if tau else np.inf) * pull) / n
    return x


def test_our_direction_of_time_gives_the_papers_chunks():
    rng = np.random.default_rng(0)
    matrix = np.eye(8) + 0.2 * rng.normal(size=(8, 8))
    noise, old = rng.normal(size=(8, 2)), rng.normal(size=(8, 2))
    wanted = in_the_papers_time(matrix, noise, old, delay=2, left=5, beta=5.0)
    weights = prefix_weights(8, delay=rows(2), left=rows(5)).double()[..., None].expand(1, 8, 2)
    steered = guide_velocity(
        lambda x, i: torch.from_numpy(matrix) @ x, torch.from_numpy(old)[None], weights,
        times=flow.solver_times(5, "euler").tolist(), max_guidance=5.0,
    )  # fmt: skip
    ours = flow.integrate(steered, torch.from_numpy(noise)[None], num_steps=5)[-1, 0].numpy()
    np.testing.assert_allclose(ours, wanted, atol=1e-6)
    plain = flow.integrate(lambda x, i: torch.from_numpy(matrix) @ x, torch.from_numpy(noise)[None], num_steps=5)
    assert np.abs(ours - old)[:2].mean() < 0.7 * np.abs(plain[-1, 0].numpy() - old)[:2].mean(), "it does pull"


# --- models ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def models() -> dict[str, Pi]:
    return {name: model(config) for name, config in CONFIGS.items()}


def observation(batch: int = 3) -> Observation:
    """The first row's prompt is longer than the others'."""
    generator = torch.Generator().manual_seed(0)
    kinds = torch.full((batch, 4), int(Kind.PREFIX))
    kinds[1:, 3:] = int(Kind.PAD)
    return Observation(
        images={c: torch.rand(batch, 16, 16, 3, generator=generator) * 2 - 1 for c in ("room", "wrist")},
        image_masks={c: torch.ones(batch, dtype=torch.bool) for c in ("room", "wrist")},
        state=torch.randn(batch, DIMS, generator=generator),
        tokens=torch.randint(4, 1800, kinds.shape, generator=generator), token_kinds=kinds, token_loss=kinds > 1,
    )  # fmt: skip


def leftover() -> Leftover:
    """Three robots: one mid-chunk, one that would do five actions meanwhile and has four, one at its very start."""
    generator = torch.Generator().manual_seed(4)
    left = torch.tensor([5, 4, 0])
    known = (torch.arange(HORIZON) < left[:, None])[..., None] & (torch.arange(DIMS) < 7)
    actions = torch.randn(3, HORIZON, DIMS, generator=generator) * known
    return Leftover(actions=actions, known=known, delay=torch.tensor([2, 5, 3]))


def noise(batch: int = 3) -> Tensor:
    return torch.randn(batch, HORIZON, DIMS, generator=torch.Generator().manual_seed(3))


GIVEN = torch.arange(HORIZON) < torch.tensor([2, 4, 0])[:, None]
MODES = ["guided", "prefix", "trained"]


@pytest.mark.parametrize("solver", ["euler", "midpoint"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", CONFIGS)
def test_the_engine_and_the_plain_model_agree_in_every_mode(models, name, mode, solver):
    pi, obs = models[name], observation()
    chunks = []
    for engine in (engine_for(pi), PlainEngine(pi)):
        prefilled = engine.prefill(obs)
        with torch.inference_mode():  # as policies run
            points = denoise(
                engine, prefilled, obs.state, noise=noise(), leftover=leftover(), rtc=Rtc(mode=mode), num_steps=3,
                solver=solver,
            )  # fmt: skip
        assert points.shape == (4, 3, HORIZON, DIMS) and points.isfinite().all()
        chunks.append(points[-1])
    torch.testing.assert_close(chunks[0], chunks[1], atol=1e-4, rtol=1e-4)
    if mode != "guided":
        assert torch.equal(chunks[0][GIVEN], leftover().actions[GIVEN]), "bit by bit"
    plain = engine.denoise(prefilled, obs.state, noise=noise(), num_steps=3, solver=solver)[-1]
    assert (chunks[1][:2, 5] - plain[:2, 5]).abs().max() > 1e-3, "what follows goes on from what was given"
    torch.testing.assert_close(chunks[1][2], plain[2], **CLOSE, msg="nothing is left: joined to nothing")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", CONFIGS)
def test_padded_dims_end_at_zero_in_every_mode(models, name, mode):
    """Guidance pulls at whatever leads to a chunk, and is kept from them too."""
    pi, obs, padded = models[name], observation(), torch.arange(DIMS)[None] >= 5
    left = leftover()
    left = Leftover(actions=left.actions * ~padded, known=left.known & ~padded, delay=left.delay)
    engine = engine_for(pi)
    chunk = denoise(
        engine, engine.prefill(obs), obs.state, noise=noise(), leftover=left, rtc=Rtc(mode=mode), num_steps=4,
        padded_dims=padded,
    )[-1]  # fmt: skip
    assert chunk[..., 5:].abs().max() < 1e-6 and chunk[..., :5].isfinite().all()
    if mode != "guided":
        assert torch.equal(chunk[GIVEN], left.actions[GIVEN]), "bit by bit"


@pytest.mark.parametrize("name", ["pi0", "pi05"])
def test_guidance_through_a_model_is_its_autograd(models, name):
    pi, obs, left, start = models[name], observation(), leftover(), noise()
    engine = FastEngine(pi)
    prefilled = engine.prefill(obs)
    points = denoise(engine, prefilled, obs.state, noise=start, leftover=left, rtc=Rtc(mode="guided"), num_steps=2)
    context = pi.prefill(obs)
    block = pi.flow_block(context.cache, context.kinds, obs.state, horizon=HORIZON)
    weights = prefix_weights(HORIZON, delay=left.delay, left=left.left)[..., None] * left.known
    x_t = start
    for t, weight in ((1.0, 5.0), (0.5, 2.0)):
        x = x_t.clone().requires_grad_()
        v_t = pi.velocity(block, x, pi.embed_time(torch.tensor([t]), torch.float32))
        x_0 = x - t * v_t
        (pull,) = torch.autograd.grad(x_0, x, (weights * (left.actions - x_0)).detach())
        x_t = (x_t - (v_t - weight * pull) / 2).detach()
    torch.testing.assert_close(points[-1], x_t, atol=1e-4, rtol=1e-4)
    assert all(p.grad is None for p in pi.parameters())


def test_guidance_of_zero_is_plain_sampling(models):
    pi, obs = models["pi05"], observation()
    engine = FastEngine(pi)
    rtc = Rtc(mode="guided", max_guidance=0.0)
    ours = denoise(engine, engine.prefill(obs), obs.state, noise=noise(), leftover=leftover(), rtc=rtc, num_steps=3)
    wanted = pi.denoise(pi.prefill(obs), obs.state, noise=noise(), num_steps=3)
    torch.testing.assert_close(ours, wanted, **CLOSE)


def test_clean_actions_are_shown_only_to_a_model_that_has_learned_them(models):
    """Others see a given action on its straight way from noise."""
    pi, obs, actions = models["pi05"], observation(), leftover().actions
    for mode in ("prefix", "trained"):
        engine, shown = FastEngine(pi), []
        velocity = engine.velocity
        engine.velocity = lambda *a, given, v=velocity, s=shown, **k: s.append(given) or v(*a, given=given, **k)
        options = {"leftover": leftover(), "rtc": Rtc(mode=mode), "num_steps": 4}
        points = denoise(engine, engine.prefill(obs), obs.state, noise=noise(), **options)
        if mode == "trained":
            assert torch.equal(shown[0], GIVEN)
            assert all(torch.equal(point[GIVEN], actions[GIVEN]) for point in points)
        else:
            assert shown == [None]
            for share, point in zip((0, 0.25, 0.5, 0.75, 1), points, strict=True):
                wanted = torch.lerp(noise(), actions, share)
                torch.testing.assert_close(point[GIVEN], wanted[GIVEN], **CLOSE)
        torch.testing.assert_close(points[0][~GIVEN], noise()[~GIVEN])


def test_any_number_of_actions_can_be_given_without_training():
    pi = model(pi05("debug", action_dim=4))
    obs, engine = replace(observation(), state=torch.zeros(3, 4)), FastEngine(pi)
    start = noise()[..., :4]
    full = Leftover(
        actions=torch.ones_like(start), known=torch.ones_like(start, dtype=torch.bool), delay=torch.full((3,), HORIZON)
    )
    points = denoise(engine, engine.prefill(obs), obs.state, noise=start, leftover=full, rtc=Rtc(mode="prefix"))
    assert (points[-1] == 1).all() and len(points) == 11, "ten steps, unless asked otherwise"


def test_only_what_was_learned_can_be_given(models):
    pi, obs = model(pi05("debug")), observation()
    rtc = Rtc(mode="trained")
    with pytest.raises(ValueError, match="rtc_max_delay"):
        engine = FastEngine(pi)
        denoise(engine, engine.prefill(obs), obs.state, noise=noise(), leftover=leftover(), rtc=rtc)
    shorter = model(pi05("debug", rtc_max_delay=1))
    engine = FastEngine(shorter)
    chunk = denoise(engine, engine.prefill(obs), obs.state, noise=noise(), leftover=leftover(), rtc=rtc)[-1]
    same = (chunk == leftover().actions).all(-1)
    assert same.sum(1).tolist() == [1, 1, 0], "of a longer delay, as many as were learned"


@pytest.mark.parametrize(
    ("wrong", "names"),
    [
        ({"mode": "soft"}, "soft"),
        ({"schedule": "cosine"}, "cosine"),
        ({"max_guidance": -1.0}, "-1.0"),
        ({"max_guidance": math.nan}, "nan"),
    ],
)
def test_a_choice_that_there_is_not_is_named(wrong, names, no_shape_checks):
    with pytest.raises(ValueError, match=names):
        Rtc(**({"mode": "guided"} | wrong))


# --- learning it -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CONFIGS)
def test_one_time_for_all_actions_is_one_time_for_each(models, name):
    pi, obs, actions = models[name], observation(), torch.randn(3, HORIZON, DIMS)
    time = torch.tensor([0.2, 0.5, 0.9])
    wanted = pi.loss(obs, actions, noise=noise(), time=time)["flow"]
    ours = pi.loss(obs, actions, noise=noise(), time=time[:, None].expand(3, HORIZON))["flow"]
    torch.testing.assert_close(ours, wanted, **CLOSE)


def flow_terms(pi: Pi, obs: Observation, actions: Tensor, mask: Tensor, **draws: Tensor) -> tuple[Tensor, Tensor]:
    batch = Batch(observation=obs, actions=actions, action_mask=mask, sources=("",) * len(actions))
    return pi.loss_terms(batch, draws, losses=frozenset({"flow"}))["flow"]


@pytest.mark.parametrize("name", CONFIGS)
def test_given_actions_are_clean_and_have_no_loss(models, name):
    pi, obs, actions = models[name], observation(), torch.randn(3, HORIZON, DIMS)
    time = torch.tensor([0.2, 0.5, 0.9])[:, None] * ~GIVEN
    wanted = pi.loss(obs, actions, noise=noise(), time=time)["flow"]
    other = noise() + 7.0 * GIVEN[..., None]
    assert torch.equal(pi.loss(obs, actions, noise=other, time=time)["flow"], wanted), "their noise is not used"
    moved = pi.loss(obs, actions + GIVEN[..., None], noise=noise(), time=time)["flow"]
    assert (moved != wanted).tolist() == [True, True, False], "they are seen"
    mask = torch.ones(3, HORIZON, DIMS, dtype=torch.bool)
    mask[0, 4:] = False
    _, count = flow_terms(pi, obs, actions, mask, noise=noise()[:, None], time=time[:, None])
    assert count.tolist() == [2 * DIMS, 2 * DIMS, 6 * DIMS]


def test_draws_of_a_row_are_given_delays_of_their_own(models):
    pi, obs, actions = models["pi05"], observation(), torch.randn(3, HORIZON, DIMS)
    mask = torch.ones(3, HORIZON, DIMS, dtype=torch.bool)
    draws = torch.stack((noise(), noise().flip(0)), dim=1)
    time = torch.stack((0.7 * ~GIVEN, 0.3 * torch.ones(3, HORIZON)), dim=1)
    total, count = flow_terms(pi, obs, actions, mask, noise=draws, time=time)
    each = [flow_terms(pi, obs, actions, mask, noise=draws[:, i], time=time[:, i]) for i in range(2)]
    torch.testing.assert_close(total, (each[0][0] + each[1][0]) / 2, **CLOSE)
    torch.testing.assert_close(count, (each[0][1] + each[1][1]) / 2)


def test_delays_are_drawn_evenly_and_keep_the_time_of_what_is_sought():
    time = flow.sample_time(9000, torch.Generator().manual_seed(0)).view(3000, 3)
    each = flow.zero_given_times(time, HORIZON, max_delay=2, generator=torch.Generator().manual_seed(1))
    given = (each == 0).sum(-1)
    assert torch.equal(each[..., -1], time) and each.shape == (3000, 3, HORIZON)
    assert torch.equal(each == 0, torch.arange(HORIZON) < given[..., None]), "the first ones"
    shares = given.flatten().bincount() / 9000
    torch.testing.assert_close(shares, torch.full((3,), 1 / 3), atol=0.02, rtol=0)
    with pytest.raises(ValueError, match="below the action_horizon of 6, got 6"):
        pi05("debug", rtc_max_delay=HORIZON)


# --- from the robot --------------------------------------------------------------------------------------------------

ARM = Robot(
    name="arm", cameras=("room",), state_names=("x", "y", "z"), action_names=("x", "y", "close"),
    delta_mask=make_bool_mask(2, -1), control_hz=10,
)  # fmt: skip


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    stats = NormStats(mean=np.zeros(3), std=np.ones(3), q01=np.array([-2.0, -1, 0]), q99=np.array([2.0, 3, 1]))
    return Pipeline(ARM, pi05("debug"), norm_stats={"state": stats, "actions": stats}, text=TextTokenizer())


def test_what_is_left_is_said_relative_to_where_the_robot_is_now(pipeline):
    """The same commands, whatever the state: only so is the new chunk joined to what the robot does."""
    commands = np.array([[0.5, 0.2, 0.0], [0.6, 0.4, 1.0], [0.7, 0.6, 1.0]], np.float32)
    states = [np.array([0.0, 0.0, 0.0], np.float32), np.array([0.4, -0.3, 0.9], np.float32)]
    previous = [Previous(actions=commands, delay=1), Previous(actions=commands, delay=2), None]
    left = encode_leftover([pipeline] * len(previous), previous, [*states, states[0]])
    assert left.left.tolist() == [3, 3, 0] and left.delay.tolist() == [1, 2, 0]
    assert left.known[0, :3, :3].all() and left.known.sum() == 18, "neither the model's other dims nor later steps"
    for row, state in enumerate(states):
        back = pipeline.decode_actions(left.actions[row].numpy(), state)[:3]
        np.testing.assert_allclose(back, commands, atol=1e-5)
    moved = (left.actions[0, :3] - left.actions[1, :3]).abs().amax(0)
    assert moved[0] > 0.1 and moved[1] > 0.1 and moved[2] == 0, "the gripper is absolute"


def test_of_what_is_left_every_second_action_is_said_where_the_model_says_every_second(pipeline):
    two = Pipeline(
        ARM, pi05("debug", action_stride=2), norm_stats=pipeline.norm_stats, text=TextTokenizer()
    )  # fmt: skip
    commands = np.linspace((0.1, 0.2, 0.0), (0.7, 0.8, 1.0), 7).astype(np.float32)
    state = np.array([0.2, -0.3, 0.9], np.float32)
    left = encode_leftover([two], [Previous(actions=commands, delay=5)], [state])
    assert left.left.tolist() == [4] and left.delay.tolist() == [3], "the first, the third and the fifth step"
    back = two.decode_actions(left.actions[0].numpy(), state)
    np.testing.assert_allclose(back[:7], commands, atol=1e-5)


def test_each_robot_has_a_state_and_something_left_or_nothing(pipeline):
    none = read_previous({"actions": np.zeros((0, 3)), "delay": 0}, ARM)
    assert none.delay == 0
    with pytest.raises(ValueError, match="argument"):
        encode_leftover([pipeline], [none, none], [np.zeros(3, np.float32)])


def test_a_delay_beyond_all_that_is_left_is_cut_and_takes_no_others_with_it(pipeline):
    """No tensor holds such a number, and a batch has one tensor for all of its robots."""
    previous = [read_previous({"actions": np.zeros((2, 3)), "delay": delay}, ARM) for delay in (2**63, 1)]
    left = encode_leftover([pipeline] * 2, previous, [np.zeros(3, np.float32)] * 2)
    assert left.delay.tolist() == [2, 1]


def test_what_is_left_of_a_longer_chunk_is_cut(pipeline):
    previous = read_previous({"actions": np.zeros((9, 3)).tolist(), "delay": np.int64(8)}, ARM)
    assert previous.actions.dtype == np.float32
    left = encode_leftover([pipeline], [previous], [np.zeros(3, np.float32)])
    assert left.left.tolist() == [HORIZON] and left.mark_given(4).sum() == 4
    assert read_previous(None, ARM) is None


@pytest.mark.parametrize(
    ("value", "names"),
    [
        (7, "'actions' and 'delay', got"),
        ({"actions": [[0, 0, 0]]}, r"got \['actions'\]"),
        ({"actions": np.zeros((2, 4)), "delay": 0}, r"\[n 3\] of robot 'arm'.* got float64 \[2, 4\]"),
        ({"actions": np.full((2, 3), np.nan), "delay": 0}, "finite"),
        ({"actions": [["a", "b", "c"]], "delay": 0}, "got <U1"),
        ({"actions": np.zeros((2, 3)), "delay": -1}, "got -1"),
        ({"actions": np.zeros((2, 3)), "delay": 1.5}, "got 1.5"),
    ],
)
def test_what_nobody_can_go_on_from_is_refused_by_name(value, names):
    with pytest.raises(ValueError, match=names):
        read_previous(value, ARM)
