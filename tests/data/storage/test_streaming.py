"""Sets in a store and on a hub: which files come when, what goes when there is no more room, and the same rows."""

import fcntl
import io
import os
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from data.formats.test_lerobot_v2 import write as write_v2
from data.hub_server import Hub, serving
from data.recordings import ROBOT, episode, number_of, record, record_numbered_films
from data.records import LAYOUT, RECORDS, copy_tiny_arm, messages, write_records

from pilot.contracts import examples
from pilot.data.formats import lerobot_layout as fmt
from pilot.data.formats.episodes import EpisodeDataset
from pilot.data.formats.lerobot import LeRobotDataset
from pilot.data.formats.open_dataset import open_episodes, open_image_text
from pilot.data.formats.rlds import RldsDataset
from pilot.data.formats.writer import encode_png
from pilot.data.loading.loader import Loader, RobotRows
from pilot.data.mixture import Mixture
from pilot.data.storage import streaming
from pilot.data.storage.remote import HubFolder
from pilot.data.storage.streaming import GB, StreamedFolder
from pilot.models.pi import pi05

fsspec = pytest.importorskip("fsspec")
pytest.importorskip("av")
EPISODES, LENGTH = 8, 12


class Store:
    """A bucket in memory. `whole`: files that were copied; `parts`: bytes that were read of others."""

    def __init__(self) -> None:
        self.system = fsspec.filesystem("memory")
        self.whole: list[str] = []
        self.parts: dict[str, int] = {}

    def put(self, folder: Path) -> None:
        for file in (file for file in folder.rglob("*") if file.is_file() and ".pilot" not in file.parts):
            self.system.pipe(f"/sets/{folder.name}/{file.relative_to(folder).as_posix()}", file.read_bytes())

    def taken(self) -> list[str]:
        """What was copied since it was asked last."""
        found, self.whole = self.whole, []
        return sorted(found)


@pytest.fixture
def store(monkeypatch, tmp_path) -> Iterator[Store]:
    monkeypatch.setenv("PILOT_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("PILOT_CACHE_GB", raising=False)
    found = Store()
    kind = type(found.system)
    copy, opening = kind.get_file, kind._open

    def get_file(self, source: str, target: str, **options) -> None:
        found.whole.append(source.split("/", 3)[-1])
        copy(self, source, target, **options)

    def _open(self, path: str, *rest, **options) -> io.BytesIO:
        name = path.split("/", 3)[-1]
        found.parts.setdefault(name, 0)

        class Counted(io.BytesIO):
            def read(self, size: int | None = -1) -> bytes:
                content = super().read(size)
                found.parts[name] += len(content)
                return content

        return Counted(opening(self, path, *rest, **options).getvalue())

    monkeypatch.setattr(kind, "get_file", get_file)
    monkeypatch.setattr(kind, "_open", _open)
    yield found
    for name in [name for name in found.system.store if name.startswith("/sets/")]:
        del found.system.store[name]


@pytest.fixture(scope="module")
def filmed(tmp_path_factory) -> Path:
    """Eight episodes of two tasks, each in an mp4 of its own."""
    path = tmp_path_factory.mktemp("sets") / "filmed"
    record_numbered_films(path, EPISODES, length=LENGTH)
    return path


def film(number: int, camera: str = "room") -> str:
    return f"videos/{fmt.IMAGES}{camera}/chunk-000/file-{number:03d}.mp4"


def open_dataset(name: str, **options) -> EpisodeDataset:
    return open_episodes(f"memory://sets/{name}", 4, layouts=lambda _: LAYOUT, **options)


def same_rows(a: EpisodeDataset, b: EpisodeDataset) -> None:
    assert len(a) == len(b) and a.tasks == b.tasks
    for i in range(len(a)):
        one, other = a.frame(i), b.frame(i)
        assert {n: v for n, v in one.items() if isinstance(v, str | int | None | tuple)} == {
            n: v for n, v in other.items() if isinstance(v, str | int | None | tuple)
        }
        for name in ("state", "actions", "action_is_pad"):
            np.testing.assert_array_equal(one[name], other[name])
        for camera, picture in one["images"].items():
            np.testing.assert_array_equal(picture, other["images"][camera])


# --- which files come when ------------------------------------------------------------------------------------------


def test_films_come_when_a_row_is_read(store, filmed):
    store.put(filmed)
    dataset = open_dataset("filmed", cameras=["room"])
    first = store.taken()
    assert "meta/info.json" in first and all(name.startswith("meta/") for name in first)
    assert number_of(dataset.picture(2 * LENGTH + 3, "room")) == 2 * LENGTH + 3
    assert number_of(dataset.picture(2 * LENGTH, "room")) == 2 * LENGTH
    assert store.taken() == [film(2)]
    store.parts.clear()
    again = open_dataset("filmed", cameras=["room"])
    assert store.taken() == [] and store.parts == {}, "columns and what is said of the set are kept"
    assert number_of(again.picture(LENGTH, "room")) == LENGTH and store.taken() == [film(1)]
    same_rows(again, LeRobotDataset(filmed, 4, cameras=["room"]))


def test_columns_come_without_the_pictures_beside_them(store, tmp_path):
    rng = np.random.default_rng(0)
    large = {fmt.IMAGES + "room": rng.integers(0, 256, (20, 96, 96, 3), dtype=np.uint8)}
    record(tmp_path / "pictures", [episode(rng, 20) | large for _ in range(3)])
    store.put(tmp_path / "pictures")
    data = "data/chunk-000/file-000.parquet"
    size = (tmp_path / "pictures" / data).stat().st_size
    dataset = open_dataset("pictures")
    assert data not in store.taken() and 0 < store.parts[data] < size / 2
    dataset.frame(0)
    assert store.taken() == [data]
    same_rows(dataset, LeRobotDataset(tmp_path / "pictures", 4))


def test_lerobot_v2_episode_by_episode(store, tmp_path):
    write_v2(tmp_path / "old", codec={"codec": "libx264", "g": "2"})
    store.put(tmp_path / "old")
    dataset = open_dataset("old")
    assert not [name for name in store.taken() if name.endswith(".mp4")]
    dataset.frame(0)
    assert store.taken() == ["videos/chunk-000/observation.images.top/episode_000000.mp4"]
    same_rows(dataset, LeRobotDataset(tmp_path / "old", 4))


def test_record_files_are_read_once_and_again_when_rows_are(store, tmp_path):
    path = copy_tiny_arm(tmp_path / "rlds")
    shards = split_in_two(path)
    store.put(tmp_path / "rlds")
    dataset = open_dataset("rlds")
    assert isinstance(dataset, RldsDataset)
    assert [name for name in store.taken() if "tfrecord" in name] == [f"1.0.0/{name}" for name in shards]
    shutil.rmtree(dataset.path.parent / "1.0.0" / shards[0], ignore_errors=True)
    for name in shards:
        (dataset.path / name).unlink()
    again = open_dataset("rlds")
    assert store.taken() == [], "columns and places are kept"
    again.frame(len(again) - 1)
    assert store.taken() == [f"1.0.0/{shards[1]}"]
    same_rows(again, RldsDataset(path, 4, layout=LAYOUT))


def split_in_two(path: Path) -> list[str]:
    """Two record files where there was one."""
    content = messages(path / RECORDS)
    (path / RECORDS).unlink()
    names = [RECORDS.replace("00000-of-00001", f"0000{i}-of-00002") for i in range(2)]
    write_records(path / names[0], content[:2])
    write_records(path / names[1], content[2:])
    info = path / "dataset_info.json"
    text = info.read_text()
    assert '"3"' in text
    info.write_text(text.replace('"3"', '"2", "1"'))
    return names


def test_tars_come_one_by_one(store, tmp_path):
    (tmp_path / "web").mkdir()
    for number in range(3):
        with tarfile.open(tmp_path / f"web/{number}.tar", "w") as archive:
            for name, content in (("a.png", picture(number)), ("a.txt", f"picture {number}".encode())):
                entry = tarfile.TarInfo(name)
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
    store.put(tmp_path / "web")
    rows = open_image_text("memory://sets/web")
    assert store.taken() == ["0.tar", "1.tar", "2.tar"], "to learn what is in them"
    for file in Path(rows.path).glob("*.tar"):
        file.unlink()
    rows = open_image_text("memory://sets/web")
    assert len(rows) == 3 and store.taken() == []
    assert rows.sample(1).answer == "picture 1" and store.taken() == ["1.tar"]


def picture(number: int) -> bytes:
    return encode_png(np.full((8, 8, 3), number, np.uint8))


def test_a_set_on_the_hub(store, filmed, monkeypatch):
    with serving() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        put_on_hub(hub, filmed)
        dataset = open_episodes("hf://desk/filmed", 4, layouts=lambda _: LAYOUT, cameras=["room"])
        assert not [name for name in hub.fetched() if name.endswith(".mp4")]
        assert number_of(dataset.picture(LENGTH, "room")) == LENGTH
        assert [name for name in hub.fetched() if name.endswith(".mp4")] == [film(1)]

    def no_answer(self) -> dict[str, int | None]:
        raise ConnectionError("the hub does not answer")

    monkeypatch.setattr(HubFolder, "files", no_answer)
    with pytest.warns(UserWarning, match="taking it for what it was when it was read last"):
        offline = open_episodes("hf://desk/filmed", 4, layouts=lambda _: LAYOUT, cameras=["room"])
    assert number_of(offline.picture(LENGTH + 1, "room")) == LENGTH + 1, "what came before is here"


def put_on_hub(hub: Hub, folder: Path) -> None:
    files = {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    hub.commit("desk/filmed", files)


# --- ahead ----------------------------------------------------------------------------------------------------------


def wait_for(folder: StreamedFolder) -> None:
    for thread in list(folder._threads):
        thread.join()


def test_files_come_ahead_of_their_rows(store, filmed, monkeypatch):
    store.put(filmed)
    monkeypatch.setattr("pilot.data.loading.loader.FILES_AHEAD", 2)
    loader = loader_of("memory://sets/filmed", batch_size=2)
    store.taken()
    loader.rows(0)
    wait_for(folder_of(loader))
    draws = [draw for step in range(3) for draw in loader.mixture.draw(step, 2)]
    assert store.taken() == sorted({film(draw.index // LENGTH) for draw in draws})
    loader.rows(1)
    wait_for(folder_of(loader))
    coming = {film(draw.index // LENGTH) for draw in loader.mixture.draw(3, 2)}
    assert set(store.taken()) == coming - {film(draw.index // LENGTH) for draw in draws}


def test_ranks_fetch_files_of_their_own(store, filmed, tmp_path, monkeypatch):
    """As on two machines, each with a cache of its own."""
    store.put(filmed)
    taken = []
    for rank in range(2):
        monkeypatch.setenv("PILOT_CACHE", str(tmp_path / f"machine {rank}"))
        loader = loader_of("memory://sets/filmed", batch_size=8, streams=2, rank=rank, ranks=2)
        for step in range(10):
            for draw in loader.mixture.draw(step, 8, rank=rank, ranks=2):
                loader.mixture.read(draw)
        taken.append({name for name in store.taken() if name.endswith(".mp4")})
    assert taken[0].isdisjoint(taken[1]) and len(taken[0] | taken[1]) == EPISODES


def loader_of(address: str, *, batch_size: int, streams: int = 1, **options) -> Loader:
    config = pi05("debug", action_horizon=4)
    dataset = open_episodes(address, 4, layouts=lambda _: LAYOUT, cameras=["room"])
    mixture = Mixture({"robot": RobotRows("robot", dataset, loc_stride=1)}, seed=1, streams=streams, draws="windows")
    return Loader(mixture, examples.make_pipeline(ROBOT, config, with_fast=False), batch_size=batch_size, **options)


def folder_of(loader: Loader) -> StreamedFolder:
    rows = loader.mixture.sources["robot"]
    assert isinstance(rows, RobotRows) and isinstance(rows.dataset.folder, StreamedFolder)
    return rows.dataset.folder


# --- room -----------------------------------------------------------------------------------------------------------


def plain(store: Store, tmp_path: Path, count: int = 6, size: int = 1000) -> None:
    (tmp_path / "plain/meta").mkdir(parents=True)
    for number in range(count):
        (tmp_path / f"plain/{number}.bin").write_bytes(bytes([number]) * size)
    (tmp_path / "plain/meta/big").write_bytes(bytes(5000))
    store.put(tmp_path / "plain")


def here(folder: StreamedFolder) -> list[str]:
    return sorted(file.name for file in folder.path.glob("*.bin"))


def read(folder: StreamedFolder, number: int) -> None:
    file = folder.path / f"{number}.bin"
    assert folder.open_cached(file, lambda: file.open("rb")).read(1) in (bytes([number]), b"")


def test_the_least_lately_opened_make_room(store, tmp_path):
    plain(store, tmp_path)
    folder = StreamedFolder("memory://sets/plain", limit_gb=3500 / GB)
    folder.fetch("meta/**")
    for number in (0, 1, 2):
        with folder.hold_file(folder.path / f"{number}.bin"):
            pass
    assert here(folder) == ["0.bin", "1.bin", "2.bin"]
    for number, opened_at in ((1, 1), (0, 2), (2, 3)):  # seconds of 1970
        os.utime(folder.path / f"{number}.bin", (opened_at, opened_at))
    read(folder, 3)
    assert here(folder) == ["0.bin", "2.bin", "3.bin"]
    read(folder, 0)
    read(folder, 4)
    assert here(folder) == ["0.bin", "3.bin", "4.bin"]
    assert (folder.path / "meta/big").exists(), "what a set says of itself stays"


def test_what_is_open_stays(store, tmp_path):
    plain(store, tmp_path)
    other = StreamedFolder("memory://sets/plain")
    for number in (0, 1):
        read(other, number)  # another process has them open
    folder = StreamedFolder("memory://sets/plain", limit_gb=3500 / GB)
    read(folder, 2)
    read(folder, 3)
    assert here(folder) == ["0.bin", "1.bin", "3.bin"], "its own oldest was closed for it"
    other._close_oldest()
    read(folder, 4)
    assert here(folder) == ["1.bin", "3.bin", "4.bin"]
    tight = StreamedFolder("memory://sets/plain", limit_gb=500 / GB)
    with pytest.warns(UserWarning, match="open at once need .* more than the cache may hold; raise cache_gb"):
        read(tight, 5)
    assert "5.bin" in here(folder), "rather too much than to wait for ever"


def test_files_ahead_close_nothing(store, tmp_path):
    plain(store, tmp_path)
    folder = StreamedFolder("memory://sets/plain", limit_gb=2500 / GB)
    read(folder, 0)
    read(folder, 1)
    folder.prefetch([folder.path / "2.bin"])
    wait_for(folder)
    assert here(folder) == ["0.bin", "1.bin"] and list(folder._open) == [folder.path / "0.bin", folder.path / "1.bin"]
    read(folder, 2)
    assert here(folder) == ["1.bin", "2.bin"]


def test_the_limit_of_the_environment(store, tmp_path, monkeypatch):
    plain(store, tmp_path)
    monkeypatch.setenv("PILOT_CACHE_GB", str(1500 / GB))
    folder = StreamedFolder("memory://sets/plain")
    for number in range(4):
        read(folder, number)
    assert here(folder) == ["3.bin"]


def test_what_breaks_off_leaves_nothing(store, tmp_path, monkeypatch):
    plain(store, tmp_path)
    folder = StreamedFolder("memory://sets/plain")
    copy = type(store.system).get_file

    def breaking(self, source: str, target: str, **options) -> None:
        Path(target).write_bytes(b"half")
        raise OSError("reset by peer")

    monkeypatch.setattr(type(store.system), "get_file", breaking)
    with pytest.raises(ConnectionError, match=r"0\.bin broke off .*goes on with it"):
        read(folder, 0)
    folder.prefetch([folder.path / "1.bin"])
    wait_for(folder)
    assert here(folder) == [] and not list(folder.path.rglob("*.tmp"))
    monkeypatch.setattr(type(store.system), "get_file", copy)
    read(folder, 0)
    read(folder, 1)


def test_a_file_that_nobody_knows(store, tmp_path):
    plain(store, tmp_path)
    folder = StreamedFolder("memory://sets/plain")
    assert folder.has(folder.path / "0.bin") and not folder.has(folder.path / "7.bin")
    with pytest.raises(FileNotFoundError, match=r"memory://sets/plain has no '7.bin', it has 0.bin, 1.bin"):
        read(folder, 7)


def test_a_file_whose_opening_fails_is_let_go(store, tmp_path):
    plain(store, tmp_path)
    folder = StreamedFolder("memory://sets/plain")

    def refuse() -> io.BytesIO:
        raise ValueError("damaged")

    with pytest.raises(ValueError, match="damaged"):
        folder.open_cached(folder.path / "0.bin", refuse)
    with (folder.path / "0.bin").open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # nobody holds it


def test_another_state_of_the_store_is_another_folder(store, tmp_path):
    plain(store, tmp_path)
    before = StreamedFolder("memory://sets/plain")
    store.system.pipe("/sets/plain/0.bin", bytes(999))
    assert StreamedFolder("memory://sets/plain").path != before.path
    assert streaming._slug("gs://bucket/a b") == "gs---bucket-a-b"


def test_addresses_that_look_alike_have_folders_of_their_own(store, tmp_path, monkeypatch):
    """Offline, the last listing of the one would be taken for that of the other."""
    for name in ("pick_cup", "pick-cup"):
        store.system.pipe(f"/sets/{name}/meta/{name}.json", b"{}")
        StreamedFolder(f"memory://sets/{name}")

    def offline(self) -> None:
        raise ConnectionError("no network")

    monkeypatch.setattr(type(streaming.open_remote("memory://sets/pick_cup")), "files", offline)
    with pytest.warns(UserWarning, match="taking it for what it was"):
        folder = StreamedFolder("memory://sets/pick_cup")
    assert list(folder.sizes) == ["meta/pick_cup.json"]


def test_a_folder_that_nobody_uses_holds_nothing(store, tmp_path):
    plain(store, tmp_path)
    folder = StreamedFolder("memory://sets/plain")
    read(folder, 0)
    file = folder.path / "0.bin"
    del folder
    with file.open("rb") as free:
        fcntl.flock(free, fcntl.LOCK_EX | fcntl.LOCK_NB)


@pytest.mark.parametrize("name", ["../x", "/etc/x"])
def test_names_that_lead_out_of_the_folder_are_refused(store, monkeypatch, name):
    monkeypatch.setattr(HubFolder, "files", lambda _: {name: 1})
    with pytest.raises(ValueError, match="lead out of it"):
        StreamedFolder("hf://desk/filmed")
