"""Evaluation: what is refused, and the same answer from one process or two."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
from data.hub_server import instead_of_the_real_one

from eval.checkpoints import save_random_policy
from eval.jobs import Still, make_job, make_record
from eval.toy_sim import ToySuite
from pilot.cli import main
from pilot.data.tools.vlm_endpoint import VlmEndpoint
from pilot.eval import episode_log, runner
from pilot.eval.episode import Timekeeping
from pilot.eval.episode_log import read_rows
from pilot.eval.evaluate import check_fit, evaluate, evaluate_table, prepare_high_level, select_suites
from pilot.eval.policies import robot_for
from pilot.eval.records import unpack_actions
from pilot.eval.results import SuiteResult, save_table, to_markdown
from pilot.eval.rollout import film
from pilot.eval.runner import Runner, other_prompt
from pilot.eval.settings import Settings, Shard
from pilot.eval.stand_ins import ScriptedPerson
from pilot.eval.stats import wilson
from pilot.eval.suites import load_suite, suites_for
from pilot.infer.high_level import Implicit, Oracle, SayCan, Vlm
from pilot.infer.high_level.vlm import at_once
from pilot.robots import load_robot
from pilot.robots.homes import ROBOT as HOMES
from pilot.sims import libero

TOY = ToySuite(name="toy", title="go to one")


@pytest.fixture(scope="module")
def many(tmp_path_factory) -> Path:
    """A policy of the homes' robot, of one that is like it, and of one that is not."""
    twin = replace(HOMES, name="twin")
    return save_random_policy(tmp_path_factory.mktemp("many") / "policy", load_robot("pusht"), HOMES, twin)


def test_a_policy_of_many_robots_acts_as_the_suite_s_own_or_as_the_one_that_is_named(many):
    for robot, acts in ((None, "homes"), ("twin", "twin"), ("homes", "homes")):
        assert robot_for(many, make_job().suite, robot=robot) == acts
        assert Runner(many, Settings(robot=robot)).make_session(None, make_job()).robot.name == acts
    assert robot_for("expert", make_job().suite) is None


def test_a_robot_that_does_not_fit_the_suite_is_refused(many, tmp_path, capsys):
    with pytest.raises(ValueError, match=r"is for robot 'pusht' .* 2 action dims; suite 'homes-l1' is for 'homes'"):
        evaluate(many, suite="homes-l1", robot="pusht", episodes=1)
    with pytest.raises(ValueError, match=r"not trained on robot 'twins'; did you mean 'twin'\?"):
        evaluate(many, suite="homes-l1", robot="twins", episodes=1)
    assert main.main(["eval", str(many), "--suite", "homes-l1", "--robot", "twins"]) == 2
    assert "did you mean 'twin'?" in capsys.readouterr().err
    others = save_random_policy(tmp_path / "policy", load_robot("pusht"), replace(HOMES, name="twin"))
    with pytest.raises(
        ValueError, match=r"for robot 'homes', which the policy was not trained on; it knows pusht, twin"
    ):
        evaluate(others, suite="homes-l1", episodes=1)
    with pytest.raises(ValueError, match="expert of suite 'homes-l1' acts for robot 'homes', not 'twin'"):
        evaluate("expert", suite="homes-l1", robot="twin", episodes=1)


def test_without_suites_those_of_all_its_robots_are_taken(many):
    homes = [suite.name for suite in suites_for("homes")]
    assert [suite.name for suite in select_suites(many, None, robot="homes")] == homes
    assert [suite.name for suite in select_suites(many, None)] == [s.name for s in suites_for("homes", "pusht")]
    assert set(homes) < {suite.name for suite in select_suites(many, None)}
    with pytest.raises(ValueError, match="no simulator has a suite for robot 'twin'"):
        select_suites(many, None, robot="twin")


def test_the_expert_acts_as_the_robot_that_is_named_in_all_suites_that_have_it():
    chosen = select_suites("expert", None, robot="arm_ee")
    assert {suite.robot.name for suite in chosen} == {"arm_ee"} and len(chosen) == len(suites_for("arm_ee"))
    assert {robot_for("expert", suite, robot="arm_ee") for suite in chosen} == {None}
    with pytest.raises(ValueError, match="no suite for robot 'pusht' that is installed has an expert"):
        select_suites("expert", None, robot="pusht")
    with pytest.raises(ValueError, match="no simulator has a suite for robot 'arm_e'"):
        select_suites("expert", None, robot="arm_e")


def test_no_episodes_and_two_workers_for_one_object_are_refused():
    with pytest.raises(ValueError, match=r"at least 1 episode"):
        evaluate("expert", suite="homes-l1", episodes=0)
    with pytest.raises(ValueError, match=r"stays in this process"):
        evaluate(Still(), suite="homes-l1", episodes=2, workers=2, progress=False)


def test_a_missing_checkpoint_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing"):
        evaluate(tmp_path / "nothing", suite="homes-l1", episodes=1)
    with pytest.raises(FileNotFoundError, match=r"is not a pilot checkpoint: it has no config.json"):
        evaluate(tmp_path, suite="homes-l1", episodes=1)


@pytest.mark.usefixtures("no_manifests")
def test_a_checkpoint_of_another_robot_is_refused(tmp_path):
    folder = save_random_policy(tmp_path / "policy")
    config = json.loads((folder / "config.json").read_text())
    config["robot"] |= {"name": "mine", "cameras": ["left"], "wrist_cameras": []}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"is for robot 'mine' with cameras \('left',\), 5 state and 4 action dims"):
        evaluate(folder, suite="homes-l1", episodes=1)


def test_a_checkpoint_on_the_hub_is_fetched_once(tmp_path, monkeypatch, capsys):
    folder = save_random_policy(tmp_path / "policy")
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    monkeypatch.setattr(episode_log, "code_fingerprint", lambda: "as it is")
    command = f"eval hf://desk/pi --suite homes-l1 --episodes 1 --workers 1 --out {tmp_path / 'out'}".split()
    with instead_of_the_real_one(tmp_path, monkeypatch) as hub:
        hub.commit("desk/pi", files | {"optimizer.pt": b"nobody needs it to act"})
        assert main.main(command) == 0
        table = capsys.readouterr().out
        assert "| homes-l1 | none |" in table and sorted(hub.fetched()) == sorted(files)
        monkeypatch.setattr(runner, "load", None)  # nothing runs, nor comes, again
        hub.asked.clear()
        assert main.main(command) == 0 and not hub.fetched()
        assert capsys.readouterr().out == table
        assert main.main(["eval", "hf://desk/pie"]) == 2
    assert "pilot: no model 'desk/pie' on the hub; if it is a private one, run: hf auth" in capsys.readouterr().err


def test_shuffled_prompts_differ_from_the_own_and_repeat_by_seed():
    prompts = {make_job(home).suite.prompt(home) for home in range(8)}
    others = [other_prompt(make_job(home)) for home in range(8)]
    assert all(other != make_job(home).suite.prompt(home) for home, other in enumerate(others))
    assert set(others) <= prompts and others == [other_prompt(make_job(home)) for home in range(8)]
    assert others != [other_prompt(make_job(home, seed=1)) for home in range(8)]
    with pytest.raises(ValueError, match=r"nothing to shuffle"):
        other_prompt(make_job(0, episodes=1))
    lab = replace(make_job(), suite=load_suite("lab-stack-bowls-l1"))  # many wordings of one task
    with pytest.raises(ValueError, match="asks the same of the robot everywhere"):
        other_prompt(lab)


def test_one_process_and_two_find_the_same():
    serial = evaluate("expert", suite="homes-l1", episodes=4, workers=1, progress=False)
    parallel = evaluate("expert", suite="homes-l1", episodes=4, workers=2, progress=False)
    timeless = {"infer_ms": 0.0, "latencies_ms": ()}
    without_time = [[replace(record, **timeless) for record in result.records] for result in (serial, parallel)]
    assert without_time[0] == without_time[1]
    assert serial.successes == serial.n == 4 and [r.scene for r in serial.records] == [0, 1, 2, 3]


def test_a_result_counts_and_its_table_is_saved_twice(tmp_path):
    lost = {"success": False, "wrong_object": True, "right_object_first": False, "placed": 0, "steps": 80}
    result = SuiteResult(
        suite="homes-l1", title="one move", control="none", policy="x",
        records=(make_record(num_steps=10, replan_steps=2), make_record(**lost), make_record()),
    )  # fmt: skip
    summary = result.to_json()
    assert (summary["successes"], summary["episodes"], summary["mean_steps"]) == (2, 3, 40)
    assert summary["wrong_object"] == pytest.approx(1 / 3) and summary["interval95"] == list(wilson(2, 3))
    save_table([result], tmp_path / "new" / "table.json")
    assert json.loads((tmp_path / "new" / "table.json").read_text()) == [summary]
    head, _, line = (tmp_path / "new" / "table.md").read_text().splitlines()
    assert line.startswith("| homes-l1 | none | 2/3 = 66.7% |")
    assert head.endswith("| steps | num_steps | replan_steps |") and line.endswith("| 40 | 10 | 2 |")


def test_a_table_holds_every_suite_under_every_control():
    results = evaluate_table(
        Still(), suites=["homes-l1", "homes-l2"], controls=["none", "shuffled_prompts"], episodes=2, progress=False
    )
    assert [(r.suite, r.control, r.n) for r in results] == [
        ("homes-l1", "none", 2),
        ("homes-l1", "shuffled_prompts", 2),
        ("homes-l2", "none", 2),
        ("homes-l2", "shuffled_prompts", 2),
    ]
    assert results[1].records[0].asked != results[1].records[0].prompt


def test_a_suite_or_control_that_is_named_twice_counts_once():
    twice = ["homes-l1", "homes-l1@homes"]
    (result,) = evaluate_table("expert", suites=twice, controls=["none"] * 2, episodes=2, workers=1, progress=False)
    assert result.n == result.successes == 2
    bodies = ["rooms-move@arm", "rooms-move@mobile", "rooms-move@bimanual"]
    assert [suite.name for suite in select_suites("expert", bodies, robot="bimanual")] == ["rooms-move@bimanual"]


class Chooses(Still):
    """Remembers which high level its sessions were made with, and what they were shown."""

    def __init__(self) -> None:
        super().__init__()
        self.chosen, self.shown = [], []
        self.bundle = SimpleNamespace(loc_stride=16)

    def session(self, *, replan_steps: int, high_level: Any = None) -> "Chooses":
        self.chosen.append(high_level)
        return self

    def infer(self, observation: dict[str, Any]) -> dict[str, Any]:
        self.shown.append(observation)
        return super().infer(observation)


def test_a_high_level_is_chosen_and_the_oracle_is_told_the_truth(tmp_path):
    policy = Chooses()
    for level in (None, "implicit", "oracle"):
        evaluate(policy, suite="homes-l1", episodes=1, high_level=level, out=tmp_path, progress=False)
    assert policy.chosen == [None, Implicit(), Oracle()], "each is another evaluation"
    assert prepare_high_level(Vlm(endpoint=VlmEndpoint(url="", model="")), policy).submit is at_once
    told = [observation.get("subtask") for observation in policy.shown]
    half = len(told) // 3
    assert set(told[: 2 * half]) == {None} and all("<loc" in words for words in told[2 * half :])


def any_label(observation: Any, labels: Any) -> np.ndarray:
    return np.ones(len(labels))


def test_an_affordance_is_the_same_in_the_next_process():
    """Where it lies in memory is not; a function inside another one may be made of anything."""

    def inner(observation: Any, labels: Any) -> np.ndarray:
        return np.zeros(len(labels))

    def key(affordance: Any) -> str:
        return Settings(high_level=SayCan(labels=("a",), affordance=affordance)).key()

    name = f"{any_label.__module__}.any_label"
    assert key(any_label) == f"/SayCan(labels=('a',), affordance={name}, boxes=4)"
    assert key(None) == "/SayCan(labels=('a',), affordance=None, boxes=4)" and " at 0x" in key(inner)


def test_settings_of_acting_are_the_models_own_or_chosen_and_recorded(tmp_path):
    folder = save_random_policy(tmp_path / "policy")
    own = evaluate(folder, suite="homes-l1", episodes=1, workers=1, out=tmp_path, progress=False)
    chosen = evaluate(
        folder, suite="homes-l1", episodes=1, workers=1, num_steps=3, replan_steps=4, out=tmp_path, progress=False
    )
    assert [own.to_json()[name] for name in ("num_steps", "replan_steps", "seed")] == [10, 2, 0]
    assert [chosen.to_json()[name] for name in ("num_steps", "replan_steps", "seed")] == [3, 4, 0]
    assert len((tmp_path / "episodes.jsonl").read_text().splitlines()) == 2, "they are two evaluations"
    with pytest.raises(ValueError, match="a policy object has its own num_steps"):
        evaluate(Still(), suite="homes-l1", episodes=1, num_steps=3)
    with pytest.raises(ValueError, match="the expert does not denoise, got num_steps=3"):
        evaluate("expert", suite="homes-l1", episodes=1, num_steps=3)


def test_high_levels_that_make_no_evaluation_are_refused():
    with pytest.raises(ValueError, match="the expert has no high level, got 'oracle'"):
        evaluate("expert", suite="homes-l1", episodes=1, high_level="oracle")
    with pytest.raises(ValueError, match="nobody can watch"):
        evaluate(Still(), suite="homes-l1", episodes=1, high_level="human")
    with pytest.raises(ValueError, match="no high level 'sayca'; did you mean 'saycan'"):
        evaluate(Still(), suite="homes-l1", episodes=1, high_level="sayca")


@pytest.mark.parametrize("level", [Oracle(), ScriptedPerson()])
def test_nobody_says_the_true_subtask_of_a_suite_that_knows_none(level):
    policy = Chooses()
    with pytest.raises(ValueError, match=f"suite 'toy' knows no subtasks, so there is no high level '{level.name}'"):
        evaluate(policy, suite=TOY, episodes=1, high_level=level, progress=False)
    assert not policy.chosen


def test_an_evaluation_stops_once_it_knows_and_its_interval_allows_for_that(tmp_path):
    policy = Still()
    options = {"suite": "homes-l1", "episodes": 60, "until": 0.5, "progress": False}
    result = evaluate(policy, out=tmp_path, **options)
    assert result.n == policy.sessions == 24  # 0 of 24 is surely below one half
    assert result.interval[1] > wilson(0, 24)[1]
    assert evaluate(policy, out=tmp_path, **options).n == 24 and policy.sessions == 24
    assert result.to_json()["until"] == 0.5


def test_what_is_not_decided_goes_on_and_a_log_of_more_gives_the_same_answer(tmp_path):
    everything = evaluate(Still(), suite="homes-l1", episodes=30, out=tmp_path, progress=False)
    assert everything.n == 30
    stopped = evaluate(Still(), suite="homes-l1", episodes=30, until=0.4, out=tmp_path, progress=False)
    assert stopped.n == 24 and stopped.records == everything.records[:24]
    near = evaluate(Still(), suite="homes-l1", episodes=30, until=0.01, out=tmp_path, progress=False)
    assert near.n == 30


def test_until_is_a_rate():
    with pytest.raises(ValueError, match="between 0 and 1, got 60"):
        evaluate("expert", suite="homes-l1", until=60)


def test_suites_of_several_tasks_have_a_table_of_them():
    records = [make_record(task=task, success=success) for task, success in (("open", True), ("close", False)) * 5]
    result = SuiteResult(suite="two", title="", control="none", policy="p", records=tuple(records))
    assert result.by_task() == {"open": (5, 5), "close": (0, 5)}
    assert result.interval_over_tasks == (0.0, 1.0)
    table = to_markdown([result])
    assert "| open | 5/5 | 56.6% – 100.0% |" in table and "over tasks like these 95 % 0.0% – 100.0%" in table
    assert result.to_json()["tasks"]["close"]["successes"] == 0
    one = SuiteResult(suite="one", title="", control="none", policy="p", records=(make_record(task="one"),))
    assert one.interval_over_tasks is None and "by task" not in to_markdown([one])


def test_a_plan_says_what_so_many_episodes_can_tell(capsys):
    assert main.main(["eval", "expert", "--episodes", "200", "--plan"]) == 0
    shown = capsys.readouterr().out
    assert "43.1% – 56.9%" in shown and "from 14% on at 50 %" in shown


def test_shards_together_are_the_whole_and_run_nothing_again(tmp_path, capsys):
    whole = evaluate_table("expert", suites=[TOY], episodes=7, controls=["none"], workers=1, progress=False)
    parts = [
        evaluate_table("expert", suites=[TOY], episodes=7, controls=["none"], workers=1, out=tmp_path, progress=False,
                       shard=Shard(number, 3))
        for number in (3, 1, 2)
    ]  # fmt: skip
    assert [[record.scene for record in results[0].records] for results in parts] == [[2, 5], [0, 3, 6], [1, 4]]
    assert sorted(path.name for path in tmp_path.glob("episodes*")) == [f"episodes-{i}-of-3.jsonl" for i in (1, 2, 3)]
    merged = evaluate_table(
        "expert", suites=[TOY], episodes=7, controls=["none"], workers=1, out=tmp_path, progress=False
    )
    assert not (tmp_path / "episodes.jsonl").exists(), "nothing had to run"
    untimed = {"infer_ms": 0.0, "latencies_ms": ()}
    for one, other in zip(merged[0].records, whole[0].records, strict=True):
        assert replace(one, **untimed) == replace(other, **untimed)
    with pytest.raises(ValueError, match="a shard is NUMBER/COUNT such as 2/8, got '2of8'"):
        Shard.parse("2of8")
    with pytest.raises(ValueError, match="one of 1/8 to 8/8, got 9/8"):
        Shard.parse("9/8")
    with pytest.raises(ValueError, match="a shard does not see how the others went"):
        evaluate_table("expert", suites=[TOY], until=0.5, shard=Shard(1, 2))
    with pytest.raises(ValueError, match="8 shards of 4 episodes leave some with none"):
        evaluate_table("expert", suites=[TOY], episodes=4, shard=Shard(1, 8))
    assert main.main(["eval", "expert", "--suite", "homes-l1", "--shard", "0/2"]) == 2
    assert "a shard is one of 1/2 to 2/2, got 0/2" in capsys.readouterr().err


def test_an_episode_can_go_on_after_its_success_to_see_whether_it_lasts():
    """The expert of the toy flies past the goal in every third scene."""
    short = evaluate("expert", suite=TOY, episodes=3, workers=1, progress=False)
    long = evaluate("expert", suite=TOY, episodes=3, workers=1, hold_steps=3, progress=False)
    assert short.successes == short.lasting == long.successes == 3 and long.lasting == 2
    assert [record.steps for record in long.records] == [record.steps + 3 for record in short.records]
    assert [record.succeeded_at for record in long.records] == [record.steps for record in short.records]
    assert "toy, none: of 3 successes 2 lasted to the end of the episode." in to_markdown([long])
    assert {record.robot for record in long.records} == {"toy"} and long.mean(lambda r: r.progress) == 1.0


def test_logged_actions_repeat_the_episode(tmp_path):
    result = evaluate("expert", suite=TOY, episodes=2, workers=1, out=tmp_path, progress=False)
    rows = read_rows(tmp_path)
    assert [record for record, _ in rows.values()] == list(result.records)
    env = TOY.make_env()
    for record, packed in rows.values():
        shown = film(env, record, actions=unpack_actions(packed))
        assert len(shown.frames) == record.steps + 1
    with pytest.raises(ValueError, match="scene 1 of 'toy' ended otherwise"):
        film(env, record, actions=unpack_actions(packed)[:-1])


class NotInstalled(ToySuite):
    """A suite whose package nobody has."""

    package: ClassVar[str] = "no_such_simulator"
    extra: ClassVar[str] = "toys"


def test_what_a_suite_lacks_is_said_before_anything_runs(tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "load", None)
    with pytest.raises(ImportError, match=r"suite 'toy' needs 'no_such_simulator': pip install 'pilot\[toys\]'"):
        evaluate("expert", suite=NotInstalled(name="toy", title=""), episodes=1)
    with pytest.raises(ValueError, match="suite 'metaworld-reach' has 50 scenes"):
        check_fit("expert", [make_job(60, suite=load_suite("metaworld-reach"))], robot=None)
    same = SameWords(name="toy", title="")
    with pytest.raises(ValueError, match="asks the same in its first 8 scenes"):
        evaluate("expert", suite=same, control="shuffled_prompts", episodes=8)


class SameWords(ToySuite):
    """A suite of one instruction."""

    def prompt(self, scene: int, *, seed: int = 0) -> str:
        return "go"


def test_libero_without_its_assets_says_how_to_get_them(tmp_path, monkeypatch):
    suite = load_suite("libero-object")
    monkeypatch.setattr(type(suite), "is_installed", True)
    found = {"assets": tmp_path / "assets", "bddl_files": tmp_path, "init_states": tmp_path}
    monkeypatch.setattr(libero, "import_extra", lambda *_, **__: SimpleNamespace(get_libero_path=found.__getitem__))
    with pytest.raises(FileNotFoundError, match=r"needs LIBERO's assets in .*assets; install it anew: pip install"):
        suite.check_ready()
    (tmp_path / "assets").mkdir()
    suite.check_ready()


def test_a_policy_that_acts_at_another_rate_is_refused(tmp_path):
    fast = save_random_policy(tmp_path / "policy", replace(HOMES, control_hz=50.0))
    with pytest.raises(ValueError, match="to act 50 times a second as robot 'homes', suite 'homes-l1' takes"):
        evaluate(fast, suite="homes-l1", episodes=1)


class Overlaps(Still):
    """A policy whose chunks are averaged unless somebody says otherwise."""

    model = SimpleNamespace(default_executor="ensemble")


def test_a_policy_says_how_its_chunks_are_executed():
    assert Runner(Overlaps()).setup(make_job()).timekeeping == Timekeeping(executor="ensemble")
    plain = Settings(timekeeping=Timekeeping(executor="open-loop"))
    assert Runner(Overlaps(), plain).setup(make_job()).timekeeping.executor == "open-loop"
    assert Runner(Still()).setup(make_job()).timekeeping.executor == "open-loop"
    late = Settings(timekeeping=Timekeeping(clock=True, latency_ms=200))  # on the clock nobody stands still unasked
    assert Runner(Still(), late).timekeeping.executor == "rtc"
    assert Runner(Overlaps(), late).timekeeping.executor == "ensemble"
