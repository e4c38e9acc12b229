"""Clipping, AdamW, moving average and the bf16 copies in one pass over memory, for a GPU.

A step of a large model reads and writes fp32 weights, two moments, their average and a bf16 copy: 36 bytes a weight,
however it is done. torch does it in some hundred launches that go over the weights three times. Here two launches go
over all tensors at once: one sums the squares of the gradients, one changes everything else.

`update_plain` is what the kernel computes, in plain torch.
"""

from collections.abc import Mapping
from importlib.util import find_spec

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pilot.nn.devices import to_device
from pilot.train.ema import Ema
from pilot.train.master_weights import MasterWeights
from pilot.train.optim import Optimizer, learning_rate


@torch.no_grad()
def update_plain(
    gradient: Tensor,
    weight: Tensor,
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
    average: Tensor,
    copy: Tensor,
    *,
    step: float,
    clip: Tensor,
    weight_decay: float,
    lr: float,
    betas: tuple[float, float],
    eps: float,
    ema_decay: float,
) -> None:
    """Change one weight and everything kept of it, in place; `clip` scales the gradient, `step` counts from 1."""
    gradient, (beta1, beta2) = gradient.float() * clip, betas
    weight.mul_(1 - lr * weight_decay)
    exp_avg.lerp_(gradient, 1 - beta1)
    exp_avg_sq.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
    denominator = exp_avg_sq.sqrt() / (1 - beta2**step) ** 0.5 + eps
    weight.addcdiv_(exp_avg, denominator, value=-lr / (1 - beta1**step))
    average.lerp_(weight, 1 - ema_decay)
    copy.copy_(weight)


class FusedAdamW:
    """The step of an `Optimizer` that has AdamW alone, of a moving average and of master weights, in two launches.

    It works on the state of these three, so what they save and load is the same with it and without.
    """

    def __init__(self, optimizer: Optimizer, ema: Ema, masters: MasterWeights) -> None:
        from pilot.train import adamw_kernels  # where there is a GPU there is Triton

        self.kernels, self.optimizer, self.ema, self.masters = adamw_kernels, optimizer, ema, masters
        self.names = list(masters.weights)
        self.device = next(iter(masters.weights.values())).device
        sizes = [masters.weights[name].numel() for name in self.names]
        blocks = [torch.arange(-(-size // adamw_kernels.BLOCK), dtype=torch.int32) for size in sizes]
        tensors = [torch.full_like(block, i) for i, block in enumerate(blocks)]
        # Each program of the kernel looks its tensor and block up here, so one launch serves tensors of all sizes.
        of_block = torch.stack((torch.cat(tensors), torch.cat(blocks)), dim=1)
        self.of_block = of_block.contiguous().to(self.device)
        # Then the compiler may read whole vectors without asking whether each element exists.
        self.sizes, self.even = sizes, all(size % 16 == 0 for size in sizes)
        decay = {id(p): group["weight_decay"] for group in optimizer.parts[0].param_groups for p in group["params"]}
        self.decays = torch.tensor([decay[id(masters.weights[name])] for name in self.names], device=self.device)
        self.steps = torch.zeros(0)

    @staticmethod
    def fits(optimizer: Optimizer, device: torch.device) -> bool:
        """Return whether the kernel can take the place of this optimizer on this device."""
        return find_spec("triton") is not None and device.type == "cuda" and len(optimizer.parts) == 1

    def step(self, step: int) -> tuple[float, Tensor]:
        """Clip, update, average, refresh the copies, clear the gradients; returns what `Optimizer.step` returns."""
        lr, decay = self.rates(step)
        gradients = self.gradients()
        table, rates = (to_device(t, self.device) for t in (self.addresses(gradients), torch.tensor([lr, decay])))
        norm = self.launch(table, rates, bf16=in_bf16(gradients))
        self.masters.clear_gradients()
        return lr, norm

    def rates(self, step: int) -> tuple[float, float]:
        """Return the learning rate of a step, and the decay of the average at its next update, which is counted."""
        return learning_rate(self.optimizer.config, step, self.optimizer.steps), self.ema.next_decay()

    def gradients(self) -> list[Tensor | None]:
        """Return the gradient of each weight as the kernel reads it: in one piece, at an address that 16 divides."""
        gradients = self.masters.gradients()
        return [self._aligned(gradients.get(name)) for name in self.names]

    def launch(self, table: Int[Tensor, "8 n"], rates: Float[Tensor, "2"], *, bf16: bool) -> Float[Tensor, ""]:
        """Change all that `table` has the addresses of; nothing here depends on a value that the host knows.

        `rates` are on the device, and `bf16` says what gradients are in. Returns the gradient norm before clipping.
        """
        config, (beta1, beta2) = self.optimizer.config, self.optimizer.config.betas
        self.steps += table[0].ne(0).float()  # a weight without a gradient takes no step
        # In fp64: `1 − beta^step` would lose digits in fp32 in the first steps, where it is small.
        steps = self.steps.double().clamp(min=1)
        corrections = torch.stack((1 / (1 - beta1**steps), (1 - beta2**steps).rsqrt())).float()
        norm = self.kernels.sum_squares(table, self.of_block, bf16=bf16, even=self.even).sum().sqrt()
        # As `torch.nn.utils.clip_grad_norm_` does, and all on the GPU: the host never learns the norm here.
        clip = (config.clip_norm / (norm + 1e-6)).clamp(max=1.0)
        self.kernels.update(
            table, self.of_block, decays=self.decays, corrections=corrections, clip=clip, rates=rates,
            betas=config.betas, eps=config.eps, bf16=bf16, even=self.even,
        )  # fmt: skip
        return norm

    @staticmethod
    def _aligned(gradient: Tensor | None) -> Tensor | None:
        if gradient is None or (gradient.is_contiguous() and gradient.data_ptr() % 16 == 0):
            return gradient
        return gradient.clone(memory_format=torch.contiguous_format)

    def addresses(self, gradients: list[Tensor | None]) -> Int[Tensor, "8 n"]:
        """Return addresses and sizes of all that the kernels read, on the CPU; see `adamw_kernels.py`."""
        self._take_steps()
        # The order of rows is that of the kernel's arguments (`adamw_kernels.py`).
        rows = [[0 if g is None else g.data_ptr() for g in gradients]]
        state = self._state()
        for kept in (
            self.masters.weights,
            {name: state[name]["exp_avg"] for name in self.names},
            {name: state[name]["exp_avg_sq"] for name in self.names},
            self.ema.weights,
            self.masters.copies,
        ):
            rows.append([kept[name].data_ptr() for name in self.names])
        rows.append([0 if g is None else size for g, size in zip(gradients, self.sizes, strict=True)])
        rows.append(self.sizes)
        return torch.tensor(rows)

    def _state(self) -> Mapping[str, dict[str, Tensor]]:
        """Return AdamW's state of each weight under torch's own names, made where there is none yet."""
        state = self.optimizer.parts[0].state
        for p in self.masters.weights.values():
            if "exp_avg" not in state[p]:
                state[p] |= {"step": torch.zeros((), device=self.device)}
                state[p] |= {key: torch.zeros_like(p) for key in ("exp_avg", "exp_avg_sq")}
        return {name: state[p] for name, p in self.masters.weights.items()}

    def _take_steps(self) -> None:
        """Put the step counts of all weights into one tensor, whose elements are those of the optimizer's state."""
        state, size = self._state(), self.steps.element_size()
        counts = [state[name]["step"] for name in self.names]
        # Still the elements of one tensor; after loading a checkpoint they are tensors of their own.
        if all(count.data_ptr() == self.steps.data_ptr() + i * size for i, count in enumerate(counts)):
            return
        self.steps = torch.stack(counts).float()
        for i, name in enumerate(self.names):
            state[name]["step"] = self.steps[i]


def in_bf16(gradients: list[Tensor | None]) -> bool:
    """Return whether all gradients are in bf16; otherwise they are in fp32."""
    return all(g.dtype == torch.bfloat16 for g in gradients if g is not None)
