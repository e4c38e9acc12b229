"""Paths elsewhere: what is fetched, when again, and that nothing half-fetched is ever handed out."""

import socket
from pathlib import Path

import fsspec
import huggingface_hub.constants
import huggingface_hub.utils
import pytest
from data import hub_server

from pilot.data.storage import remote
from pilot.data.storage.remote import fetch, fetch_checkpoint, is_remote

FILES = {
    "config.json": b"{}",
    "model.safetensors": bytes(range(256)) * 40,
    "fast/tokenizer.json": b"[1]",
    "checkpoints/000500/model.safetensors": b"an older one",
    "README.md": b"words",
}
CHECKPOINT = ("*.json", "*.safetensors", "fast/*")


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("PILOT_CACHE", str(tmp_path / "pilot"))
    return tmp_path / "pilot"


@pytest.fixture
def hub(cache, tmp_path, monkeypatch):
    with hub_server.instead_of_the_real_one(tmp_path, monkeypatch) as served:
        served.commit("desk/pi", FILES)
        yield served


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_what_is_remote():
    assert is_remote("hf://a/b") and is_remote("gs://bucket/x") and is_remote(Path("hf://a/b"))
    assert not any(map(is_remote, ["checkpoints/nano", "/a/b", "a:b", "C:\\models", "C:/models", Path("x")]))


def test_a_local_path_is_itself(tmp_path):
    assert fetch(tmp_path) == fetch(str(tmp_path)) == tmp_path
    assert fetch("nowhere") == Path("nowhere")  # whoever opens it says what is missing
    with pytest.raises(FileNotFoundError, match="hf://desk/pi05_base"):
        fetch("desk/pi05_base")


# --- the hub ----------------------------------------------------------------------------------------------------------


def test_only_what_is_asked_for_is_fetched_and_once(hub):
    folder = fetch("hf://desk/pi", only=CHECKPOINT)
    wanted = {name: FILES[name] for name in ("config.json", "model.safetensors", "fast/tokenizer.json")}
    assert content(folder) == wanted
    assert sorted(hub.fetched()) == sorted(wanted)
    assert fetch("hf://desk/pi", only=CHECKPOINT) == folder
    assert len(hub.fetched()) == 3, "the second time nothing is sent"


def test_a_path_object_of_an_address_works(hub):
    assert fetch(Path("hf://desk/pi/fast")) == fetch("hf://desk/pi/fast")


def test_a_folder_and_a_file_of_a_repository(hub):
    assert content(fetch("hf://desk/pi/checkpoints/000500"))["model.safetensors"] == b"an older one"
    assert fetch("hf://desk/pi/fast/tokenizer.json").read_bytes() == b"[1]"


@pytest.mark.parametrize("revision", ["v2", "refs/pr/1"])
def test_a_revision_is_that_revision(hub, revision):
    hub.commit("desk/pi", {"config.json": b"of the revision"}, revision=revision)
    assert (fetch(f"hf://desk/pi@{revision}") / "config.json").read_bytes() == b"of the revision"
    assert (fetch("hf://desk/pi", only=["*.json"]) / "config.json").read_bytes() == b"{}"
    sha = hub.repos["desk/pi"][revision]
    assert fetch(f"hf://desk/pi@{sha}") == fetch(f"hf://desk/pi@{revision}")


def test_a_new_commit_is_fetched(hub):
    fetch("hf://desk/pi", only=["*.json"])
    hub.commit("desk/pi", {"config.json": b"new"})
    assert (fetch("hf://desk/pi", only=["*.json"]) / "config.json").read_bytes() == b"new"


def test_what_breaks_off_is_not_taken_for_whole(hub, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # the library's own attempts to go on
    hub.cut = {"model.safetensors"}
    for _ in range(2):
        with pytest.raises(ConnectionError, match=r"broke off.*the same command goes on"):
            fetch("hf://desk/pi", only=CHECKPOINT)
    hub.cut = set()
    assert content(fetch("hf://desk/pi", only=CHECKPOINT))["model.safetensors"] == FILES["model.safetensors"]


def test_without_an_answer_the_whole_copy_of_before_is_taken(hub, monkeypatch):
    folder = fetch("hf://desk/pi", only=["*.json"])
    monkeypatch.setattr(huggingface_hub.HfApi, "repo_info", no_answer)
    with pytest.warns(UserWarning, match="does not answer.*fetched earlier"):
        assert fetch("hf://desk/pi", only=["*.json"]) == folder
    with pytest.raises(ConnectionError, match="does not answer"):
        fetch("hf://desk/pi", only=CHECKPOINT)  # more than was fetched then
    (folder / "config.json").unlink()
    with pytest.raises(ConnectionError, match="does not answer"):
        fetch("hf://desk/pi", only=["*.json"])


def no_answer(*_, **__):
    raise OSError("network is unreachable")


@pytest.mark.parametrize(
    ("address", "error", "message"),
    [
        ("hf://desk/none", FileNotFoundError, "no model 'desk/none' on the hub"),
        ("hf://desk/pi@v9", FileNotFoundError, "no revision 'v9'"),
        ("hf://desk/pi/none", FileNotFoundError, "has no 'none'; it has README.md"),
        ("hf://desk/closed", PermissionError, "hf auth login"),
        ("hf://desk", ValueError, "write hf://owner/repo"),
    ],
)
def test_what_is_wrong_with_an_address_is_said(hub, address, error, message):
    hub.commit("desk/closed", FILES)
    hub.gated = {"desk/closed"}
    with pytest.raises(error, match=message):
        fetch(address)


def test_nothing_of_the_kind_asked_for(hub):
    with pytest.raises(FileNotFoundError, match=r"of \['\*.npz'\] there is nothing among README.md"):
        fetch("hf://desk/pi", only=["*.npz"])


# --- stores -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def bucket(cache):
    store = fsspec.filesystem("memory")
    for name, data in FILES.items():
        store.pipe(f"/bucket/pi/{name}", data)
    yield store
    for name in [name for name in store.store if name.startswith("/bucket/")]:
        del store.store[name]


def test_a_stored_folder_is_copied_once(bucket, cache, monkeypatch):
    folder = fetch("memory://bucket/pi", only=CHECKPOINT)
    assert sorted(content(folder)) == ["config.json", "fast/tokenizer.json", "model.safetensors"]
    assert folder.is_relative_to(cache)
    monkeypatch.setattr(type(bucket), "get_file", no_answer)
    assert fetch("memory://bucket/pi/", only=CHECKPOINT) == folder


def test_a_stored_file(bucket):
    assert fetch("memory://bucket/pi/model.safetensors").read_bytes() == FILES["model.safetensors"]


def test_a_changed_store_is_another_copy(bucket):
    before = fetch("memory://bucket/pi", only=["*.json"])
    bucket.pipe("/bucket/pi/config.json", b"{ }")
    after = fetch("memory://bucket/pi", only=["*.json"])
    assert after != before and (after / "config.json").read_bytes() == b"{ }"
    bucket.pipe("/bucket/pi/README.md", b"other words")
    assert fetch("memory://bucket/pi", only=["*.json"]) == after, "what is not asked for does not count"


def test_a_copy_that_breaks_off_goes_on(bucket, monkeypatch):
    whole, copied = type(bucket).get_file, []

    def breaking(self, source, target, **options):
        copied.append(source)
        if len(copied) == 2:
            Path(target).write_bytes(b"half")
            raise OSError("reset by peer")
        whole(self, source, target, **options)

    monkeypatch.setattr(type(bucket), "get_file", breaking)
    with pytest.raises(ConnectionError, match="broke off"):
        fetch("memory://bucket/pi", only=CHECKPOINT)
    folder = fetch("memory://bucket/pi", only=CHECKPOINT)
    assert len(copied) == 4, "the first file was there already"
    assert content(folder)["model.safetensors"] == FILES["model.safetensors"]


def test_a_short_file_is_noticed(bucket, monkeypatch):
    monkeypatch.setattr(type(bucket), "get_file", lambda self, source, target, **_: Path(target).write_bytes(b""))
    with pytest.raises(ConnectionError, match="0 of its 2 bytes"):
        fetch("memory://bucket/pi", only=["config.json"])


def test_other_schemes_of_fsspec(bucket, tmp_path):
    (tmp_path / "config.json").write_bytes(b"local")
    assert (fetch(f"file://{tmp_path}") / "config.json").read_bytes() == b"local"
    with pytest.raises(ValueError, match=r"[Pp]rotocol"):
        fetch("nosuch://bucket/pi")
    with pytest.raises(FileNotFoundError):
        fetch("memory://bucket/none")


def test_names_that_lead_out_of_the_folder_are_refused(bucket, monkeypatch):
    found = {"/bucket/pi/../x": {"size": 1}}
    monkeypatch.setattr(type(bucket), "find", lambda *_, **__: found)
    with pytest.raises(ValueError, match="lead out"):
        fetch("memory://bucket/pi")


@pytest.mark.parametrize(("library", "address"), [("huggingface_hub", "hf://desk/pi"), ("fsspec", "memory://b/p")])
def test_a_missing_library_names_the_extra(cache, monkeypatch, library, address):
    monkeypatch.setitem(__import__("sys").modules, library, None)
    with pytest.raises(ImportError, match=r"pip install 'pilot\[hub\]'"):
        fetch(address)


def test_a_store_that_needs_a_library_of_its_own(cache, monkeypatch):
    def missing(url):
        raise ImportError("Please install gcsfs to access Google Storage")

    monkeypatch.setattr(fsspec.core, "url_to_fs", missing)
    monkeypatch.setattr(remote, "check_reachable", lambda server, url: None)
    with pytest.raises(ImportError, match=r"gs://bucket/pi needs.*pilot\[hub\].*gcsfs"):
        fetch("gs://bucket/pi")


def test_the_folder_of_a_run_stands_for_its_policy(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.json").write_text("{}")
    assert fetch_checkpoint(run) == run
    (run / "train.log").write_text("step 1/2  flow 1\n")
    with pytest.raises(FileNotFoundError, match="run that has not saved a policy yet"):
        fetch_checkpoint(run)
    (run / "policy").mkdir()
    (run / "policy" / "config.json").write_text("{}")
    assert fetch_checkpoint(run) == fetch_checkpoint(run / "policy") == run / "policy"
    (run / "model.safetensors").touch()
    assert fetch_checkpoint(run) == run


@pytest.mark.parametrize("url", ["hf://desk/pi", "gs://desk/pi"])
def test_without_a_network_the_answer_comes_before_any_library_tries_again(url, cache, monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for name in ("HF_ENDPOINT", "STORAGE_EMULATOR_HOST"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{port}")
    monkeypatch.setattr(huggingface_hub.HfApi, "repo_info", no_answer)
    monkeypatch.setattr(fsspec.core, "url_to_fs", no_answer)
    with pytest.raises(
        ConnectionError, match=rf"127.0.0.1 does not answer for {url} \(.*refused.*\); without a network"
    ):
        fetch(url)
