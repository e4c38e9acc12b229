"""Which commit results and cards name: that of pilot's own sources, or none."""

import subprocess
from pathlib import Path

import pytest

from pilot.data.storage import manifest
from pilot.eval.card import commit_of_pilot
from pilot.eval.provenance import commit


@pytest.fixture
def fresh():
    """The commit is asked for once in a process."""
    manifest.source_commit.cache_clear()
    yield
    manifest.source_commit.cache_clear()


@pytest.mark.usefixtures("fresh")
def test_the_repository_around_an_installed_pilot_is_not_its_own(tmp_path, monkeypatch):
    site = tmp_path / ".venv" / "lib" / "python3.12" / "site-packages" / "pilot"
    site.mkdir(parents=True)
    (tmp_path / ".gitignore").write_text(".venv\n")
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "a robot's project"]):
        subprocess.run([*git, *words], check=True, capture_output=True)
    monkeypatch.setattr("pilot.__path__", [str(site)])
    monkeypatch.setattr(manifest, "__file__", str(site / "data" / "storage" / "manifest.py"))
    assert commit() == "none: not run from a git checkout" and commit_of_pilot() == ""


@pytest.mark.usefixtures("fresh")
@pytest.mark.skipif(not (Path(__file__).parents[2] / ".git").exists(), reason="not a git checkout")
def test_in_a_checkout_all_files_name_the_same_commit():
    head, _, _ = manifest.source_commit().partition("-")
    assert commit().partition("-")[0] == head[:12] and commit_of_pilot() == f", commit {commit()}"
