"""What is opened for a run, and what a person is told of it."""

import json

import numpy as np
import pytest

from pilot.data.formats.lerobot import LeRobotDataset
from pilot.data.formats.writer import encode_png
from pilot.train.config import Source
from pilot.train.setup import prepare
from train.toy import config, record

pytestmark = pytest.mark.usefixtures("no_shape_checks")


def test_what_is_left_out_is_said(tmp_path, monkeypatch, capfd):
    decode = LeRobotDataset.decode

    def decode_some(dataset: LeRobotDataset, i: int, camera: str) -> np.ndarray:
        if i in (2, 3):
            raise ValueError(f"row {i} is damaged")
        return decode(dataset, i, camera)

    monkeypatch.setattr(LeRobotDataset, "decode", decode_some)
    (tmp_path / "a.png").write_bytes(encode_png(np.zeros((8, 8, 3), np.uint8)))
    rows = [{"image": 7, "question": "Q", "answer": "A"}, {"image": "a.png", "question": "Q", "answer": "A"}]
    (tmp_path / "chat.json").write_text(json.dumps(rows))
    sources = (
        Source(path=str(record(tmp_path / "toy")), weight=0.5),
        Source(path=str(tmp_path / "chat.json"), kind="web", weight=0.5),
    )
    run = config(tmp_path, data={"sources": sources, "skip_bad": True, "frame_cache": True})
    prepare(run, tmp_path / "out", resume=True, progress=False)
    said = capfd.readouterr().out
    assert (
        "toy: 1 episodes skipped\n  episode 0: 4 of its pictures cannot be decoded; the first: row 2 is damaged" in said
    )
    assert "chat.json: 1 entries skipped" in said and "entry 1: no name of a picture" in said
