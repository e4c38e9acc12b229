"""Results of any number of folders together: what `pilot eval --out FOLDER` wrote, shards and several policies too.

Records of one policy with the same settings belong together wherever they lie. Folders that are given one name hold
policies of one recipe, trained with several seeds (`NAME=FOLDER`). A training is a policy's fingerprint: the same
checkpoint from other starts, or under newer code, is no other training.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from pilot.eval.episode_log import read_lines, read_rows
from pilot.eval.records import EpisodeRecord
from pilot.eval.results import SuiteResult

KEY_PARTS = 7  # code, suite, its fingerprint, control, pool of prompts, seed and scene end a record's key
SETTINGS = (
    "robot", "num_steps", "replan_steps", "high_level", "executor", "joining", "clock", "latency_ms", "hold_steps",
)  # fmt: skip
"""What sets apart two runs of one policy from the same starts."""

Cell = tuple[str, str, int]  # suite, control and scene
PooledCell = tuple[str, str, int, int]  # the same, and how many scenes prompts are shuffled among
Trainings = dict[str, list["PolicyResults"]]  # by the policy's fingerprint: its results from starts of several seeds


class Version(NamedTuple):
    """A suite as it was run: fingerprints of the code that the policy acted through, and of the simulator."""

    suite: str
    code: str
    simulator: str


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """An episode and, where they were kept, its packed actions."""

    record: EpisodeRecord
    actions: str | None


@dataclass(kw_only=True)
class PolicyResults:
    """All episodes of one policy with the same settings and starts. `runs` are the rows of the logs about it.

    `key` is the policy's fingerprint and the settings.
    """

    name: str
    key: str
    seed: int
    recipe: str | None = None  # what it is compared as: the name that its folder was given, or else its own
    runs: list[dict[str, Any]] = field(default_factory=list)
    versions: dict[Version, dict[PooledCell, Outcome]] = field(default_factory=dict)  # in the order in which they came
    outcomes: dict[Cell, Outcome] = field(default_factory=dict)  # of the version of each suite that was run last
    codes: dict[str, str] = field(default_factory=dict)  # the code of these, by suite
    outdated: int = 0  # episodes under older code, of an older simulator or of fewer prompts, which are left out

    @property
    def training(self) -> str:
        """The policy's fingerprint."""
        return self.key.partition("/")[0]

    @property
    def settings(self) -> str:
        """How the policy acts, as its key says it."""
        return self.key.partition("/")[2]

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
            title=next((run["suites"][suite] for run in reversed(self.runs_of(suite))), suite),
            control=control,
            policy=self.name,
            until=next((run["until"] for run in self.runs_of(suite) if run["until"] is not None), None),
            records=tuple(own[scene] for scene in sorted(own)),
        )

    def runs_of(self, suite: str) -> list[dict[str, Any]]:
        """Return the rows about a suite under the code whose episodes count."""
        return [run for run in self.runs if suite in run["suites"] and _code_of(run) == self.codes.get(suite)]

    def missing(self, suite: str, control: str) -> int:
        """Return how many episodes are still to be run, of those that a run was asked for."""
        asked = [run for run in self.runs_of(suite) if control in run["controls"]]
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
        name, folder = split_reference(reference)
        if not folder.is_dir():
            raise FileNotFoundError(f"there is no folder '{folder}'; give what `pilot eval --out FOLDER` wrote")
        if not any(folder.glob("episodes*.jsonl")):
            raise ValueError(f"{folder} holds no episodes; give a folder that `pilot eval POLICY --out FOLDER` wrote")
        _read_folder(folder, found, recipe=name)
    policies = list(found.values())
    for key in dict.fromkeys(policy.key for policy in policies):
        _drop_outdated([policy for policy in policies if policy.key == key])
    _name_apart(policies)
    return policies


def split_reference(reference: str) -> tuple[str | None, Path]:
    """Return the name, if any, and the folder of `FOLDER` or `NAME=FOLDER`; a folder may have `=` in its name, too."""
    name, equals, path = None, "=", reference
    while equals and not Path(path).is_dir():
        before, equals, after = path.partition("=")
        if equals:
            name, path = before if name is None else f"{name}={before}", after
    return name, Path(path)


def _read_folder(folder: Path, found: dict[tuple[str, int], PolicyResults], *, recipe: str | None) -> None:
    for key, (record, actions) in read_rows(folder).items():
        own, code, _, simulator, _, pool, *_ = key.rsplit("/", KEY_PARTS)
        policy = found.setdefault((own, record.seed), PolicyResults(name="", key=own, seed=record.seed))
        policy.recipe = policy.recipe or recipe
        outcomes = policy.versions.setdefault(Version(record.suite, code, simulator), {})
        prompts = int(pool or 0)
        before = outcomes.get(cell := (record.suite, record.control, record.scene, prompts))
        if before is None or before.record.lost is not None:
            outcomes[cell] = Outcome(record=record, actions=actions)
    for run in read_lines(folder, pattern="runs*.jsonl"):
        if (policy := found.get((run["key"].rpartition("/")[0], run["seed"]))) is not None:
            policy.runs.append(run)


def _code_of(run: dict[str, Any]) -> str:
    return run["key"].rpartition("/")[2]


def _drop_outdated(same: Sequence[PolicyResults]) -> None:
    """Leave out episodes of another version of a suite than the one that was run last, in all starts of a policy.

    Of versions under the same code the one that came last counts, and in it the largest pool of prompts: the same
    scene with a prompt from another pool is another episode.
    """
    last: dict[str, Version] = {}
    for version in dict.fromkeys(version for policy in same for version in policy.versions):
        if (before := last.get(version.suite)) is None or _run_at(same, version) >= _run_at(same, before):
            last[version.suite] = version
    pools: dict[tuple[str, str], int] = {}
    counted = [cell for policy in same for version in last.values() for cell in policy.versions.get(version, ())]
    for suite, control, _, pool in counted:
        pools[suite, control] = max(pool, pools.get((suite, control), 0))
    for policy in same:
        kept = [policy.versions[version] for version in last.values() if version in policy.versions]
        policy.outcomes = {
            (suite, control, scene): outcome
            for outcomes in kept
            for (suite, control, scene, pool), outcome in outcomes.items()
            if pool == pools[suite, control]
        }
        policy.outdated = sum(len(outcomes) for outcomes in policy.versions.values()) - len(policy.outcomes)
        policy.codes = {suite: version.code for suite, version in last.items()}


def _run_at(same: Sequence[PolicyResults], version: Version) -> float:
    """Return when a suite was last asked for under a version's code: who goes back to older code means that one."""
    runs = [run for policy in same for run in policy.runs]
    dates = [run["date"] for run in runs if version.suite in run["suites"] and _code_of(run) == version.code]
    return max((datetime.fromisoformat(date).timestamp() for date in dates), default=0.0)


def _name_apart(policies: Sequence[PolicyResults]) -> None:
    """Name policies as their runs do, with the settings, trainings and seeds in which those of one name differ."""
    for policy in policies:
        last = policy.runs[-1] if policy.runs else {}
        policy.name = policy.recipe or last.get("policy") or policy.training
    for name in {policy.name for policy in policies}:
        same = [policy for policy in policies if policy.name == name]
        words, trainings = _describe_settings(same), list(dict.fromkeys(policy.training for policy in same))
        several_seeds = len({policy.seed for policy in same}) > 1
        for policy in same:
            named, number = policy.recipe is not None, trainings.index(policy.training) + 1
            several = len(trainings) > 1
            shared = [name, words[policy.settings], policy.training if several and not named else ""]
            own = [f"training seed {number}" if several and named else "", f"seed {policy.seed}" * several_seeds]
            policy.recipe = ", ".join(filter(None, shared))
            policy.name = ", ".join(filter(None, [*shared, *own]))


def _describe_settings(same: Sequence[PolicyResults]) -> dict[str, str]:
    """Return what to call each of the settings of policies with one name: that in which they differ, if they do."""
    runs: dict[str, dict[str, Any]] = {}
    for policy in same:
        runs[policy.settings] = runs.get(policy.settings, {}) | (policy.runs[-1] if policy.runs else {})
    differing = [name for name in SETTINGS if len({str(run.get(name)) for run in runs.values()}) > 1]
    words = {
        settings: ", ".join(f"{name.replace('_', ' ')} {run.get(name)}" for name in differing)
        for settings, run in runs.items()
    }
    # Old logs have no runs, and a row about a run has not all of a high level's choices: then the key has to do.
    return words if len(set(words.values())) == len(words) else {text: f"settings '{text}'" for text in words}


def by_recipe(policies: Iterable[PolicyResults]) -> dict[str, Trainings]:
    """Return the trainings of each recipe by its name; a policy without one stands for itself.

    Policies that act with other settings are another recipe, since their difference is not one of training.
    """
    groups: dict[str, Trainings] = {}
    for policy in policies:
        if policy.outcomes:
            groups.setdefault(policy.recipe or policy.name, {}).setdefault(policy.training, []).append(policy)
    return groups
