"""The engine in CUDA graphs whose stacks are Triton kernels: what acts on an NVIDIA GPU.

All is as in `graphs.py` but what a graph holds: stacks and towers of `fused_stack.py`, and denoising steps whose ends
are kernels too (`nn/kernels/steps.py`), so that a step is some hundred launches. What these do not take (many chunks at
once, actions that are given, tokens that do not all see the same) is worked with PyTorch's matrix products.
"""

from collections.abc import Sequence
from typing import cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from pilot.data.layout import Observation
from pilot.infer.engine.fast import FastEngine
from pilot.infer.engine.fused_stack import FusedScratch, FusedSiglip, FusedStack, can_fuse, can_launch_early
from pilot.infer.engine.graphs import GraphBuffers, GraphEngine
from pilot.infer.engine.stack import Span
from pilot.infer.engine.state import DenoisePlan
from pilot.models import flow
from pilot.models.pi import Pi, PiConfig
from pilot.nn.gemma import Gemma
from pilot.nn.kernels import products, steps
from pilot.nn.kernels.products import MAX_ROWS, Stream
from pilot.nn.siglip import Siglip


def can_fuse_model(config: PiConfig) -> bool:
    """Whether both stacks of a model have kernels."""
    return all(can_fuse(stack) for stack in (config.vlm, config.action_expert) if stack is not None)


class FusedEngine(GraphEngine):
    """A `GraphEngine` in kernels. For `early` see `FusedStack`."""

    def __init__(self, model: Pi, *, early: bool | None = None) -> None:
        self.early = can_launch_early(model.embedding.weight.device) if early is None else early
        self.towers: dict[int, FusedSiglip] = {}
        super().__init__(model)

    @torch.inference_mode()
    def quantize(self, observations: Sequence[Observation]) -> None:
        """Compute the MLPs of the backbone's prefill in FP8 from now on, with scales from these observations.

        Weights of the GPU's memory grow by half of those MLPs. Needs Hopper or Ada.
        """

        def calibrate() -> None:
            for observation in observations:
                FastEngine.prefill(self, observation.map(lambda x: x.to(self.device)), max_new_tokens=1)

        cast(FusedStack, self.vlm).quantize(calibrate)
        # Their graphs have the bf16 products in them.
        self.buffers_by_kind.clear()

    def stack(self, gemma: Gemma) -> FusedStack:
        # Words are slower with early launches: their products wait for memory, not for launches (1.94 against 2.17 ms
        # a word on an H200).
        return FusedStack(gemma, early=self.early and gemma is self.model.action_expert)

    def embed_images(self, tower: nn.Module, pictures: Float[Tensor, "n h w 3"]) -> Float[Tensor, "n p d"]:
        if id(tower) not in self.towers:
            self.towers[id(tower)] = FusedSiglip(cast(Siglip, tower))
        return self.towers[id(tower)](pictures)

    def make_denoise_plan(self, times: Float[Tensor, " n"]) -> DenoisePlan:
        """Compute the constants as `FastEngine` does, with the shift of the final norm already behind `action_out`."""
        plan, matrix = super().make_denoise_plan(times), self.model.action_out.weight.float()
        for norms in plan.norms:
            if (shift := norms[-1].shift) is not None:
                norms[-1] = norms[-1]._replace(shifted=shift @ matrix.T)
        return plan

    def denoise_graph(
        self, buffers: GraphBuffers, *, num_steps: int, solver: flow.Solver, pads: bool
    ) -> Float[Tensor, "n b ah ad"]:
        slots = buffers.kinds.shape[1] - self.flow_tokens
        prefilled = buffers.with_all_slots(slots)
        adaptive = self.config.time_conditioning == "adarms"
        if buffers.noise.shape[:2].numel() > MAX_ROWS or (adaptive and self.state_tokens):
            return super().denoise_graph(buffers, num_steps=num_steps, solver=solver, pads=pads)
        plan = self.denoise_plan(num_steps, solver=solver)
        read_state, actions = self.flow_spans(prefilled, horizon=buffers.noise.shape[1])
        if read_state is not None:
            state = self.model.state_in(buffers.state.to(self.model.dtype))
            self.expert.run(state, read_state, norms=plan.norms[0], stop=True)
        padded_dims = buffers.padded_dims if pads else None
        return self.integrate(
            plan, actions, buffers.noise, num_steps=num_steps, solver=solver, padded_dims=padded_dims
        )  # fmt: skip

    def integrate(
        self,
        plan: DenoisePlan,
        span: Span,
        noise: Float[Tensor, "b ah ad"],
        *,
        num_steps: int,
        solver: flow.Solver,
        padded_dims: Bool[Tensor, "b ad"] | None,
    ) -> Float[Tensor, "n b ah ad"]:
        """Return all points on the way, as `flow.integrate` does, in kernels."""
        # Each step's kernel writes its point where it is returned: nothing is stacked or copied.
        points = noise.new_empty(num_steps + 1, *noise.shape)
        points[0].copy_(noise)
        halfway = torch.empty_like(noise)

        def pad(end: Tensor, steps: float) -> None:
            """Put padded dims where they are in training after so many steps."""
            if padded_dims is not None:
                # The velocity in padded dims is the noise itself, so their path has a closed form.
                torch.where(padded_dims[:, None], noise * (1 - steps / num_steps), end, out=end)

        for step in range(num_steps):
            here, there = points[step], points[step + 1]
            if solver == "midpoint":
                self.advance(plan, 2 * step, span, at=here, start=here, by=-0.5 / num_steps, end=halfway)
                pad(halfway, step + 0.5)
                self.advance(plan, 2 * step + 1, span, at=halfway, start=here, by=-1 / num_steps, end=there)
            else:
                self.advance(plan, step, span, at=here, start=here, by=-1 / num_steps, end=there)
            pad(there, step + 1)
        return points

    def advance(
        self, plan: DenoisePlan, i: int, span: Span, *, at: Tensor, start: Tensor, by: float, end: Tensor
    ) -> None:
        """`end = start + by · velocity` with the `i`-th evaluation of the velocity, which looks at `at`."""
        expert, scratch, norms = cast(FusedStack, self.expert), span.scratch, plan.norms[i]
        assert isinstance(scratch, FusedScratch)
        x_t, model = at.flatten(0, 1), self.model
        if plan.mixing is None:
            stream = Stream(scratch.branch, scratch.normed, scratch.squares)
            steps.embed_actions(x_t, model.action_in, stream=stream, factor=norms[0].factor, early=self.early)
        else:
            embedded = self.embed_actions(x_t.to(model.dtype), plan, i)
            stream = Stream(embedded, scratch.normed, scratch.squares)
            products.begin(stream, norms[0].factor, early=self.early)
        expert.run_stream(stream, span, norms=norms)
        steps.step_along(
            stream, model.action_out, norms[-1].shifted, start=start.flatten(0, 1), by=by, end=end.flatten(0, 1),
            early=self.early,
        )  # fmt: skip
