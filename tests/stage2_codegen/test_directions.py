"""Directions in z: singular vectors of a known weight, principal components of known gains, and every variant."""

import pytest
import torch
from torch import Tensor, nn

from stage1_autoencoder.networks import Autoencoder
from stage2_codegen.codes import CodeScale
from stage2_codegen.directions import directions, entered_weight
from stage2_codegen.image_generator import ImageGenerator
from stage2_codegen.variants import VARIANTS, build_networks
from stage2_codegen.variants.conditional import ConditionalGenerator
from stage2_codegen.variants.contract import CodeGenerator
from tests.tiny_variants import TINY

Z_DIM = 6
SIDE = 16


class OneLayer(CodeGenerator):
    """z -> a layer of known weight -> codes."""

    def __init__(self, layer: nn.Linear | nn.ConvTranspose2d, z_dim: int = Z_DIM) -> None:
        super().__init__()
        self.z_dim, self.layer = z_dim, layer

    def forward(self, z: Tensor) -> Tensor:
        maps = self.layer(z if isinstance(self.layer, nn.Linear) else z[:, :, None, None])
        codes: Tensor = torch.tanh(maps.reshape(len(z), 3, SIDE, SIDE))
        return codes


class Gains(CodeGenerator):
    """No layer: entry i of z moves column i of all maps, by a gain of its own."""

    z_dim = Z_DIM
    gains = torch.tensor([1.0, 16.0, 2.0, 8.0, 0.5, 4.0])

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, z: Tensor) -> Tensor:
        columns = torch.zeros(len(z), SIDE)
        columns[:, : self.z_dim] = self.scale * self.gains * z
        return columns[:, None, None].expand(len(z), 3, SIDE, SIDE)


def pictures_of(generator: CodeGenerator) -> ImageGenerator:
    """Of pixels, so that pictures are codes."""
    scale = CodeScale((0.0,) * 3, (1.0,) * 3)
    return ImageGenerator(generator.eval().requires_grad_(False), scale, Autoencoder.built_in("pixels"), SIDE)


def factored(outputs: int, inputs: int = Z_DIM) -> tuple[Tensor, Tensor]:
    """A weight (outputs, inputs), and its right singular vectors, the strongest first."""
    torch.manual_seed(0)
    left, right = (torch.linalg.qr(torch.randn(rows, inputs)).Q for rows in (outputs, inputs))
    return left @ torch.diag(torch.arange(inputs, 0, -1.0)) @ right, right


def assert_same_up_to_sign(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close((found * expected).sum(1).abs(), torch.ones(len(found)))


def test_they_are_the_singular_vectors_of_a_dense_layer() -> None:
    layer = nn.Linear(Z_DIM, 3 * SIDE**2)
    layer.weight.data, expected = factored(3 * SIDE**2)
    found = directions(pictures_of(OneLayer(layer)), 3)
    assert found.shape == (3, Z_DIM)
    assert_same_up_to_sign(found, expected[:3])
    assert (found.gather(1, found.abs().argmax(1, keepdim=True)) > 0).all()


def test_they_are_the_singular_vectors_of_a_transposed_convolution() -> None:
    layer = nn.ConvTranspose2d(Z_DIM, 3, SIDE, bias=False)
    weight, expected = factored(3 * SIDE**2)
    layer.weight.data = weight.T.reshape(Z_DIM, 3, SIDE, SIDE).contiguous()
    assert_same_up_to_sign(directions(pictures_of(OneLayer(layer)), 3), expected[:3])


def test_they_move_the_noise_of_a_conditional_generator_and_never_its_class() -> None:
    layer = nn.Linear(Z_DIM + 64, 3 * SIDE**2)
    weight, expected = factored(3 * SIDE**2)
    layer.weight.data = torch.cat([weight, 100 * torch.randn(3 * SIDE**2, 64)], 1)
    generator = pictures_of(ConditionalGenerator(OneLayer(layer, Z_DIM + 64), classes=4))
    found = directions(generator, 3)
    assert found.shape == (3, Z_DIM + 4)
    assert_same_up_to_sign(found[:, :Z_DIM], expected[:3])
    assert not found[:, Z_DIM:].any()


def test_where_no_layer_reads_z_they_are_its_entries_by_their_gains() -> None:
    generator = pictures_of(Gains())
    assert entered_weight(generator) is None
    found = directions(generator, 3)
    assert found.argmax(1).tolist() == [1, 3, 5]
    assert (found.max(1).values > 0.98).all()
    torch.testing.assert_close(found.norm(dim=1), torch.ones(3))


def test_a_generator_has_no_more_than_its_noise_has_entries_and_keeps_no_hook() -> None:
    generator = pictures_of(OneLayer(nn.Linear(Z_DIM, 3 * SIDE**2)))
    assert len(directions(generator, 100)) == Z_DIM
    assert not any(layer._forward_pre_hooks for layer in generator.generator.modules())


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_has_directions(name: str) -> None:
    torch.manual_seed(0)
    generator = pictures_of(build_networks(name, (3, SIDE, SIDE), **TINY[name])[0])
    found = directions(generator, 4)
    assert found.shape == (4, generator.generator.z_dim)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(4))
    # lrm reads its noise beside a vector that z picks, and consingan convolves it.
    if name not in ("lrm", "consingan"):
        weight = entered_weight(generator)
        assert weight is not None
        assert weight.shape[1] == generator.generator.noise_dim
        torch.testing.assert_close(found @ found.T, torch.eye(4), atol=1e-4, rtol=0)
