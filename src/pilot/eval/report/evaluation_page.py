"""The page of an evaluation or a comparison: a question, its answer, and all that the answer rests on.

    page = make_page(read_results(["outputs/eval"]), question="Does it see what it does?")
    page.save("outputs/eval/report.html")

It shows success with intervals beside the controls, policies in pairs on the same starts, training seeds one by one,
films of episodes that succeeded and failed, and the commands and commits that make it all again.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pilot.eval.merge import PolicyResults, Trainings, by_recipe
from pilot.eval.records import EpisodeRecord, unpack_actions
from pilot.eval.report.report import Report, SuccessRow
from pilot.eval.results import SuiteResult
from pilot.eval.rollout import Film, film
from pilot.eval.stats import SIGNIFICANCE, Comparison, compare, correct_for_many, interval_over_seeds
from pilot.eval.suites import load_suite
from pilot.sims.base import Suite

FILM_SIZE = 192  # pixels
CONTROL_NAMES = {
    "none": "",
    "blank_images": "pictures blanked",
    "shuffled_prompts": "prompts shuffled",
    "oracle": "told the true subtask",
}
SuiteFn = Callable[[str], Suite]


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two policies on the same starts of a suite; the p-value allows for all pairs of the page."""

    suite: str
    first: str
    second: str
    n: int
    comparison: Comparison
    p_value: float


def make_page(
    policies: Sequence[PolicyResults],
    *,
    question: str | None = None,
    films: int = 2,
    load: SuiteFn = load_suite,
) -> Report:
    """Make the page of these results, with up to `films` successes and as many failures of each policy and suite.

    `load` finds a suite by its name. The first policy is the one that the others are compared with.

    Raises:
        ValueError: there is nothing to show.
    """
    if not any(policy.outcomes for policy in policies):
        raise ValueError("there are no episodes to report; run pilot eval POLICY --out FOLDER first")
    pairs = compare_pairs(policies)
    report = Report(question or ask(policies), subtitle=answer(policies, pairs))
    add_table(report, policies)
    add_seeds(report, policies)
    add_pairs(report, pairs, apart=describe_apart(policies))
    add_films(report, policies, films=films, load=load)
    add_runs(report, policies)
    return report


# --- the question and its answer --------------------------------------------------------------------------------------


def ask(policies: Sequence[PolicyResults]) -> str:
    """Return the question that these results answer."""
    suites = list(dict.fromkeys(suite for policy in policies for suite, _ in policy.cells()))
    where = suites[0] if len(suites) == 1 else f"{len(suites)} suites"
    names = list(by_recipe(policies))
    return f"How often does {names[0]} succeed in {where}?" if len(names) == 1 else f"Which is best in {where}?"


def answer(policies: Sequence[PolicyResults], pairs: Sequence[Pair]) -> str:
    """Return the answer in a sentence or two."""
    if pairs:
        return " ".join(describe_pair(pair) for pair in pairs[:3])
    first, sentences = next(policy for policy in policies if policy.outcomes), describe_apart(policies)[:1]
    for suite in dict.fromkeys(suite for suite, _ in first.cells()):
        if (result := first.result(suite)) is not None:
            sentences.append(describe_result(result, blanked=first.result(suite, "blank_images")))
    return " ".join(sentences[:3]) or f"Only controls have been run of {first.name}."


def describe_result(result: SuiteResult, *, blanked: SuiteResult | None) -> str:
    """Say how often a policy succeeds, and how often it does without seeing anything."""
    low, high = result.interval
    words = f"{result.title.capitalize()}: {result.successes} of {result.n} episodes succeed, {result.rate:.0%}"
    words += f" (95 % interval {low:.0%} to {high:.0%})"
    return words + ("." if blanked is None else f"; with pictures blanked {blanked.rate:.0%}.")


def describe_pair(pair: Pair) -> str:
    """Say which of two policies is better, or that nothing can be said."""
    change, (low, high) = pair.comparison.difference, pair.comparison.interval
    where = f"on the same {pair.n} starts of {pair.suite}"
    points = f"{100 * abs(change):.0f} points"
    if pair.p_value < SIGNIFICANCE:
        better, worse = (pair.first, pair.second) if change > 0 else (pair.second, pair.first)
        low, high = (low, high) if change > 0 else (-high, -low)
        return (
            f"{better} is better than {worse} by {points} (95 % interval {100 * low:.0f} to {100 * high:.0f}) {where}."
        )
    return f"Between {pair.first} and {pair.second} no difference shows {where} ({points}, p = {pair.p_value:.2f})."


# --- tables -----------------------------------------------------------------------------------------------------------


def add_table(report: Report, policies: Sequence[PolicyResults]) -> None:
    """Add success of every policy in every suite, controls beside it, and what is unusual about it."""
    report.section("Success", "Dots are success rates, bands their 95 % intervals; controls are set back.")
    rows, remarks = [], []
    for suite in dict.fromkeys(suite for policy in policies for suite, _ in policy.cells()):
        for policy in policies:
            for control in (control for name, control in policy.cells() if name == suite):
                result = policy.result(suite, control)
                assert result is not None
                rows.append(success_row(result, seed=policy.seed))
                remarks += describe_trouble(policy, result)
    report.success_table(without_repetition(rows))
    for remark in remarks:
        report.text(f"**{remark}**")
    if any(result_until(policy) for policy in policies):
        report.text("Some runs could stop as soon as they knew enough; their intervals allow for that.")
    add_tasks(report, policies)


def success_row(result: SuiteResult, *, seed: int) -> SuccessRow:
    """Return a line of the success table."""
    control = CONTROL_NAMES.get(result.control, result.control)
    first = next((record for record in result.records if record.lost is None), result.records[0])
    extra = {
        "n": str(result.n),
        "starts": f"seed {seed}",
        "progress": f"{result.mean(lambda r: r.share):.0%}",
        "lasting": "" if result.lasting is None else f"{result.lasting / result.n:.0%}",
        "steps": f"{result.mean(lambda r: r.steps):.0f}",
        "num_steps": f"{first.num_steps or '–'}",
        "replan_steps": f"{first.replan_steps or '–'}",
    }
    return {
        "suite": f"{result.suite}: {result.title}",
        "model": result.policy + (f", {control}" if control else ""),
        "successes": result.successes,
        "n": result.n,
        "extra": extra,
        "judged": not control,
        "interval": result.interval,
    }


def without_repetition(rows: Sequence[SuccessRow]) -> list[SuccessRow]:
    """Return the rows without columns that say what the success rate says already, in every row."""
    columns = [dict(row.get("extra", {})) for row in rows]
    for name in ("progress", "lasting"):
        if all(cells.get(name, "") in ("", f"{row['successes'] / row['n']:.0%}") for cells, row in zip(columns, rows)):
            for cells in columns:
                cells.pop(name, None)
    return [{**row, "extra": cells} for cells, row in zip(columns, rows)]


def describe_trouble(policy: PolicyResults, result: SuiteResult) -> list[str]:
    """Return what a reader has to know before trusting a result."""
    where, found = f"{policy.name} in {result.suite} ({result.control})", []
    if missing := policy.missing(result.suite, result.control):
        found.append(f"{where}: {missing} episodes are still to be run; the command below continues.")
    if result.lost:
        found.append(f"{where}: {result.lost} episodes were lost to the simulator and count as failed.")
    elif result.restarts:
        found.append(f"{where}: the simulator was restarted {result.restarts} times, always from the same start.")
    return found


def result_until(policy: PolicyResults) -> bool:
    """Return whether a run of the policy could stop early."""
    return any(run["until"] is not None for suite, _ in policy.cells() for run in policy.runs_of(suite))


def add_tasks(report: Report, policies: Sequence[PolicyResults]) -> None:
    """Add success by task where suites have several."""
    for policy in policies:
        for suite, control in policy.cells():
            result = policy.result(suite, control)
            assert result is not None
            if control != "none" or len(tasks := result.by_task()) < 2:
                continue
            over = result.interval_over_tasks
            words = f" (over tasks like these {over[0]:.0%} – {over[1]:.0%})" if over else ""
            rows: list[SuccessRow] = [
                {
                    "suite": f"{policy.name}, {suite} by task{words}",
                    "model": task,
                    "successes": s,
                    "n": n,
                    "judged": True,
                }
                for task, (s, n) in tasks.items()
            ]
            report.success_table(rows)


def add_seeds(report: Report, policies: Sequence[PolicyResults]) -> None:
    """Add, for recipes that were trained several times, what the trainings differ by."""
    groups = {name: trainings for name, trainings in by_recipe(policies).items() if len(trainings) > 1}
    if not groups:
        return
    report.section(
        "Training seeds",
        "A recipe trained again with another seed gives another policy. The interval is that of the recipe's mean over "
        "such trainings (Student's t), which more episodes do not narrow; it is never narrower than that of all their "
        "episodes together (Wilson's).",
    )
    rows = []
    for name, trainings in groups.items():
        for suite in suites_of(trainings):
            each = [list(outcomes_of({key: results}, suite).values()) for key, results in trainings.items()]
            rates = [float(np.mean(outcomes)) for outcomes in each if outcomes]
            spread = "–"
            if len(rates) > 1:
                low, high = interval_over_seeds(rates, episodes=[len(outcomes) for outcomes in each if outcomes])
                spread = f"{low:.0%} – {high:.0%}"
            shown = ", ".join(f"{rate:.0%}" for rate in rates)
            rows.append([name, suite, str(len(rates)), shown, f"{np.mean(rates):.0%}", spread])
    report.table(["recipe", "suite", "seeds", "each", "mean", "95 % over trainings"], rows)


# --- pairs ------------------------------------------------------------------------------------------------------------


def compare_pairs(policies: Sequence[PolicyResults]) -> list[Pair]:
    """Compare the first recipe with each other one on the starts that both had, suite by suite.

    Over several training seeds an outcome is the mean over them.
    """
    groups = by_recipe(policies)
    (first, own), *others = groups.items()
    found = []
    for name, other in others:
        for suite in suites_of(own):
            if both := shared_starts(own, other, suite):
                found.append((suite, name, compare(*zip(*both.values()), seed=0), len(both)))
    corrected = correct_for_many([comparison.p_value for _, _, comparison, _ in found])
    return [
        Pair(suite=suite, first=first, second=name, n=n, comparison=comparison, p_value=p)
        for (suite, name, comparison, n), p in zip(found, corrected)
    ]


def describe_apart(policies: Sequence[PolicyResults]) -> list[str]:
    """Say of each recipe in which suites it cannot be compared with the first, for they have no starts in common."""
    groups, sentences = by_recipe(policies), []
    (first, own), *others = groups.items()
    for name, other in others:
        suites = dict.fromkeys([*suites_of(own), *suites_of(other)])
        if apart := [suite for suite in suites if not shared_starts(own, other, suite)]:
            all_had = "all their trainings" if max(len(own), len(other)) > 1 else "both"
            sentences.append(
                f"{first} and {name} are not compared in {', '.join(apart)}: no start is one of {all_had}."
            )
    return sentences


def suites_of(trainings: Trainings) -> list[str]:
    """Return the suites that trainings were tried in with nothing taken away, in the order in which they came."""
    cells = (cell for results in trainings.values() for policy in results for cell in policy.cells())
    return list(dict.fromkeys(suite for suite, control in cells if control == "none"))


def shared_starts(own: Trainings, other: Trainings, suite: str) -> dict[tuple[int, int], tuple[float, float]]:
    """Return the success of two recipes in each start of a suite that both had, in order of starts."""
    a, b = outcomes_of(own, suite), outcomes_of(other, suite)
    return {start: (a[start], b[start]) for start in sorted(a.keys() & b.keys())}


def outcomes_of(trainings: Mapping[str, Sequence[PolicyResults]], suite: str) -> dict[tuple[int, int], float]:
    """Return the success in each start (seed, scene) of a suite, averaged over trainings; starts that all had.

    One training has the starts of all its seeds. One that was never in the suite is not waited for.
    """
    each = [
        {(policy.seed, scene): float(o.record.success)
         for policy in results for (s, c, scene), o in policy.outcomes.items() if (s, c) == (suite, "none")}
        for results in trainings.values()
    ]  # fmt: skip
    each = [outcomes for outcomes in each if outcomes]
    shared = set.intersection(*(set(outcomes) for outcomes in each)) if each else set()
    return {start: float(np.mean([outcomes[start] for outcomes in each])) for start in shared}


def add_pairs(report: Report, pairs: Sequence[Pair], *, apart: Sequence[str]) -> None:
    """Add the comparisons on the same starts, and the sentences `apart` on those that have none."""
    if not pairs and not apart:
        return
    report.section(
        "On the same starts",
        "Each pair saw the same scenes from the same starts. p is McNemar's exact test, corrected for the number of "
        "pairs here (Holm); the interval of the difference is a bootstrap of the pairs.",
    )
    rows = []
    for pair in pairs:
        low, high = pair.comparison.interval
        rows.append(
            [pair.first, pair.second, pair.suite, str(pair.n), str(pair.comparison.only_a), str(pair.comparison.only_b),
             f"{pair.comparison.difference:+.1%}", f"{low:+.1%} – {high:+.1%}", f"{pair.p_value:.2g}"]
        )  # fmt: skip
    headers = ["policy", "other", "suite", "starts", "only policy", "only other", "difference", "95 %", "p"]
    if rows:
        report.table(headers, rows)
    for sentence in apart:
        report.text(f"**{sentence}**")


# --- films and runs ---------------------------------------------------------------------------------------------------


def add_films(report: Report, policies: Sequence[PolicyResults], *, films: int, load: SuiteFn) -> None:
    """Add films of the first successes and failures, made anew from the actions that were logged."""
    if films < 1:
        return
    report.section("Films", "The first successes and the first failures of each policy, repeated from their actions.")
    for policy in policies:
        for suite, control in policy.cells():
            if control != "none":
                continue
            try:
                loaded = load(suite)
                for record, actions in chosen_episodes(policy, suite, films=films):
                    shown = film_again(loaded, record, actions)
                    whose = f" ({policy.name})" if len(policies) > 1 else ""
                    report.video(
                        shown.frames,
                        shown.captions,
                        title=record.prompt + whose,
                        fps=shown.fps,
                        success=record.success,
                        outcome=f"{record.steps / shown.fps:.1f} s",
                    )
            except (ValueError, ImportError, OSError) as error:
                report.text(f"No films of {suite}: {error}")


def chosen_episodes(policy: PolicyResults, suite: str, *, films: int) -> Iterator[tuple[EpisodeRecord, np.ndarray]]:
    """Yield the first successes and failures in a suite that have actions, with these [t ad]."""
    scenes = sorted(scene for s, control, scene in policy.outcomes if (s, control) == (suite, "none"))
    outcomes = [policy.outcomes[suite, "none", scene] for scene in scenes]
    for success in (True, False):
        fitting = (o for o in outcomes if o.record.success == success and o.actions and o.record.lost is None)
        for outcome in itertools.islice(fitting, films):
            assert outcome.actions is not None
            yield outcome.record, unpack_actions(outcome.actions)


def film_again(suite: Suite, record: EpisodeRecord, actions: np.ndarray) -> Film:
    """Repeat an episode with a picture at each step."""
    env = suite.make_env(image_size=FILM_SIZE)
    try:
        return film(env, record, actions=actions)
    finally:
        env.close()


def add_runs(report: Report, policies: Sequence[PolicyResults]) -> None:
    """Add the commands, commits and machines of all runs."""
    report.section("What was run")
    rows = []
    for policy in policies:
        for run in policy.runs:
            command = f"`{run['command']}`" if run.get("command") else "from Python"
            shard = run.get("shard") or "–"
            rows.append([policy.name, command, shard, run["commit"], run["version"], run["machine"], run["date"]])
        if not policy.runs:
            rows.append([policy.name, "an older version, which kept no commands", "–", "–", "–", "–", "–"])
        if policy.outdated:
            old = "are of an older simulator, under older code or with prompts from fewer scenes,"
            report.text(f"{policy.outdated} episodes of {policy.name} {old} and are left out.")
    report.table(["policy", "command", "shard", "commit", "version", "machine", "date"], rows)
