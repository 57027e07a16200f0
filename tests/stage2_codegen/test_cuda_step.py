"""The whole step of every variant on fake CUDA tensors: all of it on the device, and never waiting for it."""

from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException

from stage2_codegen.frozen.context import Context
from stage2_codegen.step import AdversarialStep
from stage2_codegen.variants import VARIANTS
from stage2_codegen.variants.contract import Batch, CodeShape
from tests.fake_cuda import CUDA, FakeAccelerator, HostCopies
from tests.training_runs import MODEL

ROWS = 4


def step_of(name: str, **options: Any) -> tuple[AdversarialStep, Batch]:
    model = {**MODEL[name], **options.pop("model", {})}
    variant, config = VARIANTS[name], VARIANTS[name].Config(**model)
    shape: CodeShape = (4, 16, 16)
    accelerator: Any = FakeAccelerator(parameters=[])
    with torch.device(CUDA):  # as `make_context` leaves it: all of it on the device
        context = Context.stand_in(shape, variant.frozen(config)).to(CUDA)
        step = AdversarialStep(variant, config, shape, context, accelerator, precision="bf16", **options)
        real = torch.randn(ROWS, *shape)
        classes = torch.zeros(ROWS, dtype=torch.int64) if config.classes else None
    accelerator.parameters += [*step.G.parameters(), *step.critic.parameters()]
    return step, Batch(real, classes)


@pytest.mark.usefixtures("fake_cuda")
@pytest.mark.parametrize("name", VARIANTS)
def test_a_step_stays_on_the_device_and_never_waits_for_it(name: str) -> None:
    step, real = step_of(name)
    step(iter([real] * step.model.n_critic), 0)  # constants may be copied once
    with HostCopies() as copies:
        step(iter([real] * step.model.n_critic), ROWS)
    assert not copies.found
    assert all(value.device == CUDA for value in step.logs.values())


@pytest.mark.usefixtures("fake_cuda")
@pytest.mark.parametrize(
    "options", [{"accumulate": 2}, {"model": {"augment": "jitter,translation,cutout"}}, {"model": {"classes": 3}}]
)
def test_neither_does_one_with_options(options: dict[str, Any]) -> None:
    step, real = step_of("dcgan", **options)
    step(iter([real]), 0)
    with HostCopies() as copies:
        step(iter([real]), ROWS)
    assert not copies.found


@pytest.mark.usefixtures("fake_cuda")
def test_what_it_looks_for_is_found() -> None:
    x = torch.zeros(3, device=CUDA)
    with pytest.raises(DataDependentOutputException):
        x.sum().item()
    with pytest.raises(RuntimeError, match="device"):
        x + torch.zeros(3)
    with HostCopies() as copies:
        torch.zeros(3).to(CUDA)
    assert copies.found
