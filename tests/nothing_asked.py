"""Holds on a CPU that a GPU would never be waited for."""

from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode

ASKS_THE_DEVICE = ("_local_scalar_dense", "nonzero", "is_nonzero", "unique", "masked_select", "equal")


class NothingAsked(TorchDispatchMode):
    """Fails where the host would wait for a value of the device."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.__name__.split(".")[0]
        by_mask = name == "index" and any(i is not None and i.dtype.itemsize == 1 for i in args[1])
        assert name not in ASKS_THE_DEVICE and not by_mask, func
        result = func(*args, **(kwargs or {}))
        copied = name == "_to_copy" and args[0].device.type == "cpu" != result.device.type
        assert not copied or (kwargs or {}).get("non_blocking"), "a copy from the host waits for the device"
        return result
