"""fp32 for computations that half precision would spoil: statistics, penalties, norms and long sums."""

import contextlib
from contextlib import AbstractContextManager

import torch
from torch import Tensor


def at_least_fp32(x: Tensor) -> Tensor:
    """Convert half precision to fp32; fp32 and fp64 stay as they are."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def full_precision(x: Tensor) -> AbstractContextManager[object]:
    """Return a context outside autocast, where the device of x has autocast (the meta device has none)."""
    known = torch.amp.is_autocast_available(x.device.type)
    return torch.autocast(x.device.type, enabled=False) if known else contextlib.nullcontext()


def compute_dtype(x: Tensor) -> torch.dtype:
    """Return the type to which convolutions and matrix products convert x here: that of autocast where it is on."""
    kind = x.device.type
    if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
        return torch.get_autocast_dtype(kind)
    return x.dtype
