"""Fake CUDA tensors, which have a device and a shape but no numbers: a training step without a GPU.

A step fails on them where tensors of two devices meet and where the host would wait for the device, because it asks
for a value. Gradients are zeros: without a driver torch cannot run a backward pass on this device, and its formulas are
torch's own.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from stage2_codegen import codes

CUDA = torch.device("cuda", 0)


class HostCopies(TorchDispatchMode):
    """Collects what is copied from the host to the device."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        given = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        made = [x for x in tree_leaves(out) if isinstance(x, Tensor)]
        if any(x.device.type == "cpu" and x.dim() for x in given) and any(x.device == CUDA for x in made):
            self.found.append(str(func))
        return out


class FakeAccelerator(SimpleNamespace):
    """Accelerate's own asks the driver for the device."""

    device, num_processes = CUDA, 1

    def prepare(self, *networks: nn.Module) -> tuple[nn.Module, ...]:
        return networks

    def no_sync(self, network: nn.Module) -> Any:
        return nullcontext()

    def backward(self, loss: Tensor) -> None:
        assert loss.shape == ()
        assert loss.device == CUDA
        assert loss.requires_grad
        for p in self.parameters:
            p.grad = torch.zeros_like(p)


def _move(module: nn.Module, convert: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
    """`nn.Module._apply` but for layouts, since that cannot exchange the values of a fake parameter."""
    for part in module.modules():
        for name, p in part._parameters.items():
            if p is not None and (moved := convert(p.detach())).device != p.device:
                part._parameters[name] = nn.Parameter(moved, requires_grad=p.requires_grad)
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = convert(buffer)
    return module


def _gradients(outputs: Tensor, inputs: Any, **options: Any) -> tuple[Tensor, ...]:
    """In place of `torch.autograd.grad`: zeros that depend on what they are gradients of."""
    assert outputs.device == CUDA
    inputs = inputs if isinstance(inputs, list | tuple) else [inputs]
    return tuple(torch.zeros_like(x) + 0 * outputs for x in inputs)


@contextmanager
def faked() -> Iterator[None]:
    """Inside, tensors have no numbers, and the device `CUDA` is there."""
    randint = torch.randint
    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setattr(nn.Module, "_apply", _move)
        patch.setattr(torch.autograd, "grad", _gradients)
        patch.setattr(Tensor, "__deepcopy__", lambda x, memo: memo.setdefault(id(x), x.detach().clone()))
        # A number that the host draws for itself is not one that it waits for.
        patch.setattr(torch, "randint", lambda n, size, **on: randint(n, size, **on) if size else 0)
        patch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
        patch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
        # Columns are kept for the next step, and those without numbers must not be.
        codes._column.cache_clear()
        stack.callback(codes._column.cache_clear)
        stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
        yield
