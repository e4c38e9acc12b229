"""What becomes of damaged files: each mutant of a checkpoint or a data set is refused, harmless, or a defect.

    python tests/torture/mutants.py --count 300

A mutant is one change of one file: flipped bits, a cut, zeros, another number in JSON, a weight that is NaN, a value in
a table. `refused` is one line of text that a person can act on; `harmless` is the same answer as before. Two things are
defects: `silent`, another answer without a word, and `traceback`, an error of some library, which may end the process.
"""

import argparse
import hashlib
import json
import shutil
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors.torch import load_file, save_file

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "tests")]

from data.recordings import episode, record  # noqa: E402

from infer.policies import bundle_of, observation  # noqa: E402
from pilot.data.formats.lerobot import LeRobotDataset  # noqa: E402
from pilot.data.storage.manifest import MANIFEST  # noqa: E402
from pilot.infer.policy import export, load_policy  # noqa: E402
from pilot.models.bundle import ordered_tokens  # noqa: E402
from pilot.models.pi import Pi, pi05  # noqa: E402
from pilot.tokenizers.text import TextTokenizer  # noqa: E402

Rng = np.random.Generator
Mutate = Callable[[Path, Rng], None]
GOOD = ("refused", "harmless")


@dataclass(frozen=True)
class Subject:
    """A folder to damage, and what it is for: `answer` gives a digest of what comes out of it."""

    name: str
    folder: Path
    answer: Callable[[Path], str]


# --- subjects ---------------------------------------------------------------------------------------------------------


def make_subjects(where: Path) -> list[Subject]:
    """Make a tiny checkpoint and two tiny data sets, of pictures and of video."""
    text, config = TextTokenizer(), pi05("debug", max_tokens=80)
    fresh = Pi(config).initialize(torch.Generator().manual_seed(0), ordered_tokens=ordered_tokens(text))
    export(bundle_of(fresh, text), where / "checkpoint")
    rng = np.random.default_rng(0)
    for name, format in (("pictures", "image"), ("video", "video")):
        record(where / name, [episode(rng, length) for length in (5, 8, 6)], image_format=format)
    return [
        Subject("checkpoint", where / "checkpoint", act),
        Subject("data set (pictures)", where / "pictures", read_set),
        Subject("data set (video)", where / "video", read_set),
    ]


def act(folder: Path) -> str:
    """Return a digest of what the policy answers."""
    policy = load_policy(folder, device="cpu")
    answer = policy.infer(observation(0))
    return hashlib.sha256(answer["actions"].tobytes() + str(answer["subtask"]).encode()).hexdigest()


def read_set(folder: Path) -> str:
    """Return a digest of every row and picture of a set."""
    dataset, digest = LeRobotDataset(folder, 3), hashlib.sha256()
    for i in range(len(dataset)):
        frame = dataset.frame(i)
        for name in sorted(frame["images"]):
            digest.update(frame["images"][name].tobytes())
        digest.update(frame["state"].tobytes() + frame["actions"].tobytes() + frame["action_is_pad"].tobytes())
        digest.update(repr([frame[name] for name in ("task", "subtask", "box", "utterance", "frame_index")]).encode())
    digest.update(repr([dataset.fps, dataset.cameras, [e.labels for e in dataset.episodes]]).encode())
    return digest.hexdigest()


# --- changes ----------------------------------------------------------------------------------------------------------


def flip_bits(file: Path, rng: Rng) -> None:
    """Flip one to three bits."""
    content = bytearray(file.read_bytes())
    for place in rng.integers(0, len(content), rng.integers(1, 4)):
        content[place] ^= 1 << int(rng.integers(8))
    file.write_bytes(content)


def cut(file: Path, rng: Rng) -> None:
    """Lose the end of a file."""
    content = file.read_bytes()
    file.write_bytes(content[: rng.integers(0, len(content))])


def blank(file: Path, rng: Rng) -> None:
    """Overwrite a block with zeros, as a disk does that lost a sector."""
    content = bytearray(file.read_bytes())
    start = int(rng.integers(0, len(content)))
    content[start : start + 512] = bytes(len(content[start : start + 512]))
    file.write_bytes(content)


def lose(file: Path, rng: Rng) -> None:
    """Remove the file."""
    file.unlink()


def edit_json(file: Path, rng: Rng) -> None:
    """Delete, rename or change one entry somewhere in a JSON file."""
    content = json.loads(file.read_text())
    if not (places := list(_entries(content))):
        file.write_text("[]")
        return
    holder, key = places[rng.integers(len(places))]
    value = holder[key]
    kind = rng.integers(3) if isinstance(holder, dict) else 2
    if kind < 2:
        del holder[key]
    if kind == 1:
        holder[f"{key}_"] = value
    if kind == 2:
        holder[key] = _other(value, rng)
    file.write_text(json.dumps(content, indent=2))


def _entries(content: object) -> Iterator[tuple]:
    pairs = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in pairs:
        yield content, key
        yield from _entries(value)


def _other(value: object, rng: Rng) -> object:
    """Return another value, of the same type where there is one."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return [0, -value, value + 1, value * 10, value * 1e6, float("nan"), None][rng.integers(7)]
    if isinstance(value, str):
        return [value + "x", "", 7, None][rng.integers(4)]
    return [None, 7, "x", [], {}][rng.integers(5)]


def edit_weight(file: Path, rng: Rng) -> None:
    """Change one number in a tensor file, which stays whole: a little, much, or to NaN."""
    tensors = load_file(file)
    floats = [name for name, tensor in tensors.items() if tensor.is_floating_point() and tensor.numel()]
    tensor = tensors[floats[rng.integers(len(floats))]].view(-1)
    place = int(rng.integers(len(tensor)))
    tensor[place] = [tensor[place] + 0.5, tensor[place] * 1e4 + 1, float("nan"), float("inf")][rng.integers(4)]
    save_file(tensors, file)


def edit_table(file: Path, rng: Rng) -> None:
    """Change one column of a parquet file, which stays whole: shuffle its rows, or lose the last."""
    table = pq.read_table(file)
    if rng.integers(2):
        place = int(rng.integers(table.num_columns))
        column = table.column(place).take(pa.array(rng.permutation(table.num_rows)))
        table = table.set_column(place, table.schema.field(place), column)
    else:
        table = table.slice(0, table.num_rows - 1)
    pq.write_table(table, file)


ANY: tuple[Mutate, ...] = (flip_bits, flip_bits, cut, blank, lose)
OF_KIND: dict[str, tuple[Mutate, ...]] = {
    ".json": (edit_json, edit_json, edit_json),
    ".safetensors": (edit_weight, edit_weight),
    ".parquet": (edit_table, edit_table),
}


# --- running ----------------------------------------------------------------------------------------------------------


def judge(subject: Subject, folder: Path, *, expected: str) -> tuple[str, str]:
    """Return what becomes of a mutant, and the words for it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            got = subject.answer(folder)
    except (ValueError, OSError) as error:
        message = str(error)
        plain = type(error) in (ValueError, FileNotFoundError) and "\n" not in message and str(folder) in message
        return ("refused" if plain else "traceback"), f"{type(error).__name__}: {message}"
    except Exception as error:
        return "traceback", f"{type(error).__name__}: {error}"
    return ("harmless", "") if got == expected else ("silent", "another answer")


class JudgeProcess:
    """Judge in a process of its own: pyarrow 26 ends the one that reads some damaged footers, and no `except` helps."""

    def __init__(self) -> None:
        self._pool = self._start()

    def _start(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(1, get_context("spawn"), initializer=torch.set_num_threads, initargs=(1,))

    def judge(self, subject: Subject, folder: Path, *, expected: str) -> tuple[str, str]:
        """Return what `judge` says, or that its process died."""
        try:
            return self._pool.submit(judge, subject, folder, expected=expected).result()
        except BrokenProcessPool:
            self._pool = self._start()
            return "traceback", "the process died"

    def close(self) -> None:
        """End the process."""
        self._pool.shutdown()


def mutants(
    subject: Subject, count: int, *, seed: int, with_manifest: bool, process: JudgeProcess
) -> Iterator[tuple[str, str, str]]:
    """Yield the file, the outcome and its words of `count` mutants of a subject."""
    expected = subject.answer(subject.folder)
    files = sorted(file for file in subject.folder.rglob("*") if file.is_file())
    files = [file.relative_to(subject.folder) for file in files if with_manifest or file.name != MANIFEST]
    for number in range(count):
        rng = np.random.default_rng([seed, number])
        with TemporaryDirectory() as place:
            folder = Path(shutil.copytree(subject.folder, Path(place) / "mutant"))
            if not with_manifest:
                (folder / MANIFEST).unlink()
            name = files[number % len(files)]
            # A change of one kind of file twice as often as one of any file.
            changes = OF_KIND.get(name.suffix, ()) + ANY
            change = changes[rng.integers(len(changes))]
            before = (folder / name).read_bytes()
            change(folder / name, rng)
            if (folder / name).exists() and (folder / name).read_bytes() == before:
                yield f"{name} ({change.__name__})", "harmless", "nothing changed"
                continue
            outcome, words = process.judge(subject, folder, expected=expected)
            yield f"{name} ({change.__name__})", outcome, words


def run(count: int, *, seed: int = 0, show: bool = False) -> dict[tuple[str, bool], Counter[str]]:
    """Return outcomes by subject and whether it had a manifest, of about `count` mutants with and as many without."""
    found: dict[tuple[str, bool], Counter[str]] = {}
    with TemporaryDirectory() as place, closing(JudgeProcess()) as process:
        subjects = make_subjects(Path(place))
        for with_manifest in (True, False):
            for subject in subjects:
                counts = found[subject.name, with_manifest] = Counter()
                share = -(-count // len(subjects))
                for what, outcome, words in mutants(
                    subject, share, seed=seed, with_manifest=with_manifest, process=process
                ):
                    counts[outcome] += 1
                    if show and outcome not in GOOD:
                        print(f"{outcome}: {subject.name}, manifest {with_manifest}: {what}: {words[:160]}", flush=True)
    return found


def table(found: dict[tuple[str, bool], Counter[str]]) -> list[str]:
    """Return the outcomes as lines of a Markdown table."""
    outcomes = ("refused", "harmless", "silent", "traceback")
    lines = [f"| mutants of | manifest | {' | '.join(outcomes)} | good |", "|---|---|--:|--:|--:|--:|--:|"]
    for (name, with_manifest), counts in found.items():
        numbers = [counts[outcome] for outcome in outcomes]
        share = sum(counts[outcome] for outcome in GOOD) / counts.total()
        lines.append(f"| {name} | {'yes' if with_manifest else 'no'} | {' | '.join(map(str, numbers))} | {share:.1%} |")
    return lines


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print("\n".join(table(run(options.count, seed=options.seed, show=True))))
