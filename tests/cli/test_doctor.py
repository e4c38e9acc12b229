"""`pilot doctor`: lacks are found, and each has its command."""

import importlib.metadata
import json
import re
import subprocess

import pytest

from pilot.cli import doctor, main
from pilot.infer import chunk_time
from pilot.models.pi import pi0_small, pi05

REQUIRES = [
    "numpy",
    'websockets>=15; extra == "client"',
    'msgpack; extra == "client"',
    'pilot[torch,client]; extra == "serve"',
    'prometheus-client; extra == "serve"',
    'torch>=2.7; extra == "torch"',
    'triton; sys_platform == "linux" and extra == "dev"',
]


def test_an_extra_has_its_packages_and_those_of_the_extras_in_it():
    assert doctor.packages_of("client", REQUIRES) == {"websockets", "msgpack"}
    assert doctor.packages_of("serve", REQUIRES) == {"websockets", "msgpack", "torch", "prometheus-client"}
    assert doctor.packages_of("dev", REQUIRES) == {"triton"}


def test_a_missing_extra_is_named_with_its_command(monkeypatch):
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: REQUIRES)
    monkeypatch.setattr(doctor, "is_installed", lambda name: name != "msgpack")
    found = {finding.what: finding for finding in doctor.extras()}
    assert found["pilot[client]"].mend == "pip install 'pilot[client]'" and "no msgpack" in found["pilot[client]"].found
    assert found["pilot[serve]"].mend and not found["pilot[hub]"].mend


@pytest.mark.parametrize(
    ("code", "said", "ok", "mend"),
    [
        (0, "MuJoCo draws by EGL", True, ""),
        (
            1,
            "no off-screen OpenGL\n  Debian, Ubuntu:  apt-get install libegl1",
            False,
            "Debian, Ubuntu:  apt-get install",
        ),
        (-11, "", False, "python -m pilot.sims.gl"),
    ],
)
def test_drawing_is_tried_in_a_process_of_its_own(monkeypatch, code, said, ok, mend):
    monkeypatch.setattr(doctor, "is_installed", lambda name: True)
    done = subprocess.CompletedProcess([], code, stdout=said, stderr="")
    monkeypatch.setattr(doctor.subprocess, "run", lambda *_, **__: done)
    finding = doctor.drawing()
    assert finding.ok is ok and finding.mend.startswith(mend) and finding.found


def test_little_disk_and_memory_are_lacks(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 1e9}))
    monkeypatch.setattr(doctor, "memory_bytes", lambda: (2e9, 1e9))
    assert doctor.disk().ok is False and doctor.disk().mend and doctor.memory().ok is False


def test_programs_get_json_and_people_a_line_each(monkeypatch, capsys):
    findings = [
        doctor.Finding(what="python", found="3.11"),
        doctor.Finding(what="OpenGL", found="none", ok=False, mend="apt-get install libegl1"),
    ]
    monkeypatch.setattr(doctor, "examine", lambda timing: iter(findings))
    assert main.main(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("ok ") and lines[1].startswith("LACKS") and lines[2].strip() == "apt-get install libegl1"
    assert lines[-1] == "lacking: OpenGL"
    assert main.main(["doctor", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[1]["mend"] == "apt-get install libegl1"


@pytest.mark.parametrize("make", [lambda: pi05("debug"), lambda: pi0_small("debug", vision_towers=chunk_time.SLOTS)])
def test_a_chunk_of_any_size_is_timed(make):
    assert chunk_time.measure(make(), device="cpu") > 0


def test_weights_that_do_not_fit_are_not_loaded(monkeypatch):
    monkeypatch.setattr(chunk_time, "measure", lambda config, device: 0.025)
    monkeypatch.setattr(doctor, "memory_bytes", lambda: (8e9, 4e9))
    found = [finding.found for finding in doctor.chunk_times("cpu")]
    assert found[0].startswith("25 ms") and found[1].startswith("25 ms")
    assert re.fullmatch(r"needs 1\d\.\d GB of memory, 4\.0 are free", found[2])


def test_nobody_waits_for_sizes_beyond_one_that_is_too_slow(monkeypatch):
    monkeypatch.setattr(chunk_time, "measure", lambda config, device: 19.5)
    found = [finding.found for finding in doctor.chunk_times("cpu")]
    assert found[0] == "19.5 s from pictures to actions, on the CPU"
    assert found[1] == found[2] == "not measured: smaller ones are too slow already"
