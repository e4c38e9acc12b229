"""Which engine runs which model, and that all of them can be asked the same."""

import inspect

import pytest

from infer.weights import model
from pilot.infer.engine.choose import engine_for
from pilot.infer.engine.direct import DirectEngine
from pilot.infer.engine.fast import FastEngine
from pilot.infer.engine.graphs import GraphEngine
from pilot.infer.engine.plain import PlainEngine
from pilot.infer.engine.protocol import Engine
from pilot.models.baselines.act import Act
from pilot.models.baselines.configs import act
from pilot.models.pi import pi0, pi0_fast, pi0_small, pi05

METHODS = ("prefill", "generate", "denoise", "velocity")


@pytest.mark.parametrize(
    ("config", "kind"),
    [(pi05("debug"), FastEngine), (pi0("debug"), FastEngine), (pi0_fast("debug"), FastEngine),
     (pi0_small("debug"), PlainEngine)],
)  # fmt: skip
def test_the_engine_of_a_model(config, kind):
    assert type(engine_for(model(config))) is kind


def test_a_baseline_is_asked_directly_and_says_what_it_cannot():
    engine = engine_for(Act(act("debug")))
    assert type(engine) is DirectEngine
    with pytest.raises(ValueError, match="Act generates no text"):
        engine.generate(None, eos=1)
    with pytest.raises(ValueError, match="Act has no flow"):
        engine.velocity(None, None, horizon=6)


@pytest.mark.parametrize("kind", [FastEngine, GraphEngine, PlainEngine])
@pytest.mark.parametrize("name", METHODS)
def test_engines_take_what_the_protocol_says(kind, name):
    wanted, got = (inspect.signature(getattr(engine, name)).parameters for engine in (Engine, kind))
    assert list(got) == list(wanted)
    assert {n: p.default for n, p in got.items()} == {n: p.default for n, p in wanted.items()}
