"""What runs of several sources are trained on."""

from pathlib import Path

import pytest

from train.toy import record, record_web


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a recording, `toy`, and web rows, `web`."""
    path = tmp_path_factory.mktemp("data")
    record(path / "toy")
    record_web(path / "web")
    return path
