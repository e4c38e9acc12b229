"""What a study leaves: `report.html`, the same as `results.md` with `plot.svg`, and `results.json` for programs.

`line.md` is what `docs/results.md` says of it: the question, the answer, the plot.
"""

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from markupsafe import Markup

from pilot.data.storage.files import atomic_write, write_json
from pilot.eval.report.report import Report
from pilot.eval.study import drawing
from pilot.eval.study.declare import Trial
from pilot.eval.study.findings import ConditionResult, answer, find, mean_curve
from pilot.eval.study.fits import Growth, fit_growth
from pilot.eval.study.measures import MEASURES
from pilot.eval.study.parts import Evaluating, TrainingPart
from pilot.eval.study.plan import StudyPlan, hours

FIT_PLACES = 4  # a curve of fewer conditions has no fits


def write_page(plan: StudyPlan, out: Path) -> Path:
    """Write what is known so far into `out`; return the page."""
    out.mkdir(parents=True, exist_ok=True)
    for trial, place in zip(plan.study.trials, _file_names(plan), strict=True):
        if findings := find(plan, trial, plan.study.measures[0]):
            _write(out / f"{place}.svg", draw(plan, findings))
    write_json(out / "results.json", list(_rows_as_json(plan)))
    _write(out / "results.md", to_markdown(plan))
    _write(out / "line.md", to_line(plan))
    return make_report(plan).save(out / "report.html")


def draw(plan: StudyPlan, findings: dict[str, ConditionResult]) -> str:
    """Draw the first measure of a trial as the study wants it."""
    study, measure = plan.study, MEASURES[plan.study.measures[0]]
    if study.plot == "curve" and mean_curve(findings)[0]:
        return drawing.draw_curve(findings, measure=measure, x_label=study.x_label, growth=growth_of(plan, findings))
    return drawing.draw_rows(findings, measure=measure, baseline=study.baseline.name)


def growth_of(plan: StudyPlan, findings: dict[str, ConditionResult]) -> Growth | None:
    """Return the fits of a curve; None for another plot, or with too few conditions done."""
    if plan.study.plot != "curve":
        return None
    places, values = mean_curve(findings)
    return fit_growth(places, values, seed=0) if len(set(places)) >= FIT_PLACES else None


def to_markdown(plan: StudyPlan) -> str:
    """Write the study for the docs: question, answer, plot and table of each trial, and how it was made."""
    study = plan.study
    lines = [f"# {study.question}", "", f"Source of the experiment: {study.source}. {study.notes}".rstrip(), ""]
    for trial, place in zip(study.trials, _file_names(plan), strict=True):
        findings = find(plan, trial, study.measures[0])
        lines += [f"## {title_of(trial)}", ""]
        if not findings:
            lines += ["Not run yet.", ""]
            continue
        lines += [sentence(plan, findings), "", f"![{MEASURES[study.measures[0]].title}]({place}.svg)", ""]
        headers, rows = table(plan, trial)
        lines += [f"| {' | '.join(headers)} |", "|---" * len(headers) + "|"]
        lines += [f"| {' | '.join(row)} |" for row in rows]
        lines += ["", *(line for line in fit_lines(plan, findings)), ""]
    return "\n".join([*lines, "## How it was made", "", *facts(plan)]) + "\n"


def to_line(plan: StudyPlan) -> str:
    """Write the first trial for the page of results: question, answer, plot, and how sure it is."""
    study, (trial, *_) = plan.study, plan.study.trials
    findings = find(plan, trial, study.measures[0])
    if not findings:
        return f"## {study.question}\n\nNot run yet.\n"
    done = [part for part in plan.parts if part.done]
    commits = ", ".join(sorted({part.done["commit"] for part in done if part.done}))
    base = next(iter(findings.values()))
    return (
        f"## {study.question}\n\n**{sentence(plan, findings)}**\n\n"
        f"![{MEASURES[study.measures[0]].title}](plot.svg)\n\n"
        f"{title_of(trial)}; {base.n} episodes for each of {len(base.seeds)} trainings of a "
        f"condition, paired; commit {commits}.\n"
    )


def make_report(plan: StudyPlan) -> Report:
    """Make the page."""
    study = plan.study
    report = Report(study.question, subtitle=f"{study.source}. {study.notes}".strip())
    for trial in study.trials:
        findings = find(plan, trial, study.measures[0])
        report.section(title_of(trial), sentence(plan, findings) if findings else "Not run yet.")
        if findings:
            report.figure(Markup(draw(plan, findings)), title=MEASURES[study.measures[0]].title, css="study")
            report.table(*table(plan, trial))
            for line in fit_lines(plan, findings):
                report.text(line)
    report.section("How it was made")
    report.text("\n\n".join(facts(plan)))
    return report


def title_of(trial: Trial) -> str:
    """Return what a section calls a trial."""
    return f"{trial.name}: {trial.title}" if trial.title else trial.name


def sentence(plan: StudyPlan, findings: dict[str, ConditionResult]) -> str:
    """Answer the question in a sentence, as far as it goes."""
    measure = MEASURES[plan.study.measures[0]].title.partition(" [")[0].capitalize()
    return answer(findings, baseline=plan.study.baseline.name, title=measure)


def table(plan: StudyPlan, trial: Trial) -> tuple[list[str], list[list[str]]]:
    """Return head and rows: each condition with its measures, and the difference of the first from the baseline."""
    study, found = plan.study, {name: find(plan, trial, name) for name in plan.study.measures}
    first = found[study.measures[0]]
    head = ["condition", "scenes × trainings", *(MEASURES[name].title for name in study.measures)]
    repeated = any(len(finding.seeds) > 1 for finding in first.values())
    head += [*(["each training"] if repeated else []), "difference [points]", "won, lost", "p"]
    rows = []
    for name, finding in first.items():
        cells = [f"{name}: {finding.condition.what}" if finding.condition.what else name]
        cells.append(f"{finding.n} × {len(finding.seeds)}")
        cells += [_with_interval(found[measure][name], measure) for measure in study.measures]
        if repeated:
            cells.append(", ".join(MEASURES[study.measures[0]].write(seed) for seed in finding.seeds))
        rows.append(cells + _difference(finding, first, study.baseline.name))
    return head, rows


def _with_interval(finding: ConditionResult, measure: str) -> str:
    write, (low, high) = MEASURES[measure].write, finding.interval
    return f"{write(finding.mean)} ({write(low)} – {write(high)})"


def _difference(finding: ConditionResult, first: dict[str, ConditionResult], baseline: str) -> list[str]:
    if finding.condition.name == baseline or baseline not in first:
        return ["–", "–", "–"]
    change = finding.against(first[baseline])
    low, high = (100 * end for end in change.interval)
    points = f"{100 * change.difference:+.1f} ({low:+.1f} – {high:+.1f})"
    return [points, f"{change.only_a}, {change.only_b}", f"{change.p_value:.2g}"]


def fit_lines(plan: StudyPlan, findings: dict[str, ConditionResult]) -> list[str]:
    """Return what the fits of a curve say, a line each; nothing for other plots."""
    growth = growth_of(plan, findings)
    return [] if growth is None else growth.describe().splitlines()


def facts(plan: StudyPlan) -> list[str]:
    """Return how the study was made, as paragraphs: equality, order, cost, commits, commands, and what is missing."""
    study, parts = plan.study, [part for part in plan.parts if part.done]
    spent = sum(part.seconds for part in parts)
    commits = sorted({part.done["commit"] for part in parts if part.done})
    missing = [r.name for r in plan.repetitions if not r.is_done]
    lines = [
        f"Equal in all conditions: {study.equal}. {plan.effect()}",
        "Intervals are 95 %, over scenes; with several trainings a scene counts by their mean, and the rate of each "
        "training is given, for two are too few for an interval over trainings. Differences are paired by scene; p is "
        "of the exact sign test (McNemar), without a correction for several comparisons.",
        f"Commit {', '.join(commits) or 'none yet'}; {hours(spent)} in all, on this machine.",
    ]
    if missing:
        lines.append(f"Not run yet: {'; '.join(missing)}.")
    lines += [f"{name} waits for {what}." for name, what in plan.waiting.items()]
    trainings = [command(part) for part in parts if isinstance(part, TrainingPart)]
    episodes = sum(part.amount for part in parts if isinstance(part, Evaluating))
    lines.append(f"{episodes:.0f} episodes, {len(trainings)} trainings.")
    return lines + [f"`{line}`" for line in trainings]


def command(part: TrainingPart) -> str:
    """Return the command that makes a training alone."""
    words = ["pilot", "train", part.training.run, "--out", str(part.folder / "run")]
    changes = [*part.training.changes, f"seed={part.config.seed}"]
    if part.before is not None:
        changes.append(f"init_from={part.before.policy}")
    return shlex.join([*words, *(word for change in changes for word in ("--set", change))])


def _rows_as_json(plan: StudyPlan) -> Iterator[dict[str, Any]]:
    for trial in plan.study.trials:
        for measure in plan.study.measures:
            for name, finding in find(plan, trial, measure).items():
                low, high = finding.interval
                yield {
                    "trial": trial.name,
                    "measure": measure,
                    "condition": name,
                    "mean": finding.mean,
                    "interval95": [low, high],
                    "scenes": finding.n,
                    "trainings": list(finding.seeds),
                }


def _file_names(plan: StudyPlan) -> list[str]:
    """Return a name for the plot of each trial."""
    return ["plot" if k == 0 else f"plot{k + 1}" for k in range(len(plan.study.trials))]


def _write(path: Path, text: str) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
