import numpy as np
import pytest

from pilot.sims.world.phrases import Phrasings, expand


def test_expand_gives_every_combination_once_and_tidies_spaces():
    sentences = expand("{stack|pile} the bowls{| up}", "stack the bowls")
    assert sentences == ("stack the bowls", "stack the bowls up", "pile the bowls", "pile the bowls up")


def test_expand_leaves_names_to_fill_in():
    assert expand("put the <thing> {in|into} the bin") == ("put the <thing> in the bin", "put the <thing> into the bin")


def test_draw_takes_from_the_right_list():
    phrasings = Phrasings.of(["{a|b|c} d"], held_out=["e f"])
    draws = {phrasings.draw(np.random.default_rng(seed)) for seed in range(40)}
    assert draws == {"a d", "b d", "c d"}
    assert phrasings.draw(np.random.default_rng(0), held_out=True) == "e f"


def test_a_held_out_sentence_must_not_be_known():
    with pytest.raises(ValueError, match=r"training would hear: \['a d'\]"):
        Phrasings.of(["{a|b} d"], held_out=["a d"])
