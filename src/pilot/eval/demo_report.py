"""The page of `pilot demo`: what the policy did, what it attended to, and what it learned."""

import os
import platform
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pilot.eval.demo_stages import CONTROLS, DemoRun
from pilot.eval.provenance import commit, device_name
from pilot.eval.records import EpisodeRecord
from pilot.eval.report.report import Report, SuccessRow
from pilot.eval.rollout import Film
from pilot.eval.stats import compare, wilson
from pilot.train.metrics import read_metrics

STRIP = 8  # pictures of a film


def make_report(run: DemoRun) -> Report:
    """Make the page from the results of a demo whose stages have all run."""
    report = Report(
        f"A robot at work in a {run.lesson.new.scene} it has never seen",
        subtitle="One small model reads the instruction, says what it will do next, and does it. Seeing, language and "
        "flow-matching actions were trained together, by the recipe of π0.5.",
    )
    report.highlights(highlights(run))
    add_acting(report, run)
    add_inside(report, run)
    add_learning(report, run)
    add_facts(report, run)
    return report


def highlights(run: DemoRun) -> list[tuple[str, str, str]]:
    """Return the three big numbers of the page: value, what it is, small print."""
    first, new_task = run.results["controls"][0], run.lesson.new.title
    before, after = run.results["before"][0], run.results["after"]["new"][0]
    minutes = sum(run.stages.seconds.values()) / 60
    return [
        (f"{first['success']:.0%}", f"{first['title']}: success in unseen {run.scenes}", odds(first, run.scenes)),
        (f"{before['success']:.0%} → {after['success']:.0%}", f"{new_task}, before and after", odds(after, run.scenes)),
        (f"{minutes:.1f} min", "for everything on this page", f"{os.cpu_count()} cores, {device_name()}"),
    ]


def add_acting(report: Report, run: DemoRun) -> None:
    """Add films of unseen scenes, and success beside the controls."""
    report.section(
        f"In {run.scenes} it has never seen",
        f"The first test {run.scenes} of each suite, whatever happened there. Subtitles are the policy's own words.",
    )
    for shot in run.results["films"]:
        add_film(report, shot)
    succeeded = [shot for shot in run.results["films"] if shot["record"]["success"]]
    add_strip(report, (succeeded or run.results["films"])[-1])
    report.text(
        f"The simulator judges success. **Pictures blanked** and **prompts shuffled** are the same policy in the same "
        f"{run.scenes}, but with flat grey pictures, or with the instruction of another {run.lesson.new.scene}: what "
        "still succeeds then is luck."
    )
    report.success_table([success_row(row, model=CONTROLS[row["control"]]) for row in run.results["controls"]])


def add_inside(report: Report, run: DemoRun) -> None:
    """Add what the policy attends to, and how noise becomes a chunk of actions."""
    inside = run.results["inside"]
    arrays = np.load(inside["path"])
    report.section("A look inside", f"The first moment of “{inside['prompt']}”.")
    report.attention(
        arrays["picture"],
        arrays["weights"],
        title="Where it looks while it speaks",
        caption=f"It says: “{inside['subtask']}”. The glow is the attention of {inside['heads']}, while the policy "
        "writes the box of its subtask.",
    )
    report.flow(
        arrays["flow"],
        run.lesson.new.robot.action_names,
        caption="Ten steps of flow matching turn noise into a chunk of actions.",
    )


def add_learning(report: Report, run: DemoRun) -> None:
    """Add success in the new task before and after fine-tuning, and in the known one."""
    before, after = run.results["before"][0], run.results["after"]
    a, lesson, scenes = run.amounts, run.lesson, run.scenes
    report.section(
        "Learning something new",
        f"{lesson.new.title.capitalize()}: neither is in any data that the policy was trained on. It learns from "
        f"{a.scenes * a.episodes_per_scene} demonstrations in {a.scenes} {scenes}, {run.steps} training steps, mixed "
        f"with {a.scenes * a.known_per_scene} demonstrations of what it knows already, so that it does not forget. It "
        f"is tried in other {scenes}, the same ones before and after.",
    )
    rows = [(after["new"][0], "after fine-tuning"), (before, "before")]
    report.success_table([success_row(row, model=when) for row, when in rows])
    report.text(describe_change(before["outcomes"], after["new"][0]["outcomes"], scene=lesson.new.scene, seed=run.seed))
    report.text(
        f"Filmed: the first {lesson.new.scene} that failed before and succeeds after, or the first of all if there is "
        "none."
    )
    for shot, when in zip(after["films"], ("before", "after"), strict=True):
        add_film(report, shot, when=when)
    report.losses(loss_curves(Path(run.results["training"]["run"])), title="Losses while fine-tuning")
    known = [row for row in run.results["controls"] if row["suite"] == lesson.known.name and row["control"] == "none"]
    report.text(
        f"What it knew already, {lesson.known.title}: {odds(known[0], scenes)} before, "
        f"{odds(after['known'][0], scenes)} after."
    )


def describe_change(before: Sequence[bool], after: Sequence[bool], *, scene: str, seed: int) -> str:
    """Say in a sentence how the same scenes went before and after."""
    change = compare(after, before, seed=seed)
    if change.only_a == change.only_b == 0:
        return (
            f"{scene.capitalize()} by {scene}: none learned, none lost. That is no proof that nothing changed: "
            f"in {len(after)} {scene}s, a change of up to {wilson(0, len(after)).high:.0%} can go unseen."
        )
    low, high = change.interval
    return (
        f"{scene.capitalize()} by {scene}: {change.only_a} learned, {change.only_b} lost, a change of "
        f"{change.difference:+.0%} (95 % interval {low:+.0%} to {high:+.0%})."
    )


def add_facts(report: Report, run: DemoRun) -> None:
    """Add what was run, on what machine, and how long each stage took."""
    report.section("What was run")
    facts = {"checkpoint": f"{run.checkpoint} ({run.base['policy']})", "commit": commit()}
    facts |= {"seed": str(run.seed), "machine": f"{os.cpu_count()} cores, {device_name()}"}
    facts |= {"python": platform.python_version(), "torch": torch.__version__}
    amounts = asdict(run.amounts) | {"suites": ", ".join(suite.name for suite in run.suites), "steps": run.steps}
    facts |= {name.replace("_", " "): str(value) for name, value in amounts.items()}
    facts |= {"finished": datetime.now().astimezone().isoformat(timespec="seconds")}
    report.table(["what", "value"], list(facts.items()))
    report.timings(list(run.stages.seconds.items()))


def add_film(report: Report, shot: dict[str, Any], *, when: str = "") -> None:
    """Add the film of one episode."""
    record, shown = load_film(shot)
    title = f"{record.prompt} ({when})" if when else record.prompt
    outcome = f"{record.steps / shown.fps:.1f} s"
    report.video(shown.frames, shown.captions, title=title, fps=shown.fps, success=record.success, outcome=outcome)


def add_strip(report: Report, shot: dict[str, Any]) -> None:
    """Add a few pictures of an episode, side by side."""
    record, shown = load_film(shot)
    chosen = np.linspace(0, len(shown.frames) - 1, min(STRIP, len(shown.frames))).round().astype(int)
    frames, captions = [shown.frames[i] for i in chosen], [shown.captions[i] for i in chosen]
    report.filmstrip(frames, captions, title=record.prompt, success=record.success)


def load_film(shot: dict[str, Any]) -> tuple[EpisodeRecord, Film]:
    """Read an episode's record and its film."""
    frames = list(np.load(shot["frames"])["frames"])
    return EpisodeRecord.from_json(shot["record"]), Film(fps=shot["fps"], frames=frames, captions=shot["captions"])


def success_row(row: dict[str, Any], *, model: str) -> SuccessRow:
    """Return a line of a success table for a summarized result."""
    extra = {"wrong object first": f"{row['wrong_object']:.0%}", "steps": f"{row['mean_steps']:.0f}"}
    extra |= {name: f"{row.get(name) or '–'}" for name in ("num_steps", "replan_steps")}
    return {
        "suite": row["title"],
        "model": model,
        "successes": row["successes"],
        "n": row["episodes"],
        "extra": extra,
    }


def odds(row: dict[str, Any], scenes: str) -> str:
    """Say how many succeeded, with the interval."""
    low, high = row["interval95"]
    return f"{row['successes']} of {row['episodes']} {scenes}, 95 % interval {low:.0%} – {high:.0%}"


def loss_curves(run: Path) -> dict[str, tuple[list[float], list[float]]]:
    """Read every loss of a training run over its steps, from its metrics."""
    rows = read_metrics(run)
    names = [name for name in rows[0] if name.startswith("loss/") and name.count("/") == 1] if rows else []
    return {
        name.removeprefix("loss/"): ([r["step"] for r in rows if name in r], [r[name] for r in rows if name in r])
        for name in names
    }
