"""The pages that a checkpoint and a data set have on the Hugging Face Hub, generated from what is in their folders.

A card says what something is, for which robots, how well it does with the interval of every number, what it learned
from, under which licence, and which commit of pilot wrote it. What is not known is not there: no number is made up.
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pilot.data.formats import lerobot_layout as fmt
from pilot.data.storage.files import read_json
from pilot.data.storage.manifest import source_commit
from pilot.eval.provenance import commit
from pilot.eval.results import settings_in_words
from pilot.version import __version__

FILES = (
    "config.json", "model.safetensors", "norm_stats.json", "text.model", "record.safetensors", "adapters.safetensors",
    "adapters.json", "action_tokenizer", "fast", "robots", "training", "README.md",
)  # fmt: skip
"""What belongs to a checkpoint; anything else in its folder is not uploaded."""
TOO_LONG = ("high_level_options",)  # of the settings of a result, for a column
DATA_FILES = ("meta", "data", "videos", "norm_stats.json", "collect.json", "README.md")


def is_checkpoint(folder: Path) -> bool:
    """Return whether a folder is a checkpoint; False for a LeRobot data set.

    Raises:
        FileNotFoundError: it is neither.
    """
    if (folder / fmt.INFO).is_file():
        return False
    if (folder / "config.json").is_file() and any((folder / name).is_file() for name in FILES if "safe" in name):
        return True
    raise FileNotFoundError(f"{folder} is neither a checkpoint (config.json, weights) nor a LeRobot set ({fmt.INFO})")


def files_of(folder: Path, *, only: Sequence[str]) -> list[str]:
    """Return the names of the files to upload, relative to the folder: those named, and all in folders named."""
    found = [path for name in only for path in sorted([folder / name, *(folder / name).rglob("*")])]
    names = [path.relative_to(folder) for path in found if path.is_file()]
    return [str(name) for name in names if not any(part.startswith(".") for part in name.parts)]


def checkpoint_card(
    folder: Path, *, repo: str, licence: str, results: Sequence[Mapping[str, Any]], notes: str = ""
) -> str:
    """Write the card of a checkpoint. `results` are the rows of `results.json`, which `pilot eval --out` leaves.

    Raises:
        ValueError: a result lacks its episodes or its interval.
    """
    config = read_json(folder / "config.json", remedy="give the folder of a checkpoint")
    robots = config["robots"] if "robots" in config else [config["robot"]]
    robots = list(robots.values()) if isinstance(robots, Mapping) else list(robots)
    tags = ["robotics", "vision-language-action", "pilot", *(f"robot:{robot['name']}" for robot in robots)]
    lines = front_matter(licence=licence, tags=tags, extra={"library_name": "pilot", "pipeline_tag": "robotics"})
    lines += [f"# {repo.partition('/')[2]}", "", describe_model(folder, config), *([notes, ""] if notes else [])]
    lines += ["## Robots", "", *robot_table(robots), ""]
    lines += ["## Success", "", *result_table(results), ""]
    lines += ["## Learned from", "", *training_list(folder), ""]
    lines += ["## Use it", "", "```python", "import pilot", "", f'policy = pilot.load_policy("hf://{repo}")']
    lines += ['out = policy.infer({"images": {...}, "state": ..., "prompt": "put the cup in the sink"})', "```", ""]
    lines += [f"    pilot serve hf://{repo}", f"    pilot play hf://{repo}", ""]
    return "\n".join([*lines, *footer(licence)])


def dataset_card(folder: Path, *, repo: str, licence: str, notes: str = "") -> str:
    """Write the card of a LeRobot data set."""
    info = read_json(folder / fmt.INFO, remedy="give the folder of a LeRobot data set")
    tags = ["LeRobot", "robotics", "pilot", f"robot:{info['robot_type']}"]
    lines = front_matter(licence=licence, tags=tags, extra={"task_categories": ["robotics"]})
    seconds = info["total_frames"] / info["fps"]
    lines += [f"# {repo.partition('/')[2]}", "",
              f"{info['total_episodes']} episodes of robot `{info['robot_type']}`, {seconds / 3600:.2g} hours at "
              f"{info['fps']:g} Hz, with {info.get('total_tasks', 'several')} different instructions, as a LeRobot "
              f"{info['codebase_version']} data set.", "", *([notes, ""] if notes else [])]  # fmt: skip
    lines += ["| feature | type | shape |", "|---|---|---|"]
    lines += [f"| `{name}` | {spec['dtype']} | {spec['shape']} |" for name, spec in info["features"].items()]
    lines += ["", "## Use it", "", f"    pilot data inspect hf://datasets/{repo}", ""]
    if (folder / "collect.json").is_file():
        settings = read_json(folder / "collect.json", remedy="collect the set again").get("settings", {})
        lines += ["## How it was made", "", "By `pilot collect`, in simulation, with these settings:", ""]
        lines += ["```json", json.dumps(settings, indent=2), "```", ""]
    return "\n".join([*lines, *footer(licence)])


def front_matter(*, licence: str, tags: Sequence[str], extra: Mapping[str, Any]) -> list[str]:
    """Return the lines of YAML that the hub reads; JSON is YAML too."""
    values = {"license": licence, "tags": list(dict.fromkeys(tags)), **extra}
    return ["---", *(f"{name}: {json.dumps(value)}" for name, value in values.items()), "---", ""]


def describe_model(folder: Path, config: Mapping[str, Any]) -> str:
    """Return two sentences about a model: its kind and size, and what it gives."""
    kind, model = config.get("kind", "pi"), config["model"]
    count = count_weights(folder)
    size = "" if count is None else f" with {count / 1e6:.3g} million weights"
    family = "model of the π0 family" if kind == "pi" else f"model of kind `{kind}`"
    words = " It writes subtasks in words before it acts." if model.get("prompt") == "subtask" else ""
    steps = model["action_horizon"] * model.get("action_stride", 1)
    return f"A {family}{size}. Each chunk has {steps} actions.{words}\n"


def count_weights(folder: Path) -> int | None:
    """Return the number of weights in a checkpoint, from the head of its file; None where there are only adapters."""
    file = folder / "model.safetensors"
    if not file.is_file():
        return None
    with file.open("rb") as stream:
        head = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
    return sum(math.prod(tensor["shape"]) for name, tensor in head.items() if name != "__metadata__")


def robot_table(robots: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a table of what the policy can act for."""
    lines = ["| robot | cameras | state | actions | rate |", "|---|---|---|---|---|"]
    for robot in robots:
        cells = [f"`{robot['name']}`", ", ".join(robot["cameras"]), ", ".join(robot["state_names"])]
        lines.append(f"| {' | '.join([*cells, ', '.join(robot['action_names'])])} | {robot['control_hz']:g} Hz |")
    return lines


def result_table(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a table of success rates with their intervals, or a sentence that there are none."""
    if not results:
        return ["No evaluation came with this checkpoint. Measure it: `pilot eval … --out FOLDER`."]
    has_seed = len({row.get("seed") for row in results}) > 1
    words = [settings_in_words(row, has_seed=has_seed and "seed" in row, leave_out=TOO_LONG) for row in results]
    columns = ["suite", "control", *(["settings"] if any(words) else []), "success", "95 % interval", "episodes"]
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for row, how in zip(results, words, strict=True):
        if missing := {"suite", "control", "successes", "episodes", "interval95"} - set(row):
            raise ValueError(f"a result has no {', '.join(sorted(missing))}; give results.json of `pilot eval --out`")
        low, high = row["interval95"]
        rate = f"{row['successes'] / row['episodes']:.1%}"
        cells = [row["suite"], row["control"], *([how or "–"] if any(words) else []), rate]
        lines.append(f"| {' | '.join(cells)} | {low:.1%} – {high:.1%} | {row['episodes']} |")
    lines += ["", "Each episode is in a scene of its own, of the split for tests. A control takes a sense away, or"]
    lines += ["gives the true subtask (`oracle`). These numbers are of simulations, and of nothing else."]
    return lines


def training_list(folder: Path) -> list[str]:
    """Return a line per run that led to a checkpoint, with its sources and their shares."""
    lines = []
    for file in sorted((folder / "training").glob("*/config.json")):
        config = read_json(file, remedy="copy the run's folder again")
        sources = config.get("sources") or config.get("data", {}).get("sources", [])
        shares = [describe_source(source) for source in sources]
        lines.append(
            f"- **{config.get('name', file.parent.name)}**, {config.get('steps', '?')} steps: {', '.join(shares)}"
        )
    return lines or ["The runs that led here did not come with the checkpoint."]


def describe_source(source: Mapping[str, Any]) -> str:
    """Return the name of a source with its share of the rows, if it has a fixed one."""
    name, weight = Path(source["path"]).name, source.get("weight")
    return f"`{name}`" + ("" if weight is None else f" ({weight:.0%})")


def footer(licence: str) -> list[str]:
    """Return the last lines of a card: the licence, and what wrote it."""
    return [f"Licence: {licence}. Card written by pilot {__version__}{commit_of_pilot()}.", ""]


def commit_of_pilot() -> str:
    """Return the commit of the running source tree, in words; nothing where pilot is installed without one."""
    return "" if source_commit() is None else f", commit {commit()}"
