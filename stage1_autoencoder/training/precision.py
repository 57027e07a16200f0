"""Mixed precision: whether the hardware supports bf16, and how a forward pass uses it."""

import torch
from accelerate import Accelerator

from stage1_autoencoder.training.config import Precision


def autocast(accelerator: Accelerator, precision: Precision) -> torch.autocast:
    """Return a context in which a forward pass has mixed precision; for fp32 it does nothing."""
    return torch.autocast(accelerator.device.type, torch.bfloat16, enabled=precision == "bf16")


def fast_precision() -> Precision:
    """Return bf16 where the hardware computes in it, otherwise fp32."""
    supported = torch.cuda.is_bf16_supported() if torch.cuda.is_available() else torch.cpu._is_avx512_bf16_supported()
    return "bf16" if supported else "fp32"
