"""The order of things: what a model gets from a sample, and what a robot gets from a model."""

from copy import copy
from dataclasses import replace

import numpy as np
import pytest

from pilot.contracts import examples
from pilot.data.action_chunks import add_step_scale
from pilot.data.layout import Kind
from pilot.data.pipeline import Pipeline, Row, collate
from pilot.models.pi import pi0, pi05
from pilot.robots import load_robot
from pilot.robots.homes import ROBOT
from pilot.tokenizers.text import TextTokenizer
from pilot.types import Adapter, Sample

CONFIG = pi05("debug")


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    return examples.make_pipeline(ROBOT, CONFIG, with_fast=True)


def web(answer: str = "a red cup") -> Sample:
    return Sample(images={"room": np.zeros((8, 8, 3), np.uint8)}, prompt="what is it", answer=answer, source="web")


def test_a_robot_row_reads_prompt_then_says_subtask_then_fast(pipeline):
    row = pipeline.encode(examples.make_sample(ROBOT, horizon=CONFIG.action_horizon))
    text = TextTokenizer()
    prompt = text.decode([t for t, k in zip(row.tokens, row.token_kinds, strict=True) if k == Kind.PREFIX])
    said = text.decode([t for t, k in zip(row.tokens, row.token_kinds, strict=True) if k == Kind.TEXT])
    assert prompt.startswith("Task: put the red cup in the sink, State: ") and prompt.endswith(";\nSubtask: ")
    assert said == "pick up the red cup;\n"
    assert row.token_kinds == sorted(row.token_kinds) and row.token_kinds[-1] == Kind.FAST
    assert row.token_loss == [k != Kind.PREFIX for k in row.token_kinds]


@pytest.mark.parametrize(
    ("state_input", "reads_state"), [("text", True), ("both", True), ("token", False), ("none", False)]
)
def test_the_prompt_says_the_state_where_the_model_reads_it_there(state_input, reads_state):
    config = pi05("debug", state_input=state_input)
    row = examples.make_pipeline(ROBOT, config).encode(examples.make_sample(ROBOT, horizon=config.action_horizon))
    prompt = [t for t, k in zip(row.tokens, row.token_kinds, strict=True) if k == Kind.PREFIX]
    assert ("State: " in TextTokenizer().decode(prompt)) == reads_state


def test_padded_steps_and_dims_are_masked(pipeline):
    row = pipeline.encode(examples.make_sample(ROBOT, horizon=CONFIG.action_horizon))
    assert row.action_mask[:-1, : ROBOT.action_dim].all()
    assert not row.action_mask[-1].any() and not row.action_mask[:, ROBOT.action_dim :].any()


def test_a_chunk_that_is_not_whole_has_no_fast_tokens(pipeline):
    row = pipeline.encode(examples.make_sample(ROBOT, horizon=CONFIG.action_horizon), with_fast=False)
    assert Kind.FAST not in row.token_kinds and row.action_mask.any()


def test_a_web_row_has_neither_state_nor_actions(pipeline):
    row = pipeline.encode(web())
    assert not row.action_mask.any() and not row.state.any() and Kind.FAST not in row.token_kinds
    assert TextTokenizer().decode(row.tokens) == "Question: what is it\nAnswer: a red cup"
    assert row.tokens[-1] == TextTokenizer().eos_id


def test_fast_tokens_decode_to_the_chunk(pipeline):
    sample = examples.make_sample(ROBOT, horizon=CONFIG.action_horizon)
    row = pipeline.encode(sample)
    text = pipeline.text
    fast = [t for t, k in zip(row.tokens, row.token_kinds, strict=True) if k == Kind.FAST]
    ids = [CONFIG.vocab_size - 1 - CONFIG.fast_offset - t for t in fast if t >= text.vocab_size]
    decoded = pipeline.action_tokenizer.decode(ids, CONFIG.action_horizon, ROBOT.action_dim)
    np.testing.assert_allclose(decoded.actions, pipeline.normalized_actions(sample), atol=0.25)


def test_actions_come_back_in_the_robots_units(pipeline):
    sample = examples.make_sample(ROBOT, horizon=CONFIG.action_horizon)
    row = pipeline.encode(sample)
    np.testing.assert_allclose(pipeline.decode_actions(row.actions, sample.state), sample.actions, atol=1e-4)


def test_rows_of_every_kind_share_a_batch(pipeline):
    robot = pipeline.encode(examples.make_sample(ROBOT, horizon=CONFIG.action_horizon))
    batch = collate([robot, pipeline.encode(web())])
    observation = batch.observation
    assert observation.image_masks["wrist"].tolist() == [True, False]
    assert observation.images["wrist"][1].unique().tolist() == [-1.0]
    assert (observation.token_kinds[1] == Kind.PAD).sum() == len(robot.tokens) - len(pipeline.encode(web()).tokens)
    assert batch.action_mask.flatten(1).any(1).tolist() == [True, False]


def test_what_a_person_did_wrong_is_said(pipeline):
    good = examples.make_sample(ROBOT, horizon=CONFIG.action_horizon)
    cases = {
        "5 state dims": replace(good, state=np.zeros(3, np.float32)),
        "NaN": replace(good, state=np.full(5, np.nan, np.float32)),
        "not 'top'": replace(good, images={"top": good.images["room"]}),
        "4;": replace(good, actions=np.zeros((6, 7), np.float32)),
        "actions of robot 'homes' hold NaN": replace(good, actions=np.full((6, 4), np.nan, np.float32)),
        "empty prompt": replace(good, prompt="  "),
        "max_tokens": replace(good, prompt="very " * 400),
    }
    for message, sample in cases.items():
        with pytest.raises(ValueError, match=message):
            pipeline.encode(sample)


def test_wrist_pictures_are_recoloured_only_and_boxes_stay_in_place(pipeline):
    sample = examples.make_sample(ROBOT, horizon=CONFIG.action_horizon)
    augmentations = pipeline.encode(sample, rng=np.random.default_rng(0)).augmentations
    assert augmentations["room"].moves and not augmentations["wrist"].moves
    boxed = replace(sample, subtask="<loc0001><loc0002><loc0003><loc0004>pick up the red cup")
    assert not pipeline.encode(boxed, rng=np.random.default_rng(0)).augmentations["room"].moves
    assert pipeline.encode(sample).augmentations == {}


def test_cameras_of_a_batch_are_in_every_rows_own_order(pipeline):
    def images(*cameras: str) -> Row:
        row = pipeline.encode(web())
        return replace(row, images={camera: np.zeros((8, 8, 3), np.uint8) for camera in cameras})

    rows = [images("wrist"), images("side", "wrist"), images("room", "side"), images()]
    assert list(collate(rows).observation.images) == ["room", "side", "wrist"]
    assert list(collate(rows, cameras={"side": 8}).observation.images) == ["room", "side", "wrist"]
    with pytest.raises(ValueError, match=r"in different orders: .*'room', 'wrist'.*'wrist', 'room'.*give them one"):
        collate([images("room", "wrist"), images("wrist", "room")])


def test_cameras_come_in_the_robots_order_by_their_slots():
    arm = replace(ROBOT, cameras=("room", "side", "wrist"), slots=("base_0_rgb", None, "left_wrist_0_rgb"))
    sample = examples.make_sample(arm, horizon=CONFIG.action_horizon)
    sample.images = dict(reversed(sample.images.items()))
    assert list(examples.make_pipeline(arm, CONFIG).encode(sample).images) == ["base_0_rgb", "left_wrist_0_rgb"]


def test_cameras_that_are_always_shown_are_black_where_the_robot_has_none():
    """π0-FAST was trained so, and on DROID with the black one in the middle."""
    config = replace(CONFIG, always_shown=("room", "side", "wrist"))
    sample = examples.make_sample(ROBOT, horizon=CONFIG.action_horizon)
    row, plain = (examples.make_pipeline(ROBOT, c).encode(sample) for c in (config, CONFIG))
    assert list(row.images) == ["room", "side", "wrist"] and not row.images["side"].any()
    assert all(np.array_equal(row.images[camera], picture) for camera, picture in plain.images.items())
    observation = collate([row]).observation
    assert observation.image_masks["side"].all() and (observation.images["side"] == -1).all()


def test_z_scores_are_a_models_choice():
    config = pi0("debug")
    pipeline, sample = examples.make_pipeline(ROBOT, config), examples.make_sample(ROBOT, horizon=CONFIG.action_horizon)
    row, stats = pipeline.encode(sample), pipeline.norm_stats["state"]
    np.testing.assert_allclose(row.state[:5], (sample.state - stats.mean) / (stats.std + 1e-6), rtol=1e-5)
    np.testing.assert_allclose(pipeline.decode_actions(row.actions, sample.state), sample.actions, atol=1e-4)


def test_an_adapter_stands_before_everything_and_is_undone_last():
    arm = replace(ROBOT, adapter="mirrored")
    mirrored = Adapter(state=np.negative, state_inverse=np.negative, actions=np.negative, actions_inverse=np.negative)
    stats = examples.make_norm_stats(ROBOT)
    adapted = Pipeline(arm, CONFIG, norm_stats=stats, text=TextTokenizer(), adapter=mirrored)
    plain = Pipeline(ROBOT, CONFIG, norm_stats=stats, text=TextTokenizer())
    sample = examples.make_sample(ROBOT, horizon=CONFIG.action_horizon)
    other = replace(sample, state=-sample.state, actions=-sample.actions)
    np.testing.assert_array_equal(adapted.encode(sample).actions, plain.encode(other).actions)
    chunk = adapted.encode(sample).actions
    np.testing.assert_allclose(adapted.decode_actions(chunk, sample.state), sample.actions, atol=1e-4)
    with pytest.raises(ValueError, match="load_adapter"):
        Pipeline(arm, CONFIG, norm_stats=stats, text=TextTokenizer())


def test_a_row_may_teach_words_only(pipeline):
    row = pipeline.encode(examples.make_sample(ROBOT, horizon=CONFIG.action_horizon), flow=False)
    assert not row.action_mask.any() and Kind.FAST in row.token_kinds


def test_missing_statistics_name_the_command():
    with pytest.raises(ValueError, match="pilot data stats"):
        Pipeline(ROBOT, CONFIG, norm_stats={}, text=TextTokenizer())
    stats = examples.make_norm_stats(ROBOT)
    broken = stats | {"actions": replace(stats["actions"], q99=np.full(ROBOT.action_dim, np.nan))}
    with pytest.raises(ValueError, match="of 'actions' hold NaN or infinity; make them anew: pilot data stats"):
        Pipeline(ROBOT, CONFIG, norm_stats=broken, text=TextTokenizer())


def test_a_chunk_whose_fast_tokens_do_not_fit_teaches_none_of_them():
    """Half of them would be another chunk, and the model would learn to stop there."""
    sample = examples.make_sample(ROBOT, horizon=CONFIG.action_horizon)
    whole = examples.make_pipeline(ROBOT, CONFIG, with_fast=True).encode(sample)
    assert not whole.fast_dropped and Kind.FAST in whole.token_kinds
    pipeline = examples.make_pipeline(ROBOT, replace(CONFIG, max_tokens=len(whole.tokens) - 1), with_fast=True)
    with pytest.warns(
        UserWarning, match=r"FAST tokens, max_tokens=\d+ leaves room for \d+: .* raise max_tokens"
    ) as seen:
        rows = [pipeline.encode(sample) for _ in range(2)]
    assert len([warning for warning in seen if "FAST" in str(warning.message)]) == 1
    for row in rows:
        assert row.fast_dropped and row.tokens == [
            token for token, kind in zip(whole.tokens, whole.token_kinds) if kind != Kind.FAST
        ]
        assert len(row.tokens) == len(row.token_kinds) == len(row.token_loss) and any(row.token_loss)
        np.testing.assert_array_equal(row.actions, whole.actions)


def test_text_that_does_not_fit_is_refused():
    config = replace(CONFIG, max_tokens=4)
    with pytest.raises(ValueError, match="max_tokens is 4"):
        examples.make_pipeline(ROBOT, config, with_fast=True).encode(examples.make_sample(ROBOT, horizon=6))


def test_each_step_of_a_chunk_may_have_its_own_scale(pipeline):
    sample = examples.make_sample(ROBOT, horizon=CONFIG.action_horizon)
    plain, chunk = pipeline.encode(sample), pipeline.normalized_actions(sample)
    chunks = np.stack([chunk * size for size in (0.5, 0.8, 1.7)])
    stats = add_step_scale(pipeline.norm_stats["actions"], chunks)
    scaled = copy(pipeline)
    scaled.norm_stats = pipeline.norm_stats | {"actions": stats}
    row, own = scaled.encode(sample), ROBOT.action_dim
    np.testing.assert_allclose(row.actions[:, :own], (chunk - chunks.mean(0)) / stats.step_std, atol=1e-5)
    assert np.abs(row.actions - plain.actions).max() > 0.1 and not row.actions[:, own:].any()
    assert row.tokens == plain.tokens  # FAST is as it was
    np.testing.assert_allclose(scaled.decode_actions(row.actions, sample.state), sample.actions, atol=1e-4)
    by_tokens = scaled.decode_actions(plain.actions, sample.state, from_tokens=True)
    np.testing.assert_allclose(by_tokens, sample.actions, atol=1e-4)
    np.testing.assert_array_equal(scaled.scale_steps(chunk[:3]), scaled.scale_steps(chunk)[:3])
    # A push: one command far from all others is brought to three deviations, and FAST still says it as it is.
    pushed = scaled.scale_steps(chunk + 100 * stats.step_std[0, 0] * (np.arange(own) == 1))
    assert (pushed[:, 1] == 3.0).all()
    np.testing.assert_array_equal(pushed[:, 0], scaled.scale_steps(chunk)[:, 0])


def test_a_chunk_may_hold_every_third_action_and_give_them_all():
    config = pi05("debug", action_horizon=4, action_stride=3)
    pipeline, sample = examples.make_pipeline(ROBOT, config, with_fast=True), examples.make_sample(ROBOT, horizon=12)
    own, third = ROBOT.action_dim, slice(None, None, 3)
    row = pipeline.encode(sample)
    assert row.actions.shape == (4, config.action_dim) and config.chunk_steps == 12
    assert row.action_mask[:, :own].all(1).all()
    decoded = pipeline.decode_actions(row.actions, sample.state)
    assert decoded.shape == sample.actions.shape
    np.testing.assert_allclose(decoded[third], sample.actions[third], atol=1e-4)
    np.testing.assert_allclose(decoded[5], (decoded[3] + 2 * decoded[6]) / 3, atol=1e-4)
    np.testing.assert_array_equal(decoded[10:], decoded[[9, 9]])
    sample.action_is_pad = np.arange(12) > 5
    assert pipeline.encode(sample).action_mask[:, 0].tolist() == [True, True, False, False]


@pytest.mark.parametrize(
    ("changes", "message"), [({"action_stride": 0}, "got 0"), ({"action_stride": 2, "rtc_max_delay": 1}, "got 2")]
)
def test_a_stride_that_cannot_be_is_refused(changes, message):
    with pytest.raises(ValueError, match=f"action_stride is 1 or more, .*{message}"):
        pi05("debug", **changes)


def test_steps_that_add_up_cannot_be_left_out():
    with pytest.raises(ValueError, match="'bridge' moves by m per step, so no step can be left out"):
        examples.make_pipeline(load_robot("bridge"), pi05("debug", action_stride=2))
