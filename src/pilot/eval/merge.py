"""Results of any number of folders together: what `pilot eval --out FOLDER` wrote, shards and several policies too.

Records of one policy with the same settings belong together wherever they lie. Folders that are given one name hold
policies of one recipe, trained with several seeds (`NAME=FOLDER`).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pilot.eval.episode_log import read_lines, read_rows
from pilot.eval.records import EpisodeRecord
from pilot.eval.results import SuiteResult

KEY_PARTS = 6  # suite, its fingerprint, control, pool of prompts, seed and scene follow the policy in a record's key
SETTINGS = ("robot", "num_steps", "replan_steps", "high_level", "executor", "clock", "latency_ms", "hold_steps", "seed")
"""What sets apart two runs of one policy."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """An episode and, where they were kept, its packed actions."""

    record: EpisodeRecord
    actions: str | None
    suite_version: str


@dataclass(kw_only=True)
class PolicyResults:
    """All episodes of one policy with the same settings and starts. `runs` are the rows of the logs about it."""

    name: str
    key: str
    seed: int
    recipe: str | None = None  # the name that its folder was given
    runs: list[dict[str, Any]] = field(default_factory=list)
    outcomes: dict[tuple[str, str, int], Outcome] = field(default_factory=dict)  # by suite, control and scene
    versions: dict[str, str] = field(default_factory=dict)  # the version of each suite that was read last
    outdated: int = 0  # episodes of an older version of a simulator, which are left out

    def cells(self) -> list[tuple[str, str]]:
        """Return the suites and controls that there are episodes of, in the order in which they came."""
        return list(dict.fromkeys((suite, control) for suite, control, _ in self.outcomes))

    def result(self, suite: str, control: str = "none") -> SuiteResult | None:
        """Return the result of a suite under a control, in order of scenes; None if there is none."""
        own = {scene: o.record for (s, c, scene), o in self.outcomes.items() if (s, c) == (suite, control)}
        if not own:
            return None
        return SuiteResult(
            suite=suite,
            title=next((run["suites"][suite] for run in reversed(self.runs) if suite in run["suites"]), suite),
            control=control,
            policy=self.name,
            until=next((run["until"] for run in self.runs if run["until"] is not None), None),
            records=tuple(own[scene] for scene in sorted(own)),
        )

    def missing(self, suite: str, control: str) -> int:
        """Return how many episodes are still to be run, of those that a run was asked for."""
        asked = [run for run in self.runs if suite in run["suites"] and control in run["controls"]]
        if not asked or any(run["until"] is not None for run in asked):
            return 0
        done = {scene for s, c, scene in self.outcomes if (s, c) == (suite, control)}
        return len(set(range(max(run["episodes"] for run in asked))) - done)


def read_results(folders: Sequence[str]) -> list[PolicyResults]:
    """Read the results in folders, given as `FOLDER` or `NAME=FOLDER`.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: it holds no results.
    """
    found: dict[tuple[str, int], PolicyResults] = {}
    for reference in folders:
        name, equals, path = reference.rpartition("=")
        folder = Path(path)
        if not folder.is_dir():
            raise FileNotFoundError(f"there is no folder '{path}'; give what `pilot eval --out FOLDER` wrote")
        if not any(folder.glob("episodes*.jsonl")):
            raise ValueError(f"{path} holds no episodes; give a folder that `pilot eval POLICY --out FOLDER` wrote")
        _read_folder(folder, found, recipe=name if equals else None)
    policies = list(found.values())
    for policy in policies:
        _drop_outdated(policy)
    _name_apart(policies)
    return policies


def _read_folder(folder: Path, found: dict[tuple[str, int], PolicyResults], *, recipe: str | None) -> None:
    for key, (record, actions) in read_rows(folder).items():
        own, _, version, *_ = key.rsplit("/", KEY_PARTS)
        policy = found.setdefault((own, record.seed), PolicyResults(name="", key=own, seed=record.seed))
        policy.recipe = policy.recipe or recipe
        policy.versions[record.suite] = version
        outcome = Outcome(record=record, actions=actions, suite_version=version)
        before = policy.outcomes.get(cell := (record.suite, record.control, record.scene))
        if before is None or before.record.lost is not None or before.suite_version != version:
            policy.outcomes[cell] = outcome
    for run in read_lines(folder, pattern="runs*.jsonl"):
        if (policy := found.get((run["key"], run["seed"]))) is not None:
            policy.runs.append(run)


def _drop_outdated(policy: PolicyResults) -> None:
    """Leave out episodes of another version of a suite than the one that came last."""
    kept = {cell: o for cell, o in policy.outcomes.items() if o.suite_version == policy.versions[cell[0]]}
    policy.outdated = len(policy.outcomes) - len(kept)
    policy.outcomes = kept


def _name_apart(policies: Sequence[PolicyResults]) -> None:
    """Name policies as their runs do, with the settings in which those of one name differ."""
    for policy in policies:
        last = policy.runs[-1] if policy.runs else {}
        policy.name = policy.recipe or last.get("policy") or policy.key.partition("/")[0]
    for name in {policy.name for policy in policies}:
        same = [policy for policy in policies if policy.name == name]
        differing = [s for s in SETTINGS if len({_setting(policy, s) for policy in same}) > 1]
        for number, policy in enumerate(same, 1):
            words = [f"{setting.replace('_', ' ')} {_setting(policy, setting)}" for setting in differing]
            if len(same) > 1 and not words:
                words = [f"training seed {number}"] if policy.recipe else [policy.key.partition("/")[0]]
            policy.name = ", ".join([name, *words])


def _setting(policy: PolicyResults, name: str) -> Any:
    if name == "seed":
        return policy.seed
    return policy.runs[-1].get(name) if policy.runs else None


def by_recipe(policies: Iterable[PolicyResults]) -> dict[str, list[PolicyResults]]:
    """Return the policies of each recipe by its name; a policy without one stands for itself."""
    groups: dict[str, list[PolicyResults]] = {}
    for policy in policies:
        groups.setdefault(policy.recipe or policy.name, []).append(policy)
    return groups
