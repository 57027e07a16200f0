"""fp32 where half precision would lose what is computed: in statistics, penalties, norms and long sums."""

import contextlib
from contextlib import AbstractContextManager

import torch
from torch import Tensor


def at_least_fp32(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def full_precision(x: Tensor) -> AbstractContextManager[object]:
    """Leave autocast, where the device of x has one (meta has none)."""
    known = torch.amp.is_autocast_available(x.device.type)
    return torch.autocast(x.device.type, enabled=False) if known else contextlib.nullcontext()
