"""Scores some rows at a time give the loss and the gradients of scores all at once."""

import os

import pytest
import torch
from torch.nn import functional as F

from pilot.nn.cross_entropy import cross_entropy, log_sum_exp, scores_to_gradients

CUDA = torch.cuda.is_available()
if not CUDA:
    os.environ["TRITON_INTERPRET"] = "1"  # read when Triton is imported
DEVICE = torch.device("cuda" if CUDA else "cpu")
WORDS, WIDTH, TOKENS = 5001, 24, 7


def drawn(dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, ...]:
    """Hidden states, the table of words, targets (the first and the last word among them), and a scale per token."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(TOKENS, WIDTH, generator=generator)
    weight = torch.randn(WORDS, WIDTH, generator=generator)
    targets = torch.randint(WORDS, (TOKENS,), generator=generator)
    targets[:2] = torch.tensor([0, WORDS - 1])
    scales = torch.rand(TOKENS, generator=generator)
    return tuple(t.to(DEVICE, dtype if t.is_floating_point() else t.dtype) for t in (hidden, weight, targets, scales))


@pytest.mark.parametrize("rows", [1, 3, 7])
def test_chunks_have_the_loss_and_the_gradients_of_the_whole(rows):
    hidden, weight, targets, scales = drawn()
    found = []
    for chunked in (True, False):
        h, w = hidden.clone().requires_grad_(), weight.clone().requires_grad_()
        nll = (
            cross_entropy(h, w, targets, at_once=rows * WORDS - (rows == TOKENS))
            if chunked
            else F.cross_entropy(h @ w.T, targets, reduction="none")
        )
        found.append((nll, *torch.autograd.grad((nll * scales).sum(), (h, w))))
    for mine, theirs in zip(*found, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


def test_few_scores_are_torch_s_cross_entropy_to_the_bit():
    hidden, weight, targets, _ = drawn()
    assert torch.equal(
        cross_entropy(hidden, weight, targets), F.cross_entropy(hidden @ weight.T, targets, reduction="none")
    )


def test_a_frozen_table_has_no_gradient():
    hidden, weight, targets, _ = drawn(torch.bfloat16)
    hidden.requires_grad_()
    nll = cross_entropy(hidden, weight, targets, at_once=WORDS)
    assert nll.dtype == torch.float32
    nll.sum().backward()
    assert hidden.grad.dtype == torch.bfloat16 and weight.grad is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_kernels_do_what_their_twins_do(dtype):
    pytest.importorskip("triton", reason="kernels are for GPUs, where Triton comes with PyTorch")
    from pilot.nn import cross_entropy_kernels as kernels

    hidden, weight, targets, scales = drawn()
    scores, scales = (hidden @ weight.T * 3).to(dtype), scales.float()
    sums = scores.float().logsumexp(-1)
    torch.testing.assert_close(kernels.log_sum_exp(scores), sums, rtol=1e-6, atol=1e-5)
    if not CUDA:
        assert torch.equal(log_sum_exp(scores), sums)
    plain = scores.cpu()
    scores_to_gradients(plain, targets.cpu(), sums=sums.cpu(), scales=scales.cpu())
    kernels.scores_to_gradients(scores, targets, sums=sums, scales=scales)
    close = {"rtol": 1e-5, "atol": 1e-7} if dtype == torch.float32 else {"rtol": 1e-2, "atol": 1e-7}
    torch.testing.assert_close(scores.cpu(), plain, **close)
