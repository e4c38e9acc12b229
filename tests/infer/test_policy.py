"""Raw observations in, robot commands out, and the high level on its own clock."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import pilot
from infer.policies import TOLD, observation, policy_of, save_toy
from pilot.contracts import examples
from pilot.infer.policy import Policy, load_policy
from pilot.infer.rtc import Rtc
from pilot.models.bundle import Bundle, load_bundle, ordered_tokens, save_bundle
from pilot.models.pi import Pi, PiConfig, pi0, pi0_fast, pi0_small, pi05
from pilot.models.trained_robots import one_robot
from pilot.robots.homes import ROBOT
from pilot.tokenizers.text import TextTokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return save_toy(tmp_path_factory.mktemp("checkpoints") / "toy")


@pytest.fixture
def policy(folder) -> Policy:
    return load_policy(folder)


def test_a_chunk_in_the_robots_units(policy):
    out = policy.infer(observation())
    assert out["actions"].shape == (6, 4) and out["actions"].dtype == np.float32
    assert isinstance(out["subtask"], str | None) and set(out["timing"]) == {"read", "subtask", "actions", "total"}


def test_it_is_the_public_face(folder):
    assert pilot.load_policy is load_policy and isinstance(pilot.load_policy(folder), pilot.Policy)


def test_actions_are_relative_to_the_state(policy):
    here = policy.infer(observation(subtask=TOLD))["actions"]
    spread = policy.bundle.norm_stats["state"].q99 - policy.bundle.norm_stats["state"].q01
    tiny = (spread * 1e-4).astype(np.float32)  # too little for another bin: the model sees the same
    there = policy.infer(observation(subtask=TOLD, state=tiny))["actions"]
    np.testing.assert_allclose((there - here)[:, :3], np.tile(tiny[:3], (6, 1)), atol=1e-5)
    np.testing.assert_allclose(there[:, 3], here[:, 3], atol=1e-5)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_an_answer_with_nan_is_never_given(folder, bad):
    """Its weights were fine when they were read, and are not now."""
    policy = load_policy(folder, device="cpu")
    with torch.no_grad():
        policy.model.action_out.bias[2] = bad
    with pytest.raises(ValueError, match=r"answered NaN or infinity in dim '\w+' of robot 'homes', and nothing"):
        policy.infer(observation())
    sessions = [policy.session(), policy.session()]
    answers = policy.infer_many(sessions, [observation(), observation(1)], errors="return")
    assert all(isinstance(answer, ValueError) for answer in answers)


def test_sessions_repeat_themselves_and_do_not_share(policy):
    one, two = policy.session(), policy.session()
    first = [one.infer(observation())["actions"] for _ in range(2)]
    assert not np.array_equal(first[0], first[1])  # other noise
    assert np.array_equal(two.infer(observation())["actions"], first[0])
    one.reset()
    assert np.array_equal(one.infer(observation())["actions"], first[0])


@pytest.mark.parametrize("integrated", [False, True], ids=["pilot", "openpi"])
def test_dims_that_the_robot_lacks_are_treated_as_in_training(folder, monkeypatch, integrated):
    """The homes' robot has 4 of the model's 8: with weights of pilot the others go to 0, with openpi's as it says."""
    bundle = load_bundle(folder)
    bundle.model.config = replace(bundle.model.config, integrate_padded_dims=integrated)
    policy, chunks = Policy(bundle), []
    decode = policy.pipeline.decode_actions
    monkeypatch.setattr(
        policy.pipeline, "decode_actions", lambda chunk, *a, **k: chunks.append(chunk) or decode(chunk, *a, **k)
    )
    out = policy.infer(observation(subtask=TOLD))
    read = policy.make_observation(policy.make_sample(observation(), subtask=TOLD))
    noise = policy.noise(torch.Generator().manual_seed(policy.seed))
    lacks = None if integrated else torch.arange(8)[None] >= 4
    by_hand = bundle.pi.sample_actions(read, noise=noise, padded_dims=lacks).detach()
    np.testing.assert_allclose(chunks[0], by_hand[0].numpy(), atol=1e-4)
    padding = np.abs(chunks[0][:, 4:])
    assert (padding.max() < 1e-6) != integrated and out["actions"].shape == (6, 4)


def test_a_chunk_goes_on_from_what_the_robot_does_meanwhile(policy):
    """Commands in the robot's units, another state than that which they were made for, and a row that has none."""
    before = policy.infer(observation(subtask=TOLD))["actions"]
    spread = policy.bundle.norm_stats["state"].q99 - policy.bundle.norm_stats["state"].q01
    moved = observation(subtask=TOLD, state=(0.1 * spread).astype(np.float32))
    alone = policy.infer(moved)["actions"]
    policy.rtc = Rtc(mode="prefix")
    previous = {"actions": before[1:], "delay": 2}
    joined, fresh = policy.infer_many([policy.session(), policy.session()], [moved | {"previous": previous}, moved])
    np.testing.assert_allclose(joined["actions"][:2], before[1:3], atol=1e-5)
    np.testing.assert_allclose(fresh["actions"], alone, atol=1e-5)
    policy.rtc = Rtc(mode="guided")
    pulled = policy.infer(moved | {"previous": previous})["actions"]
    assert np.isfinite(pulled).all() and np.abs(pulled - alone).max() > 1e-4
    with pytest.raises(ValueError, match="'previous' has actions"):
        policy.infer(moved | {"previous": {"actions": np.zeros((3, 7)), "delay": 1}})


def test_a_chunk_has_an_action_for_every_step_also_between_those_of_the_model():
    policy = policy_of(pi05("debug", max_tokens=80, action_horizon=3, action_stride=4))
    actions = policy.infer(observation(subtask=TOLD))["actions"]
    assert actions.shape == (12, 4) and policy.metadata["action_horizon"] == 12
    np.testing.assert_allclose(np.diff(actions[:5], n=2, axis=0)[:, :3], 0, atol=1e-5)
    policy.rtc = Rtc(mode="prefix")
    joined = policy.infer(observation(subtask=TOLD, previous={"actions": actions[2:], "delay": 5}))["actions"]
    np.testing.assert_allclose(joined[[0, 4]], actions[2:][[0, 4]], atol=1e-5)


def test_how_often_a_policy_looks_is_a_setting_of_its_model():
    often, seldom = (policy_of(pi05("debug", max_tokens=80, replan_seconds=s)) for s in (None, 0.3))
    hz = often.metadata["control_hz"]
    assert [often.session().replan_steps, seldom.session().replan_steps] == [round(0.2 * hz), round(0.3 * hz)]
    with pytest.raises(ValueError, match="replan_seconds is above 0, got 0"):
        pi05("debug", replan_seconds=0)


def count_decisions(policy: Policy, monkeypatch) -> list[int]:
    calls, generate = [], policy.engine.generate
    monkeypatch.setattr(policy.engine, "generate", lambda *a, **o: (calls.append(1), generate(*a, **o))[1])
    return calls


def test_the_high_level_has_a_clock_of_its_own(policy, monkeypatch):
    calls = count_decisions(policy, monkeypatch)
    session = policy.session(subtask_seconds=0.6, replan_steps=2)  # 0.2 s per chunk: every third chunk
    said = []
    for _ in range(6):
        session.infer(observation())
        session.state = replace(session.state, subtask=session.subtask or TOLD)
        said.append(len(calls))
    assert said == [1, 1, 1, 2, 2, 2]


def test_many_robots_at_once_are_each_robot_alone(policy):
    """Some decide, some go on, some are told: in one batch as one by one."""
    wishes = [observation(), observation(prompt="put the blue ball in the bin"), observation(subtask=TOLD)]
    alone, together = [policy.session() for _ in wishes], [policy.session() for _ in wishes]
    for _ in range(2):
        single = [session.infer(wish) for session, wish in zip(alone, wishes, strict=True)]
        many = policy.infer_many(together, wishes)
        for one, of_many in zip(single, many, strict=True):
            np.testing.assert_allclose(of_many["actions"], one["actions"], atol=1e-4)
            assert of_many["subtask"] == one["subtask"]


def test_who_decides_and_who_goes_on_share_a_pass(policy, monkeypatch):
    reads, read = [], policy.engine.prefill
    monkeypatch.setattr(policy.engine, "prefill", lambda seen, **o: (reads.append(seen.batch_size), read(seen, **o))[1])
    wish = observation()
    decided, late = policy.session(subtask_seconds=60), policy.session(subtask_seconds=60)
    decided.infer(wish)
    decided.state = replace(decided.state, subtask=TOLD)
    on, new = policy.infer_many([decided, late], [wish, wish])
    assert reads == [1, 2] and on["subtask"] == "pick up the red cup"
    alone = policy.session(subtask_seconds=60).infer(wish)
    assert new["subtask"] == alone["subtask"]
    np.testing.assert_allclose(new["actions"], alone["actions"], atol=1e-4)


def test_new_words_from_the_person_are_heard_at_once(policy, monkeypatch):
    calls = count_decisions(policy, monkeypatch)
    session = policy.session(subtask_seconds=60)
    for prompt in ("put the red cup in the sink", "put the red cup in the sink", "put the blue cup in the sink"):
        session.infer(observation(prompt=prompt))
        session.state = replace(session.state, subtask=session.subtask or TOLD)
    assert len(calls) == 2


def test_an_override_with_a_box_is_acted_on_as_it_stands(policy, monkeypatch):
    calls = count_decisions(policy, monkeypatch)
    out = policy.session().infer(observation(subtask=TOLD))
    assert not calls and out["subtask"] == "pick up the red cup"
    np.testing.assert_allclose(out["box"], (0.1, 0.2, 0.3, 0.4), atol=1e-3)


def test_an_override_in_plain_words_is_heard_as_the_prompt(policy, monkeypatch):
    calls = count_decisions(policy, monkeypatch)
    told = policy.session().infer(observation(subtask="grab the red cup"))
    prompted = policy.session().infer(observation(prompt="grab the red cup"))
    assert len(calls) == 2 and np.array_equal(told["actions"], prompted["actions"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": {}}, "camera names"),
        ({"images": {"room": np.zeros((64, 64, 3), np.uint8)}}, r"\['wrist'\] are missing"),
        ({"images": {c: np.zeros((64, 64), np.uint8) for c in ROBOT.cameras}}, r"uint8 \[h w 3\]"),
        ({"images": {c: np.full((64, 64, 3), 99.0) for c in ROBOT.cameras}}, "float64"),
        ({"state": np.zeros(3, np.float32)}, "5 state dims"),
        ({"state": np.full(5, np.nan, np.float32)}, "NaN"),
        ({"state": "above the sink"}, r"'state' is a vector of numbers \(x, y, z"),
        ({"images": {c: np.full((64, 64, 3), np.nan) for c in ROBOT.cameras}}, "camera 'room'"),
        ({"images": {c: np.zeros((64, 64, 3), np.uint8) for c in (*ROBOT.cameras, "rear")}}, "not 'rear'"),
        ({"prompt": "put the red cup in the sink " * 40}, "max_tokens is 80; shorten"),
        ({"prompt": 3}, "'prompt' is a string"),
        ({"prompt": " "}, "empty prompt"),
        ({"subtask": ""}, "'subtask' is words"),
    ],
)
def test_a_wrong_observation_is_said(policy, changes, message, no_shape_checks):
    with pytest.raises((ValueError, TypeError), match=message):
        policy.infer(observation(**changes))


def test_a_missing_part_of_the_observation_is_named(policy):
    with pytest.raises(ValueError, match="no 'state'"):
        policy.infer({k: v for k, v in observation().items() if k != "state"})


def fresh(config: PiConfig, *, with_fast: bool = False) -> Bundle:
    text, pipeline = TextTokenizer(), examples.make_pipeline(ROBOT, config, with_fast=with_fast)
    model = Pi(config).initialize(torch.Generator().manual_seed(0), ordered_tokens=ordered_tokens(text))
    stats, actions = pipeline.norm_stats, pipeline.action_tokenizer
    return Bundle(model=model, robots=one_robot(ROBOT, stats), text=text, action_tokenizer=actions)


@pytest.mark.parametrize("config", [pi0_small("debug", max_tokens=80), pi0("debug", prompt="pi0")])
def test_a_model_without_a_high_level_acts_on_the_prompt(config):
    session = Policy(fresh(config)).session()
    for _ in range(2):
        out = session.infer(observation())
        assert out["actions"].shape == (6, 4) and out["subtask"] is None


@pytest.mark.parametrize("prompt", ["pi0_fast", "subtask"])
def test_a_model_without_an_expert_writes_whole_chunks(prompt):
    """Untrained, so that nothing but the grammar makes them whole; two robots at once, of different prompts."""
    policy = Policy(fresh(pi0_fast("debug", prompt=prompt), with_fast=True))
    wishes = [observation(), observation(prompt="put the large blue ball in the bin")]
    answers = policy.infer_many([policy.session(), policy.session()], wishes)
    for answer, wish in zip(answers, wishes, strict=True):
        assert answer["actions"].shape == (6, 4) and np.isfinite(answer["actions"]).all()
        np.testing.assert_allclose(answer["actions"], policy.infer(wish)["actions"], atol=1e-5)
    assert not np.array_equal(answers[0]["actions"], answers[1]["actions"])


def test_a_model_without_an_expert_reads_once_where_nothing_decides(monkeypatch):
    policy, prefills = Policy(fresh(pi0_fast("debug", prompt="pi0_fast"), with_fast=True)), []
    prefill = policy.engine.prefill

    def count(*args: Any, **options: Any) -> Any:
        prefills.append(1)
        return prefill(*args, **options)

    monkeypatch.setattr(policy.engine, "prefill", count)
    policy.session().infer(observation())
    assert len(prefills) == 1


def test_a_model_with_no_way_to_act_is_refused():
    with pytest.raises(ValueError, match="neither an action expert nor an action tokenizer"):
        Policy(fresh(pi0_fast("debug")))


@pytest.mark.parametrize("device", ["cuba", "cuda:99"])
def test_a_device_that_is_not_there_is_not_the_checkpoints_fault(folder, device):
    with pytest.raises(ValueError, match=f"'{device}'; choose auto"):
        load_policy(folder, device=device)


def test_who_does_not_say_how_often_asks_as_the_policy_says(folder):
    policy = load_policy(folder, replan_steps=4)
    assert policy.metadata["replan_steps"] == 4
    assert [policy.session().replan_steps, policy.session(replan_steps=1).replan_steps] == [4, 1]
    for steps in (0, policy.metadata["action_horizon"] + 1):
        with pytest.raises(ValueError, match=rf"replan_steps is 1 to \d+, got {steps}"):
            load_policy(folder, replan_steps=steps)


def test_saving_and_loading_keeps_everything(folder):
    bundle, again = load_bundle(folder), load_bundle(folder)
    assert bundle.robot == ROBOT and bundle.loc_stride == 16 and bundle.model.config == again.model.config
    assert all(torch.equal(p, q) for p, q in zip(bundle.model.parameters(), again.model.parameters(), strict=True))


def broken(folder: Path, tmp_path: Path, change) -> Path:
    copy = save_bundle(load_bundle(folder), tmp_path / "copy")
    change(copy)
    return copy


@pytest.mark.usefixtures("no_manifests")
def test_a_checkpoint_that_is_not_whole_is_refused(folder, tmp_path):
    def without(name: str):
        return lambda path: (path / name).unlink()

    def weights(change):
        def apply(path: Path) -> None:
            tensors = load_file(path / "model.safetensors")
            change(tensors)
            save_file(tensors, path / "model.safetensors")

        return apply

    def truncated(path: Path) -> None:
        file = path / "model.safetensors"
        file.write_bytes(file.read_bytes()[:-100])

    cases = {
        "no model.safetensors": without("model.safetensors"),
        "no norm_stats.json": without("norm_stats.json"),
        r"missing \['action_in.weight'\]": weights(lambda t: t.pop("action_in.weight")),
        r"left over \['extra'\]": weights(lambda t: t.update(extra=torch.zeros(1))),
        "other shapes": weights(lambda t: t.update({"action_in.bias": torch.zeros(3)})),
        "truncated": truncated,
        "preprocessing version": lambda path: (path / "config.json").write_text('{"preprocessing_version": 99}'),
        "not valid JSON": lambda path: (path / "config.json").write_text("{"),
    }
    for message, change in cases.items():
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            load_policy(broken(folder, tmp_path, change))


def test_a_checkpoint_of_another_project_is_to_be_converted(tmp_path):
    save_file({"paligemma_with_expert.x": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=f"of kind 'openpi-torch'.*pilot convert {tmp_path} FOLDER"):
        load_policy(tmp_path)
    (tmp_path / "config.json").write_text('{"type": "pi0", "input_features": {}}')
    with pytest.raises(ValueError, match="of kind 'lerobot'"):
        load_policy(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"no config\.json"):
        load_policy(tmp_path / "empty")


@pytest.mark.usefixtures("no_manifests")
def test_unknown_fields_of_a_config_are_errors(folder, tmp_path):
    def change(path: Path) -> None:
        text = (path / "config.json").read_text()
        (path / "config.json").write_text(text.replace('"action_dim"', '"colour": 1, "action_dim"', 1))

    with pytest.raises(ValueError, match="colour"):
        load_policy(broken(folder, tmp_path, change))


def test_places_are_said_in_front_of_the_words_only(folder):
    """Two places that are always likelier than any word: a box and then words, or words alone."""
    policy = load_policy(folder)
    weight, place = policy.model.embedding.weight, policy.bundle.text.loc_id(500)
    with torch.no_grad():
        weight[place] = 100 * torch.randn(weight.shape[1], generator=torch.Generator().manual_seed(0))
        weight[place + 1] = -weight[place]
    session = policy.session()
    session.infer(observation())
    assert re.fullmatch(r"(<loc\d{4}>){4}[^<]+", session.subtask)


def test_subtasks_never_hold_action_tokens_however_likely(folder, monkeypatch):
    """Two tokens beyond the text model that point opposite ways: one of them is always the likeliest."""
    policy = load_policy(folder)
    weight = policy.model.embedding.weight
    with torch.no_grad():
        weight[-1] = 100 * torch.randn(weight.shape[1], generator=torch.Generator().manual_seed(0))
        weight[-2] = -weight[-1]
    policy.infer(observation())
    monkeypatch.setattr(policy.subtask_codec, "grammar", lambda **options: None)
    with pytest.raises(ValueError, match="are not text"):
        policy.infer(observation())
