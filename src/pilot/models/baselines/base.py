"""What the baselines have in common: their inputs, how they read the task, and how a loss is counted.

ACT (`act.py`), Diffusion Policy (`diffusion_policy.py`) and Octo (`octo.py`) see the same rows as the π0 family. They
read the prompt of a row and never its subtask, write no text, and are trained and judged by their actions alone.

**Observation steps.** Diffusion Policy and Octo were published with two. A row of the pipeline shows one moment to the
other models; Diffusion Policy may see the moment before it too (`observation_steps`), Octo sees one here.

Axes: `b` batch, `k` noise draws, `l` text tokens, `ah` action horizon, `ad` action dims, `d` width.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from pilot.data.layout import Kind, Observation


class PromptEncoder(nn.Module):
    """The task as one vector: the mean of the learned vectors of the prompt's tokens."""

    def __init__(self, vocab_size: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, width)

    def forward(self, observation: Observation) -> Float[Tensor, "b d"]:
        """Return the mean of the prompt's word embeddings."""
        mask = prompt_mask(observation)[..., None]
        words = self.embedding(observation.tokens) * mask
        return words.sum(1) / mask.sum(1).clamp(min=1)


def prompt_mask(observation: Observation) -> Bool[Tensor, "b l"]:
    """Return which tokens a baseline reads: those of the prompt."""
    return observation.token_kinds == Kind.PREFIX


def squared_error(
    predicted: Float[Tensor, "b *k ah ad"], target: Float[Tensor, "b *k ah ad"], action_mask: Bool[Tensor, "b ah ad"]
) -> tuple[Float[Tensor, " b"], Float[Tensor, " b"]]:
    """Return the sum over the unmasked elements of each row, the mean over its draws, and their number."""
    mask = action_mask.unsqueeze(1) if predicted.ndim == 4 else action_mask
    draws = predicted[0].numel() // action_mask[0].numel()
    return ((predicted - target).square() * mask).flatten(1).sum(1) / draws, count_elements(action_mask)


def count_elements(action_mask: Bool[Tensor, "b ah ad"]) -> Float[Tensor, " b"]:
    """Count the unmasked action elements of each row."""
    return action_mask.flatten(1).sum(1).float()


@torch.no_grad()
def initialize(model: nn.Module, generator: torch.Generator) -> None:
    """Draw fresh weights: normal ones that keep the variance of their inputs; norms start plain, biases at zero."""
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d | nn.ConvTranspose1d):
            rows = module.weight.transpose(0, 1) if isinstance(module, nn.ConvTranspose1d) else module.weight
            gain = 2.0 if isinstance(module, nn.Conv2d) else 1.0  # a ReLU behind it
            module.weight.normal_(0.0, (gain / rows[0].numel()) ** 0.5, generator=generator)
            if module.bias is not None:
                module.bias.zero_()
        elif isinstance(module, nn.Embedding):
            module.weight.normal_(0.0, 1.0, generator=generator)
        elif isinstance(module, nn.GroupNorm | nn.LayerNorm):
            module.weight.fill_(1.0)
            module.bias.zero_()
        else:  # learned positions and queries
            for own in module.parameters(recurse=False):
                own.normal_(0.0, 0.02, generator=generator)
