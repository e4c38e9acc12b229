"""`pilot demo`: the whole recipe in ten minutes, and a page about what happened.

The shipped policy acts in scenes that it has never seen, beside controls that take its eyes or its ears away. Then it
learns something that is in none of its data: demonstrations are collected, it is fine-tuned, and the same scenes are
tried before and after. Every number on the page is of this run. What it can be taught is the `LESSON` of the simulator
that its robot acts in.
"""

from pathlib import Path

import pilot
from pilot.eval.demo_report import make_report
from pilot.eval.demo_stages import FULL, QUICK, DemoRun
from pilot.eval.policies import robots_of
from pilot.eval.suites import lesson_for, lessons, suites_for
from pilot.train.config import TrainConfig


def demo(
    out: str | Path = "outputs/demo",
    *,
    config: TrainConfig,
    quick: bool = False,
    checkpoint: str | Path | None = None,
    seed: int = 0,
) -> Path:
    """Act, collect, fine-tune and act again; return the path of the page. `config` says how to fine-tune.

    `quick` does everything with tiny amounts.

    Raises:
        FileNotFoundError: there is no checkpoint.
        ValueError: no simulator has a lesson for the checkpoint's robot.
    """
    folder = find_checkpoint(checkpoint)
    robot = lesson_robot(folder)
    run = DemoRun(
        Path(out),
        checkpoint=folder,
        config=config,
        amounts=QUICK if quick else FULL,
        seed=seed,
        suites=suites_for(robot),
        lesson=lesson_for(robot),
    )
    run.run()
    path = make_report(run).save(run.out / "report.html")
    print(f"\nDone. Open {path.resolve()}")
    return path


def lesson_robot(checkpoint: Path) -> str:
    """Return the first robot of a checkpoint that a simulator has a lesson for; the first of all if none has."""
    robots, taught = list(robots_of(checkpoint)), lessons()
    return next((name for name in robots if name in taught), robots[0])


def find_checkpoint(path: str | Path | None) -> Path:
    """Return the policy's folder: `path`, else `checkpoints/nano` of the source tree or of the working directory."""
    shipped = Path("checkpoints/nano")
    candidates = [Path(path)] if path else [Path(pilot.__path__[0]).parents[1] / shipped, shipped.resolve()]
    for candidate in candidates:
        if candidate.is_dir():
            return candidate
    looked = " nor at ".join(str(candidate) for candidate in dict.fromkeys(candidates))
    raise FileNotFoundError(f"no checkpoint at {looked}; run this in the source tree, or train one: bash runs/nano.sh")
