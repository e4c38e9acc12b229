"""What is installed with which part of pilot: a robot that asks a server needs no torch."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import pilot

PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]


def packages(extra: str) -> set[str]:
    """Names of all packages that an extra asks for itself, with those of the core and of extras that it includes."""
    names = set()
    for line in [*PROJECT["dependencies"], *EXTRAS[extra]]:
        name, inner = re.match(r"([\w-]+)(?:\[([\w,-]+)\])?", line).groups()
        if name == "pilot":
            names |= set().union(*(packages(part) for part in inner.split(",")))
        else:
            names.add(name)
    return names


def test_a_client_pulls_what_a_robot_needs_and_no_torch():
    assert packages("client") == {"numpy", "pillow", "jaxtyping", "websockets", "msgpack"}
    assert {"torch"} == packages("torch") & {"torch", "mujoco", "websockets"}


@pytest.mark.parametrize("extra", ["torch", "train", "serve", "all"])
def test_what_computes_a_model_pulls_torch(extra):
    assert "torch" in packages(extra)


def test_all_has_every_part_but_what_developers_need_and_the_benchmarks():
    """The simulators of others are heavy and want versions of their own: each has an environment to itself."""
    benchmarks = ("pusht", "aloha", "metaworld", "libero", "libero-plus")
    left_out = ("dev", "docs", "notebooks", "onnx", "rerun", "all", "ray", *benchmarks)
    assert packages("all") >= set().union(*(packages(extra) for extra in EXTRAS if extra not in left_out))
    assert not packages("all") & set().union(*(packages(extra) - packages("sim") for extra in benchmarks))


def alone(code: str, *, extra: str = "client") -> str:
    """What `code` prints in a fresh interpreter with the packages of one extra and nothing else of ours."""
    absent = sorted((packages("all") | {"torch", "mujoco", "gymnasium"}) - packages(extra))
    block = f"import sys; sys.modules.update(dict.fromkeys({absent!r}))\n"
    result = subprocess.run([sys.executable, "-c", block + code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-2000:]
    return result.stdout


def test_a_client_runs_with_only_what_its_extra_pulls():
    assert "pilot.infer.executor" in alone("import pilot.serve.client, pilot.serve.control; print(*sys.modules)")


def test_playing_needs_no_more_than_its_extra():
    code = "import pilot.play.server, pilot.play.player, pilot.sims.world.env, pilot.sims.homes.env; print('ready')"
    assert alone(code, extra="play") == "ready\n"


def test_what_needs_torch_says_what_to_install():
    asked = "import pilot\ntry: pilot.load_policy\nexcept ImportError as error: print(error)"
    assert alone(asked) == "this needs torch: pip install 'pilot[torch]'\n"


@pytest.mark.parametrize("module", ["torch", "pyarrow.parquet", "websockets", "mujoco"])
def test_a_missing_package_is_named_with_its_extra(module):
    error = pilot.missing_extra(ModuleNotFoundError(f"No module named '{module}'", name=module))
    extra = re.search(r"pip install 'pilot\[(\w+)\]'", str(error)).group(1)
    assert module.partition(".")[0] in packages(extra)


def test_a_package_of_nobody_is_no_extra():
    error = ModuleNotFoundError("No module named 'ghost'", name="ghost")
    assert pilot.missing_extra(error) is error


ROOT = Path(__file__).parents[1]
SETUPTOOLS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]


def test_the_demo_needs_no_tracker_no_ray_and_no_tools_of_developers():
    assert "torch" in packages("demo") and "mujoco" in packages("demo")
    assert not packages("demo") & {"ray", "wandb", "trackio", "gcsfs", "tensorboard", "pyright", "av", "pytest"}


def test_the_makefile_installs_the_torch_that_the_package_asks_for():
    assert f"TORCH       := {EXTRAS['torch'][0]}\n" in (ROOT / "Makefile").read_text(encoding="utf-8")


def shipped(folder: str) -> set[Path]:
    return {path for pattern in SETUPTOOLS["data-files"][folder] for path in ROOT.glob(pattern) if path.is_file()}


def test_the_wheel_brings_the_whole_checkpoint_of_the_demo_and_stays_small():
    checkpoint = ROOT / "checkpoints" / "nano"
    # A folder that lacks what its manifest names is refused: so was the first wheel's.
    named = {*json.loads((checkpoint / "manifest.json").read_text(encoding="utf-8"))["files"], "manifest.json"}
    brought = {
        (Path(folder).relative_to("share/pilot/checkpoints/nano") / path.name).as_posix()
        for folder in SETUPTOOLS["data-files"]
        for path in shipped(folder)
    }
    assert brought >= named
    everything = {path for name in SETUPTOOLS["data-files"] for path in shipped(name)}
    everything |= {path for path in (ROOT / "src").rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    assert sum(path.stat().st_size for path in everything) < 15e6, "a wheel of pilot is at most 15 MB"


def test_the_version_is_said_once():
    assert "version" in PROJECT["dynamic"] and SETUPTOOLS["dynamic"]["version"] == {"attr": "pilot.version.__version__"}
    for file in ("CHANGELOG.md", "CITATION.cff"):
        assert pilot.__version__ in (ROOT / file).read_text(encoding="utf-8"), file
