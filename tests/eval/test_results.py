"""The table of an evaluation: what stays of it, and that rows which differ look different."""

import json

import pytest

from eval.jobs import make_record
from pilot.eval.card import result_table
from pilot.eval.episode import Timekeeping
from pilot.eval.records import EpisodeRecord
from pilot.eval.results import SuiteResult, save_table, to_markdown
from pilot.eval.runner import Job, lost
from pilot.eval.settings import Settings
from pilot.eval.suites import load_suite
from pilot.infer.high_level import SayCan


def result(suite="homes-l1", policy="p", until=None, seed=0):
    record = EpisodeRecord(
        suite=suite, control="none", scene=0, episode=0, seed=seed, prompt="p", asked="p", success=True, steps=20,
        first_grasped=None, wrong_object=False, right_object_first=False, placed=1, targets=1, subtasks=(),
        infer_ms=1.0, replan_steps=5,
    )  # fmt: skip
    return SuiteResult(suite=suite, title="", control="none", policy=policy, records=(record,), until=until)


def rows_of(path):
    return [(row["suite"], row["policy"]) for row in json.loads(path.read_text())]


def test_rows_stay_unless_they_are_measured_again_or_of_another_policy(tmp_path):
    table, settings = tmp_path / "results.json", Settings().to_json()
    save_table([result("a"), result("b")], table, settings=settings)
    save_table([result("b"), result("c")], table, settings=settings)
    assert rows_of(table) == [("a", "p"), ("b", "p"), ("c", "p")]
    assert [line.split(" | ")[0] for line in table.with_suffix(".md").read_text().splitlines()[2:]] == [
        "| a", "| b", "| c"
    ]  # fmt: skip
    save_table([result("d", policy="q")], table, settings=settings)
    assert rows_of(table) == [("d", "q")], "a card made of it would mix two policies"


def test_what_tells_rows_apart_is_kept_apart_and_shown(tmp_path):
    table = tmp_path / "results.json"
    for labels in (("a",), ("b",)):
        save_table([result()], table, settings=Settings(high_level=SayCan(labels=labels)).to_json())
    save_table([result(seed=3)], table, settings=Settings().to_json())
    rows = json.loads(table.read_text())
    assert ["('b',)" in (row["settings"]["high_level_options"] or "") for row in rows] == [False, True, False]
    lines = table.with_suffix(".md").read_text().splitlines()
    assert [line.split(" | ")[-1] for line in lines[2:]] == ["high level saycan, seed 0 |"] * 2 + ["seed 3 |"]


def test_a_card_says_in_which_settings_its_rows_differ(tmp_path):
    table = tmp_path / "results.json"
    late = Settings(timekeeping=Timekeeping(clock=True, latency_ms=300.0), num_steps=3)
    save_table([result()], table, settings=late.to_json())
    save_table([result(), result(seed=3)], table, settings=Settings().to_json())
    head, _, *lines = result_table(json.loads(table.read_text()))[:5]
    assert head == "| suite | control | settings | success | 95 % interval | episodes |"
    words = [line.split(" | ")[2] for line in lines]
    assert words == ["num steps 3, clock, latency ms 300.0, seed 0", "seed 0", "seed 3"]
    plain = {
        name: value for name, value in json.loads(table.read_text())[1].items() if name not in ("seed", "settings")
    }
    assert result_table([plain])[2] == "| homes-l1 | none | 100.0% | 20.7% – 100.0% | 1 |"


def test_a_rate_to_stop_at_is_said_of_the_rows_that_had_one():
    text = to_markdown([result("a"), result("b", until=0.6)])
    assert "b, none: stopped once surely above or below 60%" in text and "a, none:" not in text


def test_settings_are_those_of_an_episode_that_was_not_lost():
    lost = EpisodeRecord.of_lost("crash", suite="homes-l1", control="none", scene=1, seed=0, restarts=2)
    both = SuiteResult(suite="homes-l1", title="", control="none", policy="p", records=(lost, *result().records))
    assert both.to_json()["replan_steps"] == 5


@pytest.mark.parametrize(("name", "task"), [("rooms-move", None), ("metaworld-mt10", "reach")])
def test_a_lost_episode_is_of_no_task_unless_its_number_says_which(name, task):
    """Else one crash makes a suite of one task one of two, with an interval over them."""
    suite = load_suite(name)
    crashed, _ = lost(Job(suite=suite, control="none", scene=0, seed=0, episodes=9), "crash")
    assert crashed.task == task
    played = (make_record(task="move"), make_record(task="move", success=False))
    both = SuiteResult(suite=name, title="", control="none", policy="p", records=(*played, crashed))
    assert both.by_task() == {"move": (1, 2)} | ({} if task is None else {task: (0, 1)})
    assert (both.interval_over_tasks is None) == (task is None) and both.n == 3


def test_a_damaged_table_is_named(tmp_path):
    (tmp_path / "results.json").write_text("[{")
    with pytest.raises(ValueError, match="the log has every episode"):
        save_table([result()], tmp_path / "results.json")
