"""The page of evaluations: what it brings together, what it answers, and what it says of what is missing."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from eval.pages import Balance
from eval.toy_sim import ToySuite
from pilot.cli import main
from pilot.eval.evaluate import evaluate, evaluate_table
from pilot.eval.merge import read_results
from pilot.eval.report.evaluation_page import answer, ask, compare_pairs, make_page
from pilot.eval.settings import Shard

TOY = ToySuite(name="toy", title="go to one")


class Weak:
    """Goes to one in all scenes but every `miss`-th, where it stays."""

    def __init__(self, name: str, miss: int) -> None:
        self.metadata = {"replan_steps": 4, "fingerprint": name}
        self.miss, self.begun = miss, -1

    def session(self, *, replan_steps: int) -> "Weak":
        self.begun += 1
        return self

    def infer(self, observation):
        scene = int(observation["prompt"].split()[-1])
        goal = observation["state"][0] if scene % self.miss == 0 else 1.0
        return {"actions": [[goal]] * 4, "subtask": "go", "box": None, "timing": {"total": 0.002}}


def load(name: str) -> ToySuite:
    assert name == "toy"
    return TOY


def run(policy, out: Path, **options) -> None:
    evaluate_table(policy, suites=[TOY], out=out, progress=False, **{"episodes": 12, "controls": ["none"], **options})


def test_shards_in_two_folders_are_one_policy_and_what_is_missing_is_said(tmp_path):
    for number, folder in ((1, "a"), (3, "b")):
        run("expert", tmp_path / folder, workers=1, shard=Shard(number, 3))
    (policy,) = read_results([str(tmp_path / "a"), str(tmp_path / "b")])
    result = policy.result("toy")
    assert policy.name == "expert" and result.n == 8 and policy.missing("toy", "none") == 4
    page = make_page([policy], load=load).render()
    assert (
        "4 episodes are still to be run" in page and "1/3" in page and "How often does expert succeed in toy?" in page
    )
    run("expert", tmp_path / "b", workers=1)
    (policy,) = read_results([str(tmp_path / "a"), str(tmp_path / "b")])
    assert policy.result("toy").n == 12 and not policy.missing("toy", "none")
    assert "still to be run" not in make_page([policy], load=load).render()


def test_a_page_has_the_answer_controls_films_and_how_it_was_made(tmp_path, capsys):
    run(Weak("weak", 3), tmp_path, controls=["none", "blank_images"])
    (policy,) = read_results([str(tmp_path)])
    path = make_page([policy], question="Does it go?", load=load, films=1).save(tmp_path / "page.html")
    page = path.read_text()
    Balance().feed(page)
    assert "Go to one: 8 of 12 episodes succeed, 67% (95 % interval 39% to 86%); with pictures blanked 67%." in page
    assert "Does it go?" in page and "pictures blanked" in page and "seed 0" in page
    assert page.count('<label class="film"') == 2, "one success, one failure"
    assert "go to one, 1" in page and "go to one, 0" in page
    assert 'data-name="steps"' in page and 'data-name="lasting"' not in page, "it would repeat the success rate"
    commit = json.loads((tmp_path / "runs.jsonl").read_text().splitlines()[0])["commit"]
    assert commit in page
    assert main.main(["report", str(tmp_path), "--films", "0"]) == 0
    assert "How often does the policy succeed in toy?" in capsys.readouterr().out
    assert "film" not in (tmp_path / "report.html").read_text().partition("<main")[2]


def test_successes_that_do_not_last_have_a_column_of_their_own(tmp_path):
    run("expert", tmp_path, workers=1, hold_steps=3)  # it flies past the goal in every third scene
    page = make_page(read_results([str(tmp_path)]), films=0).render()
    assert 'data-name="lasting">67%' in page and 'data-name="progress"' not in page


def test_films_of_a_simulator_that_is_not_here_are_left_out_with_the_reason(tmp_path):
    run("expert", tmp_path, workers=1, episodes=2)
    page = make_page(read_results([str(tmp_path)])).render()
    assert "No films of toy: unknown suite &#39;toy&#39;" in page


def test_two_policies_are_compared_on_the_same_starts(tmp_path):
    run(Weak("good", 100), tmp_path / "good", episodes=24)
    run(Weak("bad", 2), tmp_path / "bad", episodes=20)
    policies = read_results([f"good={tmp_path / 'good'}", f"bad={tmp_path / 'bad'}"])
    (pair,) = compare_pairs(policies)
    assert (pair.first, pair.second, pair.n) == ("good", "bad", 20)
    assert (pair.comparison.only_a, pair.comparison.only_b) == (9, 0) and pair.p_value == pytest.approx(2 / 2**9)
    assert ask(policies) == "Which is best in toy?"
    assert answer(policies, [pair]).startswith("good is better than bad by 45 points (95 % interval 25 to 65) on the")
    page = make_page(policies, load=load, films=0).render()
    assert "On the same starts" in page and "+45.0%" in page
    turned = compare_pairs(policies[::-1])
    assert answer(policies[::-1], turned) == answer(policies, [pair])
    same = compare_pairs([policies[0], replace(policies[0], name="copy", recipe="copy")])
    assert "Between good and copy no difference shows on the same 24 starts" in answer(policies, same)


def test_training_seeds_of_a_recipe_are_shown_one_by_one(tmp_path):
    for seed, miss in enumerate((2, 3, 4)):
        run(Weak(f"seed {seed}", miss), tmp_path / f"s{seed}")
    run(Weak("other", 100), tmp_path / "other")
    references = [f"pi={tmp_path / f's{seed}'}" for seed in range(3)]
    policies = read_results([*references, f"act={tmp_path / 'other'}"])
    assert [policy.name for policy in policies] == [
        "pi, training seed 1", "pi, training seed 2", "pi, training seed 3", "act"
    ]  # fmt: skip
    page = make_page(policies, load=load, films=0).render()
    assert "Training seeds" in page and "50%, 67%, 75%" in page and "64%" in page and "32% – 96%" in page
    (pair,) = compare_pairs(policies)
    assert (pair.first, pair.second, pair.n, pair.comparison.only_b) == ("pi", "act", 12, 7)


def test_one_policy_under_two_settings_is_two_lines_that_say_what_differs(tmp_path):
    run(Weak("w", 3), tmp_path / "a")
    run(Weak("w", 3), tmp_path / "b", replan_steps=2)
    names = [policy.name for policy in read_results([str(tmp_path / "a"), str(tmp_path / "b")])]
    assert names == ["the policy, replan steps None", "the policy, replan steps 2"]


def test_lost_episodes_and_an_older_simulator_are_told(tmp_path):
    crashing = replace(TOY, folder=str(tmp_path), crashes=(1,), always=True)
    evaluate("expert", suite=crashing, episodes=3, workers=1, out=tmp_path / "out", progress=False)
    (policy,) = read_results([str(tmp_path / "out")])
    assert "1 episodes were lost to the simulator and count as failed" in make_page([policy], films=0).render()
    evaluate("expert", suite=TOY, episodes=2, workers=1, out=tmp_path / "out", progress=False)
    (policy,) = read_results([str(tmp_path / "out")])
    assert policy.outdated == 3 and policy.result("toy").n == 2
    assert "3 episodes of expert are of an older simulator" in make_page([policy], films=0).render()


def test_prompts_that_were_shuffled_among_fewer_scenes_are_not_mixed_in(tmp_path):
    for episodes, miss in ((4, 100), (8, 2)):
        run(Weak("w", miss), tmp_path, episodes=episodes, controls=["none", "shuffled_prompts"])
    (policy,) = read_results([str(tmp_path)])
    table = evaluate_table(
        Weak("w", 2), suites=[TOY], episodes=8, controls=["none", "shuffled_prompts"], out=tmp_path, progress=False
    )
    for result in table:
        assert policy.result("toy", result.control).records == result.records
    assert policy.outdated == 4
    assert "4 episodes of the policy" in make_page([policy], films=0).render()


def test_one_checkpoint_under_newer_code_is_no_other_training(tmp_path, monkeypatch):
    """What was run last counts, also when that is older code again: then nothing runs, and only the run is logged."""
    rates = {}
    for code, miss in (("old", 3), ("new", 2), ("old", 3)):
        monkeypatch.setattr("pilot.eval.episode_log.code_fingerprint", lambda code=code: code)
        run(Weak("w", miss), tmp_path, seed=len(rates) // 2)  # the third time from other starts
        log = tmp_path / "runs.jsonl"
        rows = [json.loads(line) for line in log.read_text().splitlines()]
        dated = [row | {"date": f"2026-01-0{day}T12:00:00+00:00"} for day, row in enumerate(rows, 1)]
        log.write_text("".join(json.dumps(row) + "\n" for row in dated))
        policies = read_results([f"mine={tmp_path}"])
        rates[code, len(rows)] = [policy.result("toy").successes for policy in policies]
        assert sum(policy.outdated for policy in policies) == 12 * (len(rows) > 1)
        page = make_page(policies, load=load, films=0).render()
        assert "over trainings" not in page
        assert ("12 episodes of mine" in page and "under older code" in page) == (len(rows) > 1)
    assert rates == {("old", 1): [8], ("new", 2): [6], ("old", 3): [8, 8]}


def test_starts_of_several_seeds_are_those_of_one_training(tmp_path):
    for name, miss in (("good", 100), ("bad", 2)):
        for seed in (0, 1):
            run(Weak(name, miss), tmp_path / name, seed=seed)
    for references in (
        [f"A={tmp_path / 'good'}", f"B={tmp_path / 'bad'}"],
        [str(tmp_path / n) for n in ("good", "bad")],
    ):
        policies = read_results(references)
        (pair,) = compare_pairs(policies)
        assert pair.n == 24 and (pair.comparison.only_a, pair.comparison.only_b) == (10, 0)
        page = make_page(policies, load=load, films=0).render()
        assert "over trainings" not in page and "On the same starts" in page
    run(Weak("bad again", 3), tmp_path / "again")  # from seed 0 alone
    policies = read_results([f"A={tmp_path / 'good'}", f"B={tmp_path / 'bad'}", f"B={tmp_path / 'again'}"])
    names = ["A, seed 0", "A, seed 1", "B, training seed 1, seed 0", "B, training seed 1, seed 1"]
    assert [policy.name for policy in policies] == [*names, "B, training seed 2, seed 0"]
    assert [pair.n for pair in compare_pairs(policies)] == [12], "starts that all trainings had"
    assert "50%, 67%" in make_page(policies, load=load, films=0).render()


def test_other_settings_are_another_recipe(tmp_path):
    for replan_steps in (None, 2):
        run(Weak("w", 3), tmp_path / "a", replan_steps=replan_steps)
    policies = read_results([f"A={tmp_path / 'a'}"])
    (pair,) = compare_pairs(policies)
    assert (pair.first, pair.second) == ("A, replan steps None", "A, replan steps 2")
    assert "over trainings" not in make_page(policies, load=load, films=0).render()
    (tmp_path / "a" / "runs.jsonl").unlink()  # as in old logs
    assert {policy.name for policy in read_results([f"A={tmp_path / 'a'}"])} == {"A, settings ''", "A, settings '2'"}


def test_recipes_without_a_common_start_are_said_to_be_so(tmp_path):
    for seed, name in enumerate("ab"):
        run(Weak(name, 3), tmp_path / name, seed=seed)
    run(Weak("c", 3), tmp_path / "c")
    a, b, c = (f"{name.upper()}={tmp_path / name}" for name in "abc")
    said = "A and B are not compared in toy: no start is one of both."
    policies = read_results([a, b])
    assert not compare_pairs(policies) and answer(policies, []).startswith(said + " Go to one: 8 of 12")
    page = make_page(read_results([a, b, c]), load=load, films=0).render()
    assert said in page and "Between A and C no difference shows" in page and "A and C are not" not in page
    page = make_page(read_results([a, b, f"B={tmp_path / 'c'}"]), load=load, films=0).render()
    assert "no start is one of all their trainings" in page


def test_a_folder_may_have_the_sign_of_a_name_in_its_own(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run("expert", tmp_path / "lr=1e-4", workers=1, episodes=2)
    names = {"lr=1e-4": "expert", "mine=lr=1e-4": "mine", "a=b=lr=1e-4": "a=b"}
    assert [read_results([reference])[0].name for reference in names] == list(names.values())
    assert main.main(["report", "lr=1e-4", "--films", "0"]) == 0
    assert (tmp_path / "lr=1e-4" / "report.html").exists()
    with pytest.raises(FileNotFoundError, match="there is no folder 'nowhere'"):
        read_results(["mine=nowhere"])


def test_folders_without_results_are_named(tmp_path, capsys):
    assert main.main(["report", str(tmp_path)]) == 2
    assert "holds no episodes; give a folder that `pilot eval POLICY --out FOLDER` wrote" in capsys.readouterr().err
    with pytest.raises(FileNotFoundError, match="there is no folder 'nowhere'"):
        read_results(["nowhere"])
    with pytest.raises(ValueError, match="no episodes to report"):
        make_page([])
