"""A whole training step as one CUDA graph: forward, backward and update are one launch for the host.

A graph replays the same kernels on the same addresses. So all that changes from step to step is copied into tensors
that stay where they are: the batch, its noise, the factors of the losses, the learning rate. The shapes must stay too:
text is padded (`compute.compile`), and so are the positions of what is said. Where rows of a run differ in what they
have (cameras, actions), its batches have many shapes, and steps of all but the first few shapes are not captured.
"""

import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from pilot.data.layout import Batch
from pilot.models.base import Draws, Terms
from pilot.nn.devices import to_device
from pilot.train.fused_adamw import FusedAdamW, in_bf16

WARM_UP = 2
"""Steps of each shape before it is captured: in them kernels are compiled and libraries make their choices."""
MAX_GRAPHS = 4
"""Shapes that are captured."""

Scales = Mapping[str, Tensor]
"""What the sum of each loss over all rows is multiplied by: its weight over its count in the whole batch."""
Gradients = Callable[[list[Batch], list[Draws], Scales], tuple[Terms, Tensor]]
"""Gives every weight that learns its gradient; returns the terms of the rows, and their objective."""
Replay = Callable[[], Any]
Capture = Callable[[Callable[[], Any]], Replay]
"""From work to what does it again, on the same tensors, and returns what the work has returned, renewed."""


@dataclass(frozen=True, kw_only=True)
class StepInputs:
    """All that changes from step to step; `rates` are the learning rate and the decay of the moving average."""

    batch: list[Batch]
    draws: list[Draws]
    scales: Scales
    rates: Tensor

    def map(self, f: Callable[[Tensor], Tensor]) -> "StepInputs":
        """Apply `f` to every tensor."""
        return StepInputs(
            batch=[part.map(f) for part in self.batch],
            draws=[{name: f(t) for name, t in part.items()} for part in self.draws],
            scales={name: f(t) for name, t in self.scales.items()},
            rates=f(self.rates),
        )

    def tensors(self) -> list[Tensor]:
        """Return all tensors, always in the same order."""
        tensors: list[Tensor] = []
        self.map(lambda t: (tensors.append(t), t)[1])
        return tensors

    def shapes(self) -> tuple[Any, ...]:
        """Return what two steps must have in common to be one graph: cameras, losses, and the shapes of all tensors."""
        names = [tuple(part.observation.images) for part in self.batch]
        return (*names, *self.scales, *((tuple(t.shape), t.dtype) for t in self.tensors()))


class StepGraphs:
    """Steps of a learner, captured by shape once they have run a few times."""

    def __init__(self, gradients: Gradients, optimizer: FusedAdamW, *, capture: Capture | None = None) -> None:
        self.gradients, self.optimizer, self.device = gradients, optimizer, optimizer.device
        self.capture = GpuCapture() if capture is None else capture
        self.replays: dict[tuple[Any, ...], tuple[StepInputs, Replay]] = {}
        self.seen: Counter[tuple[Any, ...]] = Counter()
        self.num_targets = 0

    def step(
        self, batch: list[Batch], draws: list[Draws], scales: Scales, *, step: int
    ) -> tuple[Terms, Tensor, float, Tensor]:
        """Do one step; return the terms of the rows, the objective, the learning rate and the gradient norm."""
        lr, decay = self.optimizer.rates(step)
        batch = self._pad_targets(batch)
        inputs = StepInputs(batch=batch, draws=draws, scales=scales, rates=torch.tensor([lr, decay]))
        shapes = inputs.shapes()
        if shapes not in self.replays and not self._is_due(shapes):
            move = partial(to_device, device=self.device)
            terms, loss, norm = self._work(inputs.map(move), move)
            return terms, loss, lr, norm
        if shapes not in self.replays:
            self.replays[shapes] = self._capture_step(inputs)
        graph_inputs, replay = self.replays[shapes]
        for mine, new in zip(graph_inputs.tensors(), inputs.tensors(), strict=True):
            # A graph reads where it was captured, so new values go to the old places.
            mine.copy_(new.pin_memory() if mine.is_cuda else new, non_blocking=True)
        terms, loss, norm = replay()
        terms = {name: (total.clone(), count.clone()) for name, (total, count) in terms.items()}
        return terms, loss.clone(), lr, norm.clone()  # the next replay writes over its own

    def _pad_targets(self, batch: list[Batch]) -> list[Batch]:
        """Pad positions of targets to the most that a part has had, rounded up to eighths of its tokens."""
        for part in batch:
            # Eighths: few enough shapes to be captured, and little padding in each.
            targets, eighth = len(part.observation.target_positions()[0]), max(1, part.observation.tokens.numel() // 8)
            self.num_targets = max(self.num_targets, -(-targets // eighth) * eighth)
        return [replace(part, observation=part.observation.pad_targets(self.num_targets)) for part in batch]

    def _is_due(self, shapes: tuple[Any, ...]) -> bool:
        """Count a step of these shapes, and return whether it is to be captured."""
        self.seen[shapes] += 1
        if self.seen[shapes] <= WARM_UP:
            return False
        if len(self.replays) < MAX_GRAPHS:
            return True
        warnings.warn(
            f"batches of this run have more than {MAX_GRAPHS} shapes (rows differ in cameras, actions or in how much "
            "they say): steps of other shapes run without a CUDA graph",
            stacklevel=2,
        )
        return False

    def _work(self, inputs: StepInputs, place: Callable[[Tensor], Tensor]) -> tuple[Terms, Tensor, Tensor]:
        """Do a step on tensors of the device; `place` gives the optimizer's addresses a tensor there."""
        terms, loss = self.gradients(inputs.batch, inputs.draws, inputs.scales)
        gradients = self.optimizer.gradients()
        table = place(self.optimizer.addresses(gradients))
        norm = self.optimizer.launch(table, inputs.rates, bf16=in_bf16(gradients))
        self.optimizer.masters.clear_gradients()
        return terms, loss, norm

    def _capture_step(self, inputs: StepInputs) -> tuple[StepInputs, Replay]:
        """Capture a step; its inputs are tensors of its own, and its gradients come to the same addresses each time."""
        # Copies, which belong to the graph: the caller's tensors will be freed.
        inputs_on_device, addresses_seen = inputs.map(lambda t: t.to(self.device, copy=True)), []
        table = torch.zeros(8, len(self.optimizer.names), dtype=torch.int64, device=self.device)

        def place(addresses: Tensor) -> Tensor:  # nothing can be copied from the host while a graph is captured
            addresses_seen.append(addresses)
            return table

        replay = self.capture(lambda: self._work(inputs_on_device, place))
        # Capturing has fixed the addresses of the gradients; only now can the table be filled.
        table.copy_(addresses_seen[0])
        return inputs_on_device, replay


class GpuCapture:
    """Captures work on the current GPU; the graphs share their memory, for one runs at a time."""

    def __init__(self) -> None:
        self.pool = torch.cuda.graph_pool_handle()

    def __call__(self, work: Callable[[], Any]) -> Replay:
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, pool=self.pool, capture_error_mode="thread_local"):  # a loader goes on
                result = work()
        except RuntimeError as error:
            raise RuntimeError(
                f"this step cannot become a CUDA graph ({str(error).splitlines()[0]}); set compute.cuda_graph=false"
            ) from error

        def replay() -> Any:
            graph.replay()
            return result

        return replay
