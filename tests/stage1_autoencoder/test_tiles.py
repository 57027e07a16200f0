"""Large pictures are encoded and decoded in tiles, and the result is that of the whole."""

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from torch import nn

from data.images import open_images
from stage1_autoencoder import tiles
from stage1_autoencoder.encoding import Encoding, _encoder
from stage1_autoencoder.networks import REACH, Autoencoder
from stage1_autoencoder.tiles import parts_of


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiles, "WHOLE", 64)
    monkeypatch.setattr(tiles, "TILE", 64)


def random_autoencoder(factor: int) -> Autoencoder:
    """In which no convolution is zero, as the last ones are at first."""
    torch.manual_seed(0)
    autoencoder = Autoencoder(factor, code_channels=4, width=4).eval().requires_grad_(False)
    for module in autoencoder.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(module.weight, std=0.2)
    return autoencoder


@pytest.mark.parametrize("factor", [2, 4, 8, 16])
def test_tiles_give_what_the_whole_gives(factor: int) -> None:
    autoencoder = random_autoencoder(factor)
    images = torch.rand(2, 3, 13 * 16, 21 * 16) * 2 - 1  # neither side is a multiple of a tile's
    latents = autoencoder.encode(images)
    torch.testing.assert_close(latents, autoencoder.encoder(images), rtol=0, atol=1e-6)
    torch.testing.assert_close(autoencoder.decode(latents), autoencoder.decoder(latents), rtol=0, atol=2e-6)
    autoencoder.reach = REACH // 2  # too few: there would be seams
    assert (autoencoder.encode(images) - latents).abs().max() > 0.01


def test_only_large_pictures_of_which_no_gradients_are_wanted_are_divided(monkeypatch: pytest.MonkeyPatch) -> None:
    autoencoder, sides = random_autoencoder(4), list[int]()
    autoencoder.decoder.register_forward_hook(lambda _, given, __: sides.append(max(given[0].shape[-2:])))
    autoencoder.decode(torch.zeros(1, 4, 16, 16))
    assert sides == [16]
    sides.clear()
    autoencoder.decode(torch.zeros(1, 4, 8, 80))
    assert len(sides) == 5
    assert max(sides) == 16 + 2 * REACH  # whatever the picture
    sides.clear()
    autoencoder.decode(torch.zeros(1, 4, 8, 80, requires_grad=True)).sum().backward()
    autoencoder.requires_grad_(True).decode(torch.zeros(1, 4, 8, 80))
    with torch.no_grad():
        autoencoder.decode(torch.zeros(1, 4, 8, 80))
    assert sides[:2] == [80, 80]
    assert len(sides) == 2 + 5


def test_parts_cover_each_latent_once_and_stay_inside() -> None:
    for count in (1, 7, 8, 9, 30):
        parts = list(parts_of(count, 8, 3))
        assert [i for part in parts for i in range(part.given.start, part.given.stop)] == list(range(count))
        assert all(0 <= part.seen.start <= part.given.start for part in parts)
        assert all(part.given.stop <= part.seen.stop <= count for part in parts)


def test_large_pictures_of_a_batch_are_encoded_one_by_one() -> None:
    autoencoder, counts = random_autoencoder(4), list[int]()
    autoencoder.encoder.register_forward_hook(lambda _, given, __: counts.append(len(given[0])))
    encoding = Encoding(open_images("scenes:3@128"), autoencoder, False, 3, "fp32", 1)
    images = np.stack([encoding.images.image(index) for index in range(3)])
    latents = _encoder(encoding, Accelerator(cpu=True))(images)
    assert set(counts) == {1}
    assert latents.shape == (3, 4, 32, 32)
    np.testing.assert_array_equal(latents[1:2], _encoder(encoding, Accelerator(cpu=True))(images[1:2]))
