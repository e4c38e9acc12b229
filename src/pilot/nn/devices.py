"""The device that a person names."""

import torch
from torch import Tensor


def resolve_device(name: str) -> torch.device:
    """Return the device of a name; `auto` is a GPU if there is one, else the CPU.

    Raises:
        ValueError: torch knows no such device, or has none here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"there is no device '{name}'; choose auto, cpu or cuda") from error
    if device.type not in ("cpu", "cuda", "mps"):
        raise ValueError(f"pilot does not compute on '{name}'; choose auto, cpu or cuda")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ValueError(f"there is no device '{name}' here; choose auto or cpu")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"torch {torch.__version__} sees {torch.cuda.device_count()} GPUs here, not '{name}'; choose auto or cpu"
        )
    return device


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Return the tensor on that device. To a GPU it goes from pinned memory, so that nothing waits for the copy."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        # From ordinary memory the copy would wait for the GPU's queue, whatever `non_blocking` says.
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)
