"""The log of an evaluation: what is read from it and not run again, and what is told apart by its keys."""

import json
import shutil
from pathlib import Path
from typing import Any, ClassVar

import pytest

from eval.checkpoints import save_random_policy
from eval.jobs import Still, make_job, make_record
from pilot.eval import episode_log
from pilot.eval.episode_log import EpisodeLog, fingerprint, read_lines, suite_fingerprint
from pilot.eval.evaluate import evaluate
from pilot.eval.suites import load_suite
from pilot.infer.policy import Policy, load_policy
from pilot.infer.rtc import Rtc
from pilot.sims.homes import HomesSuite


def test_finished_episodes_are_read_not_run_again(tmp_path):
    policy = Still()
    first = evaluate(policy, suite="homes-l1", episodes=2, out=tmp_path, progress=False)
    assert policy.sessions == 2
    more = evaluate(policy, suite="homes-l1", episodes=3, out=tmp_path, progress=False)
    assert policy.sessions == 3 and more.records[:2] == first.records
    evaluate(policy, suite="homes-l1", episodes=1, control="blank_images", out=tmp_path, progress=False)
    evaluate(policy, suite="homes-l1", episodes=1, seed=1, out=tmp_path, progress=False)
    assert policy.sessions == 5


def test_other_weights_or_other_code_are_run_anew(tmp_path, monkeypatch):
    policy = Still()
    evaluate(policy, suite="homes-l1", episodes=1, out=tmp_path, progress=False)
    monkeypatch.setattr(policy, "metadata", policy.metadata | {"fingerprint": "trained on"})
    evaluate(policy, suite="homes-l1", episodes=1, out=tmp_path, progress=False)
    monkeypatch.setattr(episode_log, "code_fingerprint", lambda: "other")
    evaluate(policy, suite="homes-l1", episodes=1, out=tmp_path, progress=False)
    assert policy.sessions == 3


def test_policies_that_act_otherwise_have_other_fingerprints(tmp_path):
    """Those of folders are what they were; an object is also how many steps, which seed and which way of joining."""
    folder = save_random_policy(tmp_path / "policy")
    other = shutil.copytree(folder, tmp_path / "other")
    (other / "norm_stats.json").write_text("{}")
    as_it_is = fingerprint(folder)

    def loaded(**options: int) -> Policy:
        return load_policy(folder, device="cpu", **options)

    joining, level = loaded(), loaded()
    joining.rtc, level.high_level = Rtc(mode="prefix"), "none"
    policies = [loaded(), loaded(num_steps=3), loaded(replan_steps=1), loaded(seed=1), joining, level]
    assert len({fingerprint(policy) for policy in policies} | {as_it_is, fingerprint(other)}) == 8
    assert fingerprint(loaded()) == fingerprint(policies[0])
    (folder / "README.md").write_text("a better description")
    (folder / "training").mkdir()
    (folder / "training" / "metrics.jsonl").write_text("{}")
    (folder / "results.json").write_text("[]")
    assert fingerprint(folder) == as_it_is  # what is about a policy does not make it another one


class Unnamed(Still):
    """A policy that does not say what it is."""

    metadata: ClassVar[dict[str, Any]] = {"replan_steps": 40}


def test_an_object_that_cannot_be_told_from_another_one_has_no_log(tmp_path):
    with pytest.raises(ValueError, match="give the checkpoint's folder, or no `out`, or name the object"):
        evaluate(Unnamed(), suite="homes-l1", episodes=1, out=tmp_path / "out", progress=False)
    assert not (tmp_path / "out").exists()
    assert evaluate(Unnamed(), suite="homes-l1", episodes=1, progress=False).n == 1


def test_a_line_cut_short_is_dropped(tmp_path):
    path = tmp_path / "episodes.jsonl"
    log = EpisodeLog(path, policy="p")
    log.add(make_job(0), make_record(scene=0))
    log.add(make_job(1), make_record(scene=1))
    path.write_bytes(path.read_bytes()[:-20])
    log = EpisodeLog(path, policy="p")
    assert make_job(0) in log and make_job(1) not in log
    log.add(make_job(1), make_record(scene=1))
    assert [json.loads(line)["record"]["home"] for line in path.read_text().splitlines()] == [0, 1]


@pytest.mark.parametrize("what", ["damaged", "newer", "cut"])
def test_a_line_that_cannot_be_read_is_named(what, tmp_path):
    path = tmp_path / "episodes.jsonl"
    EpisodeLog(path, policy="p").add(make_job(0), make_record(scene=0))
    row = json.loads(path.read_text())
    row["record"]["mood"] = "good"
    bad = {"damaged": b"\0" * 20, "newer": json.dumps(row).encode(), "cut": b'{"key": "k", "record": {}}'}
    path.write_bytes(path.read_bytes() + bad[what] + b"\n")
    with pytest.raises(ValueError, match=r"episodes.jsonl, line 2 is damaged, or of a newer pilot .*remove this line"):
        EpisodeLog(path, policy="p")
    (tmp_path / "runs.jsonl").write_text('{"key"\n')
    with pytest.raises(ValueError, match=r"runs.jsonl, line 1 is damaged"):
        list(read_lines(tmp_path, pattern="runs*.jsonl"))


@pytest.mark.parametrize("name", ["rooms-move", "lab-fold-towel"])
def test_a_key_follows_the_world_that_a_suite_is_in_and_all_robots_that_its_own_is_made_of(name, monkeypatch):
    read: list[str] = []
    monkeypatch.setattr(episode_log, "_digest", lambda files, *, more="": read.extend(map(str, files)) or more)
    suite = load_suite(name).with_robot("bimanual_ee")
    suite_fingerprint.__wrapped__(suite)
    assert len(set(read)) == len(read)
    folder = name.partition("-")[0]
    for path in (f"sims/{folder}/suites.py", "sims/world/physics.py", "sims/world/bodies/base.py", "sims/base.py",
                 "robots/bimanual_ee.py", "robots/arm_ee.py", "robots/arm.py"):  # fmt: skip
        assert any(file.endswith(f"/pilot/{path}") for file in read), path
    read.clear()
    suite_fingerprint.__wrapped__(load_suite("homes-l1"))
    assert {Path(file).parent.name for file in read} == {"homes", "robots"}, "homes have a world of their own"


def test_a_key_follows_the_package_that_simulates_and_how_its_starts_are_numbered(monkeypatch):
    versions = {"gym-aloha": "0.1.3", "mujoco": "3.3.0"}
    installed = {"gym_aloha": ["gym-aloha"], "mujoco": ["mujoco"], "gym": ["gym-aloha"]}
    monkeypatch.setattr(episode_log.metadata, "packages_distributions", lambda: installed)
    monkeypatch.setattr(episode_log.metadata, "version", lambda name: versions[name])
    changed, read = set(), []
    digest = episode_log._digest
    monkeypatch.setattr(episode_log, "_digest", lambda f, *, more="": (read.extend(f), digest(f, more=more))[1])
    for name, version in ((None, None), ("gym-aloha", "0.2.0"), ("mujoco", "3.4.0")):
        versions |= {} if name is None else {name: version}
        changed.add(suite_fingerprint.__wrapped__(load_suite("aloha-insertion")))
    assert len(changed) == 3
    assert {path.name for path in read} == {"aloha.py", "aloha_sim.py", "base.py"}


def test_suites_of_other_words_are_kept_apart(tmp_path):
    log = EpisodeLog(None, policy="p")
    hats = HomesSuite(name="homes-l1", title="hats", level=1, task="single", kinds=("hat",))
    log.add(make_job(0), make_record())
    assert make_job(0) in log and make_job(0, suite=hats) not in log
