"""Folders that lie elsewhere: `hf://owner/repo[@revision][/folder]`, `gs://bucket/folder`, and whatever fsspec opens.

`fetch` brings the files that are asked for onto this machine, once. Each version (a commit of the hub, or the sizes and
stamps of the files) has a folder of its own, a file gets its name when it is whole, and the folder is handed out when
all files are there: what broke off is never taken for whole, and the next call goes on with it.
"""

import hashlib
import json
import os
import re
import socket
import threading
import warnings
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from importlib import import_module
from pathlib import Path, PurePosixPath
from typing import Any, Literal, Protocol
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies

from pilot.data.storage.files import atomic_write, find_cache, write_json
from pilot.names import shorten

HUB = re.compile(
    r"hf://(?:(?P<kind>models|datasets|spaces)/)?(?P<repo>[\w.-]+/[\w.-]+?)"
    r"(?:@(?P<revision>refs/(?:pr|convert)/[^/]+|[^/]+))?(?:/(?P<folder>.*))?"
)
STAMPS = ("etag", "ETag", "md5Hash", "generation", "mtime", "LastModified", "updated", "created")
MAX_DOWNLOADS = 4
REACH_SECONDS = 4.0
HUB_SERVER, GOOGLE_STORAGE = "https://huggingface.co", "https://storage.googleapis.com"
CHECKPOINT_FILES = (
    "*.json", "*.safetensors", "*.model", "*.npz", "fast/*", "tokenizer/*", "action_tokenizer/*", "robots/**",
    "assets/**", "params/**", "_*", "manifest.ocdbt", "ocdbt.process_*/**", "d/**",
)  # fmt: skip
"""What belongs to a checkpoint of any kind; not its optimizer's state, older steps beside it, or films."""


def is_remote(address: str | Path) -> bool:
    """Return whether `address` is a URL; a `Path` made of one, which has lost a slash, counts too."""
    return re.match(r"[A-Za-z][\w+.-]+:/", str(address)) is not None


def fetch(address: str | Path, *, only: Sequence[str] = ("**",)) -> Path:
    """Return where the folder (or file) `address` lies on this machine, fetched if need be; a local path is itself.

    `only` are patterns of the files to bring, relative to the folder: `*` stays within one level, `**` does not. A hub
    or store that does not answer is a warning when everything asked for is here from an earlier time.

    Raises:
        FileNotFoundError: no such repository, revision or folder, or nothing in it that `only` asks for.
        PermissionError: it is gated or private.
        ConnectionError: no answer, and no whole copy here.
        ImportError: the library that opens such an address is not installed.
    """
    if not is_remote(address):
        return _local(Path(address).expanduser())
    place = open_remote(address)
    url = place.url
    record = find_cache() / "records" / f"{_digest([url, *only])}.json"
    try:
        found = place.files()
    except ConnectionError as error:
        return _earlier_copy(record, url, error)
    wanted = {name: size for name, size in found.items() if not name or matches_any(name, only)}
    if not wanted:
        raise FileNotFoundError(f"nothing to fetch at {url}: of {list(only)} there is nothing among {shorten(found)}")
    folder = place.download(wanted)
    write_json(record, {"url": url, "folder": str(folder), "files": sorted(wanted)})
    return folder


def fetch_checkpoint(address: str | Path) -> Path:
    """Return where a checkpoint lies on this machine, fetched if need be; the folder of a run stands for its policy.

    Raises:
        FileNotFoundError: nothing there, or a run that has saved no policy yet; and what `fetch` raises.
    """
    folder = fetch(address, only=CHECKPOINT_FILES)
    policy = folder / "policy"
    if (policy / "config.json").is_file() and not (folder / "model.safetensors").exists():
        return policy
    if (folder / "train.log").is_file() and not policy.exists():
        raise FileNotFoundError(f"{address} is a run that has not saved a policy yet; wait for its first checkpoint")
    return folder


def open_remote(address: str | Path) -> "RemoteFolder":
    """Return the remote folder (or file) at `address`."""
    url = re.sub(r"^([\w+.-]+:)/(?!/)", r"\1//", str(address)).rstrip("/")
    return HubFolder(url) if url.startswith("hf://") else FsspecFolder(url)


class RemoteFolder(Protocol):
    """A remote folder."""

    url: str

    def files(self) -> Mapping[str, int | None]:
        """List names relative to the folder, with sizes in bytes; the name of an address that is itself a file is
        ''."""
        ...

    def version(self) -> str:
        """Return a text that differs when the files that `files` has found do."""
        ...

    def download(self, wanted: Mapping[str, int | None]) -> Path:
        """Copy files of these names and sizes to this machine; return the folder that holds them."""
        ...

    def copy(self, name: str, folder: Path, size: int | None) -> None:
        """Copy one file to its place in `folder`, whole or not at all. Raises `ConnectionError`."""
        ...

    def open_file(self, name: str) -> Any:
        """Open a file to read parts of it; None where only whole files can be had."""
        ...


class HubFolder:
    """A folder of a Hugging Face repository; its files lie in that library's own cache, shared with other tools."""

    def __init__(self, url: str) -> None:
        match = HUB.fullmatch(url)
        if match is None:
            raise ValueError(f"'{url}' is not an address of the hub; write hf://owner/repo[@revision][/folder]")
        self.url, self.repo, self.folder = url, match["repo"], (match["folder"] or "").strip("/")
        self.revision = unquote(match["revision"]) if match["revision"] else None
        self.kind = (match["kind"] or "models").removesuffix("s")
        self.endpoint = os.environ.get("HF_ENDPOINT") or None
        self.commit = ""

    def files(self) -> dict[str, int | None]:
        hub = _library("huggingface_hub.errors")
        errors = hub.errors
        check_reachable(self.endpoint or HUB_SERVER, self.url)
        api = hub.HfApi(endpoint=self.endpoint)
        try:
            info = api.repo_info(self.repo, revision=self.revision, repo_type=self.kind, files_metadata=True)
        except errors.GatedRepoError as error:
            raise PermissionError(
                f"{self.url} is gated: accept its terms on the hub, then run: hf auth login"
            ) from error
        except errors.RepositoryNotFoundError as error:
            raise FileNotFoundError(
                f"no {self.kind} '{self.repo}' on the hub; if it is a private one, run: hf auth login"
            ) from error
        except errors.RevisionNotFoundError as error:
            raise FileNotFoundError(f"'{self.repo}' has no revision '{self.revision}' on the hub") from error
        except Exception as error:  # each version of that library has other names for "no answer"
            raise ConnectionError(f"the hub does not answer for {self.url} ({_in_short(error)})") from error
        self.commit = info.sha
        sizes = {item.rfilename: item.size for item in info.siblings or []}
        if not (inside := _inside(list(sizes), self.folder)):
            raise FileNotFoundError(f"'{self.repo}' has no '{self.folder}'; it has {shorten(sizes)}")
        return {name: sizes[str(PurePosixPath(self.folder, name))] for name in inside}

    def version(self) -> str:
        return self.commit[:16]

    def copy(self, name: str, folder: Path, size: int | None) -> None:
        hub, path = _library("huggingface_hub.errors"), str(PurePosixPath(self.folder, name))
        own = {"revision": self.commit, "repo_type": self.kind, "endpoint": self.endpoint}
        try:
            brought = Path(hub.hf_hub_download(self.repo, path, local_dir=folder / ".hub", **own))
        except Exception as error:
            raise _broke_off(f"{self.url}: {name}", error) from error
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        os.replace(brought, folder / name)

    def open_file(self, name: str) -> None:
        return None

    def download(self, wanted: Mapping[str, int | None]) -> Path:
        hub = _library("huggingface_hub.errors")

        def one(name: str) -> str:
            path = str(PurePosixPath(self.folder, name))
            return hub.hf_hub_download(
                self.repo, path, revision=self.commit, repo_type=self.kind, endpoint=self.endpoint
            )

        try:
            with ThreadPoolExecutor(MAX_DOWNLOADS) as pool:
                name, file = next(zip(wanted, list(pool.map(one, wanted)), strict=False))
        except Exception as error:
            raise _broke_off(self.url, error) from error
        return Path(file).parents[len(PurePosixPath(name).parts) - 1] if name else Path(file)


class FsspecFolder:
    """A folder that fsspec opens (`gs://`, `s3://`, `memory://`, …), copied into pilot's own cache."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.stamps: dict[str, str] = {}

    @cached_property
    def _opened(self) -> tuple[Any, str]:
        """The file system and the folder's path in it; libraries of stores look for credentials here, for seconds."""
        fsspec = _library("fsspec.core")
        try:
            return fsspec.core.url_to_fs(self.url)
        except ImportError as error:
            raise ImportError(
                f"{self.url} needs a library that is not here: pip install 'pilot[hub]' ({error})"
            ) from error

    @property
    def system(self) -> Any:
        """The file system that the folder lies in."""
        return self._opened[0]

    @property
    def root(self) -> str:
        """The path of the folder in its file system."""
        return self._opened[1]

    def files(self) -> dict[str, int | None]:
        if self.url.startswith("gs://"):
            check_reachable(os.environ.get("STORAGE_EMULATOR_HOST") or GOOGLE_STORAGE, self.url)
        system, root = self._opened
        try:
            found: dict[str, dict[str, Any]] = system.find(root, detail=True)
        except (FileNotFoundError, PermissionError):
            raise
        except Exception as error:  # each store has errors of its own
            raise ConnectionError(f"no answer for {self.url} ({_in_short(error)})") from error
        if not found:
            raise FileNotFoundError(f"nothing lies at {self.url}")
        names = {path: path[len(self.root) :].lstrip("/") for path in found}
        if unsafe := [name for name in names.values() if ".." in PurePosixPath(name).parts]:
            raise ValueError(f"{self.url} has names that lead out of it: {shorten(unsafe)}")
        self.stamps = {names[p]: str([entry.get(key) for key in ("size", *STAMPS)]) for p, entry in found.items()}
        return {names[p]: entry.get("size") for p, entry in found.items()}

    def download(self, wanted: Mapping[str, int | None]) -> Path:
        slug = re.sub(r"[^\w.-]+", "-", self.url).strip("-")[-80:]
        folder = find_cache() / "stored" / f"{slug}-{_digest([self.stamps[name] + name for name in wanted])}"
        alone = folder / PurePosixPath(self.root).name  # where the address is a file, not a folder
        for name, size in wanted.items():
            target = folder / name if name else alone
            if not (target.is_file() and size in (None, target.stat().st_size)):
                self._copy(name, target, size)
        return folder if "" not in wanted else alone

    def version(self) -> str:
        return _digest(stamp + name for name, stamp in self.stamps.items())

    def copy(self, name: str, folder: Path, size: int | None) -> None:
        self._copy(name, folder / name, size, quiet=True)

    def open_file(self, name: str) -> Any:
        return self.system.open(f"{self.root}/{name}", "rb", cache_type="none")

    def _copy(self, name: str, target: Path, size: int | None, *, quiet: bool = False) -> None:
        source = f"{self.root}/{name}" if name else self.root
        with atomic_write(target) as temporary:
            try:
                self.system.get_file(source, str(temporary), callback=_progress(source, 0 if quiet else size))
            except Exception as error:
                raise _broke_off(source, error) from error
            if size is not None and (got := temporary.stat().st_size) != size:
                raise ConnectionError(f"{source} arrived with {got} of its {size} bytes; run the same command again")


def check_reachable(server: str, url: str) -> None:
    """Raise `ConnectionError` if nothing answers at a server within seconds; libraries try again for a minute.

    Behind a proxy nobody knows before asking, so there nothing is checked.
    """
    parts = urlsplit(server if "://" in server else f"https://{server}")
    if getproxies().get(parts.scheme) or not parts.hostname:
        return
    place = parts.hostname, parts.port or {"http": 80}.get(parts.scheme, 443)
    answers: list[OSError | None] = []

    def knock() -> None:
        try:
            socket.create_connection(place, REACH_SECONDS).close()
            answers.append(None)
        except OSError as error:
            answers.append(error)

    # In a thread that nothing waits for at the end: looking up a name has no limit of its own.
    thread = threading.Thread(target=knock, daemon=True)
    thread.start()
    thread.join(REACH_SECONDS)
    error = answers[0] if answers else TimeoutError(f"no answer within {REACH_SECONDS:g} s")
    if error is not None:
        raise ConnectionError(
            f"{parts.hostname} does not answer for {url} ({_in_short(error)}); without a network, give a folder of "
            "this machine"
        ) from error


def _local(path: Path) -> Path:
    if not path.exists() and re.fullmatch(r"[\w-]+/[\w.-]+", str(path)):
        raise FileNotFoundError(f"there is no folder {path}; if it is a repository of the hub, write hf://{path}")
    return path


def _earlier_copy(record: Path, url: str, error: ConnectionError) -> Path:
    if record.is_file():
        content = json.loads(record.read_text())
        folder = Path(content["folder"])
        if all((folder / name).is_file() for name in content["files"]):
            warnings.warn(f"{error}; taking the copy of {url} fetched earlier: {folder}", stacklevel=3)
            return folder
    raise error


def _inside(names: Sequence[str], folder: str) -> list[str]:
    """Return the names in `folder`, relative to it; [''] when `folder` is a file."""
    if folder in names:
        return [""]
    prefix = f"{folder}/" if folder else ""
    return [name[len(prefix) :] for name in names if name.startswith(prefix)]


def matches_any(name: str, patterns: Iterable[str]) -> bool:
    """Return whether a path matches one of the patterns; `*` stays within a folder, `**` does not."""
    wild = {"**": ".*", "*": "[^/]*"}
    regexes = ("".join(wild.get(part, re.escape(part)) for part in re.split(r"(\*\*|\*)", p)) for p in patterns)
    return any(re.fullmatch(regex, name) for regex in regexes)


def _library(name: Literal["huggingface_hub.errors", "fsspec.core"]) -> Any:
    """Import an optional library, here and nowhere else; return the package of the module."""
    package = name.partition(".")[0]
    try:
        import_module(name)
        return import_module(package)
    except ImportError as error:
        raise ImportError(f"remote paths need {package}: pip install 'pilot[hub]'") from error


def _progress(source: str, size: int | None) -> Any:
    callbacks = _library("fsspec.core").callbacks
    if size is None or size < 1 << 24:
        return callbacks.NoOpCallback()
    return callbacks.TqdmCallback(tqdm_kwargs={"desc": PurePosixPath(source).name, "unit": "B", "unit_scale": True})


def _digest(parts: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(sorted(parts)).encode()).hexdigest()[:16]


def _broke_off(what: str, error: Exception) -> ConnectionError:
    return ConnectionError(f"fetching {what} broke off ({_in_short(error)}); the same command goes on with it")


def _in_short(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no reason given'}"
