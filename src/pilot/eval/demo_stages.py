"""The stages of `pilot demo`: act, compare with controls, look inside, collect, fine-tune, act again, enter a room.

Each stage keeps its result in a folder named by a fingerprint of its inputs. So an interrupted demo goes on where it
was (training to the step, evaluation to the episode), and a demo of other weights, code or amounts starts anew.
"""

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pilot.data.storage.files import atomic_write, read_json, write_json
from pilot.eval.episode_log import code_fingerprint, fingerprint, suite_fingerprint
from pilot.eval.evaluate import evaluate_table
from pilot.eval.policies import robot_for
from pilot.eval.report.introspect import attention_picture, flow_trajectory
from pilot.eval.results import SuiteResult
from pilot.eval.rollout import film
from pilot.eval.runner import Job, Runner
from pilot.infer.policy import load_policy
from pilot.sims.base import Lesson, Suite
from pilot.sims.collect import collect, collect_web
from pilot.train.config import InitFrom, TrainConfig
from pilot.train.loop import train

CONTROLS = {"none": "the policy", "blank_images": "pictures blanked", "shuffled_prompts": "prompts shuffled"}
FILM_SIZE = 192  # pixels
REDO = "remove the folder of the demo and run it again"


@dataclass(frozen=True, kw_only=True)
class Amounts:
    """The amounts of everything that the demo does: they decide the minutes, not what is done."""

    suites: int | None  # how many of the simulator's suites; None is all
    films: int  # per suite, one of a success and one of a failure where there are both
    episodes: int  # per row of the big table
    new_episodes: int  # before and after learning; 0 measures no success in the new task
    scenes: int  # to collect in
    episodes_per_scene: int  # of what is new
    known_per_scene: int  # of what it must not forget
    web_rows: int
    steps: int | None  # of fine-tuning; None is what the config says
    room_episodes: int  # of the larger robot, at the end
    workers: int  # one is faster than starting two where there is little to do


FULL = Amounts(
    suites=None,
    films=2,
    episodes=16,
    new_episodes=30,
    scenes=60,
    episodes_per_scene=4,
    known_per_scene=2,
    web_rows=2000,
    steps=None,
    room_episodes=12,
    workers=2,
)
QUICK = Amounts(  # two minutes: too few for learning to show, so nothing is said about it
    suites=1,
    films=2,
    episodes=6,
    new_episodes=0,
    scenes=2,
    episodes_per_scene=2,
    known_per_scene=1,
    web_rows=40,
    steps=8,
    room_episodes=2,
    workers=2,
)


@dataclass(frozen=True, kw_only=True)
class Finale:
    """What the demo ends with: another policy, and the suite that its robot acts in."""

    checkpoint: Path
    suite: Suite


class Stages:
    """The stages of a long run by name. Each runs once per set of inputs; a folder keeps its result."""

    def __init__(self, out: Path, *, count: int) -> None:
        self.out, self.count = out, count
        self.seconds: dict[str, float] = {}

    def run(self, name: str, work: Callable[[Path], Any], *, says: str, inputs: Any) -> Any:
        """Return what `work(folder)` returns, as JSON, or what it returned the last time. `says` is printed first."""
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


class DemoRun:
    """The stages of the demo in order, and what each needs from those before."""

    def __init__(
        self,
        out: Path,
        *,
        checkpoint: Path,
        config: TrainConfig,
        amounts: Amounts,
        seed: int,
        suites: Sequence[Suite],
        lesson: Lesson,
        finale: Finale | None = None,
    ) -> None:
        self.out, self.checkpoint, self.config, self.amounts, self.seed = out, checkpoint, config, amounts, seed
        self.suites = suites[: amounts.suites]
        self.lesson, self.finale = lesson, finale
        self.scenes = f"{lesson.new.scene}s"
        self.measures_learning = amounts.new_episodes > 0
        self.stages = Stages(out, count=(7 if self.measures_learning else 6) + (finale is not None))
        taught = (lesson.new, lesson.known, lesson.questions)
        self.base = {
            "policy": fingerprint(checkpoint),
            "code": [code_fingerprint(), *(suite_fingerprint(suite) for suite in (*self.suites, *taught))],
            "seed": seed,
        }
        self.results: dict[str, Any] = {}
        self.tuned: Path

    def run(self) -> None:
        """Run every stage that has not run before."""
        a, scenes, new_task = self.amounts, self.scenes, self.lesson.new.title
        training = self.base | {"config": repr(self.config), "amounts": asdict(a)}
        acting = self.base | {"films": a.films}
        self.stage(
            "controls",
            self.compare,
            says=f"How often does it succeed in {scenes} it has never seen? Also with grey pictures, and with wrong "
            "instructions.",
            inputs=acting | {"episodes": a.episodes},
        )
        self.stage("films", self.act, says="Filming some of these episodes.", inputs=acting | {"episodes": a.episodes})
        self.stage(
            "inside", self.look_inside, says="A look inside: attention, and noise becoming actions.", inputs=acting
        )
        new = self.base | {"episodes": a.new_episodes}
        if self.measures_learning:
            self.stage("before", self.try_before, says=f"Something new: {new_task}. Before training.", inputs=new)
        self.stage("collect", self.demonstrate, says=f"A scripted expert demonstrates {new_task}.", inputs=training)
        self.tuned = Path(
            self.stage("training", self.fine_tune, says="Fine-tuning on the demonstrations.", inputs=training)["policy"]
        )
        if self.measures_learning:
            says = f"The same new {scenes} again, after training."
            self.stage("after", self.try_after, says=says, inputs=new | training)
        else:
            self.stage("expert", self.show_expert, says=f"Filming the expert: {new_task}.", inputs=self.base)
        if self.finale is not None:
            policy, suite = self.finale.checkpoint, self.finale.suite
            code = [code_fingerprint(), suite_fingerprint(suite)]
            self.stage(
                "room",
                self.enter_room,
                says=f"Last, {suite.title}, with robot '{suite.robot.name}' and {policy.name}'s policy.",
                inputs={"policy": fingerprint(policy), "code": code, "seed": self.seed, "episodes": a.room_episodes},
            )

    @property
    def steps(self) -> int:
        """The number of fine-tuning steps."""
        return self.amounts.steps or self.config.steps

    def stage(self, name: str, work: Callable[[Path], Any], *, says: str, inputs: Any) -> Any:
        """Run one stage and remember its result."""
        self.results[name] = self.stages.run(name, work, says=says, inputs=inputs)
        return self.results[name]

    def act(self, folder: Path) -> list[dict[str, Any]]:
        """Film of each suite the first scene that went well and the first that did not, then others from the start."""
        runner = Runner(self.checkpoint)
        outcomes = {row["suite"]: row["outcomes"] for row in self.results["controls"] if row["control"] == "none"}
        return [
            shot
            for suite in self.suites
            for shot in self.film_scenes(runner, suite, outcomes=outcomes[suite.name], folder=folder)
        ]

    def compare(self, folder: Path) -> list[dict[str, Any]]:
        """Evaluate the policy in every suite, beside its controls."""
        return self.evaluate(self.checkpoint, self.suites, folder, episodes=self.amounts.episodes)

    def look_inside(self, folder: Path) -> dict[str, Any]:
        """Record attention and flow for the first picture of the second suite, or of the only one."""
        policy = load_policy(self.checkpoint)
        has_pointing_head = policy.model.config.point_layer is not None
        heads = "the head that learned to look at what a box is about" if has_pointing_head else "the mean of all heads"
        suite = self.suites[:2][-1]
        robot, env = robot_for(policy, suite), suite.make_env()
        observation, _ = env.reset_to(0, seed=self.seed)
        env.close()
        seen = attention_picture(policy, observation, robot=robot)
        flow = flow_trajectory(policy, observation, robot=robot, num_steps=10)
        save_arrays(folder / "inside.npz", {"picture": seen.picture, "weights": seen.weights, "flow": flow})
        words = {"prompt": observation["prompt"], "subtask": seen.subtask, "heads": heads}
        return words | {"path": str(folder / "inside.npz")}

    def try_before(self, folder: Path) -> list[dict[str, Any]]:
        """Evaluate the policy in the new task before it has learned anything."""
        episodes = self.amounts.new_episodes
        return self.evaluate(self.checkpoint, [self.lesson.new], folder, episodes=episodes, controls=["none"])

    def demonstrate(self, folder: Path) -> dict[str, str]:
        """Collect demonstrations of the new task and of what is known, and questions about both; return their paths.

        Trained on the new task alone, the policy forgets the others.
        """
        a = self.amounts
        everywhere: dict[str, Any] = {"scenes": a.scenes, "workers": a.workers, "seed": self.seed}
        new, known = (
            collect(folder / name, replace(suite, split="train"), episodes_per_scene=episodes, **everywhere)
            for name, suite, episodes in (
                ("new", self.lesson.new, a.episodes_per_scene),
                ("known", self.lesson.known, a.known_per_scene),
            )
        )
        questions = replace(self.lesson.questions, split="train")
        web = collect_web(folder / "web", questions, rows=a.web_rows, **everywhere)
        return {"new": str(new), "known": str(known), "web": str(web)}

    def fine_tune(self, folder: Path) -> dict[str, str]:
        """Train `config`, from the shipped weights, on what was just collected."""
        collected = self.results["collect"]
        run = self.config
        sources = tuple(replace(source, path=collected[Path(source.path).name]) for source in run.data.sources)
        log_every = min(run.logging.log_every, max(self.steps // 8, 1))
        config = replace(
            run,
            init_from=InitFrom(str(self.checkpoint)),
            data=replace(run.data, sources=sources),
            steps=self.steps,
            logging=replace(run.logging, log_every=log_every, log_to=()),
            seed=self.seed,
        )
        return {"policy": str(train(config, out=folder / "run")), "run": str(folder / "run")}

    def try_after(self, folder: Path) -> dict[str, Any]:
        """Evaluate the fine-tuned policy in the new task and in the known one, and film what it learned."""
        a, lesson = self.amounts, self.lesson
        new = self.evaluate(self.tuned, [lesson.new], folder, episodes=a.new_episodes, controls=["none"])
        known = self.evaluate(self.tuned, [lesson.known], folder, episodes=a.episodes, controls=["none"])
        scene = self.learned_scene(new[0]["outcomes"])
        films = [
            film_episode(Runner(policy), lesson.new, scene=scene, seed=self.seed, path=folder / when)
            for when, policy in (("before", self.checkpoint), ("after", self.tuned))
        ]
        return {"new": new, "known": known, "films": films}

    def show_expert(self, folder: Path) -> dict[str, Any]:
        """Film what the policy learns from: the scripted expert in the new task."""
        return film_episode(Runner("expert"), self.lesson.new, scene=0, seed=self.seed, path=folder / "expert")

    def enter_room(self, folder: Path) -> dict[str, Any]:
        """Evaluate the policy of the larger robot in rooms, and film the first success and the first failure."""
        assert self.finale is not None
        policy, suite = self.finale.checkpoint, self.finale.suite
        rows = self.evaluate(policy, [suite], folder, episodes=self.amounts.room_episodes, controls=["none"])
        return {
            "rows": rows,
            "films": self.film_scenes(Runner(policy), suite, outcomes=rows[0]["outcomes"], folder=folder),
        }

    def film_scenes(
        self, runner: Runner, suite: Suite, *, outcomes: Sequence[bool], folder: Path
    ) -> list[dict[str, Any]]:
        """Film in a suite the first scene that went well and the first that did not, then others from the start."""
        return [
            film_episode(runner, suite, scene=scene, seed=self.seed, path=folder / f"{suite.name}-{scene}")
            for scene in scenes_to_film(outcomes, self.amounts.films)
        ]

    def learned_scene(self, after: Sequence[bool]) -> int:
        """Return the first scene that failed before and succeeds now, or 0 if there is none."""
        before = self.results["before"][0]["outcomes"]
        learned = [scene for scene, (was, now) in enumerate(zip(before, after, strict=True)) if now and not was]
        return learned[0] if learned else 0

    def evaluate(
        self,
        policy: Path,
        suites: Sequence[Suite],
        folder: Path,
        *,
        episodes: int,
        controls: Sequence[str] = tuple(CONTROLS),
    ) -> list[dict[str, Any]]:
        """Evaluate a policy and return what the page needs to know of each result."""
        results = evaluate_table(
            policy,
            suites=suites,
            controls=controls,
            episodes=episodes,
            seed=self.seed,
            workers=self.amounts.workers,
            out=folder,
        )
        return [summarize(result) for result in results]


def scenes_to_film(outcomes: Sequence[bool], count: int) -> list[int]:
    """Return `count` scenes in order: the first success and the first failure before any other, then the first ones."""
    firsts = [outcomes.index(outcome) for outcome in (True, False) if outcome in outcomes]
    chosen = list(dict.fromkeys([*firsts, *range(len(outcomes))]))
    return sorted(chosen[:count])


def film_episode(runner: Runner, suite: Suite, *, scene: int, seed: int, path: Path) -> dict[str, Any]:
    """Run one episode and film it to `path`.npz; return what the page needs to know of it."""
    record, actions = runner.run(Job(suite=suite, control="none", scene=scene, seed=seed, episodes=1))
    runner.leave()
    env = suite.make_env(image_size=FILM_SIZE)
    shown = film(env, record, actions=actions)
    env.close()
    path = path.with_suffix(".npz")
    save_arrays(path, {"frames": np.stack(shown.frames)})
    return {"record": record.to_json(), "frames": str(path), "captions": shown.captions, "fps": shown.fps}


def summarize(result: SuiteResult) -> dict[str, Any]:
    """Return a result as JSON, with its title and the outcome of each scene."""
    return result.to_json() | {"title": result.title, "outcomes": [record.success for record in result.records]}


def save_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write arrays to an .npz file, whole or not at all."""
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)
