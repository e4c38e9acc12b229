"""The learned codebook: short, exact enough, the same every time, and clear about what it is not fitted to."""

import json

import numpy as np
import pytest

from pilot.tokenizers import vq
from pilot.tokenizers.fast import FastTokenizer
from pilot.tokenizers.report import report
from pilot.tokenizers.vq import VqTokenizer


def motions(n, *, seed=0, t=10, d=4):
    """Chunks like a robot's: a few ways of moving, each faster or slower, and a little noise."""
    rng = np.random.default_rng(seed)
    ways = np.random.default_rng(9).normal(0, 0.3, (3, t, d)).cumsum(1)
    return (rng.uniform(-1, 1, (n, 3)) @ ways.reshape(3, -1)).reshape(n, t, d) / 2 + rng.normal(0, 0.01, (n, t, d))


@pytest.fixture(scope="module")
def fitted():
    return VqTokenizer.fit(motions(1500), steps=100)


def test_a_chunk_is_eight_tokens_of_256_codes(fitted):
    ids = fitted.encode_batch(motions(50, seed=1))
    assert {len(i) for i in ids} == {8} and fitted.vocab_size == 256
    assert len({i for row in ids for i in row}) > 100, "one code for everything would be no codebook"


def test_it_is_as_exact_as_fast_with_half_the_tokens(fitted):
    unseen = motions(300, seed=2)
    short, fast = report(fitted, unseen), report(FastTokenizer.fit(motions(1500), vocab_size=256), unseen)
    assert short.tokens_mean <= fast.tokens_mean / 2
    assert np.sqrt((short.rms_error**2).mean()) <= np.sqrt((fast.rms_error**2).mean())


def test_each_token_makes_the_chunk_more_exact():
    chunks, unseen = motions(500), motions(100, seed=3)
    errors = [
        report(VqTokenizer.fit(chunks, vocab_size=32, tokens=q, steps=50), unseen).rms_error.mean() for q in (1, 2, 4)
    ]
    assert errors[2] < errors[1] < errors[0]


def test_the_beam_finds_better_sums_than_the_nearest_codes(fitted, monkeypatch):
    unseen = motions(200, seed=4)
    wide = report(fitted, unseen).rms_error.mean()
    monkeypatch.setattr(vq, "BEAM", 1)
    assert wide < report(fitted, unseen).rms_error.mean()


def test_unused_codes_begin_anew(monkeypatch):
    """Most samples are one point: most codes begin there, and without revival would stay there, unused."""
    chunks = np.concatenate((np.zeros((990, 1, 2)), np.random.default_rng(0).normal(5, 1, (300, 1, 2))))
    used = []
    for dead in (0.0, 0.03):
        monkeypatch.setattr(vq, "DEAD", dead)
        tokenizer = VqTokenizer.fit(chunks, vocab_size=64, tokens=1, steps=250)
        used.append(len({ids[0] for ids in tokenizer.encode_batch(chunks)}))
    assert used[1] > 1.5 * used[0]


def test_the_seed_decides():
    first, again, other = (VqTokenizer.fit(motions(200), tokens=2, seed=s, steps=20).codebooks for s in (0, 0, 1))
    assert np.array_equal(first, again) and not np.array_equal(first, other)


def test_another_shape_is_an_error(fitted):
    with pytest.raises(ValueError, match=r"the chunk is 8 x 4 .* fitted to 10 x 4"):
        fitted.encode(np.zeros((8, 4)))
    assert "fitted to 10 x 4" in fitted.decode([0] * 8, 8, 4).error
    with pytest.raises(ValueError, match="at least 1 token of 2 codes"):
        VqTokenizer.fit(motions(10), tokens=0)


def test_damaged_folders_are_named(fitted, tmp_path):
    fitted.save(tmp_path)
    config = json.loads((tmp_path / vq.CONFIG_FILE).read_text())
    for change in ({"codes": 128}, {"horizon": "ten"}, {"dim": None}):
        (tmp_path / vq.CONFIG_FILE).write_text(json.dumps(config | change))
        with pytest.raises(ValueError, match="is damaged"):
            VqTokenizer.load(tmp_path)
    (tmp_path / vq.CONFIG_FILE).write_text(json.dumps(config))
    (tmp_path / vq.CODES_FILE).write_bytes((tmp_path / vq.CODES_FILE).read_bytes()[:-40])
    with pytest.raises(ValueError, match="is damaged"):
        VqTokenizer.load(tmp_path)
    (tmp_path / vq.CODES_FILE).unlink()
    with pytest.raises(FileNotFoundError, match=r"no vq\.safetensors"):
        VqTokenizer.load(tmp_path)
