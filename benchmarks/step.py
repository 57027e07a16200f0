"""One training step of a variant on random codes: what the speed benchmarks time."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from stage1_autoencoder.loop import Precision, make_accelerator
from stage2_codegen.step import AdversarialStep
from stage2_codegen.variants import VARIANTS
from stage2_codegen.variants.contract import CodeShape


class Step:
    """The trainer's step, with one critic update; a variant has `n_critic` of them.

    Any shape will do: the pixel networks that a paper starts from are larger than what `build_networks` gives.
    """

    def __init__(
        self,
        name: str,
        shape: CodeShape,
        batch: int,
        bf16: bool = False,
        engine: Mapping[str, Any] = MappingProxyType({}),
        **model: Any,
    ) -> None:
        """`engine` goes to `AdversarialStep`, `model` to the variant's configuration."""
        config = VARIANTS[name].Config(**{**model, "n_critic": 1})
        accelerator, std = make_accelerator(), torch.ones(shape[0])
        precision: Precision = "bf16" if bf16 else "fp32"
        self.inner = AdversarialStep(VARIANTS[name], config, shape, std, accelerator, precision=precision, **engine)
        self.batch, self.shape, self.device = batch, shape, accelerator.device
        self.nimg = 0

    def __call__(self) -> None:
        real = torch.randn(self.batch, *self.shape, device=self.device).clamp(-1, 1)
        self.inner(iter([real.contiguous(memory_format=torch.channels_last)]), self.nimg)
        self.nimg += self.batch


class _Counter(TorchDispatchMode):
    """What `FlopCounterMode` counts; that one also follows modules, and stumbles over gradients of gradients."""

    flops = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if formula := flop_registry.get(func._overloadpacket):
            self.flops += formula(*args, **(kwargs or {}), out_val=out)
        return out


def flops(step: Step) -> int:
    """Floating-point operations of one step, which is made; a multiply-add is two."""
    with _Counter() as counter:
        step()
    return counter.flops
