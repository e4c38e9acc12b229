"""`pilot demo`: the whole recipe in ten minutes, and a page about what happened.

The shipped policy acts in scenes that it has never seen, beside controls that take its eyes or its ears away. Then it
learns something that is in none of its data: demonstrations are collected, it is fine-tuned, and the same scenes are
tried before and after. At the end a larger robot enters a room, with the policy of `checkpoints/homes`. Every number on
the page is of this run. What a policy can be taught is the `LESSON` of the simulator that its robot acts in.
"""

import getpass
import importlib.metadata
import os
import shlex
from pathlib import Path

import pilot
from pilot.eval.demo_report import make_report, to_text
from pilot.eval.demo_stages import FULL, QUICK, DemoRun, Finale
from pilot.eval.policies import robots_of
from pilot.eval.suites import lesson_for, lessons, load_suite, suites_for
from pilot.train.config import TrainConfig

ROOM = "rooms-move-l1@mobile_ee"
"""The suite that the demo ends in."""


def demo(
    out: str | Path = "outputs/demo",
    *,
    config: TrainConfig,
    quick: bool = False,
    checkpoint: str | Path | None = None,
    seed: int = 0,
) -> Path:
    """Act, collect, fine-tune and act again; return the path of the page. `config` says how to fine-tune.

    The last part, in a room, belongs to the shipped policies: a `checkpoint` of your own is shown alone.
    `quick` acts and looks inside, collects a little and takes a few training steps; it measures no learning, which
    takes longer than two minutes.

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
        finale=find_finale() if checkpoint is None else None,
    )
    run.run()
    path = make_report(run).save(run.out / "report.html")
    print(f"\n{to_text(run)}\n\n{how_to_open(path.resolve())}")
    return path


def how_to_open(page: Path) -> str:
    """Say how to open the page here, and over ssh if this is at the other end of it."""
    lines = [f"Done. Open {page}"]
    if connection := os.environ.get("SSH_CONNECTION"):
        user, host = getpass.getuser(), connection.split()[2]
        lines.append(f"It is one file. To see it on your own machine:\n  scp {user}@{host}:{shlex.quote(str(page))} .")
    return "\n".join(lines)


def lesson_robot(checkpoint: Path) -> str:
    """Return the first robot of a checkpoint that a simulator has a lesson for; the first of all if none has."""
    robots, taught = list(robots_of(checkpoint)), lessons()
    return next((name for name in robots if name in taught), robots[0])


def find_checkpoint(path: str | Path | None) -> Path:
    """Return the policy's folder: `path`, else `checkpoints/nano` of the source tree, of the installed package, or of
    the working directory."""
    candidates = [Path(path)] if path else shipped_at(Path("checkpoints/nano"))
    for candidate in candidates:
        if candidate.is_dir():
            return candidate
    looked = " nor at ".join(str(candidate) for candidate in dict.fromkeys(candidates))
    raise FileNotFoundError(
        f"no checkpoint at {looked}; name one with --checkpoint, or train one in the source tree: bash runs/nano.sh"
    )


def find_finale() -> Finale | None:
    """Return the shipped policy of rooms with the suite that it is shown in; None where it is not shipped."""
    for folder in shipped_at(Path("checkpoints/homes")):
        if folder.is_dir():
            return Finale(checkpoint=folder, suite=load_suite(ROOM))
    return None


def shipped_at(path: Path) -> list[Path]:
    """Return where a shipped checkpoint may lie: in the source tree, in the installed package, or here."""
    return [Path(pilot.__path__[0]).parents[1] / path, *installed(path)]


def installed(path: Path) -> list[Path]:
    """Return where a folder of the source tree may lie after `pip install`, and in the working directory."""
    try:
        files = importlib.metadata.files("pilot") or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    config = f"share/pilot/{path.as_posix()}/config.json"
    return [
        *(Path(str(file.locate())).parent.resolve() for file in files if str(file).endswith(config)),
        path.resolve(),
    ]
