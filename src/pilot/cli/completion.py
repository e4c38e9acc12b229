"""`pilot completion SHELL`: the script for a shell to complete verbs, options, and names of runs, suites and robots.

The script asks `pilot completion words …` for what may stand in place of the last word.
"""

import argparse
from collections.abc import Callable, Iterable, Mapping

from pilot.cli.arguments import Parser, Verb

BASH = """\
_pilot() {
    local IFS=$'\\n'
    COMPREPLY=($(pilot completion words -- "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null))
    [[ ${#COMPREPLY[@]} == 1 && ${COMPREPLY[0]} == *= ]] && compopt -o nospace 2>/dev/null
}
complete -o default -F _pilot pilot
"""
SCRIPTS = {
    "bash": BASH,
    "zsh": f"autoload -U +X bashcompinit && bashcompinit\n{BASH}",
    "fish": "complete -c pilot -a "
    "'(pilot completion words -- (commandline -opc)[2..] (commandline -ct) 2>/dev/null)'\n",
}


def make_verb(verbs: Mapping[str, Verb], data_words: Mapping[str, Verb]) -> Verb:
    """Return the verb that completes `verbs`, and the words of `pilot data`."""

    def run(args: argparse.Namespace) -> None:
        if args.shell == "words":
            print("\n".join(complete(args.words, verbs, data_words)))
        else:
            print(SCRIPTS[args.shell], end="")

    return Verb(
        help='Print the script that completes commands in your shell: eval "$(pilot completion bash)".',
        example="pilot completion bash >> ~/.bashrc",
        add_arguments=add_arguments,
        run=run,
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this verb."""
    parser.add_argument("shell", choices=(*SCRIPTS, "words"), help="the shell; scripts ask with: words")
    parser.add_argument("words", nargs="*", help="for words: the command line so far, without pilot")


def complete(words: list[str], verbs: Mapping[str, Verb], data_words: Mapping[str, Verb]) -> list[str]:
    """Return what may stand in place of the last of `words`; nothing where that is a file or a value of one's own."""
    *before, start = words or [""]
    if not before:
        return starting(start, (*verbs, "--help", "--version"))
    name, *before = before
    if name == "data" and not before:
        return starting(start, data_words)
    verb = data_words.get(before.pop(0)) if name == "data" else verbs.get(name)
    if verb is None:
        return []
    parser = Parser(prog=name)
    verb.add_arguments(parser)
    if start.startswith("-"):
        return starting(start, (option for action in parser._actions for option in action.option_strings))
    return starting(start, values_of(parser, name, before))


def values_of(parser: Parser, verb: str, before: list[str]) -> Iterable[str]:
    """Return the values that may follow the words of a verb: of the last option, or of the first positional."""
    option = next((word for word in reversed(before) if word.startswith("-")), None)
    action = parser._option_string_actions.get(option) if option else None
    if action is not None and action.nargs != 0 and (action.nargs == "+" or before[-1] == option):
        if action.choices is not None:
            return map(str, action.choices)
        return NAMES[option](before) if option in NAMES else ()
    return run_names() if verb in ("train", "plan") and not before else ()


def starting(start: str, names: Iterable[str]) -> list[str]:
    """Return the names that begin with `start`."""
    return [name for name in names if name.startswith(start)]


def run_names() -> list[str]:
    """Return the names of all runs."""
    from pilot import configs

    return configs.names()


def suite_names(_: list[str]) -> list[str]:
    """Return the names of all suites."""
    from pilot.eval.suites import all_suites

    return list(all_suites())


def control_names(_: list[str]) -> tuple[str, ...]:
    """Return the names of all controls."""
    from pilot.eval.suites import CONTROLS

    return CONTROLS


def names_of_robots(_: list[str]) -> list[str]:
    """Return the names of all robots."""
    from pilot.robots import robot_names

    return robot_names()


def setting_names(before: list[str]) -> list[str]:
    """Return the settings of the run that the command line names, each with an equals sign."""
    from pilot import configs
    from pilot.cli.settings import list_settings

    return [f"{path}=" for path, _, _ in list_settings(configs.get(before[0]), {})]


NAMES: dict[str, Callable[[list[str]], Iterable[str]]] = {
    "--suite": suite_names,
    "--control": control_names,
    "--robot": names_of_robots,
    "--set": setting_names,
}
"""What may follow an option that has no closed list of its own, by option."""
