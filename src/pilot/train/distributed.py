"""Many processes, one run: who takes part, how the model is sharded over them, and how they keep in step.

Every rank holds its own rows of every batch; `parallel` says what it holds of the model:

| parallel | weights, gradients, optimizer, average | between ranks |
|---|---|---|
| `none` | all of it, in one process | |
| `ddp` | all of it, on each rank | gradients are summed |
| `fsdp` | one part of n each; a block is gathered when it runs | weights gathered, gradients summed and spread |
| `hsdp` | as `fsdp` within groups of `shards` ranks, as `ddp` between the groups | both |

All of them are FSDP2 (`fully_shard`) on meshes of another shape, with the model's blocks as units. A run of one process
has nothing to share: its model stays a plain one, and where it computes in bf16 the fp32 weights stand beside it
(`master_weights.py`).

Ranks wait for each other in every block. They therefore run the same blocks in the same order whatever rows they have
(`run_all_modules` in `models/base.py`), and what each must know of the others before a step (counts of losses, a wish
to stop, a failure) goes round in every step, on the CPU, so that no GPU is waited for.
"""

import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any, TypeVar, cast

import torch
import torch._functorch.config
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, Replicate
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from pilot.models.base import Model
from pilot.nn import devices
from pilot.train.config import TrainConfig

Value = TypeVar("Value")

# Nothing here changes a layer's output in place, which is what FSDP warns of at each layer whose output is a view.
warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor", category=UserWarning)

CPU = torch.device("cpu")
TIMEOUT = timedelta(minutes=30)
"""How long a rank waits for the others before it gives up: longer than a policy takes to be written."""
PATIENCE = timedelta(days=30)
"""The same where one rank works and the others only wait: until it has decoded, computed statistics or evaluated."""

SAVED_OPERATIONS = (
    torch.ops.aten.mm.default,
    torch.ops.aten.addmm.default,
    torch.ops.aten.bmm.default,
    torch.ops.aten._scaled_dot_product_flash_attention.default,
    torch.ops.aten._scaled_dot_product_efficient_attention.default,
    torch.ops.aten._scaled_dot_product_cudnn_attention.default,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default,
)
"""What `selective` checkpointing keeps; everything else in a block is cheap to compute again."""


MEMORY_BUDGETS = {"none": 1.0, "selective": 0.5, "blocks": 0.0}
"""What compiled blocks may keep for the backward pass, by `checkpointing`: a share of what they would keep by default,
where 0 is what enters a block. The compiler chooses what to compute again, and none of it is dispatched from Python."""


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """The processes of a run, as one of them sees them. `mesh` is None where the model is a plain one."""

    rank: int = 0
    world_size: int = 1
    device: torch.device = CPU
    mesh: DeviceMesh | None = None
    host: dist.ProcessGroup | None = None
    """For values that ranks exchange on the CPU, so that they do not wait behind what the GPUs exchange."""
    files: dist.ProcessGroup | None = None
    """For checkpoints, which are written by a thread of their own."""
    patient: dist.ProcessGroup | None = None
    """For what may take the main rank hours (`PATIENCE`); one that dies is noticed at once all the same."""

    @property
    def is_main(self) -> bool:
        """Whether this is the rank that logs and writes the policy."""
        return self.rank == 0

    def sum(self, numbers: list[float], *, patient: bool = False) -> list[float]:
        """Sum each number over the ranks, in double precision."""
        if self.world_size == 1:
            return numbers
        # Doubles hold counts exactly up to 2^53; floats would lose tokens of a large batch.
        total = torch.tensor(numbers, dtype=torch.float64)
        dist.all_reduce(total, group=self.patient if patient else self.host)
        return total.tolist()

    def gather(self, value: Value) -> list[Value]:
        """Return the values of all ranks, in the order of ranks."""
        if self.world_size == 1:
            return [value]
        values: list[Any] = [None] * self.world_size
        dist.all_gather_object(values, value, group=self.host)
        return values

    def any(self, yes: bool, *, patient: bool = False) -> bool:
        """Return whether `yes` is true on at least one rank."""
        return self.sum([float(yes)], patient=patient)[0] > 0

    @contextmanager
    def fail_together(self, *, patient: bool = False) -> Iterator[None]:
        """Raise on every rank when the block fails on one, so that none waits for one that is not coming.

        `patient`: the block may take one rank longer than `TIMEOUT`.

        Raises:
            RuntimeError: it failed on another rank; where it failed, its own error.
        """
        failed: Exception | None = None
        try:
            yield
        except Exception as error:
            failed = error
        # Every rank asks, whether it failed or not: so they meet here and not in a call that the failed one never
        # makes.
        if self.any(failed is not None, patient=patient):
            reasons = self.gather(None if failed is None else f"{type(failed).__name__}: {failed}")
            if failed is not None:
                raise failed
            rank, reason = next((rank, reason) for rank, reason in enumerate(reasons) if reason is not None)
            raise RuntimeError(f"rank {rank} has failed: {reason}")

    def main_first(self, work: Callable[[], Value]) -> Value:
        """Do `work` on the main rank, then on the others: they find what it has left on disk."""
        results: list[Value] = []
        for turn in (True, False):
            with self.fail_together(patient=True):
                if self.is_main == turn:
                    results.append(work())
        return results[0]


@contextmanager
def connect(config: TrainConfig) -> Iterator[Ranks]:
    """Join the ranks of a run: those that `torchrun` (or Slurm through it) has started, or this process alone.

    A process group that is there already is used and left as it is.

    Raises:
        ValueError: the number of processes does not fit `parallel`, `shards` or `noise_per`.
    """
    count, rank = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("RANK", 0))
    joined = dist.is_initialized()
    if joined:
        count, rank = dist.get_world_size(), dist.get_rank()
    _check_world_size(config, count)
    device = process_device(config, ranks=count)
    if device.type == "cuda":
        # NCCL and Triton take the current device, whatever device a tensor is on.
        torch.cuda.set_device(device)
    if count == 1:
        yield Ranks(device=device)
        return
    if not joined:
        # Both on a GPU: counts and errors go over the CPU, gradients over NCCL.
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, timeout=TIMEOUT)
    try:
        host, files, patient = (
            cast(dist.ProcessGroup, dist.new_group(backend="gloo", timeout=timeout))
            for timeout in (TIMEOUT, TIMEOUT, PATIENCE)
        )
        mesh = _make_mesh(config, count, device)
        yield Ranks(
            rank=rank, world_size=count, device=device, mesh=mesh, host=host, files=files, patient=patient
        )  # fmt: skip
    finally:
        if not joined:
            dist.destroy_process_group()


def _check_world_size(config: TrainConfig, count: int) -> None:
    if config.parallel.strategy == "none" and count > 1:
        raise ValueError(f"{count} processes were started and parallel is 'none'; set parallel to ddp, fsdp or hsdp")
    if config.parallel.strategy == "hsdp" and count % num_shards(config):
        raise ValueError(f"{count} ranks do not split into groups of {num_shards(config)} (field `shards`)")
    if config.objective.noise_per == "step" and (count > 1 or config.parallel.accumulate > 1):
        raise ValueError(
            f"noise_per='step' is for one process that takes its batch at once, not for {count} ranks of "
            f"{config.parallel.accumulate} passes; set noise_per=row"
        )


def process_device(config: TrainConfig, *, ranks: int = 1) -> torch.device:
    """Return the device of this process; `auto` and `cuda` mean its own GPU, by its number among those of the machine.

    Raises:
        ValueError: there is no such device here, or it is one GPU and there are several `ranks`.
    """
    device = devices.resolve_device(config.compute.device)
    if device.type != "cuda":
        return device
    if device.index is None:
        return devices.resolve_device(f"cuda:{os.environ.get('LOCAL_RANK', 0)}")
    if ranks > 1:
        raise ValueError(
            f"device='{config.compute.device}' is one GPU, and there are {ranks} processes; set device=cuda"
        )
    return device


def num_shards(config: TrainConfig) -> int:
    """Return how many ranks share one copy of the model under `hsdp`: by default those of one machine."""
    return config.parallel.shards or int(os.environ.get("LOCAL_WORLD_SIZE", 1))


def _make_mesh(config: TrainConfig, count: int, device: torch.device) -> DeviceMesh:
    if config.parallel.strategy == "fsdp":
        return init_device_mesh(device.type, (count,), mesh_dim_names=("shard",))
    inner = num_shards(config) if config.parallel.strategy == "hsdp" else 1
    # DDP is the case of shards of one rank: gradients are reduced over all, and nothing is gathered.
    return init_device_mesh(device.type, (count // inner, inner), mesh_dim_names=("replicate", "shard"))


def parallelize(model: Model, config: TrainConfig, ranks: Ranks) -> Model:
    """Move the model to its device; checkpoint, compile and shard its blocks as the run asks for.

    Names of weights stay as they are.
    """
    model.to(ranks.device)
    for block in model.blocks():
        if config.compute.compile:  # all blocks of a stack share one graph: their weights are its inputs
            block.forward = torch.compile(block.forward, dynamic=False)  # lengths are padded; torch 2.13 fails on many
        elif config.compute.checkpointing != "none":
            options = {"use_reentrant": False, "preserve_rng_state": False, **_checkpoint_options(config)}
            block.forward = partial(checkpoint, block.forward, **options)
    if config.compute.compile:
        torch._dynamo.config.recompile_limit = 64  # graphs: one per stack and number of its rows
        torch._functorch.config.activation_memory_budget = MEMORY_BUDGETS[config.compute.checkpointing]
    if ranks.mesh is None:
        return model
    in_bf16 = config.computes_in_bf16(ranks.device.type)
    low = {"param_dtype": torch.bfloat16, "reduce_dtype": torch.float32} if in_bf16 else {}
    options = {"mesh": ranks.mesh, "mp_policy": MixedPrecisionPolicy(**low, cast_forward_inputs=False)}
    # Inner modules first: what is sharded already is left out of the units around it.
    if separate_modules := model.separate_modules():
        fully_shard(separate_modules, **options)
    for block in model.blocks():
        fully_shard(block, **options)
    fully_shard(model, **options)
    # FSDP gathers before `forward` alone; these are the methods that the trainer calls instead.
    for method in ("loss_terms", "sample_actions"):
        register_fsdp_forward_method(model, method)
    return model


def _checkpoint_options(config: TrainConfig) -> dict[str, Any]:
    if config.compute.checkpointing != "selective":
        return {}

    def policy(_context: Any, operation: Any, *_args: Any, **_options: object) -> CheckpointPolicy:
        return CheckpointPolicy.MUST_SAVE if operation in SAVED_OPERATIONS else CheckpointPolicy.PREFER_RECOMPUTE

    return {"context_fn": partial(create_selective_checkpoint_contexts, policy)}


def local_shard(tensor: Tensor) -> Tensor:
    """Return this rank's part of a sharded tensor, or a plain tensor itself; they share their memory."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def full_tensor(tensor: Tensor) -> Tensor:
    """Return all of a sharded tensor, on every rank, or a plain tensor itself."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def gather_weights(weights: Mapping[str, Tensor], ranks: Ranks) -> dict[str, Tensor]:
    """Gather all weights in the memory of the main rank; on the others return nothing."""
    result = {}
    for name, weight in weights.items():
        full = full_tensor(weight)  # every rank takes part
        if ranks.is_main:
            result[name] = full.cpu()
    return result


def reshard(model: nn.Module) -> None:
    """Drop gathered copies of the weights, which have changed: the model gathers them anew when it runs next."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def shard_like(part: Tensor, tensor: Tensor) -> Tensor:
    """Return a tensor that is sharded as `tensor` is, of which `part` is this rank's."""
    if not isinstance(tensor, DTensor):
        return part
    return DTensor.from_local(
        part, tensor.device_mesh, tensor.placements, run_check=False, shape=tensor.shape, stride=tensor.stride()
    )


def shard_of(full: Tensor, tensor: Tensor) -> Tensor:
    """Return this rank's part of `full`, which every rank has, if it were sharded as `tensor` is."""
    if not isinstance(tensor, DTensor):
        return full
    everywhere = [Replicate()] * tensor.device_mesh.ndim
    return (
        DTensor.from_local(full, tensor.device_mesh, everywhere).redistribute(placements=tensor.placements).to_local()
    )
