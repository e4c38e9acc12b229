"""The shape checks are on: without them a transposed array would pass every other test in silence."""

import numpy as np
import pytest
from jaxtyping import TypeCheckError

from pilot.types import NormStats, Robot


def test_a_wrong_shape_is_refused():
    flat, square = np.zeros(2), np.zeros((2, 2))
    with pytest.raises(TypeCheckError, match="q99"):
        NormStats(mean=flat, std=flat, q01=flat, q99=square)


def test_axes_of_one_name_must_agree():
    with pytest.raises(TypeCheckError, match="std"):
        NormStats(mean=np.zeros(2), std=np.zeros(3), q01=np.zeros(2), q99=np.zeros(2))


def test_a_whole_number_passes_for_a_float_but_text_does_not():
    arguments = {"cameras": ("room",), "state_names": ("x",), "action_names": ("x",), "delta_mask": (True,)}
    assert Robot(name="toy", control_hz=10, **arguments).control_hz == 10
    with pytest.raises(TypeCheckError, match="control_hz"):
        Robot(name="toy", control_hz="fast", **arguments)
