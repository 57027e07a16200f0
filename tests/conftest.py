"""Fixtures that several packages' tests share; torch is imported only by the tests that need it."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from stage1_autoencoder.networks import Autoencoder


@pytest.fixture
def single_thread() -> Iterator[None]:
    """One torch thread, so that sums are added in one order whatever the machine."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tiny_autoencoder() -> "Autoencoder":
    """Untrained, factor 4, 3 code channels, width 4; not to be changed."""
    import torch

    from stage1_autoencoder.networks import Autoencoder

    torch.manual_seed(0)
    return Autoencoder(factor=4, code_channels=3, width=4).eval().requires_grad_(False)


@pytest.fixture
def flip_bit() -> Callable[[Path, int], None]:
    """Damage a file: flip one bit of the byte at an offset (from the end when negative)."""

    def flip(path: Path, offset: int) -> None:
        content = bytearray(path.read_bytes())
        content[offset] ^= 1 << (offset % 7)
        path.write_bytes(content)

    return flip
