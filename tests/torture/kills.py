"""Kills at random moments: the same command again, until it is done; then all is as if nobody had killed it."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

TRAIN = """
import sys
from pathlib import Path
from train import toy
from pilot.train.loop import train
train(toy.config(Path(sys.argv[1]), steps=40), out=sys.argv[2], progress=False)
"""
COLLECT = """
import sys
from pilot.sims.collect import collect
from pilot.sims.homes import HomesSuite
if __name__ == "__main__":
    suite = HomesSuite(name="homes", title="one move", split="train")
    collect(sys.argv[2], suite, scenes=6, episodes_per_scene=2, workers=2, progress=False)
"""
ROOT = Path(__file__).parents[2]


def run(count: int, *, seed: int = 0) -> dict[str, Counter[str]]:
    """Kill a training and a collection `count` times in all; return what was found."""
    with TemporaryDirectory() as place:
        folder = Path(place)
        from train import toy

        toy.record(folder / "data")
        work = {"training": TRAIN, "collecting": COLLECT}
        return {name: _kill_again_and_again(name, code, folder, count // 2, seed) for name, code in work.items()}


def _kill_again_and_again(name: str, code: str, folder: Path, count: int, seed: int) -> Counter[str]:
    found, rng = Counter[str](), np.random.default_rng(seed)
    script = folder / f"{name}.py"
    script.write_text(code)
    start = time.monotonic()
    assert _start(script, folder / "data", folder / f"{name}-whole").wait() == 0
    seconds, number = time.monotonic() - start, 0
    while found["kills"] < count:
        out, ended = folder / f"{name}-{number}", False
        number += 1
        while not ended:
            process = _start(script, folder / "data", out)
            try:
                ended = process.wait(rng.uniform(0.2, 1.0) * seconds) == 0
                if not ended:
                    found["refused to go on"] += 1
                    break
            except subprocess.TimeoutExpired:
                if found["kills"] == count:
                    ended = process.wait() == 0
                else:
                    os.kill(process.pid, signal.SIGKILL)
                    process.wait()
                    found["kills"] += 1
        found["runs that ended"] += ended
        found["with another result"] += ended and _content(out) != _content(folder / f"{name}-whole")
        found["leftovers"] += sum(1 for _ in out.rglob(".*.tmp")) + sum(1 for _ in out.rglob(".*.old"))
    return found


def _start(script: Path, data: Path, out: Path) -> subprocess.Popen:
    paths = os.pathsep.join([str(ROOT / "src"), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen([sys.executable, script, data, out], env=os.environ | {"PYTHONPATH": paths})


def _content(out: Path) -> dict[str, bytes]:
    """Return the files that a run is for: a policy, or a data set."""
    kept = ("policy", "data", "meta", "videos")
    files = (file for name in kept for file in (out / name).rglob("*") if file.is_file())
    return {str(file.relative_to(out)): file.read_bytes() for file in files}


def table(found: dict[str, Counter[str]]) -> list[str]:
    """Return what was found as lines of a Markdown table."""
    columns = ("kills", "runs that ended", "refused to go on", "with another result", "leftovers")
    lines = [f"| killed while | {' | '.join(columns)} |", "|---" + "|--:" * len(columns) + "|"]
    return lines + [f"| {name} | {' | '.join(str(counts[c]) for c in columns)} |" for name, counts in found.items()]
