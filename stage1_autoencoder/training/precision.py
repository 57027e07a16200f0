"""Mixed precision: where the hardware computes in bf16, and how a forward pass is put into it."""

import torch
from accelerate import Accelerator

from stage1_autoencoder.training.config import Precision


def autocast(accelerator: Accelerator, precision: Precision) -> torch.autocast:
    """Mixed precision for a forward pass; fp32 is a no-op."""
    return torch.autocast(accelerator.device.type, torch.bfloat16, enabled=precision == "bf16")


def fast_precision() -> Precision:
    """bf16 where the hardware computes in it, else fp32."""
    supported = torch.cuda.is_bf16_supported() if torch.cuda.is_available() else torch.cpu._is_avx512_bf16_supported()
    return "bf16" if supported else "fp32"
