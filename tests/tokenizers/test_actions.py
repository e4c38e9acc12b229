"""Action tokenizers: FAST against the reference's numbers, and the properties that all of them share."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from pilot.tokenizers import ACTION_TOKENIZERS, fit_action_tokenizer, load_action_tokenizer
from pilot.tokenizers.base import ActionTokenizer, mirror_into_vocab
from pilot.tokenizers.bins import BinsTokenizer
from pilot.tokenizers.fast import FastTokenizer
from pilot.tokenizers.report import report
from pilot.tokenizers.vq import VqTokenizer

GOLDEN = Path(__file__).parents[1] / "data_golden"
CASES = json.loads((GOLDEN / "tokenizers.json").read_text())["fast"]
ARRAYS = load_file(GOLDEN / "tokenizers.safetensors")
ALL = [kind for _, kind in ACTION_TOKENIZERS.values()]


def smooth_chunks(n, *, seed=0, t=16, d=3):
    walk = np.cumsum(np.random.default_rng(seed).normal(0, 0.15, (n, t, d)), axis=1)
    return np.clip(walk - walk.mean(axis=1, keepdims=True), -1, 1)


def fit(kind, chunks, **options):
    """A codebook learns little in 20 steps, and its promises hold all the same."""
    return kind.fit(chunks, **options, **({"steps": 20} if kind is VqTokenizer else {}))


@pytest.fixture(scope="module")
def published():
    return FastTokenizer.load(GOLDEN / "fast_bpe")


@pytest.fixture(scope="module")
def wide():
    """A tokenizer of so many symbols that most take two bytes or three."""
    return FastTokenizer.fit(smooth_chunks(200) * 60, vocab_size=2048)


@pytest.fixture(scope="module")
def fitted():
    """One of each kind, fitted to the same chunks `[16 3]`."""
    chunks = smooth_chunks(100)
    return {kind: fit(kind, chunks, vocab_size=256) for kind in ALL}


def test_fast_writes_the_reference_tokens(published):
    with pytest.warns(UserWarning, match="1 symbols .* are dropped"):
        assert published.encode_batch(ARRAYS["fast/actions"]) == CASES["tokens"]


@pytest.mark.parametrize("case", range(6))
def test_fast_reads_the_reference_tokens(published, case):
    decoded = published.decode(CASES["tokens"][case], 10, 7)
    np.testing.assert_allclose(decoded.actions, ARRAYS["fast/decoded"][case], atol=1e-12)


@pytest.mark.parametrize(
    ("ids", "horizon", "position"),
    [
        (CASES["tokens"][6], 10, len(CASES["tokens"][6])),  # the reference dropped a symbol without a word
        (CASES["bad_tokens"][0], 10, len(CASES["bad_tokens"][0])),
        (CASES["bad_tokens"][1], 10, 0),
        (CASES["tokens"][0], 9, len(CASES["tokens"][0]) - 1),
    ],
    ids=["lost a symbol", "cut short", "empty", "a step too many"],
)
def test_fast_says_what_is_wrong_and_where_the_reference_gave_zeros(published, ids, horizon, position):
    decoded = published.decode(ids, horizon, 7)
    assert not decoded.ok and decoded.actions is None
    assert f"needs {horizon * 7}" in decoded.error and decoded.position <= position


def test_fast_reads_bytes_as_its_bpe_does(wide, published):
    """Each token's bytes are known here, so that a broken character has a position."""
    rng = np.random.default_rng(0)
    for tokenizer in (wide, published):
        for _ in range(500):
            ids = rng.integers(0, tokenizer.vocab_size, rng.integers(1, 8)).tolist()
            theirs = tokenizer.bpe.decode(ids)
            text, pending, wrong = tokenizer._read(ids, 1000, 1)
            assert ("\ufffd" in theirs) == bool(pending or wrong)
            assert "\ufffd" in theirs or text == theirs


def test_half_a_character_is_an_error(wide):
    lead, whole = wide.bpe.token_to_id("Ä"), wide.encode(smooth_chunks(1)[0] * 60)
    broken = wide.decode([*whole[:3], lead, lead, *whole[3:]], 16, 3)
    assert "whole characters" in broken.error and broken.position in (3, 4)
    cut = wide.decode([lead], 1, 1)
    assert not cut.ok and cut.position == 1


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("shape", [(1, 1, 1), (5, 1, 4), (40, 50, 14)])
def test_shapes(kind, shape):
    chunks = smooth_chunks(shape[0], t=shape[1], d=shape[2])
    tokenizer = fit(kind, chunks, vocab_size=512)
    decoded = [tokenizer.decode(ids, shape[1], shape[2]) for ids in tokenizer.encode_batch(chunks)]
    assert all(d.ok and d.actions.shape == shape[1:] for d in decoded)


@pytest.mark.parametrize(("kind", "rms"), [(FastTokenizer, 0.03), (BinsTokenizer, 0.03), (VqTokenizer, 0.15)])
def test_unseen_chunks_come_back_close(kind, rms):
    tokenizer = fit(kind, smooth_chunks(500), vocab_size=256)
    result = report(tokenizer, smooth_chunks(200, seed=1), budget=48)
    assert result.share_undecodable == 0 and (result.rms_error < rms).all(), result


def test_fast_compresses_and_bins_do_not():
    chunks = smooth_chunks(500)
    assert report(FastTokenizer.fit(chunks, vocab_size=1024), chunks).compression > 2
    assert report(BinsTokenizer.fit(chunks), chunks, budget=47).share_over_budget == 1


def test_a_finer_scale_costs_tokens_and_buys_accuracy():
    chunks = smooth_chunks(300)
    coarse, fine = (report(FastTokenizer.fit(chunks, vocab_size=1024, scale=s), chunks) for s in (5.0, 40.0))
    assert coarse.tokens_mean < fine.tokens_mean and (fine.rms_error < coarse.rms_error / 4).all()


def test_low_frequencies_come_first():
    chunks = smooth_chunks(100)
    tokenizer = FastTokenizer.fit(chunks, vocab_size=512)
    constant = np.tile([[0.5, -0.5, 0.25]], (16, 1))
    text = tokenizer.bpe.decode(tokenizer.encode(constant))
    coefficients = [ord(c) + tokenizer.min_token for c in text]
    assert coefficients == [20, -20, 10] + [0] * 45, "0.5 * sqrt(16) * scale, then silence"


def test_fitted_fast_saturates_instead_of_breaking():
    tokenizer = FastTokenizer.fit(smooth_chunks(200), vocab_size=512)
    wild = np.full((16, 3), 25.0)
    decoded = tokenizer.decode(tokenizer.encode(wild), 16, 3)
    assert decoded.ok and 0 < decoded.actions.max() < 25


@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_actions_however_far_out_take_the_last_symbol_of_their_side(sign):
    """Whole numbers of 64 bits would wrap around."""
    chunks, jump = smooth_chunks(64), np.zeros((16, 3))
    jump[0] = sign
    for tokenizer in (FastTokenizer.fit(chunks), BinsTokenizer.fit(chunks)):
        assert tokenizer.encode(1e6 * jump) == tokenizer.encode(1e20 * jump)


@pytest.mark.parametrize("kind", ALL)
def test_saved_and_loaded_is_the_same(kind, tmp_path):
    tokenizer = fit(kind, smooth_chunks(100), vocab_size=256)
    tokenizer.save(tmp_path / "tokenizer")
    tokenizer.save(tmp_path / "tokenizer")
    loaded = load_action_tokenizer(tmp_path / "tokenizer")
    chunks = smooth_chunks(20, seed=2) * 3
    ids = tokenizer.encode_batch(chunks)
    assert type(loaded) is kind and loaded.encode_batch(chunks) == ids and loaded.vocab_size == tokenizer.vocab_size
    np.testing.assert_array_equal(loaded.decode(ids[0], 16, 3).actions, tokenizer.decode(ids[0], 16, 3).actions)


@pytest.mark.parametrize("kind", ALL)
def test_fitting_is_deterministic(kind):
    first, second = (fit(kind, smooth_chunks(100), vocab_size=256) for _ in range(2))
    assert first.encode_batch(smooth_chunks(20, seed=3)) == second.encode_batch(smooth_chunks(20, seed=3))


@pytest.mark.parametrize("kind", ALL)
def test_malformed_sequences_say_so_and_where(fitted, kind):
    tokenizer = fitted[kind]
    good = tokenizer.encode(smooth_chunks(1, seed=5)[0])
    cases = {
        "below": ([*good[:2], -1, *good[3:]], 2),
        "beyond": ([*good[:1], tokenizer.vocab_size, *good[2:]], 1),
        "too short": (good[:-1], len(good) - 1),
        "too long": ([*good, good[-1]], len(good)),
        "empty": ([], 0),
    }
    for name, (ids, position) in cases.items():
        decoded = tokenizer.decode(ids, 16, 3)
        assert (decoded.ok, decoded.actions, decoded.position) == (False, None, position), name
        assert decoded.error


@pytest.mark.parametrize("kind", ALL)
def test_what_is_encoded_is_allowed_step_by_step(fitted, kind):
    tokenizer = fitted[kind]
    for ids in tokenizer.encode_batch(smooth_chunks(20, seed=6)):
        assert all(tokenizer.allowed(ids[:n], 16, 3)[following] for n, following in enumerate(ids))
        assert not tokenizer.allowed(ids, 16, 3).any(), "a whole chunk has an end"


@pytest.mark.parametrize("kind", ALL)
def test_whatever_is_allowed_decodes(fitted, kind, wide):
    rng = np.random.default_rng(7)
    tokenizers = [fitted[kind], *([wide] if kind is FastTokenizer else [])]
    for tokenizer in tokenizers:
        for _ in range(20):
            ids: list[int] = []
            while (mask := tokenizer.allowed(ids, 16, 3)).any():
                ids.append(int(rng.choice(np.flatnonzero(mask))))
            assert tokenizer.decode(ids, 16, 3).ok


def test_nothing_follows_a_sequence_that_is_malformed_already(wide):
    lead = wide.bpe.token_to_id("Ä")
    with pytest.raises(ValueError, match="nothing may follow token 1"):
        wide.allowed([lead, lead], 16, 3)


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("chunks", [np.zeros((0, 16, 3)), np.full((2, 16, 3), np.nan)])
def test_bad_chunks_are_errors(kind, chunks):
    with pytest.raises(ValueError, match=r"non-empty|NaN"):
        kind.fit(chunks)
    with pytest.raises(ValueError, match=r"non-empty|NaN"):
        fit(kind, smooth_chunks(10)).encode_batch(chunks)


def test_a_vocabulary_too_small_is_an_error():
    with pytest.raises(ValueError, match="vocab_size 16 is too small"):
        FastTokenizer.fit(smooth_chunks(50), vocab_size=16)


def test_actions_that_were_never_normalised_are_an_error(published):
    with pytest.raises(ValueError, match="normalise"):
        FastTokenizer.fit(smooth_chunks(10) * 1e6)
    with pytest.raises(ValueError, match="normalise"):
        published.encode(np.full((10, 7), 1e6))


def test_a_robot_of_other_dims_is_an_error():
    tokenizer = BinsTokenizer.fit(smooth_chunks(50))
    with pytest.raises(ValueError, match="2 action dims"):
        tokenizer.encode(np.zeros((16, 2)))
    assert "fitted to 3" in tokenizer.decode([0] * 32, 16, 2).error


def test_kinds_are_the_interface_and_an_unknown_one_is_named():
    assert all(isinstance(fit_action_tokenizer(kind, smooth_chunks(10)), ActionTokenizer) for kind in ("fast", "bins"))
    with pytest.raises(ValueError, match=r"'vqvae'; did you mean 'vq'\? known: fast, vq, bins"):
        fit_action_tokenizer("vqvae", smooth_chunks(10))


def test_the_report_is_for_people():
    chunks = smooth_chunks(50)
    text = str(report(BinsTokenizer.fit(chunks), chunks, budget=47, names=("x", "y", "grip")))
    assert "48.0 tokens each" in text and "over the token budget: 100.00%" in text and "  grip  rms error 0.0" in text
    assert "budget" not in str(report(BinsTokenizer.fit(chunks), chunks))


def test_a_dim_that_never_moves_still_decodes():
    chunks = smooth_chunks(50)
    chunks[..., 1] = 0.7
    tokenizer = BinsTokenizer.fit(chunks)
    np.testing.assert_allclose(tokenizer.decode(tokenizer.encode(chunks[0]), 16, 3).actions[:, 1], 0.7, atol=0.01)


def test_half_a_folder_is_no_tokenizer(tmp_path):
    FastTokenizer.fit(smooth_chunks(50), vocab_size=256).save(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(ValueError, match=r"tokenizer\.json is damaged"):
        load_action_tokenizer(tmp_path)
    (tmp_path / "processor_config.json").write_text("{}")
    with pytest.raises(ValueError, match="needs scale"):
        load_action_tokenizer(tmp_path)
    (tmp_path / "processor_config.json").unlink()
    with pytest.raises(FileNotFoundError, match="no action tokenizer"):
        load_action_tokenizer(tmp_path)


def test_ids_sit_at_the_top_of_the_vocabulary_and_come_back():
    golden = ARRAYS["fast/act_to_pg"]
    ids = mirror_into_vocab(golden, 257152, offset=128)
    np.testing.assert_array_equal(mirror_into_vocab(ids, 257152, offset=128), golden)
    assert mirror_into_vocab(np.array([0]), 257152, offset=128).tolist() == [257023]
