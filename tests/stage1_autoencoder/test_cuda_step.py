"""The step of the autoencoder, its decoder and the offline features on fake CUDA tensors."""

from pathlib import Path
from typing import Any

import pytest
import torch

from stage1_autoencoder.configs import TrainAEConfig
from stage1_autoencoder.networks import Autoencoder
from stage1_autoencoder.step import AutoencoderStep
from tests.fake_cuda import CUDA, FakeAccelerator, HostCopies

ROWS = 4


@pytest.mark.usefixtures("fake_cuda")
def test_a_step_copies_its_crops_and_noise_and_never_waits() -> None:
    config = TrainAEConfig(
        data=("none",), out=Path("none"), size=32, batch_size=ROWS, width=4, code_channels=4, discriminator_width=4,
        code_noise=0.1, mirror=True, warmup_kimg=0, precision="bf16",
    )  # fmt: skip
    accelerator: Any = FakeAccelerator(parameters=[])
    with torch.device(CUDA):
        initial = Autoencoder(config.factor, config.code_channels, config.width)
        step = AutoencoderStep(config, None, initial, accelerator, slice(0, ROWS))  # type: ignore[arg-type]
    accelerator.parameters += [*step.autoencoder.parameters(), *step.discriminator.parameters()]
    crops = torch.zeros(ROWS, 3, config.size, config.size, dtype=torch.uint8)
    step(crops, 0)
    with HostCopies() as copies:
        logs = step(crops, ROWS)
    assert len(copies.found) == 3  # the crops, their noise, and the signs of mirrored channels
    assert set(logs) == {"loss/l1", "loss/adversarial", "loss/discriminator"}
    assert all(value.device == CUDA for value in logs.values())


@pytest.mark.usefixtures("fake_cuda")
def test_neither_does_the_autoencoder() -> None:
    with torch.device(CUDA):
        autoencoder = Autoencoder(4, 4, width=4)
        images = torch.zeros(ROWS, 3, 16, 16)
    with HostCopies() as copies, torch.autocast("cuda", torch.bfloat16):
        assert autoencoder.decode(autoencoder.encode(images)).device == CUDA
    assert not copies.found
