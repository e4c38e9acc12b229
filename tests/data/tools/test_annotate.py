"""Subtasks from a table, from a model behind HTTP (a server on this machine) and by hand, read back by the data set."""

import base64
import io
import json
from collections.abc import Iterator

import numpy as np
import pyarrow.parquet as pq
import pytest
from data.recordings import ROBOT, episode
from PIL import Image

from chat_server import ChatServer, chat_server
from pilot.cli import main
from pilot.data.formats import lerobot_layout as fmt
from pilot.data.formats.lerobot import LeRobotDataset
from pilot.data.formats.writer import LeRobotWriter
from pilot.data.tools import annotate as annotating
from pilot.data.tools.annotate import CsvLabeller, annotate
from pilot.data.tools.annotate_by_hand import HandLabeller, drawing
from pilot.data.tools.annotate_with_vlm import VlmEndpoint, VlmLabeller
from pilot.locks import FolderInUseError


@pytest.fixture
def recorded(tmp_path, monkeypatch):
    """Four episodes of 10 frames at 10 Hz in two data files; only the last has a subtask, the first was talked to."""
    monkeypatch.setattr(fmt, "DATA_FILE_MB", 0.02)
    rng, path = np.random.default_rng(0), tmp_path / "set"
    with LeRobotWriter(path, ROBOT, 10) as writer:
        for number in range(4):
            writer.add_episode(
                episode(rng, 10),
                task=f"task {number}",
                persistent=[(0.3, "subtask", "assistant", "old")]
                if number == 3
                else [(0.0, "task_aug", "user", "else")],
                events=[(2, "interjection", "user", "now")] if number == 0 else [],
            )
    assert len(list(path.glob("data/*/*.parquet"))) > 1
    return path


def subtasks(path) -> list[list[str | None]]:
    dataset = LeRobotDataset(path, 2)
    return [[dataset.row(i)["subtask"] for i in range(e.start, e.stop)] for e in dataset.episodes]


def table(path, text: str):
    (path.parent / "labels.csv").write_text(text)
    return path.parent / "labels.csv"


# --- from a table ---------------------------------------------------------------------------------------------------


def test_a_table_in_seconds(recorded):
    before = LeRobotDataset(recorded, 2)
    labels = CsvLabeller(table(recorded, "episode,start,subtask\n0,0.5,put it down\n0,0,pick it up\n2,0.2,reach\n"))
    report = annotate(recorded, labels, by="csv", episodes=labels.episodes, progress=False)
    assert str(report) == "2 episodes annotated"
    found = subtasks(recorded)
    assert found[0] == ["pick it up"] * 5 + ["put it down"] * 5
    assert found[1] == [None] * 10 and found[2] == [None] * 2 + ["reach"] * 8
    assert found[3] == [None] * 3 + ["old"] * 7, "others keep theirs"
    after = LeRobotDataset(recorded, 2)
    assert after.episodes[0].rephrasings == ("else",), "other language rows stay"
    assert after.row(5)["utterance"] == "now"
    np.testing.assert_array_equal(after.state, before.state)
    np.testing.assert_array_equal(after.frame(33)["images"]["room"], before.frame(33)["images"]["room"])
    assert not (recorded / "annotation").exists()


def test_a_table_in_frames_with_other_names(recorded):
    labels = CsvLabeller(table(recorded, "\ufeffEpisode_Index, frame, label\n1,4,reach\n"))
    annotate(recorded, labels, by="csv", episodes=labels.episodes, progress=False)
    assert subtasks(recorded)[1] == [None] * 4 + ["reach"] * 6


def test_what_is_there_is_kept_unless_told_otherwise(recorded):
    labels = CsvLabeller(table(recorded, "episode,start,subtask\n2,0,new\n3,0,new\n"))
    report = annotate(recorded, labels, by="csv", episodes=labels.episodes, progress=False)
    assert (report.written, report.kept) == (1, (3,)) and "1 had subtasks already and kept them" in str(report)
    assert subtasks(recorded)[3] == [None] * 3 + ["old"] * 7
    annotate(recorded, labels, by="csv", episodes=labels.episodes, overwrite=True, progress=False)
    assert subtasks(recorded)[3] == ["new"] * 10


@pytest.mark.usefixtures("no_manifests")
def test_a_set_without_language_columns(recorded):
    """As other tools record: the column is new to the files and to meta/info.json."""
    info = json.loads((recorded / fmt.INFO).read_text())
    for name in (fmt.PERSISTENT, fmt.EVENTS):
        del info["features"][name]
    (recorded / fmt.INFO).write_text(json.dumps(info))
    for file in recorded.glob("data/*/*.parquet"):
        pq.write_table(pq.read_table(file).drop_columns([fmt.PERSISTENT, fmt.EVENTS]), file)
    labels = CsvLabeller(table(recorded, "episode,start,subtask\n1,0,reach\n"))
    annotate(recorded, labels, by="csv", episodes=labels.episodes, progress=False)
    assert subtasks(recorded) == [[None] * 10, ["reach"] * 10, [None] * 10, [None] * 10]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "episode,start\n1,0\n",
            r"labels.csv has no column subtask or label or text; its first line names \['episode'",
        ),
        ("episode,start,subtask\n1,0,a\n1,soon,b\n", r"labels.csv, line 3: could not convert string to float: 'soon'"),
        ("episode,start,subtask\n9,0,a\n", r"has episodes 0 to 3, not 9"),
        ("episode,start,subtask\n1,1.5,a\n", r"subtask 'a' at 1.5 s does not fit episode 1 .*lasts 1 s"),
        ("episode,start,subtask\n1,0, \n", r"subtask '' at 0 s does not fit"),
    ],
)
def test_bad_tables_are_refused_and_nothing_is_written(recorded, text, message):
    with pytest.raises(ValueError, match=message):
        labels = CsvLabeller(table(recorded, text))
        annotate(recorded, labels, by="csv", episodes=labels.episodes, progress=False)
    assert subtasks(recorded)[:3] == [[None] * 10] * 3


def test_interrupted_writing_is_done_again(recorded, monkeypatch):
    """Between two files: the set stays readable, and the same command finishes it."""
    labels = CsvLabeller(table(recorded, "episode,start,subtask\n0,0,a\n1,0,b\n2,0,c\n"))
    real, files = annotating._rewrite, []

    def interrupted(file, **rest) -> None:
        files.append(file)
        if len(files) == 2:
            raise KeyboardInterrupt
        real(file, **rest)

    with monkeypatch.context() as patch:
        patch.setattr(annotating, "_rewrite", interrupted)
        with pytest.raises(KeyboardInterrupt):
            annotate(recorded, labels, by="csv", episodes=labels.episodes, progress=False)
    assert len(subtasks(recorded)) == 4
    annotate(recorded, labels, by="csv", episodes=labels.episodes, progress=False)
    assert [words[0] for words in subtasks(recorded)[:3]] == ["a", "b", "c"]


def test_nobody_records_into_a_set_while_it_is_rewritten(recorded):
    """The episodes of the recording would be lost: the old meta/info.json is written last."""
    before = (recorded / fmt.INFO).read_text()
    recording = LeRobotWriter(recorded, ROBOT, 10)
    with pytest.raises(FolderInUseError, match=r"set/recording is in use by process"):
        annotate(recorded, lambda *_: [(0.0, "reach")], by="me", progress=False)
    with pytest.raises(FolderInUseError):
        annotating.write_subtasks(recorded, {0: [(0.0, "reach")]})
    recording.close()
    assert (recorded / fmt.INFO).read_text() == before

    def records(*_) -> list[tuple[float, str]]:
        with pytest.raises(FolderInUseError):
            LeRobotWriter(recorded, ROBOT, 10)
        return [(0.0, "reach")]

    assert annotate(recorded, records, by="me", progress=False).written == 3
    assert not (recorded / fmt.RECORDING).exists()


# --- from a model ---------------------------------------------------------------------------------------------------


@pytest.fixture
def chat() -> Iterator[ChatServer]:
    with chat_server() as server:
        yield server


def said(*pairs: tuple[float, str]) -> tuple[int, str]:
    return 200, "```json\n" + json.dumps([{"start": at, "subtask": words} for at, words in pairs]) + "\n```"


class Time:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now, self.slept = 0.0, []

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def asking(chat: ChatServer, time: Time, **options) -> VlmLabeller:
    endpoint = VlmEndpoint(url=chat.url, model="eye-1", per_minute=options.pop("per_minute", 60_000), attempts=3)
    return VlmLabeller(endpoint=endpoint, sleep=time.sleep, clock=time.clock, **options)


def test_a_model_is_shown_the_episode_and_answers(recorded, chat, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sesame")
    chat.answers = [said((0, "reach"), (0.6, "grasp")), said((0, "push"))]
    report = annotate(recorded, asking(chat, Time(), frames=4), by="eye-1", episodes=[0, 2], progress=False)
    assert report.written == 2
    assert subtasks(recorded)[0] == ["reach"] * 6 + ["grasp"] * 4 and subtasks(recorded)[2] == ["push"] * 10
    path, headers, body = chat.requests[0]
    assert path == "/v1/chat/completions" and headers["Authorization"] == "Bearer sesame" and body["model"] == "eye-1"
    parts = body["messages"][0]["content"]
    assert "task 0" in parts[0]["text"] and [p["text"] for p in parts[1::2]] == ["0.0 s", "0.3 s", "0.6 s", "0.9 s"]
    kind, _, content = parts[2]["image_url"]["url"].partition(",")
    picture = Image.open(io.BytesIO(base64.b64decode(content)))
    assert kind == "data:image/jpeg;base64" and picture.size == (16, 8)
    files = [file.read_bytes() for file in recorded.rglob("*") if file.is_file()]
    assert not any(b"sesame" in content for content in files), "the key is stored nowhere"


def test_a_model_that_stumbles_is_asked_again(recorded, chat):
    time = Time()
    chat.answers = [(503, "busy"), (429, "slower", {"Retry-After": "7"}), said((0, "reach"))]
    annotate(recorded, asking(chat, time), by="eye-1", episodes=[0], progress=False)
    assert [round(pause, 2) for pause in time.slept if pause > 0.5] == [1.0, 7.0]
    chat.answers = [(200, "I see a robot."), said((5.0, "too late")), said((0, "reach"))]
    annotate(recorded, asking(chat, Time()), by="eye-1", episodes=[1], progress=False)
    assert subtasks(recorded)[1] == ["reach"] * 10


def test_questions_keep_their_distance(recorded, chat):
    time = Time()
    chat.answers = [said((0, "a")), said((0, "b")), said((0, "c"))]
    annotate(recorded, asking(chat, time, per_minute=6), by="eye-1", episodes=[0, 1, 2], progress=False)
    assert time.slept == [10.0, 10.0]


def test_answers_are_kept_over_an_interruption(recorded, chat):
    chat.answers = [said((0, "first")), *[(500, "down")] * 3]
    with pytest.raises(ConnectionError, match=r"episode 1, 3 attempts: HTTP 500.*the same command goes on"):
        annotate(recorded, asking(chat, Time()), by="eye-1", episodes=[0, 1], progress=False)
    assert subtasks(recorded)[0] == [None] * 10
    with pytest.raises(ValueError, match="holds the answers of eye-1 to an annotation that was interrupted"):
        annotate(recorded, asking(chat, Time()), by="eye-2", episodes=[0, 1], progress=False)
    chat.answers, chat.requests = [said((0, "second"))], []
    annotate(recorded, asking(chat, Time()), by="eye-1", episodes=[0, 1], progress=False)
    assert len(chat.requests) == 1, "episode 0 is not asked about again"
    assert not (recorded / "annotation").exists()
    assert [words[0] for words in subtasks(recorded)[:2]] == ["first", "second"]


def test_answers_for_other_episodes_stay(recorded, chat):
    """They may have cost money."""
    chat.answers = [said((0, "first")), *[(500, "down")] * 3]
    with pytest.raises(ConnectionError):
        annotate(recorded, asking(chat, Time()), by="eye-1", episodes=[0, 1], progress=False)
    chat.answers = [said((0, "third"))]
    annotate(recorded, asking(chat, Time()), by="eye-1", episodes=[2], progress=False)
    assert subtasks(recorded)[0] == [None] * 10
    chat.answers = [said((0, "second"))]
    assert annotate(recorded, asking(chat, Time()), by="eye-1", episodes=[0, 1], progress=False).written == 2
    assert [words[0] for words in subtasks(recorded)[:3]] == ["first", "second", "third"]


def test_who_answers_is_told_apart_by_all_that_decides_what(recorded, chat):
    first = CsvLabeller(table(recorded, "episode,start,subtask\n0,0,pick up the red cup\n2,99,late\n"))
    with pytest.raises(ValueError, match="does not fit episode 2"):
        annotate(recorded, first, by=first.by, episodes=first.episodes, progress=False)
    mended = CsvLabeller(table(recorded, "episode,start,subtask\n0,0,pick up the blue cup\n2,0,late\n"))
    with pytest.raises(
        ValueError, match=r"holds the answers of .*labels.csv \(content .*begin again with .*labels.csv"
    ):
        annotate(recorded, mended, by=mended.by, episodes=mended.episodes, progress=False)
    settings = ({}, {"frames": 4}, {"camera": "wrist"}, {"subtasks": ["reach"]}, {"size": 224})
    assert len({asking(chat, Time(), **each).by for each in settings}) == len(settings)


@pytest.mark.parametrize(
    ("answers", "options", "error", "message"),
    [
        ([(401, "no")], {}, ConnectionError, r"HTTP 401: .*is the key in \$OPENAI_API_KEY right"),
        ([(200, "[]")] * 3, {}, ValueError, r"episode 0, 3 attempts: .*no words, in '\[\]'"),
        ([said((0, "fly"))] * 3, {"subtasks": ["reach"]}, ValueError, r"'fly' is none of \['reach'\]"),
    ],
)
def test_answers_that_are_no_use(recorded, chat, answers, options, error, message):
    chat.answers = list(answers)
    with pytest.raises(error, match=message):
        annotate(recorded, asking(chat, Time(), **options), by="eye-1", episodes=[0], progress=False)
    assert not chat.answers


# --- by hand --------------------------------------------------------------------------------------------------------


def test_by_hand(recorded):
    lines = iter(
        ["0 reach", "soon grasp", "0.5 oops", "-", "9 late", "0.4  grasp  it", "", "0 half", "q", "0 new", "q"]
    )
    shown: list[str] = []
    labeller = HandLabeller(read=lambda _: next(lines), write=shown.append, colours=True, frames=2)
    report = annotate(recorded, labeller, by="hand", progress=False)
    assert report.written == 2 and report.kept == (3,)
    assert subtasks(recorded)[0] == ["reach"] * 4 + ["grasp it"] * 6
    assert subtasks(recorded)[1] == ["half"] * 10, "what was typed before q is kept"
    assert subtasks(recorded)[2] == [None] * 10, "and nothing is asked after it"
    assert annotate(recorded, labeller, by=labeller.by, progress=False).written == 1, "it can be used again"
    text = "\n".join(shown)
    assert "episode 0: task 0 (1.0 s)" in text and "'soon' is no time" in text and "\033[38;2;" in text


def test_a_picture_in_a_terminal():
    picture = np.zeros((4, 4, 3), np.uint8)
    picture[:2] = (255, 0, 0)
    lines = drawing(picture, 2)
    assert lines == ["\033[38;2;255;0;0;48;2;0;0;0m▀" * 2 + "\033[0m"]


# --- the command ----------------------------------------------------------------------------------------------------


def test_the_command(recorded, chat, capsys):
    labels = table(recorded, "episode,start,subtask\n0,0,reach\n3,0,new\n")
    assert main.main(["data", "annotate", str(recorded), "--csv", str(labels)]) == 0
    assert "1 episodes annotated; 1 had subtasks already" in capsys.readouterr().out
    assert main.main(["data", "annotate", str(recorded), "--vlm", chat.url]) == 2
    assert "--vlm needs --model" in capsys.readouterr().err
    chat.answers = [said((0, "look"))]
    command = ["data", "annotate", str(recorded), "--vlm", chat.url, "--model", "eye-1", "--episodes", "1"]
    assert main.main(command) == 0
    assert subtasks(recorded)[1] == ["look"] * 10
