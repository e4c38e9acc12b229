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

from pilot.eval.demo_stages import CONTROLS, FULL, DemoRun, Finale
from pilot.eval.provenance import commit, device_name
from pilot.eval.records import EpisodeRecord
from pilot.eval.report.report import Report, SuccessRow
from pilot.eval.rollout import Film
from pilot.eval.stats import compare, wilson
from pilot.train.metrics import read_metrics

STRIP = 8  # pictures of a film
LOSSES = {
    "flow": "actions: error of the flow's direction",
    "text": "words: subtasks and answers",
    "fast": "actions as FAST tokens",
    "point": "looking at the named place",
    "name": "naming what is seen",
}
STAGES = {
    "controls": "measuring success",
    "films": "filming",
    "inside": "looking inside",
    "before": "the new task, before training",
    "collect": "collecting demonstrations",
    "training": "fine-tuning",
    "after": "the new task, after training",
    "expert": "filming the expert",
    "room": "in a room",
}
AMOUNTS = {
    "suites": "kinds of tasks",
    "films": "films of each kind",
    "episodes": "episodes in each row of the big table",
    "new_episodes": "episodes of the new task, before and after",
    "scenes": "scenes to collect demonstrations in",
    "episodes_per_scene": "demonstrations of the new task in each",
    "known_per_scene": "demonstrations of a known task in each",
    "web_rows": "questions about pictures",
    "steps": "training steps",
    "room_episodes": "episodes in a room",
    "workers": "processes",
}


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
    if run.measures_learning:
        add_learning(report, run)
    else:
        add_first_steps(report, run)
    if run.finale is not None:
        add_room(report, run.finale, run.results["room"])
    add_next(report, run)
    add_facts(report, run)
    return report


def highlights(run: DemoRun) -> list[tuple[str, str, str]]:
    """Return the three big numbers of the page: value, what it is, small print."""
    first, new_task = run.results["controls"][0], run.lesson.new.title
    minutes = sum(run.stages.seconds.values()) / 60
    if run.measures_learning:
        before, after = run.results["before"][0], run.results["after"]["new"][0]
        rates = f"{before['success']:.0%} → {after['success']:.0%}"
        middle = (rates, f"{new_task}, before and after", odds(after, run.scenes))
    else:
        shot = run.results["films"][0]["record"]
        middle = (f"{shot['infer_ms']:.0f} ms", "from pictures to a chunk of actions", "the median of the first film")
    return [
        (f"{first['success']:.0%}", f"{first['title']}: success in unseen {run.scenes}", odds(first, run.scenes)),
        middle,
        (f"{minutes:.1f} min", "for everything on this page", f"{os.cpu_count()} cores, {device_name()}"),
    ]


def to_text(run: DemoRun) -> str:
    """Return the numbers of the page as a table for the terminal."""
    rows = [(row["title"], CONTROLS[row["control"]], row) for row in run.results["controls"]]
    if run.measures_learning:
        new, known = run.results["after"]["new"][0], run.results["after"]["known"][0]
        rows += [(new["title"], "before learning it", run.results["before"][0]), (new["title"], "after", new)]
        rows += [(known["title"], "after learning the new task", known)]
    if run.finale is not None:
        rows += [(row["title"], f"robot '{run.finale.suite.robot.name}'", row) for row in run.results["room"]["rows"]]
    lines = [("task", "who", "success", "95 % interval")]
    for title, who, row in rows:
        low, high = row["interval95"]
        lines.append((title, who, f"{row['successes']} of {row['episodes']}", f"{low:.0%} – {high:.0%}"))
    widths = [max(len(line[column]) for line in lines) for column in range(4)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in lines)


def add_acting(report: Report, run: DemoRun) -> None:
    """Add films of unseen scenes, and success beside the controls."""
    report.section(
        f"In {run.scenes} it has never seen",
        f"Of each kind of task the first {run.lesson.new.scene} that went well, and the first that did not, if there "
        "is one. The line under a film is what the policy says it is doing. Each piece of the bar below is one such "
        "subtask, and the mark shows where the film is. Click a film to stop it.",
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
    add_losses(report, run, title="Losses while fine-tuning")
    known = [row for row in run.results["controls"] if row["suite"] == lesson.known.name and row["control"] == "none"]
    report.text(
        f"What it knew already, {lesson.known.title}: {odds(known[0], scenes)} before, "
        f"{odds(after['known'][0], scenes)} after."
    )


def add_first_steps(report: Report, run: DemoRun) -> None:
    """Add what a quick demo can show of learning: the expert, a few steps of training, and how long all would take."""
    a, training = run.amounts, Path(run.results["training"]["run"])
    speeds = [row["samples_per_s"] for row in read_metrics(training)]
    minutes = run.config.steps * run.config.batch_size / max(speeds[-1], 1e-9) / 60 if speeds else 0.0
    report.section(
        "How it learns something new",
        f"{run.lesson.new.title.capitalize()}: neither is in any data that the policy was trained on. A scripted "
        f"expert shows how; here {a.scenes * a.episodes_per_scene} of its demonstrations and {run.steps} training "
        "steps, which is too little to learn from. So this page gives no success rate for it.",
    )
    add_film(report, run.results["expert"], when="the expert")
    add_losses(report, run, title=f"Losses of the first {run.steps} steps")
    report.text(
        f"The whole lesson is {run.config.steps} steps, about {minutes:.0f} minutes of training on this machine. "
        f"`make demo` (or `pilot demo`) gives it, and measures success before and after in {FULL.new_episodes} "
        f"{run.scenes}."
    )


def add_room(report: Report, finale: Finale, room: dict[str, Any]) -> None:
    """Add the larger robot: films of it in rooms, and how often it succeeds."""
    robot = finale.suite.robot
    report.section(
        "The same recipe in a room",
        f"Robot '{robot.name}' moves {robot.action_dim} joints and wheels, and knows what to do from its cameras. "
        f"Its policy, {finale.checkpoint.name}, was trained on several robots at once, and acts here in rooms that "
        "it has never seen.",
    )
    for shot in room["films"]:
        add_film(report, shot)
    report.success_table([success_row(row, model=f"robot '{robot.name}'") for row in room["rows"]])


def add_losses(report: Report, run: DemoRun, *, title: str) -> None:
    """Add the losses of training, each with what it measures."""
    curves = loss_curves(Path(run.results["training"]["run"]))
    report.losses({LOSSES.get(name, name): curve for name, curve in curves.items()}, title=title)
    report.text("Lower is better. They are means over a batch, so they jump from step to step.")


def add_next(report: Report, run: DemoRun) -> None:
    """Add what the reader may do now."""
    policy, suite = os.path.relpath(run.checkpoint), run.suites[0].name
    steps = {
        "measure the policy with more episodes": f"pilot eval {policy} --suite {suite} --episodes 200",
        "serve it to a robot, with a page to watch and command it": f"pilot serve {policy}",
        "collect demonstrations": f"pilot collect data/mine --suite {suite} --scenes 40 --episodes 10",
        "look at a data set": "pilot data inspect data/mine",
        "describe your own robot, and check it": "pilot check path/to/my_robot.py",
    }
    report.section("What next")
    report.table(["to", "run"], [(what, f"`{command}`") for what, command in steps.items()])


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
    facts |= {AMOUNTS[name]: str(value) for name, value in amounts.items() if value}
    facts |= {"finished": datetime.now().astimezone().isoformat(timespec="seconds")}
    report.table(["what", "value"], list(facts.items()))
    report.timings([(STAGES[name], seconds) for name, seconds in run.stages.seconds.items()])


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
    extra |= {
        "denoising steps": f"{row.get('num_steps') or '–'}",
        "steps per look": f"{row.get('replan_steps') or '–'}",
    }
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
