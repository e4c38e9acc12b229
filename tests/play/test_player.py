"""Playing without a browser: words reach the policy at its next decision, hands take over, recordings teach."""

import json
from pathlib import Path

import numpy as np
import pytest

from pilot import configs
from pilot.data.formats import lerobot_layout as fmt
from pilot.data.formats.lerobot import LeRobotDataset
from pilot.eval.suites import load_suite
from pilot.play.player import Player
from pilot.play.recorder import Recorder
from play.actors import Lifter, Still

NANO = Path(__file__).parents[2] / "checkpoints" / "nano"


@pytest.fixture
def player(tmp_path):
    player = Player(Lifter(), load_suite("homes-l2"), robot="homes", checkpoint=NANO, out=tmp_path, scene=3)
    yield player
    player.close()


def ticks(player, count):
    for _ in range(count):
        player.tick()


def do(player, word, **values):
    return player.handle({"do": word, **values})


def height(player):
    return float(player.env.state()[2])


def test_new_words_are_read_at_the_next_decision(player):
    own = player.instruction
    ticks(player, 2)
    do(player, "say", words="  put the yellow\nblock  in the tray ")
    ticks(player, 1)
    assert player.policy.heard == [own, "put the yellow block in the tray"]
    assert [decision["subtask"] for decision in player.history][-1] == "lift for put the yellow block in the tray"


def test_the_policy_looks_once_in_its_replan_steps(player):
    ticks(player, 5)
    assert len(player.policy.heard) == 3 and player.executed == 1


def test_what_people_see_is_what_happens(player):
    ticks(player, 4)
    other, mine = player.shown.state(), player.env.state()
    assert np.array_equal(other, mine), "the second environment repeats the first"
    view = json.loads(json.dumps(player.view()))
    assert view["subtask"].startswith("lift for") and view["box"] == [0.1, 0.2, 0.3, 0.4]
    assert [(camera["name"], camera["width"]) for camera in view["cameras"]] == [("room", 320), ("wrist", 320)]
    assert len(view["plan"]["path"]) == 8 and view["plan"]["executed"] == 2
    ys = [y for y, _ in view["plan"]["path"]]
    assert ys == sorted(ys, reverse=True), "a plan to lift goes up in the picture"
    assert view["instruction"] in view["suggestions"] and len(view["suggestions"]) > 3


def test_a_person_takes_over_and_gives_back(player):
    ticks(player, 2)
    assert do(player, "take") == "you drive"
    start = player.env.state()
    do(player, "steer", axes={"right": 1.0}, open=True)
    ticks(player, 6)
    moved = player.env.state() - start
    assert moved[0] > 0.1 and abs(moved[2]) < 0.01, "to the right, and the plan to lift waits"
    do(player, "steer", axes={})
    ticks(player, 2)
    rest = player.env.state()
    ticks(player, 3)
    assert np.allclose(player.env.state()[:3], rest[:3], atol=2e-3)
    do(player, "steer", axes={}, open=False)
    ticks(player, 1)
    assert player.env.state()[3] == 1.0, "suction is on"
    do(player, "give")
    before = height(player)
    ticks(player, 3)
    assert height(player) > before


def test_a_target_does_not_run_ahead_of_a_robot_at_its_limit(player):
    do(player, "take")
    do(player, "steer", axes={"right": 1.0})
    ticks(player, 60)
    edge = player.env.state()[0]
    do(player, "steer", axes={"right": -1.0})
    ticks(player, 4)
    assert player.env.state()[0] < edge - 0.03


def test_mistakes_change_nothing(player):
    for message, words in (
        ({"do": "dance"}, "nobody knows how to do 'dance'"),
        ({}, "nobody knows how"),
        ({"do": "say", "words": " "}, "1 to 400 characters"),
        ({"do": "say", "words": "x" * 401}, "1 to 400 characters"),
        ({"do": "say", "words": "\ud800"}, "surrogates"),
        ({"do": "scene", "number": -1}, "0 or more"),
        ({"do": "steer", "axes": {"w": 1}}, "it has right, away, up"),
        ({"do": "steer", "axes": {"up": 2}}, "−1 to 1"),
        ({"do": "steer", "axes": {"up": float("nan")}}, "−1 to 1"),
        ({"do": "steer", "axes": [1]}, "steering is"),
        ({"do": "keep"}, "nothing to keep"),
        ({"do": "finetune"}, "nothing to learn from"),
        ({"do": "swap"}, "no fine-tuned policy"),
    ):
        before = (player.instruction, player.scene, dict(player.steering.held))
        with pytest.raises(ValueError, match=words):
            player.handle(message)
        assert (player.instruction, player.scene, dict(player.steering.held)) == before


def test_an_answer_that_cannot_be_given_stops_and_says_why(player):
    do(player, "play")
    do(player, "say", words="never mind")
    ticks(player, 1)
    assert not player.playing and "does not do 'never mind'" in player.view()["note"] and player.step == 0


def test_again_keeps_the_words_and_a_new_home_brings_its_own(player):
    start = player.env.state()
    do(player, "say", words="up")
    ticks(player, 3)
    do(player, "again")
    assert player.instruction == "up" and player.step == 0 and np.array_equal(player.env.state(), start)
    do(player, "new")
    assert player.scene == 4 and player.instruction == player.own_instruction == player.suggestions[0]
    do(player, "scene", number=9)
    assert player.view()["scene"] == 9


def test_a_recording_is_a_set_of_episodes_by_instruction(player):
    own = player.instruction
    do(player, "record")
    ticks(player, 5)
    do(player, "say", words="another thing")
    ticks(player, 4)
    do(player, "stop")
    ticks(player, 3)
    assert player.recorder.frames == 9
    assert do(player, "keep").startswith("kept 2 episodes")
    data = LeRobotDataset(player.recorder.path, 10)
    assert [len(data), data.row(4)["task"]] == [9, own]
    assert data.row(0)["task"] == own and data.row(5)["task"] == "another thing"
    assert data.row(0)["subtask"].endswith(player.suite.make_env().reset_to(3)[1]["subtask"]), "the simulator's word"
    assert data.row(5)["subtask"].endswith("lift for another thing"), "where only the policy knows"
    assert len(data.trainable_rows()) == 9, "without a takeover all is learned from"


def test_after_a_takeover_only_the_person_is_learned_from(player):
    do(player, "record")
    ticks(player, 4)
    do(player, "take")
    do(player, "steer", axes={"away": 1.0})
    ticks(player, 3)
    do(player, "give")
    ticks(player, 2)
    do(player, "stop")
    do(player, "keep")
    data = LeRobotDataset(player.recorder.path, 10)
    assert data.trainable_rows().tolist() == [4, 5, 6]
    _, is_pad = data.action_chunks(np.array([4]))
    assert is_pad[0].tolist() == [False] * 3 + [True] * 7, "a chunk ends where the policy goes on"


def test_sets_grow_and_refuse_another_robot(player, tmp_path):
    for _ in range(2):
        do(player, "record")
        ticks(player, 4)
        do(player, "stop")
        do(player, "keep")
    assert player.recorder.episodes == 2 and len(LeRobotDataset(player.recorder.path, 4)) == 8
    assert Recorder(player.recorder.path, player.robot).episodes == 2
    assert not (player.recorder.path / fmt.RECORDING).exists(), "looking at it begins no recording"
    do(player, "record")
    ticks(player, 4)
    assert do(player, "discard") and player.recorder.frames == 0
    with pytest.raises(ValueError, match="holds robot 'homes'"):
        Player(Lifter(), load_suite("rooms-move"), robot="mobile", checkpoint=NANO, out=tmp_path)


def test_a_recording_that_waits_is_not_thrown_away(player):
    do(player, "record")
    ticks(player, 4)
    do(player, "stop")
    with pytest.raises(ValueError, match="4 frames are not kept yet: keep or discard them first"):
        do(player, "record")
    ticks(player, 2)
    assert not player.recorder.is_on and player.recorder.frames == 4
    assert do(player, "keep").startswith("kept 1 episode ") and len(LeRobotDataset(player.recorder.path, 4)) == 4
    do(player, "record")
    ticks(player, 1)
    assert player.recorder.is_on and player.recorder.frames == 1


def test_folders_of_the_persons_own_are_no_runs(player, tmp_path):
    for name in ("run-2", "run-7-old", "run-old", "run-9.bak"):
        (tmp_path / name).mkdir()
    (tmp_path / "run-5").write_text("a file")
    assert player.view()["finetuning"]["command"].endswith(f"--out {tmp_path / 'run-3'}")


def test_the_run_that_is_written_can_be_trained(player):
    do(player, "record")
    ticks(player, 6)
    do(player, "stop")
    do(player, "keep")
    described = player.view()["finetuning"]
    assert described["state"] == "ready" and described["command"].startswith("pilot train ")
    run = configs.get(f"{player.finetuning.file}:finetune")
    assert run.robot == "homes" and run.init_from.path == str(NANO)
    assert run.data.sources[0].path == str(player.recorder.path.resolve()) and run.data.loc_stride == 16
    player.finetuning.file.write_text("# mine\n")
    assert player.finetuning.write().read_text() == "# mine\n", "a changed file is kept"


def test_a_robot_with_an_arm_is_driven_by_its_hand_and_recorded_in_its_joints(tmp_path):
    player = Player(Still(), load_suite("rooms-move"), robot="mobile", checkpoint=NANO, out=tmp_path, scene=3)
    ticks(player, 2)
    view = json.loads(json.dumps(player.view()))
    assert [camera["name"] for camera in view["cameras"]] == ["front", "back", "wrist", "overview"]
    assert view["plan"]["path"] and view["axes"][:3] == ["hand right", "hand forward", "hand up"]
    do(player, "record")
    do(player, "take")
    do(player, "steer", axes={"hand up": 1.0, "drive forward": -0.5}, open=False)
    ticks(player, 6)
    do(player, "stop")
    do(player, "keep")
    data = LeRobotDataset(player.recorder.path, 10)
    assert data.actions.shape == (6, 11) and (data.actions[:, 0] < 0).all(), "it drove backwards"
    assert np.ptp(data.actions[:, 4:10], axis=0).max() > 0.01 and data.actions[-1, 10] == 0.0, (
        "joints, and a closed hand"
    )
    player.close()
