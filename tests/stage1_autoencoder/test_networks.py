"""The autoencoder is the paper's: fully convolutional, no normalisation, codes in [-1, 1] that are not saturated."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from data.errors import InputError, MismatchError, UsageError
from data.files.checkpoints import save_weights
from data.images import to_float
from data.scenes.factors import Scenes
from stage1_autoencoder.networks import (
    FACTORS,
    Autoencoder,
    Decoder,
    Discriminator,
    Encoder,
    ResidualBlock,
    patch_basis,
)

pytestmark = pytest.mark.usefixtures("single_thread")


def random_images(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(1), dtype=dtype) * 2 - 1


@pytest.mark.parametrize("factor", FACTORS)
def test_shapes_of_square_and_other_images(factor: int) -> None:
    autoencoder = Autoencoder(factor, code_channels=5, width=2)
    for height, width in ((32, 32), (16, 48), (64, 16)):
        images = random_images(2, 3, height, width)
        latents = autoencoder.encode(images)
        assert latents.shape == (2, 5, height // factor, width // factor)
        assert latents.abs().max() <= 1
        decoded = autoencoder.decode(latents)
        assert decoded.shape == images.shape
        assert decoded.abs().max() <= 1
        assert torch.equal(decoded, autoencoder(images))


def test_nothing_of_the_default_is_computed_at_full_size() -> None:
    autoencoder, discriminator = Autoencoder().requires_grad_(False), Discriminator().requires_grad_(False)
    images = random_images(1, 3, 128, 128)
    shapes, x = [], images
    assert isinstance(autoencoder.encoder, Encoder)
    for layer in autoencoder.encoder.layers:
        x = layer(x)
        shapes += [tuple(x.shape[1:])] if isinstance(layer, nn.Conv2d) else []
    assert autoencoder.encoder.patch(images).shape == x.shape
    assert shapes == [(64, 64, 64), (192, 32, 32), (16, 32, 32)]
    assert autoencoder.decode(x).shape == images.shape
    assert discriminator(images).shape == (1, 1, 15, 15)


def test_only_convolutions_have_weights() -> None:
    allowed = (nn.Conv2d, nn.ConvTranspose2d, nn.LeakyReLU, nn.PixelShuffle, nn.PixelUnshuffle)
    for network in (Autoencoder(8, width=2), Discriminator(2)):
        leaves = [m for m in network.modules() if not list(m.children())]
        assert all(isinstance(leaf, allowed) for leaf in leaves)
        assert not list(network.buffers())


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_shifting_an_image_by_the_factor_shifts_its_code_by_one_cell(factor: int) -> None:
    autoencoder = Autoencoder(factor, code_channels=4, width=2).double()
    for block in autoencoder.encoder.modules():
        if isinstance(block, ResidualBlock):  # starts as the identity, which would hide its reach
            nn.init.normal_(block.conv2.weight, std=0.2)
    wide = random_images(1, 3, 16 * factor, 17 * factor, dtype=torch.float64)
    left, right = autoencoder.encode(wide[..., :-factor]), autoencoder.encode(wide[..., factor:])
    edge = 7  # cells the zero padding can reach
    torch.testing.assert_close(left[..., 1 + edge : -edge], right[..., edge : -edge - 1], rtol=0, atol=1e-12)
    assert left[..., 1 + edge : -edge].numel()
    assert left[..., 1 + edge : -edge].std() > 0.01


def test_codes_of_pictures_start_unsaturated() -> None:
    scenes = Scenes(4, 64)
    images = to_float(torch.from_numpy(np.stack([scenes.image(index) for index in range(4)]))).double()
    for seed in range(3):
        torch.manual_seed(seed)
        codes = torch.atanh(Autoencoder(width=16).double().encode(images))
        assert 0.05 < codes.std() < 1
        assert codes.abs().max() < 4


def test_residual_blocks_start_as_the_identity() -> None:
    block, x = ResidualBlock(8), random_images(1, 8, 5, 5)
    assert torch.equal(block(x), x)


@pytest.mark.parametrize("factor", FACTORS)
def test_the_linear_path_starts_as_orthogonal_waves_that_rebuild_a_patch(factor: int) -> None:
    for channels in (1, 3, 16):
        analysis, synthesis = (weights.double().flatten(1) for weights in patch_basis(factor, channels))
        used = torch.arange(channels) < 3 * factor**2
        torch.testing.assert_close(analysis @ synthesis.T, torch.diag(used.double()), rtol=0, atol=1e-6)
        gram = synthesis @ synthesis.T
        torch.testing.assert_close(gram, torch.diag(gram.diag()), rtol=0, atol=1e-6 * gram.max().item())
        np.testing.assert_allclose(analysis[0], 1 / (3 * factor**2), rtol=1e-6)  # the mean of the patch
    whole = Autoencoder(factor, code_channels=3 * factor**2, width=1)
    images = random_images(1, 3, 2 * factor, factor)
    assert isinstance(whole.encoder, Encoder)
    assert isinstance(whole.decoder, Decoder)
    torch.testing.assert_close(whole.decoder.patch(whole.encoder.patch(images)), images, rtol=0, atol=1e-5)


@pytest.mark.parametrize("factor", FACTORS)
def test_at_the_start_mirrored_latents_are_those_of_the_mirrored_images(factor: int) -> None:
    autoencoder, images = Autoencoder(factor, width=1).double(), random_images(2, 3, 2 * factor, 3 * factor).double()
    autoencoder.balance(images)
    latents = autoencoder.encode(images)
    mirrored = autoencoder.mirror(latents)
    torch.testing.assert_close(mirrored, autoencoder.encode(images.flip(-1)), rtol=0, atol=1e-6)
    torch.testing.assert_close(autoencoder.decode(mirrored), autoencoder.decode(latents).flip(-1), rtol=0, atol=1e-6)
    assert torch.equal(autoencoder.mirror(mirrored), latents)
    assert (mirrored - latents.flip(-1)).abs().max() > 0.1
    pixels = Autoencoder(factor=1, code_channels=3)
    assert torch.equal(pixels.mirror(images), images.flip(-1))


def test_mirrored_rows_are_decoded_from_mirrored_latents_and_mirrored_back() -> None:
    torch.manual_seed(0)
    autoencoder, images = Autoencoder(width=2), random_images(3, 3, 16, 16)
    for weight in autoencoder.parameters():
        nn.init.normal_(weight, std=0.1)
    noise = 0.1 * torch.randn(3, 16, 4, 4)
    rebuilt = autoencoder(images, noise, torch.tensor([False, True, False]))
    for row in range(3):
        latents = autoencoder.encode(images[row : row + 1])
        latents = (autoencoder.mirror(latents) if row == 1 else latents) + noise[row]
        expected = autoencoder.decode(latents).flip(-1) if row == 1 else autoencoder.decode(latents)
        torch.testing.assert_close(rebuilt[row : row + 1], expected, rtol=0, atol=1e-6)
    assert not torch.allclose(rebuilt[1], autoencoder(images, noise)[1], atol=1e-3)


def test_balanced_channels_vary_alike_and_rebuild_what_they_did() -> None:
    torch.manual_seed(0)
    images = F.interpolate(random_images(4, 3, 6, 6), 32, mode="bicubic") + 0.1 * random_images(4, 3, 32, 32)
    autoencoder = Autoencoder(width=2)
    encoder, decoder = autoencoder.encoder, autoencoder.decoder
    assert isinstance(encoder, Encoder)
    assert isinstance(decoder, Decoder)
    before, spread = decoder.patch(encoder.patch(images)), encoder.patch(images).std(dim=(0, 2, 3))
    assert spread.max() > 10 * spread.min()
    autoencoder.balance(images)
    np.testing.assert_allclose(encoder.patch(images).std(dim=(0, 2, 3)).detach(), 0.5, rtol=1e-4)
    torch.testing.assert_close(decoder.patch(encoder.patch(images)), before, rtol=0, atol=1e-5)
    grey = Autoencoder(width=2)
    grey.balance(images.mean(dim=1, keepdim=True).expand(-1, 3, -1, -1))
    assert all(parameter.isfinite().all() for parameter in grey.parameters())


def test_sizes_that_are_no_multiple_are_refused(tiny_autoencoder: Autoencoder) -> None:
    for height, width in ((30, 32), (32, 33), (0, 4)):
        with pytest.raises(UsageError, match="not a multiple"):
            tiny_autoencoder.encode(torch.zeros(1, 3, height, width))
    for factor, channels, width in ((3, 16, 4), (1, 16, 4), (4, 0, 4), (4, 16, 0)):
        with pytest.raises(UsageError):
            Autoencoder(factor, channels, width)


def test_a_run_gives_back_its_autoencoder(tmp_path: Path, tiny_autoencoder: Autoencoder) -> None:
    described = {"kind": "autoencoder", "autoencoder": tiny_autoencoder.config}
    save_weights(tmp_path / "weights", {"autoencoder": tiny_autoencoder.state_dict()}, described)
    loaded = Autoencoder.load(tmp_path)
    images = random_images(1, 3, 16, 16)
    assert torch.equal(loaded(images), tiny_autoencoder(images))
    assert loaded.fingerprint == tiny_autoencoder.fingerprint
    assert not loaded.training
    assert not any(parameter.requires_grad for parameter in loaded.parameters())


def test_other_runs_and_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        Autoencoder.load(tmp_path)
    save_weights(tmp_path / "weights", {"G": {"w": torch.zeros(1)}}, {"kind": "generator"})
    with pytest.raises(MismatchError, match="not the run of an autoencoder"):
        Autoencoder.load(tmp_path)


def test_fingerprints_tell_networks_apart() -> None:
    networks = []
    for seed, factor in itertools.product(range(2), (2, 4)):
        torch.manual_seed(seed)
        networks.append(Autoencoder(factor, 3, 2))
    assert len({network.fingerprint for network in networks}) == 4


def test_pixels_stand_for_no_autoencoder() -> None:
    """`--autoencoder pixels`: images are their own latents, which is what acceleration is measured against."""
    pixels = Autoencoder.load("pixels")
    images = random_images(2, 3, 8, 8)
    torch.testing.assert_close(pixels.encode(images), images, rtol=0, atol=0)
    torch.testing.assert_close(pixels.decode(images), images, rtol=0, atol=0)
    rebuilt = Autoencoder.from_weights(pixels.state_dict(), pixels.config, "a run")
    assert rebuilt.fingerprint == pixels.fingerprint != Autoencoder(width=4).fingerprint
