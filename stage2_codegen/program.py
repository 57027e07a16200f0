"""A trained generator and its decoder as one program, z -> images, that runs without this package."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from data.images import to_uint8
from stage2_codegen.image_generator import NOISE_SEED, ImageGenerator
from stage2_codegen.rank_noise import given_noise


class Drawing(nn.Module):
    """z (N, z_dim), fp32 -> images (N, 3, H, W), uint8, the same for the same z."""

    def __init__(self, pipe: ImageGenerator, noise: Sequence[Tensor]) -> None:
        """`noise` is what the generator draws besides z, in the order in which it does."""
        super().__init__()
        self.generator, self.autoencoder, self.scale = pipe.generator, pipe.autoencoder, pipe.scale
        self.noise = noise

    def forward(self, z: Tensor) -> Tensor:
        with given_noise(self.noise):
            codes = self.generator(z)
        return to_uint8(self.autoencoder.decode(self.scale.to_latents(codes)))


def drawing(pipe: ImageGenerator) -> Drawing:
    """Make the program's module, on the CPU."""
    # Drawn on the device of the generator, so that the image of the seed is the one that is drawn there.
    noise = [drawn.cpu().clone() for drawn in pipe.other_noise(NOISE_SEED)]
    return Drawing(pipe, noise).cpu().to(memory_format=torch.contiguous_format).eval()


@torch.no_grad()
def traced(module: Drawing) -> ExportedProgram:
    """Trace the module for any number of samples N; the program holds no example and no name of a file."""
    # An example of 1 would fix N to 1, as torch takes sides of 1 to be constant.
    z = torch.zeros(2, module.generator.z_dim)
    program = torch.export.export(module, (z,), dynamic_shapes={"z": {0: Dim("N", min=1)}}, strict=False)
    program.example_inputs = None  # which `torch.export.save` would pickle
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)
    return program
