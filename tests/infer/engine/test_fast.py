"""The engine says and does what the plain model says and does, for every member of the family and any mix of rows."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from infer.weights import model
from pilot.data.layout import Kind, Observation
from pilot.infer.engine.choose import engine_for
from pilot.infer.engine.fast import MAX_PLANS, FastEngine
from pilot.infer.engine.plain import PlainEngine
from pilot.models.pi import Pi, PiConfig, pi0, pi0_fast, pi05
from pilot.nn.configs import GemmaConfig, LoraConfig
from pilot.nn.lora import adapted_layers, adapter_scales, inject_adapters, merge_adapters

EOS = 1
CLOSE = {"atol": 1e-5, "rtol": 1e-5}
WHOLE = [1] * 6
RAGGED = [[1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0], [1, 1, 0, 0, 0, 0]]
MIXED = [[1, 1, 1, 2, 2, 2], [1, 1, 2, 0, 0, 0], [1, 1, 1, 1, 0, 0]]
SOME = {"room": [True, False, True], "wrist": [True, True, False], "side": [False, True, False]}
BATCHES = {"whole": ([WHOLE] * 3, {}), "ragged": (RAGGED, SOME), "some told": (MIXED, SOME)}


def observation(
    config: PiConfig, kinds: list[list[int]], *, masks: dict[str, list[bool]] | None = None, seed: int = 0
) -> Observation:
    """Three cameras, the second with smaller pictures than the others."""
    generator = torch.Generator().manual_seed(seed)
    batch, size = len(kinds), config.vision.image_size
    sizes = {"room": size, "wrist": size // 2, "side": size}
    token_kinds = torch.tensor(kinds)
    return Observation(
        images={c: torch.rand(batch, s, s, 3, generator=generator) * 2 - 1 for c, s in sizes.items()},
        image_masks={c: torch.tensor((masks or {}).get(c, [True] * batch)) for c in sizes},
        state=torch.randn(batch, config.action_dim, generator=generator),
        tokens=torch.randint(4, config.vocab_size, token_kinds.shape, generator=generator),
        token_kinds=token_kinds,
        token_loss=token_kinds >= Kind.TEXT,
    )


def noise(config: PiConfig, batch: int) -> Tensor:
    return torch.randn(batch, config.action_horizon, config.action_dim, generator=torch.Generator().manual_seed(3))


def both(config: PiConfig) -> tuple[FastEngine, PlainEngine]:
    pi = model(config)
    return FastEngine(pi), PlainEngine(pi)


GROUPED = replace(
    pi05("debug"),
    vlm=GemmaConfig(width=32, depth=2, mlp_dim=64, num_heads=4, num_kv_heads=2, head_dim=8),
    action_expert=GemmaConfig(width=24, depth=2, mlp_dim=48, num_heads=6, num_kv_heads=2, head_dim=8, cond_width=24),
)
ACTING = {
    "pi0": pi0("debug"),
    "pi05": pi05("debug"),
    "pi05-nano": pi05("nano"),
    "pi05-state-token": pi05("debug", state_input="token"),
    "pi05-state-twice": pi05("debug", state_input="both"),
    "grouped-heads": GROUPED,
}


@pytest.mark.parametrize("config", ACTING.values(), ids=ACTING)
@pytest.mark.parametrize(("kinds", "masks"), BATCHES.values(), ids=BATCHES)
def test_actions_are_those_of_the_model(config, kinds, masks):
    engine, plain = both(config)
    obs, start = observation(config, kinds, masks=masks), noise(config, 3)
    ours = engine.denoise(engine.prefill(obs), obs.state, noise=start, num_steps=2)
    torch.testing.assert_close(ours, plain.denoise(plain.prefill(obs), obs.state, noise=start, num_steps=2), **CLOSE)


def padded_dims(config: PiConfig) -> Tensor:
    """Rows of robots with 3, 8 (all) and 5 dims."""
    return torch.arange(config.action_dim) >= torch.tensor([[3], [config.action_dim], [5]])


def test_padded_dims_end_at_zero_and_others_see_it():
    config = ACTING["pi05"]
    engine, plain = both(config)
    obs, start, padded = observation(config, [WHOLE] * 3), noise(config, 3), padded_dims(config)
    ours = engine.denoise(engine.prefill(obs), obs.state, noise=start, num_steps=3, padded_dims=padded)
    wanted = plain.denoise(plain.prefill(obs), obs.state, noise=start, num_steps=3, padded_dims=padded)
    torch.testing.assert_close(ours, wanted, **CLOSE)
    torch.testing.assert_close(
        engine.sample_actions(obs, noise=start, num_steps=3, padded_dims=padded), ours[-1], **CLOSE
    )
    where = padded[:, None].expand_as(start)
    assert ours[-1][where].abs().max() < 1e-6
    free = plain.denoise(plain.prefill(obs), obs.state, noise=start, num_steps=3)[-1]
    own = (ours[-1] - free).abs().masked_fill(where, 0).amax((1, 2))
    assert (own > 1e-4).tolist() == [True, False, True], "what stands beside them is another chunk"


@pytest.mark.parametrize("config", [pi0("debug"), pi05("debug")], ids=["pi0", "pi05"])
def test_one_row_needs_no_mask_and_gets_the_same_actions(config, monkeypatch):
    """Padding and absent cameras leave before the backbone: a batch of one sees all that is in its cache."""
    engine, plain = both(config)
    obs = observation(config, [[1, 1, 0, 0, 0, 0]], masks={"side": [False]})
    wanted = plain.denoise(plain.prefill(obs), obs.state, noise=noise(config, 1))
    prefilled = engine.prefill(obs)
    patches = config.vision.grid**2 + (config.vision.grid // 2) ** 2
    assert prefilled.length == patches + 2 and not prefilled.ragged
    torch.testing.assert_close(engine.denoise(prefilled, obs.state, noise=noise(config, 1)), wanted, **CLOSE)


@pytest.mark.parametrize("solver", ["euler", "midpoint"])
def test_steps_and_solver_are_chosen_per_call(solver, no_shape_checks):
    config = pi0("debug")
    engine, plain = both(config)
    obs, start = observation(config, [WHOLE]), noise(config, 1)
    prefilled, context = engine.prefill(obs), plain.prefill(obs)
    for steps in (1, 4, 2):
        ours = engine.denoise(prefilled, obs.state, noise=start, num_steps=steps, solver=solver)
        assert len(ours) == steps + 1
        wanted = plain.denoise(context, obs.state, noise=start, num_steps=steps, solver=solver)
        torch.testing.assert_close(ours, wanted, **CLOSE)
    with pytest.raises(ValueError, match="no solver 'rk4'"):
        engine.denoise(prefilled, obs.state, noise=start, solver="rk4")
    with pytest.raises(ValueError, match="at least 1, got 0"):
        engine.denoise(prefilled, obs.state, noise=start, num_steps=0)


@pytest.mark.parametrize("config", [pi0_fast("debug"), GROUPED], ids=["pi0-fast", "grouped-heads"])
@pytest.mark.parametrize(("kinds", "masks"), BATCHES.values(), ids=BATCHES)
def test_words_are_those_of_the_model(config, kinds, masks):
    engine, plain = both(config)
    obs = observation(config, kinds, masks=masks)
    prefilled, context = engine.prefill(obs, max_new_tokens=4), plain.prefill(obs, max_new_tokens=4)
    last = obs.token_kinds.count_nonzero(1) - 1
    torch.testing.assert_close(prefilled.hidden, context.prefix.hidden[torch.arange(3), last], **CLOSE)
    ours, prefilled = engine.generate(prefilled, eos=EOS, max_new_tokens=4)
    wanted, context = plain.generate(context, eos=EOS, max_new_tokens=4)
    assert torch.equal(ours, wanted)
    torch.testing.assert_close(prefilled.hidden, context.prefix.hidden[:, 0], **CLOSE)


def ending(engine: FastEngine, obs: Observation) -> int:
    """A token that one row says early: taken for `eos`, rows end at different times."""
    generated, _ = engine.generate(engine.prefill(obs, max_new_tokens=6), eos=-1, max_new_tokens=6)
    return int(generated[1, 1])


@pytest.mark.parametrize("config", [pi0("debug"), pi05("debug")], ids=["pi0", "pi05"])
def test_rows_end_one_by_one_and_act_on_what_they_said(config):
    engine, plain = both(config)
    obs, start = observation(config, RAGGED, masks=SOME), noise(config, 3)
    eos = ending(engine, obs)
    ours, prefilled = engine.generate(engine.prefill(obs, max_new_tokens=6), eos=eos, max_new_tokens=6)
    wanted, context = plain.generate(plain.prefill(obs, max_new_tokens=6), eos=eos, max_new_tokens=6)
    assert torch.equal(ours, wanted) and (ours[1, 2:] == 0).all()
    chunk = engine.denoise(prefilled, obs.state, noise=start, num_steps=2)
    wanted = plain.denoise(context, obs.state, noise=start, num_steps=2)
    torch.testing.assert_close(chunk, wanted, **CLOSE)


@pytest.mark.parametrize("config", [pi0("debug"), GROUPED], ids=["pi0", "grouped-heads"])
@pytest.mark.parametrize("of", [FastEngine, PlainEngine])
def test_a_row_goes_on_from_its_last_word_whatever_others_said_since(of, config):
    """Rows that are silent, or have said `eos`, wait: what they say later is what they would have said at once."""
    engine, obs, start = of(model(config)), observation(config, RAGGED, masks=SOME), noise(config, 3)
    at_once, after = engine.generate(engine.prefill(obs, max_new_tokens=4), eos=-1, max_new_tokens=4)
    skip_rows = torch.tensor([True, False, True])
    first, prefilled = engine.generate(
        engine.prefill(obs, max_new_tokens=8), eos=-1, max_new_tokens=4, skip_rows=skip_rows
    )
    second, prefilled = engine.generate(prefilled, eos=-1, max_new_tokens=4, skip_rows=~skip_rows)
    assert torch.equal(torch.where(skip_rows[:, None], second, first), at_once)
    chunk, wanted = (engine.denoise(one, obs.state, noise=start, num_steps=2) for one in (prefilled, after))
    torch.testing.assert_close(chunk, wanted, **CLOSE)


@pytest.mark.parametrize("of", [FastEngine, PlainEngine])
@pytest.mark.parametrize("rows", [1, 3])
def test_nothing_is_heard_where_all_are_silent(of, rows):
    config = pi05("debug")
    engine, obs, start = of(model(config)), observation(config, [WHOLE] * rows), noise(config, rows)
    words = {"eos": EOS, "max_new_tokens": 4, "allowed": NoWords(), "skip_rows": torch.ones(rows, dtype=torch.bool)}
    generated, prefilled = engine.generate(engine.prefill(obs, max_new_tokens=4), **words)
    assert generated.shape == (rows, 0)
    chunk, wanted = (
        engine.denoise(one, obs.state, noise=start, num_steps=2) for one in (prefilled, engine.prefill(obs))
    )
    torch.testing.assert_close(chunk, wanted, **CLOSE)


class NoWords:
    def allowed(self, generated: Sequence[int]):
        raise AssertionError("asked for what nobody says")


@pytest.mark.parametrize("config", [pi0("debug"), pi05("debug")], ids=["pi0", "pi05"])
def test_rows_that_are_silent_stay_as_they_are(config):
    engine, plain = both(config)
    obs, start = observation(config, MIXED, masks=SOME), noise(config, 3)
    skip_rows = torch.tensor([True, False, True])
    ours, prefilled = engine.generate(
        engine.prefill(obs, max_new_tokens=6), eos=EOS, max_new_tokens=6, skip_rows=skip_rows
    )
    wanted, context = plain.generate(
        plain.prefill(obs, max_new_tokens=6), eos=EOS, max_new_tokens=6, skip_rows=skip_rows
    )
    assert torch.equal(ours, wanted) and not ours[skip_rows].any() and ours[1].any()
    chunk = engine.denoise(prefilled, obs.state, noise=start, num_steps=2)
    torch.testing.assert_close(chunk, plain.denoise(context, obs.state, noise=start, num_steps=2), **CLOSE)
    unasked = engine.denoise(engine.prefill(obs), obs.state, noise=start, num_steps=2)
    torch.testing.assert_close(chunk[:, skip_rows], unasked[:, skip_rows], **CLOSE)


def test_everything_said_ends_the_loop():
    engine, _ = both(pi05("debug"))
    obs = observation(engine.config, [WHOLE], masks={})
    generated, _ = engine.generate(engine.prefill(obs, max_new_tokens=6), eos=-1, max_new_tokens=6)
    first = int(generated[0, 0])
    generated, prefilled = engine.generate(engine.prefill(obs, max_new_tokens=6), eos=first, max_new_tokens=6)
    assert generated.tolist() == [[first]] and not prefilled.ragged


def test_fast_tokens_are_kept_from_the_flow_block():
    config = pi05("debug")
    engine, plain = both(config)
    obs, start = observation(config, [[1, 1, 1, 2, 3, 3], [1, 1, 2, 3, 0, 0]]), noise(config, 2)
    wanted = plain.denoise(plain.prefill(obs), obs.state, noise=start, num_steps=2)
    torch.testing.assert_close(
        engine.denoise(engine.prefill(obs), obs.state, noise=start, num_steps=2), wanted, **CLOSE
    )
    _, prefilled = engine.generate(engine.prefill(obs, max_new_tokens=3), eos=-1, max_new_tokens=3, kind=Kind.FAST)
    torch.testing.assert_close(engine.denoise(prefilled, obs.state, noise=start, num_steps=2), wanted, **CLOSE)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_weights_of_another_dtype_are_refused(dtype):
    with pytest.raises(ValueError, match=f"float32 or bfloat16, got {dtype}"):
        FastEngine(model(pi05("debug")).to(dtype))


def test_adapters_are_not_left_out_in_silence():
    """Merged they act; beside the weights the engine would not see them, not even those of the time."""
    for targets in (("qkv",), ("time_mlp_in",)):
        pi = model(pi05("debug"))
        inject_adapters(
            pi, LoraConfig(targets=targets), groups={"language": ["vlm"], "expert": ["action_expert", "time_mlp_in"]}
        )
        with pytest.raises(ValueError, match="layers have adapters, which must be merged before acting"):
            engine_for(pi)
        for layer in adapted_layers(pi).values():
            nn.init.normal_(layer.lora_b, std=0.1, generator=torch.Generator().manual_seed(0))
        merged = Pi(pi.config)
        merged.load_state_dict(merge_adapters(pi.state_dict(), adapter_scales(pi)))
        obs, start = observation(pi.config, [WHOLE]), noise(pi.config, 1)
        with torch.no_grad():
            wanted = pi.sample_actions(obs, noise=start, num_steps=2)
        torch.testing.assert_close(FastEngine(merged).sample_actions(obs, noise=start, num_steps=2), wanted, **CLOSE)


@pytest.mark.parametrize("longer", [-2, 9])
def test_chunks_of_another_length(longer):
    config = pi0("debug")
    engine, plain = both(config)
    obs = observation(config, [WHOLE] * 2)
    start = torch.randn(2, config.action_horizon + longer, config.action_dim)
    wanted = plain.denoise(plain.prefill(obs), obs.state, noise=start, num_steps=2)
    torch.testing.assert_close(
        engine.denoise(engine.prefill(obs), obs.state, noise=start, num_steps=2), wanted, **CLOSE
    )


class Counting:
    """A grammar that lets a row count upwards only."""

    def __init__(self, first: int) -> None:
        self.first = first

    def allowed(self, generated: Sequence[int]) -> np.ndarray:
        mask = np.zeros(pi05("debug").vocab_size, bool)
        mask[generated[-1] + 1 if generated else self.first] = True
        return mask


def test_each_row_keeps_to_its_grammar():
    engine, plain = both(pi05("debug"))
    obs, grammars = observation(engine.config, RAGGED[:2]), [Counting(40), Counting(60)]
    ours, _ = engine.generate(engine.prefill(obs, max_new_tokens=4), eos=62, max_new_tokens=4, allowed=grammars)
    wanted, _ = plain.generate(plain.prefill(obs, max_new_tokens=4), eos=62, max_new_tokens=4, allowed=grammars)
    assert ours.tolist() == wanted.tolist() == [[40, 41, 42, 43], [60, 61, 62, 0]]


def test_a_limited_vocabulary_is_kept():
    engine, plain = both(pi05("debug"))
    obs, allowed = observation(engine.config, [WHOLE] * 2), torch.zeros(engine.config.vocab_size, dtype=torch.bool)
    allowed[40:80] = True
    ours, _ = engine.generate(engine.prefill(obs, max_new_tokens=5), eos=EOS, max_new_tokens=5, allowed=allowed)
    wanted, _ = plain.generate(plain.prefill(obs, max_new_tokens=5), eos=EOS, max_new_tokens=5, allowed=allowed)
    assert torch.equal(ours, wanted) and allowed[ours].all()


def test_a_reading_is_acted_on_again_and_again():
    """Other noise, other state: the prefix is not touched."""
    config = pi0("debug")
    engine, plain = both(config)
    obs = observation(config, [WHOLE] * 2)
    prefilled, context = engine.prefill(obs), plain.prefill(obs)
    for seed in range(3):
        start = torch.randn(2, 6, 8, generator=torch.Generator().manual_seed(seed))
        state = obs.state + seed
        wanted = plain.denoise(context, state, noise=start, num_steps=2)
        torch.testing.assert_close(engine.denoise(prefilled, state, noise=start, num_steps=2), wanted, **CLOSE)


def test_many_robots_are_each_robot_alone():
    config = pi0("debug")
    engine, _ = both(config)
    obs, start = observation(config, RAGGED, masks=SOME), noise(config, 3)
    together = engine.sample_actions(obs, noise=start, num_steps=2)
    for row in range(3):
        own = obs.map(lambda x, row=row: x[row : row + 1])
        alone = engine.sample_actions(own, noise=start[row : row + 1], num_steps=2)
        torch.testing.assert_close(alone, together[row : row + 1], **CLOSE)


def test_pixels_of_absent_cameras_change_nothing():
    config = pi05("debug")
    engine, _ = both(config)
    obs, start = observation(config, RAGGED, masks=SOME), noise(config, 3)
    images = {c: x.where(obs.image_masks[c][:, None, None, None], torch.nan) for c, x in obs.images.items()}
    assert torch.equal(
        engine.sample_actions(replace(obs, images=images), noise=start), engine.sample_actions(obs, noise=start)
    )


def test_pictures_of_one_size_take_one_call():
    config = pi05("debug")
    engine, _ = both(config)
    calls = []
    engine.model.vision.register_forward_pre_hook(lambda _, args: calls.append(tuple(args[0].shape[:3])))
    engine.prefill(observation(config, RAGGED, masks=SOME))
    assert calls == [(2 + 1, 16, 16), (2, 8, 8)]


def test_no_cameras_at_all():
    config = pi05("debug")
    engine, plain = both(config)
    blind = {c: [False] for c in ("room", "wrist", "side")}
    obs, start = observation(config, [WHOLE], masks=blind), noise(config, 1)
    wanted = plain.denoise(plain.prefill(obs), obs.state, noise=start)
    torch.testing.assert_close(engine.denoise(engine.prefill(obs), obs.state, noise=start), wanted, **CLOSE)


def test_bf16_stays_near_fp32():
    config = pi05("debug")
    pi = model(config)
    obs, start = observation(config, RAGGED, masks=SOME), noise(config, 3)
    wanted = FastEngine(pi).sample_actions(obs, noise=start)
    ours, plain = FastEngine(pi.bfloat16()).sample_actions(obs, noise=start), pi.sample_actions(obs, noise=start)
    assert ours.dtype == torch.float32
    assert (ours - wanted).abs().mean() <= 1.5 * (plain - wanted).abs().mean() + 1e-3


def test_what_cannot_be_done_is_said():
    engine, _ = both(pi0_fast("debug"))
    obs = observation(engine.config, [WHOLE])
    with pytest.raises(ValueError, match="room for 2: prefill"):
        engine.generate(engine.prefill(obs, max_new_tokens=2), eos=EOS, max_new_tokens=3)
    with pytest.raises(ValueError, match="room for 0"):
        engine.generate(engine.prefill(obs), eos=EOS, max_new_tokens=3)
    with pytest.raises(ValueError, match="no action expert"):
        engine.denoise(engine.prefill(obs), obs.state, noise=torch.zeros(1, 6, 8))


def test_plans_are_few():
    engine, _ = both(pi05("debug"))
    for steps in range(1, MAX_PLANS + 3):
        engine.denoise_plan(steps)
    assert len(engine.plans) == MAX_PLANS and engine.denoise_plan(steps) is engine.denoise_plan(steps)


def test_a_model_gets_the_engine_that_runs_it():
    assert isinstance(engine_for(model(pi05("debug"))), FastEngine)
