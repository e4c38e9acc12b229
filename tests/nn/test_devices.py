"""Devices by name, and a plain answer where there is none."""

import pytest
import torch

from pilot.nn.devices import resolve_device


def test_auto_is_a_gpu_if_there_is_one(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert resolve_device("auto") == torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("auto") == resolve_device("cpu") == torch.device("cpu")


def test_a_device_that_is_not_here_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert resolve_device("cuda") == torch.device("cuda") and resolve_device("cuda:0").index == 0
    with pytest.raises(ValueError, match="sees 1 GPUs here, not 'cuda:1'; choose auto or cpu"):
        resolve_device("cuda:1")
    for name in ("cuba", "mps"):
        with pytest.raises(ValueError, match=f"no device '{name}'.*choose auto"):
            resolve_device(name)
    with pytest.raises(ValueError, match="does not compute on 'meta'"):
        resolve_device("meta")
