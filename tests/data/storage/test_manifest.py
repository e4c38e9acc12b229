"""A folder is as its manifest says, or the file that is not is named, with what to do."""

import json
import re
import shutil

import pytest

from pilot.cli import main
from pilot.data.storage import manifest as manifests
from pilot.data.storage.manifest import (
    MANIFEST,
    SET_ASIDE,
    check_files,
    made_by,
    parent,
    read_manifest,
    set_manifest_aside,
    source_commit,
    write_manifest,
)


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "set"
    (folder / "meta").mkdir(parents=True)
    (folder / "meta/info.json").write_text('{"fps": 10}')
    (folder / "rows.jsonl").write_text("{}\n")
    write_manifest(folder, kind="data set", files=[folder / "meta/info.json", folder / "rows.jsonl"], origin=made_by())
    return folder


def test_a_folder_as_it_was_written_passes(folder):
    manifest = check_files(folder, everything=True)
    assert manifest is not None and manifest == read_manifest(folder)
    assert list(manifest.files) == ["meta/info.json", "rows.jsonl"] and len(manifest.digest) == 64
    assert manifest.origin["versions"]["python"] and manifest.origin["parents"] == []
    (folder / "README.md").write_text("a page that somebody added")
    assert check_files(folder) == manifest


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: (f / "meta/info.json").write_text('{"fps": 20}'), "meta/info.json is not as it was written: its co"),
        (lambda f: (f / "rows.jsonl").write_text("{}"), "rows.jsonl has 2 bytes, and was written with 3"),
        (lambda f: (f / "rows.jsonl").unlink(), "rows.jsonl is missing, though the manifest names it"),
    ],
)
def test_a_changed_file_is_named_and_how_to_go_on(folder, change, message):
    change(folder)
    with pytest.raises((ValueError, FileNotFoundError), match=re.escape(message)) as error:
        check_files(folder)
    assert str(error.value).endswith(f"if the change is meant: pilot verify {folder} --accept")


def test_of_large_files_the_size_is_compared_and_on_demand_all(folder, monkeypatch):
    monkeypatch.setattr(manifests, "READ_AT_ONCE", 5)  # the smaller of the two files
    (folder / "meta/info.json").write_text('{"fps": 20}')
    check_files(folder)
    with pytest.raises(ValueError, match="its content has changed"):
        check_files(folder, everything=True)


@pytest.mark.parametrize(
    "edit",
    [
        lambda text: text.replace('"kind": "data set"', '"kind": "data sat"'),
        lambda text: text.replace("rows.jsonl", "/etc/passwd"),
        lambda text: text[:-20],
        lambda text: "[" * 100_000,
        lambda text: "[]",
        lambda text: text.replace('"digest"', '"digits"'),
    ],
)
def test_a_damaged_manifest_is_one_line(folder, edit):
    (folder / MANIFEST).write_text(edit((folder / MANIFEST).read_text()))
    with pytest.raises(ValueError, match=f"^{folder / MANIFEST} is damaged .* pilot verify {folder} --accept$"):
        check_files(folder)


def test_a_manifest_does_not_lead_out_of_its_folder(folder):
    content = json.loads((folder / MANIFEST).read_text())
    content["files"]["../secret"] = content["files"].pop("rows.jsonl")
    del content["digest"]
    content["digest"] = manifests._digest(content)
    (folder / MANIFEST).write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"'../secret' is not a file in the folder"):
        check_files(folder)


def test_while_files_change_the_manifest_is_aside_and_the_origin_stays(folder):
    before = read_manifest(folder)
    set_manifest_aside(folder)
    assert check_files(folder) is None
    (folder / "rows.jsonl").write_text("{}\n{}\n")
    after = write_manifest(folder, kind="data set", files=[folder / "rows.jsonl"])
    assert before is not None and after.origin == before.origin and after.digest != before.digest
    assert not (folder / SET_ASIDE).exists()


def test_verify_prints_the_chain_and_finds_what_changed(folder, tmp_path, capsys):
    policy = tmp_path / "policy"
    policy.mkdir()
    (policy / "config.json").write_text("{}")
    origin = made_by({"run": "mine"}, parents=[parent(folder, role="data"), parent(tmp_path / "gone", role="weights")])
    write_manifest(policy, kind="checkpoint", files=[policy / "config.json"], origin=origin)
    assert main.main(["verify", str(policy)]) == 0
    printed = capsys.readouterr().out
    digest = origin["parents"][0]["digest"]
    assert "checkpoint, 1 files, 0.0 MB, all as they were written" in printed and "  run mine\n" in printed
    assert f"  from data {folder}: unchanged (digest {digest})\n" in printed
    assert f"  from weights {tmp_path / 'gone'}: not here with a manifest" in printed
    (folder / "meta/info.json").write_text('{"fps": 20}')
    assert main.main(["verify", str(folder)]) == 2
    assert "meta/info.json is not as it was written" in capsys.readouterr().err
    assert main.main(["verify", str(folder), "--accept"]) == 0
    assert "accepted by hand" in capsys.readouterr().out
    assert main.main(["verify", str(policy)]) == 2
    assert f"was made from something that has changed since: {folder}" in capsys.readouterr().err


def test_verify_says_where_there_is_nothing_to_verify_by(folder, capsys):
    (folder / MANIFEST).unlink()
    assert main.main(["verify", str(folder)]) == 2
    assert "has no manifest.json" in capsys.readouterr().err
    shutil.rmtree(folder)
    assert main.main(["verify", str(folder)]) == 2
    assert "does not exist" in capsys.readouterr().err


def test_the_commit_is_that_of_the_source_tree():
    commit = source_commit()
    assert commit is None or re.fullmatch(r"[0-9a-f]{40}(-dirty)?", commit)
