"""`pilot demo`: the whole recipe in ten minutes, and a report of what happened.

The shipped policy acts in homes it has never seen, beside controls that take its eyes or its ears away. Then it learns
something that no data it has seen contains: demonstrations are collected, it is fine-tuned, and the same homes are
tried before and after. Every number of the report is of this run.

Each part keeps its result in a folder named by a fingerprint of its inputs. So an interrupted demo goes on where it
was (training to the step, evaluation to the episode), and a demo of other weights, code or amounts starts anew.
"""

import hashlib
import json
import os
import platform
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

import pilot
from pilot.data.storage.files import atomic_write, read_json, write_json
from pilot.eval.evaluate import Job, Runner, SuiteResult, code_fingerprint, evaluate_table, fingerprint
from pilot.eval.report.introspect import attention_picture, flow_trajectory
from pilot.eval.report.report import Report, SuccessRow
from pilot.eval.rollout import EpisodeRecord, Film, film
from pilot.eval.stats import compare
from pilot.eval.suites import SUITES, Suite
from pilot.infer.policy import load_policy
from pilot.robots.homes import ROBOT
from pilot.sims.collect import collect, collect_web
from pilot.sims.homes.language import KINDS, RECEPTACLES
from pilot.train.config import TrainConfig
from pilot.train.loop import train
from pilot.train.metrics import read_metrics

NEW = Suite(name="homes-new", title="hats into crates", level=1, task="single", kinds=("hat",), receptacles=("crate",))
OLD = SUITES["homes-l1"]
STRIP = 8  # pictures of a film
CONTROLS = {"none": "the policy", "blank_images": "pictures blanked", "shuffled_prompts": "prompts shuffled"}
FILM_SIZE = 192
REDO = "remove the folder of the demo and run it again"


@dataclass(frozen=True, kw_only=True)
class Amounts:
    """How much of everything: decides minutes, not what is done.

    `films` are per suite, `episodes` per row of the big table. `steps` None is what the training config says. Where
    there is little to do, one worker is faster than starting two.
    """

    suites: tuple[str, ...]
    films: int
    episodes: int
    new_episodes: int
    homes: int
    episodes_per_home: int
    known_per_home: int
    web_rows: int
    steps: int | None
    workers: int


FULL = Amounts(
    suites=tuple(SUITES),
    films=2,
    episodes=16,
    new_episodes=30,
    homes=60,
    episodes_per_home=4,
    known_per_home=2,
    web_rows=2000,
    steps=None,
    workers=2,
)
QUICK = Amounts(
    suites=("homes-l1",),
    films=1,
    episodes=2,
    new_episodes=2,
    homes=2,
    episodes_per_home=2,
    known_per_home=1,
    web_rows=40,
    steps=8,
    workers=1,
)


def demo(
    out: str | Path = "outputs/demo",
    *,
    config: TrainConfig,
    quick: bool = False,
    checkpoint: str | Path | None = None,
    seed: int = 0,
) -> Path:
    """Act, collect, fine-tune, act again → the path of the report. `config` says how to fine-tune.

    `quick` does everything with tiny amounts. Raises FileNotFoundError without a checkpoint.
    """
    show = Show(
        Path(out),
        checkpoint=find_checkpoint(checkpoint),
        config=config,
        amounts=QUICK if quick else FULL,
        seed=seed,
    )
    show.run()
    path = show.report().save(show.out / "report.html")
    print(f"\nDone. Open {path.resolve()}")
    return path


def find_checkpoint(path: str | Path | None) -> Path:
    """The folder of the policy: `path`, else `checkpoints/nano` of the source tree or of the working directory."""
    shipped = Path("checkpoints/nano")
    places = [Path(path)] if path else [Path(pilot.__path__[0]).parents[1] / shipped, shipped.resolve()]
    for place in places:
        if place.is_dir():
            return place
    looked = " nor at ".join(str(place) for place in dict.fromkeys(places))
    raise FileNotFoundError(f"no checkpoint at {looked}; run this in the source tree, or train one: bash runs/nano.sh")


class Parts:
    """Parts of a long run by name. Each runs once per set of inputs; its result, files and seconds stay in a folder."""

    def __init__(self, out: Path, *, count: int) -> None:
        self.out, self.count = out, count
        self.seconds: dict[str, float] = {}

    def run(self, name: str, work: Callable[[Path], Any], *, says: str, inputs: Any) -> Any:
        """`work(folder)` → something JSON, or what it returned the last time. `says` is printed first."""
        print(f"\n[{len(self.seconds) + 1}/{self.count}] {says}", flush=True)
        key = hashlib.sha256(json.dumps(inputs, sort_keys=True, default=repr).encode()).hexdigest()[:8]
        folder = self.out / "parts" / f"{name}-{key}"
        result, spent = folder / "result.json", folder / "seconds.json"
        before = read_json(spent, remedy=REDO) if spent.exists() else 0.0
        if result.exists():
            print(f"      done before, in {before:.0f} s", flush=True)
        else:
            start = time.perf_counter()
            folder.mkdir(parents=True, exist_ok=True)
            try:
                write_json(result, work(folder))
            finally:
                before += time.perf_counter() - start
                write_json(spent, before)
        self.seconds[name] = before
        return read_json(result, remedy=REDO)


class Show:
    """The parts of the demo in order, what each needs from those before, and the report of them all."""

    def __init__(self, out: Path, *, checkpoint: Path, config: TrainConfig, amounts: Amounts, seed: int) -> None:
        self.out, self.checkpoint, self.config, self.amounts, self.seed = out, checkpoint, config, amounts, seed
        self.parts = Parts(out, count=7)
        self.base = {"policy": fingerprint(checkpoint), "code": code_fingerprint(), "seed": seed}
        self.results: dict[str, Any] = {}
        self.tuned: Path

    def run(self) -> None:
        a = self.amounts
        training = self.base | {"config": repr(self.config), "amounts": asdict(a)}
        homes = self.base | {"suites": a.suites, "films": a.films}
        self.part("films", self.act, says="The policy acts in homes it has never seen; filming.", inputs=homes)
        self.part(
            "controls",
            self.compare,
            says="How often does it succeed? The same homes again without eyes, and with somebody else's instruction.",
            inputs=homes | {"episodes": a.episodes},
        )
        self.part(
            "inside", self.look_inside, says="A look inside: attention, and noise becoming actions.", inputs=homes
        )
        new = self.base | {"suite": repr(NEW), "episodes": a.new_episodes}
        self.part("before", self.try_before, says=f"Something new: {NEW.title}. Success before training.", inputs=new)
        self.part("collect", self.demonstrate, says="A scripted expert demonstrates it.", inputs=training)
        self.tuned = Path(
            self.part("training", self.fine_tune, says="Fine-tuning on the demonstrations.", inputs=training)["policy"]
        )
        self.part("after", self.try_after, says="The same new homes again.", inputs=new | training)

    @property
    def steps(self) -> int:
        return self.amounts.steps or self.config.steps

    def part(self, name: str, work: Callable[[Path], Any], *, says: str, inputs: Any) -> Any:
        self.results[name] = self.parts.run(name, work, says=says, inputs=inputs)
        return self.results[name]

    # --- parts ---------------------------------------------------------------------------------------------------

    def act(self, folder: Path) -> list[dict[str, Any]]:
        """The first homes of each suite, whatever happens there, on film."""
        runner = Runner(self.checkpoint)
        return [
            filmed(runner, SUITES[name], home=home, seed=self.seed, path=folder / f"{name}-{home}")
            for name in self.amounts.suites
            for home in range(self.amounts.films)
        ]

    def compare(self, folder: Path) -> list[dict[str, Any]]:
        return self.evaluate(self.checkpoint, self.amounts.suites, folder, episodes=self.amounts.episodes)

    def look_inside(self, folder: Path) -> dict[str, Any]:
        """Attention and flow for the first picture of the first home of the second suite, where there are two."""
        policy = load_policy(self.checkpoint)
        taught = policy.model.config.point_layer is not None
        heads = "the head that was taught to look at what a place is said of" if taught else "the mean of all heads"
        env = SUITES[self.amounts.suites[:2][-1]].make_env()
        observation, _ = env.reset(seed=self.seed, options={"home": 0, "episode": 0})
        env.close()
        seen = attention_picture(policy, observation)
        flow = flow_trajectory(policy, observation, num_steps=10)
        save_arrays(folder / "inside.npz", {"picture": seen.picture, "weights": seen.weights, "flow": flow})
        said = {"prompt": observation["prompt"], "subtask": seen.subtask, "heads": heads}
        return said | {"path": str(folder / "inside.npz")}

    def try_before(self, folder: Path) -> list[dict[str, Any]]:
        return self.evaluate(self.checkpoint, [NEW], folder, episodes=self.amounts.new_episodes, controls=["none"])

    def demonstrate(self, folder: Path) -> dict[str, str]:
        """Demonstrations of the new task and of what is known, and questions about pictures with both; paths by name.

        Trained on the new task alone, the policy forgets the others.
        """
        a = self.amounts
        everywhere: dict[str, Any] = {"homes": a.homes, "workers": a.workers, "seed": self.seed}
        new, known = (
            collect(
                folder / name, level=suite.level, task=suite.task, episodes_per_home=episodes, kinds=suite.kinds,
                receptacles=suite.receptacles, **everywhere,
            )
            for name, suite, episodes in (("new", NEW, a.episodes_per_home), ("known", OLD, a.known_per_home))
        )  # fmt: skip
        web = collect_web(
            folder / "web",
            rows=a.web_rows,
            kinds=(*KINDS, *(NEW.kinds or ())),
            receptacles=(*RECEPTACLES, *(NEW.receptacles or ())),
            **everywhere,
        )
        return {"new": str(new), "known": str(known), "web": str(web)}

    def fine_tune(self, folder: Path) -> dict[str, str]:
        """`config`, from the shipped weights, on what was just collected."""
        collected = self.results["collect"]
        config = replace(
            self.config,
            init_from=str(self.checkpoint),
            sources=tuple(replace(source, path=collected[Path(source.path).name]) for source in self.config.sources),
            steps=self.steps,
            log_every=min(self.config.log_every, max(self.steps // 8, 1)),
            seed=self.seed,
        )
        return {"policy": str(train(config, out=folder / "run")), "run": str(folder / "run")}

    def try_after(self, folder: Path) -> dict[str, Any]:
        a = self.amounts
        new = self.evaluate(self.tuned, [NEW], folder, episodes=a.new_episodes, controls=["none"])
        old = self.evaluate(self.tuned, [OLD], folder, episodes=a.episodes, controls=["none"])
        home = self.learned_home(new[0]["homes"])
        films = [
            filmed(Runner(policy), NEW, home=home, seed=self.seed, path=folder / when)
            for when, policy in (("before", self.checkpoint), ("after", self.tuned))
        ]
        return {"new": new, "old": old, "films": films}

    def learned_home(self, after: Sequence[bool]) -> int:
        """The first home that failed before and succeeds now; the first of all if there is none."""
        before = self.results["before"][0]["homes"]
        learned = [home for home, (was, now) in enumerate(zip(before, after, strict=True)) if now and not was]
        return learned[0] if learned else 0

    def evaluate(
        self,
        policy: Path,
        suites: Sequence[str | Suite],
        folder: Path,
        *,
        episodes: int,
        controls: Sequence[str] = tuple(CONTROLS),
    ) -> list[dict[str, Any]]:
        results = evaluate_table(
            policy,
            suites=suites,
            controls=controls,
            episodes=episodes,
            seed=self.seed,
            workers=self.amounts.workers,
            out=folder,
        )
        return [summary(result) for result in results]

    # --- the report ----------------------------------------------------------------------------------------------

    def report(self) -> Report:
        report = Report(
            "A robot that tidies a home it has never seen",
            subtitle="One small model reads the instruction, says what it does next, and does it: seeing, language and "
            "flow-matching actions trained together, in the recipe of π0.5.",
        )
        report.highlights(self.headline())
        self.report_acting(report)
        self.report_inside(report)
        self.report_learning(report)
        self.report_run(report)
        return report

    def headline(self) -> list[tuple[str, str, str]]:
        first = self.results["controls"][0]
        before, after = self.results["before"][0], self.results["after"]["new"][0]
        minutes = sum(self.parts.seconds.values()) / 60
        return [
            (f"{first['success']:.0%}", f"{first['title']}: success in unseen homes", odds(first)),
            (f"{before['success']:.0%} → {after['success']:.0%}", f"{NEW.title}, before and after", odds(after)),
            (f"{minutes:.1f} min", "for everything on this page", f"{os.cpu_count()} cores, {device_name()}"),
        ]

    def report_acting(self, report: Report) -> None:
        report.section(
            "In homes it has never seen",
            "The first test homes of each suite, whatever happened there. The subtitle is what the policy said.",
        )
        for shot in self.results["films"]:
            add_film(report, shot)
        done = [shot for shot in self.results["films"] if shot["record"]["success"]]
        add_strip(report, (done or self.results["films"])[-1])
        report.text(
            "Success is judged by the simulator. **Pictures blanked** and **prompts shuffled** are the same policy in "
            "the same homes with flat grey pictures, or with another home's instruction: what is left is luck."
        )
        report.success_table([success_row(row, model=CONTROLS[row["control"]]) for row in self.results["controls"]])

    def report_inside(self, report: Report) -> None:
        inside = self.results["inside"]
        arrays = np.load(inside["path"])
        report.section("A look inside", f"The first moment of “{inside['prompt']}”.")
        report.attention(
            arrays["picture"],
            arrays["weights"],
            title="Where it looks when it speaks",
            caption=f"It says: “{inside['subtask']}”. Shown is {inside['heads']}, while it says the place.",
        )
        report.flow(
            arrays["flow"],
            ROBOT.action_names,
            caption="Ten steps of flow matching turn noise into a chunk of actions.",
        )

    def report_learning(self, report: Report) -> None:
        before, after = self.results["before"][0], self.results["after"]
        a = self.amounts
        report.section(
            "Learning something new",
            f"{NEW.title.capitalize()}: neither is in any data the policy was trained on. "
            f"{a.homes * a.episodes_per_home} demonstrations in {a.homes} homes, {self.steps} training steps, beside "
            f"{a.homes * a.known_per_home} demonstrations of what it knows, lest it forget; tried in other homes, the "
            "same ones before and after.",
        )
        rows = [(after["new"][0], "after fine-tuning"), (before, "before")]
        report.success_table([success_row(row, model=when) for row, when in rows])
        report.text(self.paired(before["homes"], after["new"][0]["homes"]))
        report.text("Filmed: the first home that failed before and succeeds after, or the first of all if none does.")
        for shot, when in zip(after["films"], ("before", "after"), strict=True):
            add_film(report, shot, when=when)
        report.losses(loss_curves(Path(self.results["training"]["run"])), title="Losses while fine-tuning")
        kept = next(row for row in self.results["controls"] if row["suite"] == OLD.name and row["control"] == "none")
        report.text(f"What it knew before, in {OLD.title}: {odds(kept)} before, {odds(after['old'][0])} after.")

    def paired(self, before: Sequence[bool], after: Sequence[bool]) -> str:
        """The same homes before and after, in words."""
        change = compare(after, before, seed=self.seed)
        low, high = change.interval
        return (
            f"Home by home: {change.only_a} learned, {change.only_b} lost, a change of {change.difference:+.0%} "
            f"(95 % interval {low:+.0%} to {high:+.0%})."
        )

    def report_run(self, report: Report) -> None:
        report.section("What was run")
        facts = {"checkpoint": f"{self.checkpoint} ({self.base['policy']})", "commit": commit()}
        facts |= {"seed": str(self.seed), "machine": f"{os.cpu_count()} cores, {device_name()}"}
        facts |= {"python": platform.python_version(), "torch": torch.__version__}
        amounts = asdict(self.amounts) | {"suites": ", ".join(self.amounts.suites), "steps": self.steps}
        facts |= {name.replace("_", " "): str(value) for name, value in amounts.items()}
        facts |= {"finished": datetime.now().astimezone().isoformat(timespec="seconds")}
        report.table(["what", "value"], list(facts.items()))
        report.timings(list(self.parts.seconds.items()))


# --- films ----------------------------------------------------------------------------------------------------------


def filmed(runner: Runner, suite: Suite, *, home: int, seed: int, path: Path) -> dict[str, Any]:
    """Run one episode and film it to `path`.npz; what the report needs to know of it."""
    record, actions = runner.run(Job(suite=suite, control="none", home=home, seed=seed, episodes=1))
    runner.leave()
    env = suite.make_env(image_size=FILM_SIZE)
    shown = film(env, record, actions=actions)
    env.close()
    path = path.with_suffix(".npz")
    save_arrays(path, {"frames": np.stack(shown.frames)})
    return {"record": record.to_json(), "frames": str(path), "captions": shown.captions, "fps": shown.fps}


def load_film(shot: dict[str, Any]) -> tuple[EpisodeRecord, Film]:
    frames = list(np.load(shot["frames"])["frames"])
    return EpisodeRecord.from_json(shot["record"]), Film(fps=shot["fps"], frames=frames, captions=shot["captions"])


def add_film(report: Report, shot: dict[str, Any], *, when: str = "") -> None:
    record, shown = load_film(shot)
    title = f"{record.prompt} ({when})" if when else record.prompt
    outcome = f"{record.steps / shown.fps:.1f} s"
    report.video(shown.frames, shown.captions, title=title, fps=shown.fps, success=record.success, outcome=outcome)


def add_strip(report: Report, shot: dict[str, Any]) -> None:
    record, shown = load_film(shot)
    chosen = np.linspace(0, len(shown.frames) - 1, min(STRIP, len(shown.frames))).round().astype(int)
    frames, captions = [shown.frames[i] for i in chosen], [shown.captions[i] for i in chosen]
    report.filmstrip(frames, captions, title=record.prompt, success=record.success)


# --- numbers for the report -----------------------------------------------------------------------------------------


def summary(result: SuiteResult) -> dict[str, Any]:
    return result.to_json() | {"title": result.title, "homes": [record.success for record in result.records]}


def success_row(row: dict[str, Any], *, model: str) -> SuccessRow:
    extra = {"wrong object first": f"{row['wrong_object']:.0%}", "steps": f"{row['mean_steps']:.0f}"}
    return {
        "suite": row["title"],
        "model": model,
        "successes": row["successes"],
        "n": row["episodes"],
        "extra": extra,
    }


def odds(row: dict[str, Any]) -> str:
    low, high = row["interval95"]
    return f"{row['successes']} of {row['episodes']} homes, 95 % interval {low:.0%} – {high:.0%}"


def loss_curves(run: Path) -> dict[str, tuple[list[float], list[float]]]:
    """Every loss of a training run over its steps, from its metrics."""
    rows = read_metrics(run)
    names = [name for name in rows[0] if name.startswith("loss/") and name.count("/") == 1] if rows else []
    return {
        name.removeprefix("loss/"): ([r["step"] for r in rows if name in r], [r[name] for r in rows if name in r])
        for name in names
    }


def save_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)


def commit() -> str:
    """The commit of the source tree, with a mark if it was changed."""
    root = Path(pilot.__path__[0]).parents[1]
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty"], cwd=root, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return "none: not run from a git checkout"
    return described.stdout.strip()


def device_name() -> str:
    """The processor as it calls itself."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()
