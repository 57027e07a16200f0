"""The linear approximation of a decoder: what is fitted, and that it leaves no grid in pictures of real latents."""

import numpy as np
import pytest
import torch
from torch import Tensor

from data.images import to_float
from data.scenes.factors import Scenes
from stage1_autoencoder.bounds import unbounded
from stage1_autoencoder.networks import Autoencoder
from stage2_codegen.frozen.linear_decoder import LinearDecoder, fitted
from stage2_codegen.health import unevenness


def random_autoencoder(factor: int = 4, channels: int = 5) -> Autoencoder:
    """With convolutions that do something, which they do not at the start of a training."""
    torch.manual_seed(0)
    autoencoder = Autoencoder(factor, channels, width=4).eval().requires_grad_(False)
    for parameter in autoencoder.decoder.parameters():
        parameter.add_(0.03 * torch.randn_like(parameter))
    return autoencoder


def scenes(count: int, size: int = 64) -> Tensor:
    made = Scenes(count, size=size)
    return to_float(torch.from_numpy(np.stack([made.image(i) for i in range(count)])))


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_a_decoder_that_is_linear_is_met_exactly(factor: int) -> None:
    torch.manual_seed(0)
    autoencoder = Autoencoder(factor, 6, width=4).requires_grad_(False)  # its convolutions start at zero
    decoder = LinearDecoder(autoencoder, torch.rand(8, 6, 16, 16) * 0.2 - 0.1)
    latents = torch.rand(3, 6, 9, 7) * 0.2 - 0.1
    torch.testing.assert_close(decoder(latents), autoencoder.decode(latents), rtol=0, atol=2e-3)


def test_the_fit_is_that_of_a_library_on_one_latent_and_its_neighbours_at_a_time() -> None:
    autoencoder, latents = random_autoencoder(), torch.rand(6, 5, 7, 7) * 1.6 - 0.8
    weight, bias = fitted(autoencoder, latents)
    before = unbounded(autoencoder.decode(latents))
    inputs, outputs = [], []
    for image, picture in zip(unbounded(latents), before, strict=True):
        for row in range(7):
            for column in range(7):
                near = [
                    image[:, min(max(row + down, 0), 6), min(max(column + right, 0), 6)]
                    for down in (-1, 0, 1)
                    for right in (-1, 0, 1)
                ]
                inputs.append(torch.cat([torch.stack(near, 1).flatten(), torch.ones(1)]))
                outputs.append(picture[:, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4].flatten())
    expected = np.linalg.lstsq(torch.stack(inputs).double().numpy(), torch.stack(outputs).double().numpy(), rcond=None)[
        0
    ]
    np.testing.assert_allclose(torch.cat([weight, bias[:, None]], 1).numpy(), expected.T, atol=1e-3)


def test_the_default_autoencoder_is_met_without_a_grid_of_patches() -> None:
    autoencoder, pictures = Autoencoder.built_in("default").requires_grad_(False), scenes(48)
    latents = autoencoder.encode(pictures)
    decoded, like = autoencoder.decode(latents[32:]), LinearDecoder(autoencoder, latents[:32])(latents[32:])
    alone = torch.tanh(autoencoder.decoder.patch(unbounded(latents[32:])))  # type: ignore[operator]
    assert (like - decoded).square().mean() < 0.5 * (alone - decoded).square().mean()
    grids = [unevenness([images], 4) for images in (decoded, like, alone)]
    assert grids[1] < 1.25 * grids[0]
    assert grids[2] > 1.5 * grids[0]


def test_a_channel_that_never_changes_does_no_harm() -> None:
    autoencoder, latents = random_autoencoder(), torch.rand(6, 5, 8, 8) * 1.6 - 0.8
    latents[:, 2] = 0.3
    assert LinearDecoder(autoencoder, latents)(latents).isfinite().all()
    assert fitted(autoencoder, latents)[0].abs().max() < 100
