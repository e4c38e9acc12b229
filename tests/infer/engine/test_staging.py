"""Inputs arrive at their places, one behind the other and in the place's own numbers."""

import torch

from pilot.infer.engine.staging import Staging

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def test_parts_arrive_one_behind_the_other_again_and_again():
    staging, place = Staging(), torch.zeros(3, 4, dtype=torch.bfloat16, device=DEVICE)
    for seed in range(3):
        parts = torch.randn(3, 4, generator=torch.Generator().manual_seed(seed)).split([2, 1])
        staging.wait()
        staging.upload(place, parts)
        staging.mark()
        assert torch.equal(place.cpu(), torch.cat(parts).bfloat16())


def test_what_lies_on_the_device_is_not_pinned():
    staging, place = Staging(), torch.zeros(2, device=DEVICE)
    staging.upload(place, [torch.ones(2, device=DEVICE)])
    assert place.tolist() == [1, 1] and not staging.pinned
