"""A policy says what it was made from, and `pilot verify` finds out whether that is still the same."""

import numpy as np

from pilot.cli import main
from pilot.data.formats.lerobot_layout import INFO
from pilot.data.storage.manifest import read_manifest
from pilot.train.config import InitFrom
from pilot.train.loop import train
from train.toy import config, record


def test_a_policy_names_its_data_and_its_weights_and_a_change_is_found(tmp_path, capsys):
    data = record(tmp_path / "data")
    first = train(config(data, steps=1), out=tmp_path / "first", progress=False)
    # By the folder of the run, which stands for its policy and has no digest of its own.
    start = InitFrom(str(tmp_path / "first"))
    second = train(config(data, steps=1, init_from=start), out=tmp_path / "second", progress=False)
    manifest, before, set_of_data = (read_manifest(folder) for folder in (second, first, data))
    assert manifest is not None and before is not None and set_of_data is not None
    assert manifest.origin["run"] == "toy" and manifest.origin["step"] == 1
    assert manifest.origin["config"]["steps"] == 1 and "torch" in manifest.origin["versions"]
    assert [(made["role"], made["digest"]) for made in manifest.origin["parents"]] == [
        ("weights (checkpoint)", before.digest),
        ("data", set_of_data.digest),
    ]
    assert manifest.origin["parents"][0]["path"] == str(tmp_path / "first")
    assert main.main(["verify", str(tmp_path / "second")]) == 0
    assert capsys.readouterr().out.count("unchanged") == 3  # weights, their data, and the run's own
    (data / INFO).write_text((data / INFO).read_text().replace('"fps": 10', '"fps": 20'))
    assert main.main(["verify", str(data), "--accept"]) == 0
    assert main.main(["verify", str(tmp_path / "second")]) == 2
    assert "was made from something that has changed since" in capsys.readouterr().err


def test_the_same_run_writes_the_same_bytes(tmp_path):
    data, files = record(tmp_path / "data"), []
    for name in ("one", "two"):
        policy = train(config(data, steps=2), out=tmp_path / name, progress=False)
        files.append({file.name: file.read_bytes() for file in policy.rglob("*") if file.is_file()})
    assert files[0] == files[1] and "manifest.json" in files[0] and len(np.unique(list(files[0]))) >= 5
