"""Evaluations as small files that git can keep. With them a study continues on another machine without its policies.

A file is what `done.json` of an evaluation says, by its key, without what a study does not measure: the words of
subtasks and the time of each answer. A hundred of them are half a megabyte.
"""

import gzip
import json
from pathlib import Path
from typing import Any

from pilot.data.storage.files import atomic_write, parse_json, write_json
from pilot.eval.study.parts import Evaluating
from pilot.eval.study.plan import StudyPlan

LEFT_OUT: dict[str, Any] = {"subtasks": [], "latencies_ms": []}


def restore_evaluations(plan: StudyPlan, folder: Path) -> int:
    """Put the evaluations of a plan that `folder` has among the parts; return how many.

    Those that this machine has with as many episodes stay.

    Raises:
        ValueError: a file is damaged.
    """
    restored = 0
    for part in plan.evaluations:
        file = _file_of(part, folder)
        if not file.exists():
            continue
        recorded, done = _read(file), part.done
        if done is not None and len(done["records"]) >= len(recorded["records"]):
            continue
        # It has taken no time here, so that it says nothing about how fast this machine is.
        write_json(part.folder / "seconds.json", 0.0)
        write_json(part.folder / "done.json", recorded)
        restored += 1
    return restored


def record_evaluations(plan: StudyPlan, folder: Path) -> int:
    """Write the finished evaluations of a plan that `folder` lacks, or has with fewer episodes; return how many.

    Raises:
        ValueError: a file is damaged.
    """
    written = 0
    for part in plan.evaluations:
        file, done = _file_of(part, folder), part.done
        if done is None or (file.exists() and len(_read(file)["records"]) >= len(done["records"])):
            continue
        small = done | {"amount": 0, "records": [record | LEFT_OUT for record in done["records"]]}
        with atomic_write(file) as temporary:
            temporary.write_bytes(gzip.compress(json.dumps(small, separators=(",", ":")).encode(), mtime=0))
        written += 1
    return written


def _file_of(part: Evaluating, folder: Path) -> Path:
    return folder / f"{part.kind}-{part.key}.json.gz"


def _read(file: Path) -> dict[str, Any]:
    try:
        text = gzip.decompress(file.read_bytes()).decode()
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise ValueError(f"{file} is damaged ({error}); fetch it again, or remove it") from error
    return parse_json(text, where=file, remedy="fetch it again, or remove it")
