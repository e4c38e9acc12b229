"""`pilot data import`: recordings of any known format as a LeRobot v3.0 set, episode by episode.

Each episode is encoded in a folder of its own, by any process, and then added whole and in order. The target is
complete at the end: after an interruption the same command goes on where it was, and later it adds what is new in the
source. A recording that cannot be read stops the import, or with `skip_bad` is listed in `meta/conversion.json`.
"""

import hashlib
import importlib
import pkgutil
import shutil
from collections.abc import Iterable
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from pilot.data import importers
from pilot.data.formats import lerobot_layout as fmt
from pilot.data.formats.writer import LeRobotWriter
from pilot.data.importers.base import Importer, ImportOptions
from pilot.data.loading.parallel import ParallelMap, serial_map
from pilot.data.storage.files import list_names, output_folder, read_json, write_json
from pilot.names import check_name

REPORT = "meta/conversion.json"
STAGED = f"{fmt.RECORDING}/staged"


@dataclass(frozen=True, kw_only=True)
class ImportReport:
    """The outcome of an import: episodes written, and what was left out, with the reason.

    `left_out` names columns that v3.0 has no place for. `options`: what decides which numbers, words and pictures are
    written. `names` changes with the names of the episodes that were written or skipped. `added`: how many of `written`
    were not there before this call.
    """

    source: str
    kind: str
    written: int = 0
    skipped: tuple[tuple[str, str], ...] = ()
    left_out: tuple[str, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)
    names: str = ""
    added: int = 0

    def __str__(self) -> str:
        already = "" if self.added or not self.written else "; they were there already, and nothing is new"
        lines = [f"{self.written} episodes from {self.source} ({self.kind}){already}"]
        if self.left_out:
            lines.append(f"columns left out: {', '.join(self.left_out)}")
        if self.skipped:
            lines.append(f"{len(self.skipped)} episodes skipped:")
        return "\n".join([*lines, *(f"  {name}: {reason}" for name, reason in self.skipped)])


def importer_kinds() -> dict[str, Any]:
    """Return the importer classes by the name of their format."""
    names = [module.name for module in pkgutil.iter_modules(importers.__path__) if module.name != "base"]
    return {name: importlib.import_module(f"{importers.__name__}.{name}").IMPORTER for name in sorted(names)}


def import_recordings(
    source: str | Path,
    target: str | Path,
    *,
    kind: str | None = None,
    options: ImportOptions | None = None,
    skip_bad: bool = False,
    progress: bool = True,
    parallel_map: ParallelMap = serial_map,
) -> ImportReport:
    """Write `target` from `source`, or go on where an earlier call was interrupted, or where `source` ended then.

    `kind` is one of `importer_kinds()`; None: told by what lies there. `parallel_map` encodes; the bytes
    are the same with any.

    Raises:
        FileNotFoundError: nothing at `source`.
        ValueError: no known format, an episode that cannot be read (without `skip_bad`), or `target` holds another set,
            or one that was made with other options or from other recordings.
        FolderInUseError: another process writes `target`.
    """
    source, target = Path(source).absolute(), Path(target).absolute()  # whoever does the work may be elsewhere
    if not source.exists():
        raise FileNotFoundError(f"{source} does not exist; give the folder that holds the recordings")
    kind = kind or detect_kind(source)
    check_name("format", kind, importer_kinds())
    with output_folder(target):
        done = _earlier(target, ImportReport(source=str(source.resolve()), kind=kind))
        found = importer_kinds()[kind](source, options := options or ImportOptions())
        done = _check_same(target, done, found, options)
        is_finished = (target / fmt.INFO).exists() and not (target / fmt.RECORDING).exists()
        if is_finished and done.written + len(done.skipped) == len(found.episodes):
            return done
        _write_report(target, done)
        with LeRobotWriter(target, found.robot, found.fps, image_format=found.pictures) as writer:
            done = _run(found, writer, done, skip_bad=skip_bad, progress=progress, parallel_map=parallel_map)
            if not writer.episodes:
                raise ValueError(f"no episode of {source} can be converted:\n{done}")
    return done


def detect_kind(path: Path) -> str:
    """Return the format of what lies at `path`.

    Raises:
        ValueError: it is none of the known ones, or v3.0 already.
    """
    if (path / fmt.INFO).exists() and str(read_json(path / fmt.INFO, remedy="").get("codebase_version")) == fmt.VERSION:
        raise ValueError(f"{path} is a LeRobot {fmt.VERSION} set already; there is nothing to convert")
    if found := [name for name, source in importer_kinds().items() if source.can_read(path)]:
        return found[0]
    raise ValueError(f"{path} is none of {', '.join(importer_kinds())}; it has {list_names(path)}")


def _earlier(target: Path, new: ImportReport) -> ImportReport:
    """Return the report of an earlier conversion to `target`; `new` where there was none, or it wrote nothing."""
    if not (target / REPORT).exists():
        if (target / fmt.INFO).exists() or (target / fmt.RECORDING).exists():
            raise ValueError(f"{target} holds a data set that was not converted; choose another folder")
        return new
    stored: dict[str, Any] = read_json(target / REPORT, remedy=f"remove {target} and convert again")
    stored |= {"skipped": tuple(map(tuple, stored["skipped"])), "left_out": tuple(stored["left_out"])}
    done = ImportReport(**stored)
    if (done.source, done.kind) != (new.source, new.kind):
        raise ValueError(f"{target} was converted from {done.source} ({done.kind}), not from {new.source} ({new.kind})")
    return done if done.written else new  # else what was skipped may be what an option was missing for


def _check_same(target: Path, done: ImportReport, found: Importer, options: ImportOptions) -> ImportReport:
    """Return `done` with the options of this call; refuse others than it had, and other recordings before the new."""
    mine = {"task": options.task, "drop_idle": options.drop_idle, "robot": found.robot.name, "fps": found.fps}
    mine |= {"pictures": found.pictures, **found.settings}
    for name, value in mine.items():
        if name in done.options and done.options[name] != value:  # older reports have none
            raise ValueError(
                f"{target} was converted with {name}={done.options[name]!r}, now it is {value!r}; repeat the options, "
                "or choose another folder"
            )
    count = done.written + len(done.skipped)
    if done.names and done.names != _add_names(hashlib.sha256(), found.episodes[:count]).hexdigest():
        raise ValueError(
            f"{target} was converted from {count} recordings, which are no longer the first of {done.source}: some "
            "were removed, renamed or added between them; convert into another folder"
        )
    return replace(done, options=mine)


def _add_names(digest: Any, names: Iterable[str]) -> Any:
    """Update a hash with names, and return it."""
    for name in names:
        digest.update(f"{name}\n".encode())
    return digest


def _write_report(target: Path, report: ImportReport) -> None:
    write_json(target / REPORT, {name: value for name, value in asdict(report).items() if name != "added"})


def stage(number: int, *, source: Importer, folder: Path) -> str:
    """Encode one episode into `folder/<number>`; return what is wrong with it if it cannot be read, else nothing."""
    place = folder / str(number)
    shutil.rmtree(place, ignore_errors=True)
    try:
        content = source.read(number)
        writer = LeRobotWriter(place, source.robot, source.fps, image_format=source.pictures)
        writer.add_episode(content.frames, task=content.task, persistent=content.persistent, labels=content.labels)
    except (ValueError, FileNotFoundError) as error:
        return str(error)
    return ""


def _run(
    found: Importer,
    writer: LeRobotWriter,
    done: ImportReport,
    *,
    skip_bad: bool,
    progress: bool,
    parallel_map: ParallelMap,
) -> ImportReport:
    """Converts what is not converted yet."""
    writer.truncate(done.written)  # one may be whole on disk and not counted
    folder = writer.path / STAGED
    skipped, written = list(done.skipped), done.written
    first, total = written + len(skipped), len(found.episodes)
    names = _add_names(hashlib.sha256(), found.episodes[:first])
    bar = tqdm(total=total, initial=first, unit="episode", desc=f"writing {writer.path.name}", disable=not progress)
    with bar, closing(parallel_map(partial(stage, source=found, folder=folder), range(first, total))) as reasons:
        for number, reason in enumerate(reasons, first):
            try:
                if reason:
                    raise ValueError(reason)
                writer.adopt(folder / str(number))
                written += 1
            except ValueError as error:
                if not skip_bad:
                    raise ValueError(f"{error} (to go on without such episodes: --skip-bad)") from error
                skipped.append((found.episodes[number], str(error)))
            _add_names(names, [found.episodes[number]])
            done = replace(
                done, written=written, skipped=tuple(skipped), left_out=tuple(found.left_out),
                names=names.hexdigest(), added=done.added + written - done.written,
            )  # fmt: skip
            _write_report(writer.path, done)
            bar.update()
            bar.set_postfix(skipped=len(skipped))
    return done
