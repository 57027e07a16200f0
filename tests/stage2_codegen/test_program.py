"""A traced program draws what the generator draws, for any number of samples."""

import pytest
import torch

from stage1_autoencoder.networks import Autoencoder
from stage2_codegen.codes import CodeScale
from stage2_codegen.image_generator import NOISE_SEED, ImageGenerator
from stage2_codegen.program import drawing, traced
from stage2_codegen.variants import VARIANTS, configured
from stage2_codegen.variants.conditional import build_generator
from stage2_codegen.variants.sle_networks import NoiseInjection
from tests.tiny_variants import TINY


def make_pipe(name: str, autoencoder: Autoencoder, classes: int = 0) -> ImageGenerator:
    """An untrained generator of codes of 16 x 16, whose noise besides z shows."""
    torch.manual_seed(0)
    shape = (autoencoder.code_channels, 16, 16)
    variant, config = configured(name, shape, TINY[name] | {"classes": classes})
    generator = build_generator(variant, shape, config).eval().requires_grad_(False)
    for layer in generator.modules():
        if isinstance(layer, NoiseInjection):
            layer.weight.fill_(0.5)
    scale = CodeScale((0.1,) * shape[0], (0.9,) * shape[0])
    names = [str(number) for number in range(classes)]
    return ImageGenerator(generator, scale, autoencoder, 16 * autoencoder.factor, class_names=names)


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_can_be_traced_for_any_number_of_samples(name: str) -> None:
    pipe = make_pipe(name, Autoencoder(factor=1, code_channels=3).eval())
    module = drawing(pipe)
    program = traced(module).module()
    for count in (1, 3):
        z = pipe.noise(range(count))
        difference = program(z).int() - module(z).int()
        assert difference.shape == (count, 3, 16, 16)
        assert difference.abs().max() <= 1


def test_a_program_draws_the_picture_of_its_noise_seed(tiny_autoencoder: Autoencoder) -> None:
    pipe = make_pipe("sle", tiny_autoencoder)
    picture = torch.from_numpy(pipe([NOISE_SEED])).int()
    other = torch.from_numpy(pipe([NOISE_SEED + 1])).int()
    module = drawing(pipe)
    assert len(module.noise) > 0
    program = traced(module).module()
    assert (program(pipe.noise([NOISE_SEED])).int() - picture).abs().max() <= 1
    assert (program(pipe.noise([NOISE_SEED + 1])).int() - other).abs().max() > 1  # which has its own noise


def test_a_conditional_program_takes_the_weights_of_the_classes(tiny_autoencoder: Autoencoder) -> None:
    pipe = make_pipe("accel", tiny_autoencoder, classes=2)
    program = traced(drawing(pipe)).module()
    noise = torch.zeros(1, pipe.generator.noise_dim)
    pictures = [program(torch.cat([noise, weights[None]], 1)) for weights in torch.eye(2)]
    assert not torch.equal(*pictures)
