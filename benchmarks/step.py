"""One training step of a variant on random codes: what the speed benchmarks time."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from benchmarks.machine import interleaved
from stage1_autoencoder.training.config import Precision
from stage1_autoencoder.training.processes import make_accelerator
from stage2_codegen.frozen.context import Context
from stage2_codegen.step import AdversarialStep
from stage2_codegen.variants import VARIANTS
from stage2_codegen.variants.contract import Batch, CodeShape

_CONVOLUTIONS = ((64, 64), (128, 64), (256, 32), (512, 16))  # channels, side


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
        accelerator, variant = make_accelerator(), VARIANTS[name]
        context = Context.stand_in(shape, variant.frozen(config)).to(accelerator.device)
        precision: Precision = "bf16" if bf16 else "fp32"
        self.inner = AdversarialStep(variant, config, shape, context, accelerator, precision=precision, **engine)
        self.batch, self.shape, self.device = batch, shape, accelerator.device
        self.nimg = 0

    def __call__(self) -> None:
        real = torch.randn(self.batch, *self.shape, device=self.device).clamp(-1, 1)
        self.inner(iter([Batch(real.contiguous(memory_format=torch.channels_last))]), self.nimg)
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


def convolution_peak(batch: int, bf16: bool) -> float:
    """FLOP/s of the best 3 x 3 convolution, forward and backward, of the sizes that the variants use."""
    runs = {str(size): _convolution(*size, batch, bf16) for size in _CONVOLUTIONS}
    times = interleaved({name: run for name, (run, _) in runs.items()}, 5)
    return max(work / times[name] for name, (_, work) in runs.items())


def _convolution(channels: int, side: int, batch: int, bf16: bool) -> tuple[Callable[[], None], int]:
    """A 3 x 3 convolution forward and backward, and its floating-point operations."""
    placed: Any = {
        "device": "cuda" if torch.cuda.is_available() else "cpu",
        "dtype": torch.bfloat16 if bf16 else torch.float32,
    }
    layer = torch.nn.Conv2d(channels, channels, 3, padding=1, **placed).to(memory_format=torch.channels_last)
    maps = torch.randn(batch, channels, side, side, **placed).contiguous(memory_format=torch.channels_last)
    maps.requires_grad_(True)

    def run() -> None:
        out = layer(maps)
        out.backward(out.detach())

    return run, 3 * 2 * batch * 9 * channels**2 * side**2
