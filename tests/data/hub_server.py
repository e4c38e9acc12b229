"""A Hugging Face hub of one process, as far as `huggingface_hub` asks it: what a revision holds, and its files."""

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import unquote, urlsplit

import huggingface_hub.constants
import huggingface_hub.utils
import pytest


@dataclass
class Hub:
    """`repos[name][revision]` is a commit, `commits[sha]` its files, `asked` every request; `cut` files break off."""

    repos: dict[str, dict[str, str]] = field(default_factory=dict)
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    cut: set[str] = field(default_factory=set)
    gated: set[str] = field(default_factory=set)
    read_only: bool = False
    private: set[str] = field(default_factory=set)
    cards: list[str] = field(default_factory=list)  # those whose front was asked to be checked
    url: str = ""

    def commit(self, repo: str, files: dict[str, bytes], *, revision: str = "main") -> str:
        sha = hashlib.sha1(repr(sorted(files.items())).encode()).hexdigest()
        self.commits[sha] = files
        self.repos.setdefault(repo, {})[revision] = self.repos[repo][sha] = sha
        return sha

    def fetched(self) -> list[str]:
        """Files that were sent, not only asked about."""
        return [path.split("/", 5)[-1] for method, path in self.asked if method == "GET" and "/resolve/" in path]


@contextmanager
def serving() -> Iterator[Hub]:
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            answer(self, hub)

        def do_HEAD(self) -> None:
            answer(self, hub)

        def do_POST(self) -> None:
            take(self, hub)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def instead_of_the_real_one(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """For this process; what is fetched lies in `folder`."""
    monkeypatch.setenv("PILOT_CACHE", str(folder / "pilot"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(folder / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
    huggingface_hub.utils.disable_progress_bars()
    with serving() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        yield hub
    huggingface_hub.utils.enable_progress_bars()


def answer(request: BaseHTTPRequestHandler, hub: Hub) -> None:
    path = unquote(urlsplit(request.path).path)
    hub.asked.append((request.command, path))
    if info := re.fullmatch(r"/api/(?:models|datasets)/([^/]+/[^/]+)(?:/revision/(.+))?", path):
        return _info(request, hub, info[1], info[2] or "main")
    if file := re.fullmatch(r"/(?:datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
        return _file(request, hub, *file.groups())
    return _refuse(request, 404, "EntryNotFound")


def take(request: BaseHTTPRequestHandler, hub: Hub) -> None:
    """What is uploaded: a repository, which files go how, and a commit with their content."""
    path = unquote(urlsplit(request.path).path)
    hub.asked.append((request.command, path))
    body = _body(request)
    if hub.read_only:
        return _refuse(request, 403, "Forbidden")
    if path == "/api/validate-yaml":
        hub.cards.append(json.loads(body)["content"])
        return _reply(request, {"errors": [], "warnings": []})
    if path == "/api/repos/create":
        wanted = json.loads(body)
        name = f"{wanted['organization']}/{wanted['name']}"
        hub.repos.setdefault(name, {})
        is_private = wanted.get("private") or wanted.get("visibility") == "private"
        hub.private |= {name} if is_private else set()
        return _reply(request, {"url": f"{hub.url}/{name}"})
    if repo := re.fullmatch(r"/api/(?:models|datasets)/([^/]+/[^/]+)/preupload/main", path):
        names = [file["path"] for file in json.loads(body)["files"]]
        files = [{"path": name, "uploadMode": "regular", "shouldIgnore": False} for name in names]
        return _reply(request, {"files": files})
    if repo := re.fullmatch(r"/api/(?:models|datasets)/([^/]+/[^/]+)/commit/main", path):
        values = [json.loads(line)["value"] for line in body.splitlines() if json.loads(line)["key"] == "file"]
        before = hub.commits.get(hub.repos[repo[1]].get("main", ""), {})
        sha = hub.commit(repo[1], before | {file["path"]: base64.b64decode(file["content"]) for file in values})
        return _reply(request, {"commitOid": sha, "commitUrl": f"{hub.url}/{repo[1]}/commit/{sha}"})
    return _refuse(request, 404, "EntryNotFound")


def _body(request: BaseHTTPRequestHandler) -> bytes:
    if request.headers.get("Transfer-Encoding") != "chunked":
        return request.rfile.read(int(request.headers.get("Content-Length", 0)))
    chunks = []
    while size := int(request.rfile.readline(), 16):
        chunks.append(request.rfile.read(size))
        request.rfile.readline()
    request.rfile.readline()
    return b"".join(chunks)


def _reply(request: BaseHTTPRequestHandler, content: dict[str, object]) -> None:
    request.send_response(200)
    body = json.dumps(content).encode()
    request.send_header("Content-Type", "application/json")
    request.send_header("Content-Length", str(len(body)))
    request.end_headers()
    request.wfile.write(body)


def _info(request: BaseHTTPRequestHandler, hub: Hub, repo: str, revision: str) -> None:
    if repo in hub.gated:
        return _refuse(request, 403, "GatedRepo")
    if repo not in hub.repos:
        return _refuse(request, 404, "RepoNotFound")
    if revision not in hub.repos[repo]:
        return _refuse(request, 404, "RevisionNotFound")
    sha = hub.repos[repo][revision]
    siblings = [{"rfilename": name} for name in hub.commits[sha]]
    body = json.dumps({"id": repo, "modelId": repo, "sha": sha, "siblings": siblings}).encode()
    return _send(request, 200, body, {"Content-Type": "application/json"})


def _file(request: BaseHTTPRequestHandler, hub: Hub, repo: str, revision: str, name: str) -> None:
    sha = hub.repos.get(repo, {}).get(revision)
    if sha is None or name not in hub.commits[sha]:
        return _refuse(request, 404, "EntryNotFound")
    body = hub.commits[sha][name]
    headers = {"ETag": f'"{hashlib.sha1(body).hexdigest()}"', "X-Repo-Commit": sha, "Accept-Ranges": "bytes"}
    if request.command == "GET" and name in hub.cut:
        request.close_connection = True
        return _send(request, 200, body, headers, sent=body[: len(body) // 2])
    if wanted := re.fullmatch(r"bytes=(\d+)-", request.headers.get("Range", "")):
        start = int(wanted[1])
        headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
        return _send(request, 206, body[start:], headers)
    return _send(request, 200, body, headers)


def _send(
    request: BaseHTTPRequestHandler, status: int, body: bytes, headers: dict[str, str], *, sent: bytes | None = None
) -> None:
    request.send_response(status)
    for name, value in {**headers, "Content-Length": str(len(body))}.items():
        request.send_header(name, value)
    request.end_headers()
    if request.command != "HEAD":
        request.wfile.write(body if sent is None else sent)


def _refuse(request: BaseHTTPRequestHandler, status: int, code: str) -> None:
    _send(request, status, b"{}", {"X-Error-Code": code, "X-Error-Message": code, "Content-Type": "application/json"})
