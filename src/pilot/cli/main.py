"""`pilot VERB …`: from the command line to the library, and nothing else.

Each verb is three lines of arguments and one call. What is heavy of the library is imported when its verb runs, and has
looked at the names that it was given: help is instant, and so is the answer to a wrong name. What people can put right
comes back as one line that says how; `PILOT_DEBUG=1` shows the traceback.
"""

import argparse
import ast
import dataclasses
import errno
import os
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from pilot import missing_extra
from pilot.cli import convert, data, plan, serve
from pilot.cli.arguments import (
    Parser,
    Verb,
    add_verbs,
    checkpoint_at,
    chosen_high_level,
    folder_to_write,
    high_level_arguments,
    whole_number,
)
from pilot.eval.suites import CONTROLS, SUITES, check_control, get_suite
from pilot.names import choose

Config = TypeVar("Config")


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `pilot`. Returns the exit code: 0, 2 for what the caller can put right, 130 for Ctrl-C."""
    warnings.formatwarning = warned
    try:
        run(list(sys.argv[1:] if argv is None else argv))
    except (KeyboardInterrupt, ValueError, FloatingPointError, OSError, ImportError) as error:
        if os.environ.get("PILOT_DEBUG"):
            raise
        print(f"pilot: {explained(error)}", file=sys.stderr)
        return 130 if isinstance(error, KeyboardInterrupt) else 2
    return 0


def run(arguments: list[str]) -> None:
    if arguments and not arguments[0].startswith("-"):
        choose("verb", arguments[0], VERBS)
    if arguments[:1] == ["data"] and arguments[1:] and not arguments[1].startswith("-"):
        choose("word after 'pilot data'", arguments[1], data.WORDS)
    namespace, rest = build_parser().parse_known_args(arguments or ["--help"])
    namespace.parser.refuse_unknown(rest)
    VERBS[namespace.verb].run(namespace)


def explained(error: BaseException) -> str:
    """What to tell the person at the keyboard. Errors of ours already say what to do; some of the system's do not."""
    if isinstance(error, KeyboardInterrupt):
        return str(error) or "stopped; the same command goes on where it was"
    if isinstance(error, OSError) and error.errno is not None:
        return explained_by_system(error)
    if isinstance(error, ModuleNotFoundError):
        return str(missing_extra(error))
    return "\n".join([str(error), *getattr(error, "__notes__", ())])


def explained_by_system(error: OSError) -> str:
    what = error.strerror or str(error)
    if error.errno == errno.EADDRINUSE:
        return f"{what}; choose another --port, or stop what listens there"
    if error.errno == errno.ENOSPC and (error.filename or what == os.strerror(errno.ENOSPC)):  # else they are our words
        return f"the disk is full ({error.filename or 'while writing'}); free some space and run the same command again"
    if error.filename is None:
        return what
    return f"'{error.filename}' cannot be read or written: {what[0].lower()}{what[1:]}"


def warned(message: Warning | str, category: type[Warning], filename: str, *line: Any) -> str:
    """A warning of ours is one line too; those of others say where they come from."""
    if Path(filename).is_relative_to(Path(__file__).parents[1]):
        return f"pilot: {message}\n"
    return f"{filename}:{line[0]}: {category.__name__}: {message}\n"


def build_parser() -> Parser:
    parser = Parser(
        prog="pilot",
        description="Robots that act on words: collect, train, evaluate and serve the π0 family.",
        epilog="Example: pilot demo --quick\nHelp on a verb: pilot train --help",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    add_verbs(verbs, VERBS)
    return parser


# --- settings by name ---------------------------------------------------------------------------------------------


def override(config: Config, assignments: Iterable[str]) -> Config:
    """A copy of a frozen (nested) dataclass with `"optim.lr=3e-4"`-like assignments applied.

    Raises:
        ValueError: An unknown field (nearest suggested), or a value of another type than the field's.
    """
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        if not equals:
            raise ValueError(f"--set takes FIELD=VALUE, got '{assignment}'")
        config = replaced(config, path.strip().split("."), text=text.strip())
    return config


def replaced(config: Any, path: list[str], *, text: str) -> Any:
    name, *rest = path
    members = named_members(config)
    choose("setting", name, members)
    old, optional = members[name], optional_group(config, name)
    if rest and gives_words(config, name):
        return dataclasses.replace(config, **{name: {**old, ".".join(rest): text}})
    if optional is not None and not rest and text.lower() in ("true", "none"):
        return dataclasses.replace(config, **{name: optional() if text.lower() == "true" else None})
    if optional is not None and rest and old is None:
        old = optional()
    if is_group(old) != bool(rest):
        what = f"a group: set {name}.FIELD=VALUE" if is_group(old) else "a single value, without fields"
        raise ValueError(f"setting '{name}' is {what}")
    if rest:
        new = replaced(old, rest, text=text)
    elif words := words_of(config, name):
        new = choose(f"value of '{name}'", text, words)
    else:
        new = parsed(text, old, name=name)
    if isinstance(config, tuple):
        return tuple(new if other == name else member for other, member in members.items())
    return config | {name: new} if isinstance(config, dict) else dataclasses.replace(config, **{name: new})


def words_of(group: Any, name: str) -> list[str]:
    """The words that a setting is one of, where it is; "none" may be one of them."""
    if not dataclasses.is_dataclass(group):
        return []
    hint = get_type_hints(type(group))[name]
    return [word for word in get_args(hint) if isinstance(word, str)] if get_origin(hint) is Literal else []


def gives_words(group: Any, name: str) -> bool:
    """Whether a setting has words by names of one's own: `sources.mine.cameras.top=cam_high`."""
    return dataclasses.is_dataclass(group) and get_type_hints(type(group))[name] == Mapping[str, str]


def optional_group(group: Any, name: str) -> Callable[[], Any] | None:
    """What makes the group that a setting may be, where it may also be None: `lora=true` is one as it comes."""
    choices = get_args(get_type_hints(type(group))[name]) if dataclasses.is_dataclass(group) else ()
    kind = next((kind for kind in choices if isinstance(kind, type) and dataclasses.is_dataclass(kind)), None)
    if kind is None or type(None) not in choices:
        return None
    missing = dataclasses.MISSING
    return None if any(f.default is f.default_factory is missing for f in dataclasses.fields(kind)) else kind


def is_group(value: Any) -> bool:
    """Whether a setting has settings of its own: a dataclass, a dict, or several dataclasses in a row."""
    row = isinstance(value, tuple) and bool(value) and all(dataclasses.is_dataclass(item) for item in value)
    return dataclasses.is_dataclass(value) or isinstance(value, dict) or row


def named_members(group: Any) -> dict[str, Any]:
    """The settings of a group; those in a row go by the last part of their path (`sources.droid.path=…`)."""
    if isinstance(group, tuple):
        return {Path(item.path).name: item for item in group}
    return (
        dict(group) if isinstance(group, dict) else {f.name: getattr(group, f.name) for f in dataclasses.fields(group)}
    )


def parsed(text: str, old: Any, *, name: str) -> Any:
    """The value that `text` stands for, of the type that `old` has; anything may become, or cease to be, None."""
    try:
        value = ast.literal_eval({"true": "True", "false": "False", "none": "None"}.get(text.lower(), text))
    except (ValueError, SyntaxError):
        value = text
    if isinstance(old, str | Path) and value is not None:
        return type(old)(text)
    if isinstance(old, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(old, tuple) and isinstance(value, list):
        return tuple(value)
    if isinstance(old, tuple) and isinstance(value, str) and all(isinstance(item, str) for item in old):
        return tuple(word.strip() for word in text.split(","))
    if old is None or value is None or type(value) is type(old):
        return value
    raise ValueError(f"setting '{name}' takes a {type(old).__name__} like {old!r}, got '{text}'")


# --- verbs ----------------------------------------------------------------------------------------------------------


def demo_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=folder_to_write, default=Path("outputs/demo"), help="folder of the report")
    parser.add_argument("--quick", action="store_true", help="two minutes: few episodes, few training steps")
    parser.add_argument("--checkpoint", type=Path, help="folder of the policy (default: the shipped checkpoints/nano)")
    parser.add_argument("--seed", type=whole_number(0), default=0)


def run_demo(args: argparse.Namespace) -> None:
    checkpoint = checkpoint_at(args.checkpoint) if args.checkpoint else None
    from pilot import configs
    from pilot.eval.demo import demo

    demo(args.out, config=configs.get("nano_finetune"), quick=args.quick, checkpoint=checkpoint, seed=args.seed)


def collect_arguments(parser: argparse.ArgumentParser) -> None:
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


def run_collect(args: argparse.Namespace) -> None:
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


def train_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", help="a run of pilot.configs, such as nano_vision")
    parser.add_argument(
        "--out", type=folder_to_write, help="folder of the run, resumed if there is one (default: outputs/NAME)"
    )
    parser.add_argument(
        "--until", type=whole_number(1), metavar="STEP", help="stop there; the schedule stays that of the whole run"
    )
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="change a setting")
    parser.add_argument("--skip-bad", action="store_true", help="leave out, and list, what cannot be read")


def run_train(args: argparse.Namespace) -> None:
    from pilot import configs

    config = override(configs.get(args.name), args.set + ["skip_bad=True"] * args.skip_bad)
    evaluate = None
    if config.eval_suite is not None:
        from pilot.eval.while_training import evaluator

        evaluate = evaluator(config)
    from pilot.train.loop import train

    policy = train(config, out=args.out or Path("outputs") / args.name, until=args.until, evaluate=evaluate)
    if int(os.environ.get("RANK", 0)) == 0:
        print(f"the policy is {policy}")


def eval_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("policy", help="checkpoint folder such as checkpoints/nano, or: expert")
    parser.add_argument("--suite", nargs="+", metavar="SUITE", help=f"{' '.join(SUITES)} (default: all)")
    parser.add_argument("--control", nargs="+", metavar="CONTROL", default=["none"], help=" ".join(CONTROLS))
    parser.add_argument(
        "--episodes", type=whole_number(1), default=200, help="per suite and control (default: %(default)s)"
    )
    parser.add_argument("--seed", type=whole_number(0), default=0)
    parser.add_argument("--workers", type=whole_number(1), help="processes (default: 2)")
    parser.add_argument(
        "--out", type=folder_to_write, help="folder for each episode's record and the table; a second run goes on"
    )
    high_level_arguments(parser)


def run_eval(args: argparse.Namespace) -> None:
    suites = [get_suite(name) for name in args.suite or SUITES]
    for control in args.control:
        check_control(control)
    policy = args.policy if args.policy == "expert" else checkpoint_at(args.policy)
    high_level = chosen_high_level(args)
    from pilot.eval.evaluate import evaluate_table, save_table, to_markdown

    try:
        results = evaluate_table(
            policy,
            suites=suites,
            controls=args.control,
            episodes=args.episodes,
            seed=args.seed,
            workers=args.workers,
            high_level=high_level,
            out=args.out,
        )
    except KeyboardInterrupt as stopped:
        kept = "the same command goes on where it was" if args.out else "nothing is kept; with --out FOLDER it goes on"
        raise KeyboardInterrupt(f"stopped; {kept}") from stopped
    print(to_markdown(results))
    if args.out:
        save_table(results, args.out / "results.json")


def run_convert(args: argparse.Namespace) -> None:
    convert.run(args, change=lambda config: override(config, args.set))


def run_plan(args: argparse.Namespace) -> None:
    plan.run(args, change=lambda config: override(config, args.set))


VERBS = {
    "demo": Verb(
        help="Watch the whole recipe: act in unseen homes, learn something new, write an HTML report.",
        example="pilot demo --quick",
        arguments=demo_arguments,
        run=run_demo,
    ),
    "collect": Verb(
        help="Write demonstrations of a scripted expert, or web-style rows, from generated homes.",
        example="pilot collect data/mine --level 2 --task multi --homes 40 --episodes 10",
        arguments=collect_arguments,
        run=run_collect,
    ),
    "train": Verb(
        help="Train a named configuration.",
        example="pilot train nano_finetune --out outputs/mine --set sources.new.path=data/mine "
        "--set sources.known.path=data/known --set sources.web.path=data/mine-web",
        arguments=train_arguments,
        run=run_train,
    ),
    "plan": Verb(
        help="Memory, time and price of a run before it is started, and the smallest change that makes it fit.",
        example="pilot plan nano_stage1 --gpus 8xH100 --set batch_size=256 --samples 1e6",
        arguments=plan.arguments,
        run=run_plan,
    ),
    "eval": Verb(
        help="Success in unseen homes, with intervals, beside controls that take a sense away.",
        example="pilot eval checkpoints/nano --suite homes-l1 homes-l2 --control none blank_images --episodes 200",
        arguments=eval_arguments,
        run=run_eval,
    ),
    "serve": Verb(
        help="Answer observations with actions over a websocket; openpi's clients fit.",
        example=serve.EXAMPLE,
        arguments=serve.arguments,
        run=serve.run,
    ),
    "data": Verb(
        help="Look after data sets.",
        example="pilot data stats data/mine --action-horizon 8",
        arguments=data.arguments,
        run=data.run,
    ),
    "convert": Verb(
        help="Checkpoints of openpi, LeRobot and PaliGemma in, those of openpi and LeRobot out.",
        example="pilot convert gs://openpi-assets/checkpoints/pi05_libero checkpoints/pi05_libero --robot libero "
        "--tokenizer gs://big_vision/paligemma_tokenizer.model --set action_horizon=10 --set state_input=none "
        "--set prompt=pi0",
        arguments=convert.arguments,
        run=run_convert,
    ),
}


if __name__ == "__main__":
    sys.exit(main())
