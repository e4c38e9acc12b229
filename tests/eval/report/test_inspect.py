"""The page about a data set: whole, without network, with everything on it that a person should see."""

import html
import json
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from data.recordings import ROBOT

from eval.checkpoints import save_random_policy
from eval.pages import Balance
from pilot.cli import main
from pilot.data.formats import lerobot_layout as fmt
from pilot.data.formats.web import WebWriter
from pilot.data.formats.writer import LeRobotWriter, encode_png
from pilot.eval.report.inspect import inspect, word_spans
from pilot.eval.report.inspect_web import draw_boxes
from pilot.robots.homes import ROBOT as HOMES
from pilot.tokenizers.text import box_to_locs


def episode(number: int, *, length: int = 40) -> dict[str, np.ndarray]:
    """A robot that follows its commands one frame later, before cameras that see it move."""
    rng, along = np.random.default_rng(number), np.linspace(0, 6, length + 1)
    path = np.stack([np.sin(along * rng.uniform(0.8, 1.2) + d) + rng.normal(size=length + 1) * 0.01 for d in (0, 1)], 1)
    hold = (along > 3).astype(float)
    return {
        fmt.STATE: np.concatenate([path[:-1], hold[:-1, None]], 1).astype(np.float32),
        fmt.ACTION: path[1:].astype(np.float32),
        fmt.IMAGES + "room": rng.integers(0, 256, (length, 12, 16, 3), dtype=np.uint8),
        fmt.IMAGES + "wrist": rng.integers(0, 256, (length, 8, 8, 3), dtype=np.uint8),
    }


def record(path, episodes, *, task: str = "put the <cup> away & stop") -> None:
    with LeRobotWriter(path, ROBOT, 10) as writer:
        for frames in episodes:
            writer.add_episode(
                frames,
                task=task,
                persistent=[(0.0, "subtask", "assistant", "reach"), (1.5, "subtask", "assistant", "grasp it")],
                events=[(10, "interjection", "user", "careful")],
            )


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    path = tmp_path_factory.mktemp("sound") / "set"
    record(path, [episode(number) for number in range(4)])
    found = inspect(path, action_horizon=8, episodes=2)
    assert found.page == path / "inspect.html" and found.issues == [] and found.episodes == 4
    return found.page.read_text()


def test_the_page_is_whole_and_loads_nothing(page):
    parser = Balance()
    parser.feed(page)
    assert parser.open == []
    assert "<script" not in page and not re.search(r"(src|href|url)\s*[=(]\s*[\"']?(https?:)?//", page)
    assert page.count("data:image/webp;base64,") >= 2 * 2 * 12
    assert "prefers-color-scheme: dark" in page and "width=device-width" in page


def test_the_page_shows_what_is_in_the_set(page):
    assert "Episode 0: put the &lt;cup&gt; away &amp; stop" in page and "Episode 3" in page
    for words in ("reach", "grasp it", "careful", "16 × 12", "4.0 s, 40 frames", "action tokens per chunk"):
        assert words in page, words
    assert page.count('class="trace"') == 2 * 3, "x and y with their actions on top, hold alone"
    assert page.count("q01") >= 5 and page.count('class="quantile"') >= 2 * 5
    assert "<tr><td>grasp it</td><td" in page.replace(' class="n"', "").replace("<td >", "<td>")


def test_the_page_shows_what_the_model_sees(page):
    assert "room as recorded, 16\u00a0×\u00a012" in page and "room as seen, 224\u00a0×\u00a0224" in page
    chips = re.findall(r'<i class="(prefix|text|fast)">([^<]*)</i>', page)
    read = "".join(text for kind, text in chips if kind == "prefix")
    assert re.search(r"&lt;bos&gt;Task:·put·the·.*cup.*·away.*·stop,·State:(·\d+){3};⏎Subtask:·", read), read
    kinds = {kind for kind, _ in chips}
    assert kinds == {"prefix", "text", "fast"}
    actions = [text for kind, text in chips if kind == "fast"]
    assert any(text.isdigit() for text in actions)


def test_suspicions_are_on_the_page_and_in_the_terminal(tmp_path, capsys):
    bad = [episode(number) for number in range(4)]
    bad[1] = bad[0]
    bad[0][fmt.IMAGES + "wrist"] = np.zeros((40, 8, 8, 3), np.uint8)
    bad[3][fmt.IMAGES + "room"] = np.repeat(bad[3][fmt.IMAGES + "room"][:1], 40, axis=0)
    record(tmp_path / "set", bad)
    assert (
        main.main(["data", "inspect", str(tmp_path / "set"), "--out", str(tmp_path / "page.html"), "--episodes", "4"])
        == 0
    )
    page, said = (tmp_path / "page.html").read_text(), capsys.readouterr().out
    for words in (
        "1 episode is a copy of another: 0 = 1",
        "camera 'wrist' in episode 0 is black",
        "camera 'room' in episode 3 shows the same picture all the time",
    ):
        assert words in html.unescape(page) and words in said
    assert "camera 'wrist'" not in page, "it is escaped"
    assert "✓" in said or "suspicious things" in said


def test_what_cannot_be_read_is_named_and_the_rest_shown(tmp_path):
    record(tmp_path / "set", [episode(number) for number in range(3)])
    file = next((tmp_path / "set/data").rglob("*.parquet"))
    table = pq.read_table(file)
    actions = table["action"].to_pylist()
    actions[45] = [float("nan"), 0.0]
    column = pa.array(actions, table.schema.field("action").type)
    times = pa.array(table["timestamp"].to_numpy() / 2)
    table = table.set_column(table.column_names.index("action"), "action", column)
    pq.write_table(table.set_column(table.column_names.index("timestamp"), "timestamp", times), file, row_group_size=40)
    found = inspect(tmp_path / "set", episodes=1)
    assert found.episodes == 2 and found.skipped == 1
    assert [s.check for s in found.issues] == ["unreadable", "frame rate"]
    assert "episode 1 cannot be read" in found.page.read_text()


def test_words_on_a_timeline():
    parts = word_spans(["", "a", "a", "b"], 4)
    assert [(part.words, part.start, part.stop) for part in parts] == [("a", 0.25, 0.75), ("b", 0.75, 1.0)]


def test_another_robot_is_refused(tmp_path, capsys):
    record(tmp_path / "set", [episode(0)])
    assert main.main(["data", "inspect", str(tmp_path / "set"), "--robot", "homes"]) == 2
    assert "has 3 state and 2 action dims, robot 'homes' declares 5 and 4" in capsys.readouterr().err


@pytest.mark.parametrize("prompt", ["subtask", "pi05"])  # the second acts on its prompt alone
def test_with_a_checkpoint_it_is_that_policys_view(tmp_path, prompt):
    rng, path = np.random.default_rng(0), tmp_path / "set"
    with LeRobotWriter(path, HOMES, 10) as writer:
        pictures = {fmt.IMAGES + c: rng.integers(0, 256, (12, 20, 40, 3), dtype=np.uint8) for c in HOMES.cameras}
        vectors = {
            fmt.STATE: rng.random((12, 5)).astype(np.float32),
            fmt.ACTION: rng.random((12, 4)).astype(np.float32),
        }
        said = [(0.0, "subtask", "assistant", "pick up the cup")]
        writer.add_episode(vectors | pictures, task="put the cup away", persistent=said)
    policy = save_random_policy(tmp_path / "policy", prompt=prompt)
    page = inspect(path, checkpoint=policy).page.read_text()
    assert f"As the policy in <code>{policy}</code> sees it" in page
    assert "room as recorded, 40\u00a0×\u00a020" in page and "room as seen, 16\u00a0×\u00a016" in page
    assert "this model takes none" in page, "the random policy has no action tokenizer"


def test_pictures_with_questions_have_a_page_of_their_own(tmp_path, capsys):
    rng = np.random.default_rng(0)
    with WebWriter(tmp_path / "web") as writer:
        for number in range(60):
            picture = encode_png(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8))
            colour = ("red", "blue")[number % 2]
            box = box_to_locs((0.25, 0.25, 0.5, 0.75))
            questions = [
                ("which colour is the <cup>?", colour),
                ("where is the cup?", f"{box}cup"),
                ("is it a cup?", "yes"),
            ]
            writer.add(picture, questions)
    assert main.main(["data", "inspect", str(tmp_path / "web")]) == 0
    said = capsys.readouterr().out
    assert "one answer: “is it a cup?” is answered “yes” 60 times of 60" in said and "“where is the cup?”" in said
    assert f"180 rows, 2 suspicious things: {tmp_path}/web/inspect.html" in said
    assert main.main(["data", "inspect", str(tmp_path / "web"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["page"] == f"{tmp_path}/web/inspect.html" and len(found["issues"]) == 2
    page = (tmp_path / "web" / "inspect.html").read_text()
    parser = Balance()
    parser.feed(page)
    assert not parser.open and page.count("<img") == 12
    assert "which colour is the &lt;cup&gt;?" in page and "[box] cup" in page and "&lt;loc" not in page
    assert "33%" in page, "a third of the rows speak of a place"


def test_the_box_that_a_row_speaks_of_is_drawn():
    picture = np.zeros((16, 16, 3), np.uint8)
    drawn = draw_boxes(picture, "where is the cup?", box_to_locs((0.25, 0.25, 0.5, 0.75)) + "cup")
    assert drawn.shape == (256, 256, 3)
    reds = np.argwhere(drawn[..., 0] == 255)
    assert reds.min(0).tolist() == [64, 64] and reds.max(0).tolist() == [128, 192]
