"""Devices by name, and a plain answer where there is none."""

import pytest
import torch

from pilot.nn.devices import device_of


def test_auto_is_a_gpu_if_there_is_one(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert device_of("auto") == torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device_of("auto") == device_of("cpu") == torch.device("cpu")


def test_a_device_that_is_not_here_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert device_of("cuda") == torch.device("cuda") and device_of("cuda:0").index == 0
    with pytest.raises(ValueError, match="sees 1 GPUs here, not 'cuda:1'; choose auto or cpu"):
        device_of("cuda:1")
    with pytest.raises(ValueError, match="no device 'cuba'; choose auto, cpu or cuda"):
        device_of("cuba")
