"""`pilot collect OUT`: demonstrations of a simulator's scripted expert, or web-style rows about its pictures."""

import argparse
import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pilot.cli.arguments import Verb, checkpoint_at, chosen_options, folder_to_write, whole_number
from pilot.cli.workers import add_parallel_arguments, open_parallel_map

EPISODES = 10  # per scene, if nothing else is said
OF_EPISODES = ("policy", "verbal", "video", "picture_every", "episodes")  # options without a meaning for questions
OF_DRIVING = ("driven_steps", "takeovers", "replan_steps")  # and without a policy


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this verb."""
    from pilot.eval.suites import all_suites

    suites = [suite for suite in all_suites().values() if suite.has_expert or suite.has_questions]
    scenes = dict.fromkeys(suite.scene for suite in suites if not suite.package)  # --homes for --scenes
    parser.add_argument("out", type=folder_to_write, help="folder of the data set; an unfinished one is continued")
    names = " ".join(suite.name for suite in suites if not suite.package)
    parser.add_argument(
        "--suite",
        default=suites[0].name,
        help=f"{names}, others that `pilot suites` lists, or a file of yours (default: %(default)s)",
    )
    parser.add_argument("--robot", help="the robot that acts, where a suite offers several (default: the suite's own)")
    parser.add_argument("--scenes", *(f"--{scene}s" for scene in scenes), type=whole_number(1), default=20,
                        help="number of scenes (default: %(default)s)")  # fmt: skip
    parser.add_argument("--first-scene", *(f"--first-{scene}" for scene in scenes), type=whole_number(0), default=0,
                        help="number of the first scene (default: %(default)s)")  # fmt: skip
    parser.add_argument("--episodes", type=whole_number(1), help=f"episodes per scene (default: {EPISODES})")
    parser.add_argument("--verbal", action="store_true", help="a supervisor says each next step in words")
    parser.add_argument("--policy", metavar="CHECKPOINT", help="this policy drives the first steps of each episode; "
                        "the expert's answer to each state is recorded, and the expert finishes")  # fmt: skip
    parser.add_argument(
        "--driven-steps", type=whole_number(4), help="the most steps that the policy drives (default: 24)"
    )
    parser.add_argument(
        "--takeovers",
        type=whole_number(1),
        help="how often the policy drives, and the expert takes over from it (default: 1)",
    )
    parser.add_argument(
        "--replan-steps", type=whole_number(1), help="actions from one look of the policy to the next "
        "(default: as the policy says)",
    )  # fmt: skip
    parser.add_argument(
        "--picture-every",
        type=whole_number(1),
        metavar="FRAMES",
        help="take pictures at every so many frames only, states and actions at all (default: 1)",
    )
    parser.add_argument("--image-size", type=whole_number(8), help="pixels on a side (default: as the suite has them)")
    parser.add_argument("--video", action="store_true", help="store mp4 files instead of single pictures")
    parser.add_argument(
        "--web",
        type=whole_number(1),
        metavar="ROWS",
        help="write about so many captions, questions and boxes instead; each scene is asked 18 or more",
    )
    parser.add_argument(
        "--split",
        choices=["train", "validation", "test"],
        default="train",
        help="which scenes (default: %(default)s)",
    )
    parser.add_argument("--seed", type=whole_number(0), default=0)
    add_parallel_arguments(parser, workers=2)
    group = parser.add_argument_group("changes to the suite")
    for name, variants in suite_options(suites).items():
        add_suite_option(group, name, variants)


def suite_options(suites: Iterable[Any]) -> dict[str, list[dataclasses.Field]]:
    """Return the fields that suites offer as options, those that have a help text, by name.

    Suites of several simulators may have an option of one name, each with its own choices.
    """
    options: dict[str, list[dataclasses.Field]] = {}
    for suite in suites:
        for field in (field for field in dataclasses.fields(suite) if "help" in field.metadata):
            variants = options.setdefault(field.name, [])
            if field.metadata not in [known.metadata for known in variants]:
                variants.append(field)
    return options


def add_suite_option(group: Any, name: str, variants: list[dataclasses.Field]) -> None:
    """Add an option that changes one field of a suite; `read_suite` checks the choices of the suite itself."""
    more = {key: value for key, value in variants[0].metadata.items() if key != "help"}
    if "choices" in more:
        more["choices"] = tuple(dict.fromkeys(choice for field in variants for choice in field.metadata["choices"]))
    if isinstance(variants[0].default, int):
        more["type"] = whole_number(0)
    texts = " | ".join(field.metadata["help"] for field in variants)
    group.add_argument(f"--{name}", help=f"{texts} (default: as in the suite)", **more)


def read_suite(args: argparse.Namespace) -> Any:
    """Return the suite that the arguments name, with the changes that they make to it.

    Raises:
        ValueError: an unknown suite, a robot that cannot act in it, or an option, or a choice, that belongs to another
            simulator's suites.
    """
    from pilot.eval.suites import all_suites, load_suite

    suite, changes = load_suite(args.suite), {"split": args.split}
    if args.robot is not None:
        suite = suite.with_robot(args.robot)
    own = suite_options([suite])
    for name in suite_options(all_suites().values()):
        value = getattr(args, name)
        if value is not None and name not in own:
            raise ValueError(f"suite '{suite.name}' has no option --{name}")
        if value is not None and value not in (choices := own[name][0].metadata.get("choices", (value,))):
            known = ", ".join(map(str, choices))
            raise ValueError(f"argument --{name}: invalid choice: {value} (suite '{suite.name}' has {known})")
        if value is not None:
            changes[name] = tuple(value) if isinstance(value, list) else value
    return dataclasses.replace(suite, **changes)


def run(args: argparse.Namespace) -> None:
    """Run this verb with its parsed options."""
    suite = read_suite(args)
    from pilot.sims.collect import collect, collect_web, dropped_reasons
    from pilot.sims.demonstrate import DRIVEN_STEPS

    where: dict[str, Any] = {"scenes": args.scenes, "first_scene": args.first_scene, "seed": args.seed}
    chosen = chosen_options(args)
    if args.web is not None and (given := [chosen[name] for name in OF_EPISODES if name in chosen]):
        raise ValueError(f"--web writes questions about pictures, no episodes; leave out {', '.join(given)}")
    if args.policy is None and (given := [chosen[name] for name in OF_DRIVING if name in chosen]):
        raise ValueError(f"{given[0]} says how a policy drives; name it: --policy CHECKPOINT")
    with open_parallel_map(args) as workers:
        if args.web is not None:
            collect_web(args.out, suite, rows=args.web, workers=workers, image_size=args.image_size, **where)
        else:
            collect(
                args.out,
                suite,
                episodes_per_scene=args.episodes or EPISODES,
                workers=workers,
                verbal=args.verbal,
                image_format="video" if args.video else "image",
                policy=None if args.policy is None else driver(args.policy, suite, args.replan_steps),
                driven_steps=args.driven_steps or DRIVEN_STEPS,
                takeovers=args.takeovers or 1,
                picture_every=args.picture_every or 1,
                image_size=args.image_size,
                **where,
            )
    what = f"the data set {args.out}" if args.web is None else f"{count_questions(args.out)} questions to {args.out}"
    print(f"wrote {what}; to look at it: pilot data inspect {args.out}")
    if args.web is None and (reasons := dropped_reasons(args.out)):
        print("left out: " + ", ".join(f"{count} × {reason}" for reason, count in reasons.items()))


def count_questions(folder: Path) -> int:
    """Return the number of rows in a set of pictures with questions; a scene gives about as many as were asked for."""
    with (folder / "rows.jsonl").open("rb") as rows:
        return sum(1 for _ in rows)


def driver(checkpoint: str, suite: Any, replan_steps: int | None = None) -> Any:
    """Return what drives as the policy of a checkpoint does, looking once in `replan_steps` actions.

    Raises:
        ValueError: the policy is for another robot than the suite's.
    """
    path = checkpoint_at(checkpoint)
    from pilot.eval.episode_log import fingerprint
    from pilot.eval.policies import Driver, robot_for

    name = fingerprint(path) + (f", {replan_steps} actions at a time" if replan_steps else "")
    return Driver(path, robot=robot_for(path, suite), replan_steps=replan_steps, name=name)


VERB = Verb(
    help="Write demonstrations of a scripted expert, or web-style rows, from a simulator.",
    example="pilot collect data/mine --level 2 --task multi --homes 40 --episodes 10",
    add_arguments=add_arguments,
    run=run,
    when_stopped="finished scenes are kept, and the same command goes on from there",
)
