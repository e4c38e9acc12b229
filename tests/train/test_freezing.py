"""What learns: by part, by group, and never nothing."""

import pytest

from pilot.models.pi import Pi, pi0_fast, pi0_small, pi05
from pilot.train.freezing import choose_learning, parts_of


def test_groups_are_parts_that_the_model_has():
    model = Pi(pi05("debug"))
    assert parts_of(model, ["vision", "language"]) == ["vision", "embedding", "vlm"]
    assert parts_of(model, ["expert"]) == ["action_expert", "action_in", "action_out", "time_mlp_in", "time_mlp_out"]
    assert parts_of(Pi(pi0_small("debug")), ["language"]) == ["embedding", "text_encoder", "text_out", "vlm"]


def test_every_part_is_in_a_group():
    for config in (pi05("debug"), pi0_small("debug"), pi0_fast("debug")):
        model = Pi(config)
        groups = [group for group in ("vision", "language", "expert") if group != "expert" or config.action_expert]
        assert sorted(parts_of(model, groups)) == sorted(name for name, _ in model.named_children())


def test_frozen_groups_do_not_learn():
    model = choose_learning(Pi(pi05("debug")), freeze=("vision", "language"))
    learning = {name.split(".")[0] for name, weight in model.named_parameters() if weight.requires_grad}
    assert learning == {"action_expert", "action_in", "action_out", "time_mlp_in", "time_mlp_out"}


def test_what_is_not_there_is_said():
    with pytest.raises(ValueError, match="did you mean 'vlm'"):
        choose_learning(Pi(pi05("debug")), freeze=("vlan",))
    with pytest.raises(ValueError, match="names 'expert', which the model has not"):
        choose_learning(Pi(pi0_fast("debug")), freeze=("expert",))
    with pytest.raises(ValueError, match="nothing is left to learn"):
        choose_learning(Pi(pi05("debug")), freeze=("vision", "language", "expert"))
