"""The command line: instant help, errors that say what to do."""

import errno
import os
import shlex
import subprocess
import sys
from types import SimpleNamespace

import pytest
from data.hub_server import instead_of_the_real_one

from pilot import __version__
from pilot.cli import arguments, collect, data, main
from pilot.cli import eval as evaluate_verb
from pilot.eval import evaluate
from pilot.infer import high_level
from pilot.serve import control


def verbs_help() -> list[list[str]]:
    words = [["data", word, "--help"] for word in data.WORDS]
    return [["--help"], *([verb, "--help"] for verb in main.VERBS), *words]


@pytest.mark.parametrize("arguments", verbs_help(), ids=" ".join)
def test_help_shows_a_command_to_copy(arguments, capsys):
    with pytest.raises(SystemExit) as exit_:
        main.main(arguments)
    assert exit_.value.code == 0
    assert "Example: pilot " in capsys.readouterr().out


@pytest.mark.parametrize("verb", main.VERBS)
def test_the_example_of_a_verb_parses(verb):
    program, *arguments = main.VERBS[verb].example.split()
    assert program == "pilot" and arguments[0] == verb
    assert main.build_parser().parse_args(arguments).verb == verb


@pytest.mark.parametrize("word", data.WORDS)
def test_the_example_of_a_data_word_parses(word):
    program, *arguments = shlex.split(data.WORDS[word].example)
    assert program == "pilot" and arguments[:2] == ["data", word]
    assert main.build_parser().parse_args(arguments).what == word


def test_the_module_is_the_command():
    command = [sys.executable, "-m", "pilot", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == f"pilot {__version__}\n"


def test_bars_in_a_log_write_a_line_every_ten_seconds():
    code = "from pilot.cli.main import main; main(['runs']); from tqdm import tqdm; print(tqdm([]).mininterval)"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TQDM_")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.splitlines()[-1] == "10.0"


def test_help_needs_no_library():
    """What makes it instant: a laptop waits 2 s for torch, 0.1 s for the parser."""
    code = (
        "import sys; from pilot.cli import main; main.build_parser(); "
        "print(sorted({'torch', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


WRONG_NAMES = {
    "demo --checkpoint none": "none does not exist; give the folder of a checkpoint",
    "collect out --split trian": "argument --split: invalid choice: 'trian'",
    "train nano_visoin": "unknown run 'nano_visoin'; did you mean 'nano_vision'?",
    "train nano_vision --out run": "data/nano/l1_single does not exist; give the folder of a data set",
    "train debug --out run --set data.sources.single.path=.": ". holds no meta/info.json (LeRobot) or features.json",
    "train debug --out run --set steps=0": "steps is at least 1, got 0",
    "train debug --out run --set evaluation.suite=homes-l9": "unknown suite 'homes-l9'; did you mean 'homes-l2'?",
    "plan debug --set optim.clip_norm=0": "optim.clip_norm is above 0, got 0.0",
    "plan nano_visoin": "unknown run 'nano_visoin'; did you mean 'nano_vision'?",
    "plan nano_vision --gpus 8xH10": "unknown GPU 'H10'; did you mean 'H100'?",
    "eval none": "none does not exist; give the folder of a checkpoint",
    "eval owner/none": "there is no folder owner/none; if it is a repository of the hub, write hf://owner/none",
    "eval expert --suite homes-l9": "unknown suite 'homes-l9'; did you mean 'homes-l2'?",
    "eval expert --control blank": "unknown control 'blank'; did you mean 'blank_images'?",
    "eval expert --high-level modle": "unknown high level 'modle'; did you mean 'model'?",
    "serve one=none": "none does not exist; give the folder of a checkpoint",
    "serve . --high-level modle": "unknown high level 'modle'; did you mean 'model'?",
    "serve . --api-keys none": "'none' cannot be read or written: no such file or directory",
    "serve . --certificate none.pem": "none.pem does not exist; give a PEM file",
    "data stats none": "none/meta/info.json does not exist; give the folder of a LeRobot data set",
    "data stats . --robot homs": "unknown robot 'homs'; did you mean 'homes'?",
    "data tokenizer . --out out --kind fats": "unknown action tokenizer 'fats'; did you mean 'fast'?",
    "data tokenizer . --out out --robot homs": "unknown robot 'homs'; did you mean 'homes'?",
    "data inspect none": "none does not exist; give the folder of a data set",
    "data inspect .": ". holds no meta/info.json (LeRobot) or features.json (RLDS); it has no files",
    "data inspect . --robot homs": "unknown robot 'homs'; did you mean 'homes'?",
    "data inspect . --checkpoint none": "none does not exist; give the folder of a checkpoint",
    "data annotate none --by-hand": "none is not a LeRobot data set",
    "data import none out": "none does not exist; give the folder that holds the recordings",
    "data import . out --from rldz": "unknown format 'rldz'; did you mean 'rlds'?",
    "data import . out --robot homs": "unknown robot 'homs'; did you mean 'homes'?",
    "convert none out": "none does not exist; give a folder, or an address: hf://owner/repo",
    "convert . out --tokenizer none": "none does not exist; give a file or a folder, or an address",
    "convert . out --robot homs": "unknown robot 'homs'; did you mean 'homes'?",
}


def test_a_wrong_name_is_answered_without_torch(tmp_path):
    """Whoever mistypes does not wait for it."""
    code = (
        "import sys; sys.modules['torch'] = None; from pilot.cli import main; "
        "[main.main(w.split()) for w in sys.argv[1:]]"
    )
    command = [sys.executable, "-c", code, *WRONG_NAMES]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    answers = done.stderr.splitlines()
    assert len(answers) == len(WRONG_NAMES), done.stderr
    for answer, (words, expected) in zip(answers, WRONG_NAMES.items()):
        assert expected in answer, words
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("command", "work"), [("demo", "demo.demo"), ("data inspect .", "report.inspect.inspect")])
def test_a_checkpoint_may_lie_on_the_hub(command, work, tmp_path, monkeypatch):
    asked = []

    def done(*_, **options) -> SimpleNamespace:
        asked.append(options)
        return SimpleNamespace(issues=[], episodes=0, page="inspect.html")

    (tmp_path / "meta").mkdir()  # looks like a data set
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(f"pilot.eval.{work}", done)
    with instead_of_the_real_one(tmp_path, monkeypatch) as hub:
        hub.commit("desk/pi", {"config.json": b"{}"})
        assert main.main([*command.split(), "--checkpoint", "hf://desk/pi"]) == 0
    assert (asked[0]["checkpoint"] / "config.json").read_text() == "{}"


def test_high_levels_are_those_of_the_library():
    assert tuple(high_level.HIGH_LEVELS) == arguments.HIGH_LEVELS
    assert tuple(control.EXECUTORS) == evaluate_verb.EXECUTORS


@pytest.mark.parametrize(("typed", "meant"), [("trian", "train"), ("evaluate", "eval"), ("colect", "collect")])
def test_unknown_verb_suggests_the_nearest(typed, meant, capsys):
    assert main.main([typed]) == 2
    assert f"unknown verb '{typed}'; did you mean '{meant}'?" in capsys.readouterr().err


def failing(error: BaseException):
    def run(_) -> None:
        raise error

    return arguments.Verb(help="fails", example="pilot demo", add_arguments=lambda parser: None, run=run)


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (ValueError("5 state dims, got 7"), 2, "pilot: 5 state dims, got 7"),
        (FileNotFoundError("no checkpoint at x; make one with: pilot train"), 2, "make one with"),
        (ImportError("needs MuJoCo: pip install 'pilot[sim]'"), 2, "pilot[sim]"),
        (OSError(errno.ENOSPC, "No space left on device", "data/a.parquet"), 2, "the disk is full (data/a.parquet)"),
        (
            OSError(errno.ENOSPC, "the disk is full while writing run/a; free some"),
            2,
            "is full while writing run/a; free",
        ),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), 2, "the disk is full (while writing); free some space"),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "keys.txt"), 2, "'keys.txt' cannot be read"),
        (OSError(errno.EADDRINUSE, "port 80 is taken"), 2, "pilot: port 80 is taken; choose another --port"),
        (OSError("cannot write run/000500; is the disk full?"), 2, "cannot write run/000500"),
        (FloatingPointError("the flow loss is NaN at step 3"), 2, "NaN at step 3"),
        (KeyboardInterrupt(), 130, "pilot: stopped; nothing was written"),
        (KeyboardInterrupt("stopped at step 3"), 130, "pilot: stopped at step 3"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_errors_for_people_are_one_line(error, code, message, capsys, monkeypatch):
    monkeypatch.setitem(main.VERBS, "demo", failing(error))
    assert main.main(["demo"]) == code
    shown = capsys.readouterr().err
    assert message in shown and "Traceback" not in shown and shown.count("\n") == 1


@pytest.mark.parametrize(
    ("out", "message"),
    [("", "no episode was kept; with --out FOLDER"), (" --out e", "run the same command again to continue")],
)
def test_what_an_evaluation_keeps_when_it_is_stopped(out, message, capsys, monkeypatch, tmp_path):
    def stopped(*_args, **_options):
        raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(evaluate, "evaluate_table", stopped)
    assert main.main(f"eval expert{out}".split()) == 130
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("eval x --epsiodes 5", "unknown option '--epsiodes'; did you mean '--episodes'?"),
        ("data stats x --pre=robot", "unknown option '--pre'; did you mean '--per'?"),
        ("plan nano_stage1 extra", "unexpected argument 'extra' (pilot plan --help)"),
        ("data stat x", "unknown verb 'data stat'; did you mean 'data stats'?"),
        ("eval", "the following arguments are required: policy (pilot eval --help)"),
        ("eval x --episodes 0", "argument --episodes: must be a whole number of 1 or more, got '0'"),
        ("collect x --homes many", "argument --scenes/--homes/--tables: must be a whole number of 1 or"),
        ("collect x --level 3", "argument --level: invalid choice: 3"),
        ("serve x --port 99999", "argument --port: must be a whole number from 0 to 65535, got '99999'"),
        ("serve x --watch 0", "argument --watch: must be a number above 0, got '0'"),
        ("plan nano_stage1 --price nan", "argument --price: must be a number above 0, got 'nan'"),
        ("data stats x --per robt", "argument --per: invalid choice: 'robt'"),
    ],
)
def test_a_wrong_command_is_answered_in_one_line(command, message, capsys):
    assert main.main(command.split()) == 2
    shown = capsys.readouterr().err
    assert f"pilot: {message}" in shown and shown.count("\n") == 1


def test_a_place_that_cannot_be_written_is_refused_before_the_work(tmp_path, capsys):
    (tmp_path / "file").touch()
    assert main.main(["eval", "expert", "--out", str(tmp_path / "file")]) == 2
    assert "file' is a file; give a folder to write into" in capsys.readouterr().err
    assert main.main(["collect", str(tmp_path / "file" / "set")]) == 2
    assert "file' is a file; give a folder to write into" in capsys.readouterr().err
    assert main.main(["data", "inspect", "x", "--out", str(tmp_path)]) == 2
    assert f"'{tmp_path}' is a folder; give a file to write" in capsys.readouterr().err
    assert main.main(["data", "inspect", "x", "--out", str(tmp_path / "file" / "page.html")]) == 2
    assert "file' is a file" in capsys.readouterr().err


def test_a_warning_of_ours_is_one_line():
    assert main.format_warning("two homes dropped", UserWarning, main.__file__, 3) == "pilot: two homes dropped\n"
    assert (
        main.format_warning("old", DeprecationWarning, "/lib/numpy.py", 3)
        == "/lib/numpy.py:3: DeprecationWarning: old\n"
    )


@pytest.mark.parametrize("error", [RuntimeError("a bug"), AssertionError((1, 2)), KeyError("state")])
def test_errors_for_programmers_keep_their_traceback(error, monkeypatch):
    monkeypatch.setitem(main.VERBS, "demo", failing(error))
    with pytest.raises(type(error)):
        main.main(["demo"])


def test_debug_shows_every_traceback(monkeypatch):
    monkeypatch.setitem(main.VERBS, "demo", failing(ValueError("5 state dims, got 7")))
    monkeypatch.setenv("PILOT_DEBUG", "1")
    with pytest.raises(ValueError):
        main.main(["demo"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--labels", "nothing.txt"], "--labels: needs --high-level NAME as well"),
        (["--high-level", "saycan"], "'saycan' needs labels"),
        (["--high-level", "vlm", "--vlm", "http://localhost:1/v1"], "'vlm' needs model"),
        (["--high-level", "none", "--keep-margin", "1"], "'none' has no option keep_margin"),
        (["--high-level", "modle"], "did you mean 'model'"),
    ],
)
def test_options_of_a_high_level(options, message, capsys):
    assert main.main(["eval", "expert", *options]) == 2
    assert message in capsys.readouterr().err


def test_a_high_level_by_its_options(tmp_path):
    (tmp_path / "labels.txt").write_text("pick up the cup\n\n  done \n")
    command = ["eval", "x", "--high-level", "saycan", "--labels", str(tmp_path / "labels.txt")]
    level = arguments.read_high_level(main.build_parser().parse_args(command))
    assert level.labels == ("pick up the cup", "done")
    for options, as_prompt in ([], False), (["--as-prompt"], True):
        level = arguments.read_high_level(
            main.build_parser().parse_args(["eval", "x", "--high-level", "human", *options])
        )
        assert level.as_prompt == as_prompt


def test_collect_reads_a_suite_its_robot_and_its_options():
    def read(command: str):
        return collect.read_suite(main.build_parser().parse_args(["collect", "out", *command.split()]))

    assert (read("--level 2").name, read("--level 2").level) == ("homes-l1", 2)
    suite = read("--suite rooms-move --robot bimanual --level 3 --split train")
    assert (suite.name, suite.robot.name, suite.level, suite.split) == ("rooms-move@bimanual", "bimanual", 3, "train")
    with pytest.raises(ValueError, match=r"invalid choice: 3 \(suite 'homes-l1' has 1, 2\)"):
        read("--level 3")
    with pytest.raises(ValueError, match="unknown robot of suite 'rooms-move' 'gantry'"):
        read("--suite rooms-move --robot gantry")
    with pytest.raises(ValueError, match="suite 'rooms-move' has no option --receptacles"):
        read("--suite rooms-move --receptacles sink")
