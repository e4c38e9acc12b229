"""`pilot collect OUT`: demonstrations of a scripted expert, or web-style rows."""

import argparse

from pilot.cli.arguments import Verb, folder_to_write, whole_number


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("out", type=folder_to_write, help="folder of the data set; an unfinished one is continued")
    parser.add_argument(
        "--level", type=whole_number(1, 2), default=1, help="1: two objects; 2: distractors (default: %(default)s)"
    )
    parser.add_argument(
        "--task", choices=["single", "multi"], default="single", help="one move, or several (default: %(default)s)"
    )
    parser.add_argument("--homes", type=whole_number(1), default=20, help="number of homes (default: %(default)s)")
    parser.add_argument(
        "--first-home", type=whole_number(0), default=0, help="index of the first home (default: %(default)s)"
    )
    parser.add_argument("--episodes", type=whole_number(1), default=10, help="episodes per home (default: %(default)s)")
    parser.add_argument("--verbal", action="store_true", help="a supervisor says each next step aloud")
    parser.add_argument("--video", action="store_true", help="mp4 files instead of pictures in the tables")
    parser.add_argument("--kinds", nargs="+", help="only these kinds of object")
    parser.add_argument("--receptacles", nargs="+", help="only these receptacles")
    parser.add_argument(
        "--web", type=whole_number(1), metavar="ROWS", help="instead: this many captions, questions and boxes"
    )
    parser.add_argument("--split", choices=["train", "test"], default="train", help="homes (default: %(default)s)")
    parser.add_argument("--seed", type=whole_number(0), default=0)
    parser.add_argument("--workers", type=whole_number(1), default=2, help="processes (default: %(default)s)")


def run(args: argparse.Namespace) -> None:
    from pilot.sims.collect import collect, collect_web

    if args.web is not None:
        collect_web(
            args.out,
            rows=args.web,
            split=args.split,
            homes=args.homes,
            seed=args.seed,
            level=args.level,
            first_home=args.first_home,
            workers=args.workers,
            kinds=args.kinds,
            receptacles=args.receptacles,
        )
        print(f"the set is {args.out}")
        return
    collect(
        args.out,
        level=args.level,
        task=args.task,
        split=args.split,
        homes=args.homes,
        episodes_per_home=args.episodes,
        first_home=args.first_home,
        workers=args.workers,
        seed=args.seed,
        verbal=args.verbal,
        image_format="video" if args.video else "image",
        kinds=args.kinds,
        receptacles=args.receptacles,
    )
    print(f"the set is {args.out}; to look at it: pilot data inspect {args.out}")


VERB = Verb(
    help="Write demonstrations of a scripted expert, or web-style rows, from generated homes.",
    example="pilot collect data/mine --level 2 --task multi --homes 40 --episodes 10",
    add_arguments=add_arguments,
    run=run,
)
