"""The kernel that clips, steps, averages and rounds at once does what torch's own operations do one after the other."""

import os

import pytest
import torch
from torch import nn

from pilot.train import fused_adamw
from pilot.train.config import OptimConfig
from pilot.train.ema import Ema
from pilot.train.master_weights import MasterWeights
from pilot.train.optim import Optimizer

CUDA = torch.cuda.is_available()
if not CUDA:
    os.environ["TRITON_INTERPRET"] = "1"  # read when Triton is imported
pytest.importorskip("triton", reason="kernels are for GPUs, where Triton comes with PyTorch")

CONFIG = OptimConfig(peak_lr=1e-2, warmup_steps=2, weight_decay=0.1, clip_norm=0.5)
STEPS = 4
DEVICE = torch.device("cuda" if CUDA else "cpu")


class Learning:
    """A small model in bf16, with all that is kept of it."""

    def __init__(self, *, many_passes: bool = False) -> None:
        torch.manual_seed(0)
        # ragged sizes, one of them over a block of the kernel; the last layer never has a gradient
        self.model = nn.Sequential(nn.Linear(67, 129), nn.LayerNorm(129), nn.Linear(129, 5), nn.Linear(5, 1)).to(DEVICE)
        self.masters = MasterWeights(self.model, many_passes=many_passes)
        self.optimizer = Optimizer(self.model, CONFIG, steps=10, masters=self.masters.weights)
        self.ema = Ema(self.model, decay=0.9, masters=self.masters.weights)

    def backward(self, step: int) -> None:
        generator = torch.Generator().manual_seed(step)
        x = torch.randn(8, 67, generator=generator).to(DEVICE, torch.bfloat16)
        (self.model[:3](x).float() ** 2).mean().backward()

    def plain_step(self, step: int) -> tuple[float, torch.Tensor]:
        """As `Learner.update` does where there is no kernel."""
        for name, gradient in self.masters.gradients().items():
            self.masters.weights[name].grad = gradient.float()
        self.masters.clear_gradients()
        result = self.optimizer.step(step)
        self.ema.update()
        self.masters.refresh()
        return result

    def tensors(self) -> dict[str, torch.Tensor]:
        found = {f"weight/{name}": p.detach() for name, p in self.masters.weights.items()}
        found |= {f"average/{name}": self.ema.weights[name] for name in self.ema.learned}
        return found | self.optimizer.state()


def is_rounded(copy: torch.Tensor, weight: torch.Tensor) -> bool:
    """Whether the bf16 tensor is the fp32 one, rounded to the nearest; Triton's interpreter cuts digits off instead."""
    if CUDA:
        return torch.equal(copy, weight.bfloat16())
    return bool(((copy.float() - weight).abs() <= weight.abs() / 128).all())


@pytest.mark.parametrize("many_passes", [False, True])
def test_the_kernel_is_torch_s_adamw_and_average(many_passes):
    ours, theirs = Learning(many_passes=many_passes), Learning(many_passes=many_passes)
    fused = fused_adamw.FusedAdamW(ours.optimizer, ours.ema, ours.masters)
    for step in range(STEPS):
        for learning in (ours, theirs):
            learning.backward(step)
        (lr, norm), (same_lr, same_norm) = fused.step(step), theirs.plain_step(step)
        assert lr == same_lr and norm.item() == pytest.approx(same_norm.item(), rel=1e-6)
        assert norm > CONFIG.clip_norm, "the case must clip"
        mine, other = ours.tensors(), theirs.tensors()
        for name, tensor in other.items():
            torch.testing.assert_close(
                mine[name], tensor, rtol=2e-5, atol=1e-7, msg=lambda text, n=name: f"{n}: {text}"
            )
        for name, copy in ours.masters.copies.items():
            assert is_rounded(copy, ours.masters.weights[name].detach()) and copy.grad is None
        ours.masters.refresh()  # to the nearest, so that the next gradients are the same
    still = {name for name, p in ours.masters.weights.items() if name.startswith("3.")}
    assert all(f"exp_avg/{name}" not in other or not mine[f"exp_avg/{name}"].any() for name in still)
    assert mine["step/3.weight"] == 0 and mine["step/0.weight"] == STEPS


def test_a_step_goes_on_where_another_way_of_stepping_has_stopped():
    """Two steps in plain torch, two by the kernel: the state in between is one and the same."""
    ours, theirs = Learning(), Learning()
    fused = fused_adamw.FusedAdamW(ours.optimizer, ours.ema, ours.masters)
    for step in range(STEPS):
        for learning in (ours, theirs):
            learning.backward(step)
        theirs.plain_step(step)
        ours.plain_step(step) if step < 2 else fused.step(step)
        ours.masters.refresh()
    for name, tensor in theirs.tensors().items():
        torch.testing.assert_close(ours.tensors()[name], tensor, rtol=2e-5, atol=1e-7)


def test_the_plain_twin_is_torch_s_adamw():
    torch.manual_seed(0)
    weight, gradients = nn.Parameter(torch.randn(64)), [torch.randn(64) for _ in range(5)]
    adamw = torch.optim.AdamW([weight], lr=1e-2, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1)
    own, average = weight.detach().clone(), weight.detach().clone()
    first, second, copy = torch.zeros(64), torch.zeros(64), torch.empty(64, dtype=torch.bfloat16)
    for step, gradient in enumerate(gradients, start=1):
        weight.grad = 0.25 * gradient
        adamw.step()
        expected = average.lerp(weight.detach(), 0.5)
        fused_adamw.update_plain(
            gradient, own, first, second, average, copy, step=step, clip=torch.tensor(0.25), weight_decay=0.1,
            lr=1e-2, betas=(0.9, 0.95), eps=1e-8, ema_decay=0.5,
        )  # fmt: skip
        torch.testing.assert_close(own, weight.detach(), rtol=1e-5, atol=1e-7)
        torch.testing.assert_close(average, expected, rtol=1e-5, atol=1e-7)
    assert torch.equal(copy, own.bfloat16())
