"""The training step of `sle` against the same networks and losses in the form in which FastGAN's code has them.

    uv run python -m benchmarks.fastgan [--side 256] [--batch 8] [--rounds 3] [--precisions fp32 bf16]

The public form is what PyTorch offers without any option: upsampling and convolution as two layers, maps in torch's own
layout, torch's spectral normalisation computed at every call, Adam as it comes, and an average kept parameter by
parameter. Layers, widths, losses (L1 reconstruction, no LPIPS) and one batch of fakes for both updates are equal.
"""

import argparse
import copy

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm
from torch.nn.utils.parametrize import is_parametrized

from benchmarks.machine import describe, interleaved
from benchmarks.step import Step
from stage1_autoencoder.training.precision import fast_precision
from stage2_codegen.losses import Judge
from stage2_codegen.step import detached
from stage2_codegen.variants.contract import CodeShape
from stage2_codegen.variants.sle_networks import UpConv


def in_public_form[Network: nn.Module](network: Network) -> Network:
    """A copy of the network out of torch's own layers, with new weights."""
    network = copy.deepcopy(network)
    for name, layer in list(network.named_modules()):
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            parent = network.get_submodule(name.rpartition(".")[0])
            setattr(parent, name.rpartition(".")[2], _own_layer(layer))
    return network.to(memory_format=torch.contiguous_format).train().requires_grad_(True)


def _own_layer(layer: nn.Conv2d | nn.ConvTranspose2d) -> nn.Module:
    kind = nn.ConvTranspose2d if isinstance(layer, nn.ConvTranspose2d) else nn.Conv2d
    given = (layer.in_channels, layer.out_channels, layer.kernel_size, layer.stride, layer.padding)
    own: nn.Module = kind(*given, bias=layer.bias is not None)  # type: ignore[arg-type]
    nn.init.normal_(own.weight, 0, 0.02)  # type: ignore[arg-type]
    if is_parametrized(layer):
        own = spectral_norm(own)
    return nn.Sequential(nn.Upsample(scale_factor=2), own) if isinstance(layer, UpConv) else own


class PublicStep:
    """The step of FastGAN's training loop on random codes."""

    def __init__(self, ours: Step, bf16: bool) -> None:
        step = ours.inner
        self.G, self.critic = in_public_form(step.G), in_public_form(step.critic)
        self.average = copy.deepcopy(self.G)
        self.loss = step.loss
        self.batch, self.shape, self.z_dim, self.bf16 = ours.batch, ours.shape, step.G.z_dim, bf16
        self.adams = [torch.optim.Adam(network.parameters(), 2e-4, (0.5, 0.999)) for network in (self.G, self.critic)]

    def __call__(self) -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
            real, critic = torch.randn(self.batch, *self.shape).clamp(-1, 1), Judge(self.critic, None)
            fake = self.G.judged(torch.randn(self.batch, self.z_dim))
            critic_loss, _ = self.loss.critic_loss(critic, real, detached(fake))
        self._update(critic_loss, self.critic, self.adams[1])
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
            generator_loss, _ = self.loss.generator_loss(critic, real, fake)
        self._update(generator_loss, self.G, self.adams[0])
        for average, weight in zip(self.average.parameters(), self.G.parameters(), strict=True):
            average.data.mul_(0.999).add_(0.001 * weight.data)

    @staticmethod
    def _update(loss: Tensor, network: nn.Module, adam: torch.optim.Adam) -> None:
        network.zero_grad()
        loss.backward()
        adam.step()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--precisions", nargs="+", choices=["fp32", "bf16"], default=sorted({"fp32", fast_precision()}))
    options = parser.parse_args()
    shapes: dict[str, CodeShape] = {
        "pixels": (3, options.side, options.side),
        "codes": (16, options.side // 4, options.side // 4),
    }
    print(
        f"{describe()}; {torch.get_num_threads()} thread(s), batch {options.batch}, median of {options.rounds} steps\n"
    )
    print(
        "| precision | public form on pixels, s | ours on pixels, s | ratio | ours on codes, s | ratio |\n"
        + "|---" * 6
        + "|"
    )
    for precision in options.precisions:
        bf16 = precision == "bf16"
        ours = {
            name: Step("sle", shape, options.batch, bf16, augment="", activation="swish", reconstruct="l1")
            for name, shape in shapes.items()
        }
        times = interleaved({"public": PublicStep(ours["pixels"], bf16), **ours}, options.rounds)
        cells = [f"{times['public']:.2f}"]
        for name in shapes:
            cells += [f"{times[name]:.2f}", f"{times[name] / times['public']:.2f}"]
        print(f"| {precision} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
