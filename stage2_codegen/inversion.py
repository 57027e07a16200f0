"""Finding the z of given codes ("back-tracking", FastGAN, table 5): from the nearest of many samples, by gradients."""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from data.seeds import IMAGE_NOISE, derive_seed
from stage2_codegen.rank_noise import shared_noise
from stage2_codegen.variants.contract import CodeGenerator

LR, REFINING_LR = 0.1, 0.05  # from the nearest sample, and from where an earlier search has come
BETAS = (0.9, 0.99)
COMPARED_SIDE = 16  # side of the codes that are searched; larger ones are averaged down to it
NORMS = (0.8, 1.2)  # range of the norm of a z, relative to that of noise: a generator never saw others in training


def compared(codes: Tensor) -> Tensor:
    """Reduce codes (N, C, S, S) to the vectors (N, D) by which they are searched."""
    return F.adaptive_avg_pool2d(codes, min(COMPARED_SIDE, codes.shape[-1])).flatten(1)


def nearest(targets: Tensor, candidates: Tensor) -> Tensor:
    """Return the index, among candidates reduced by `compared`, of the nearest to each target (N, C, S, S)."""
    return torch.cdist(compared(targets), candidates).argmin(1)


View = Callable[[Tensor], Tensor]


def as_they_are(codes: Tensor) -> Tensor:
    """View codes as codes."""
    return codes


def invert(
    generator: CodeGenerator,
    targets: Tensor,
    start: Tensor,
    std: Tensor,
    steps: int,
    seed: int,
    view: View = as_they_are,
    lr: float = LR,
) -> Tensor:
    """Return z (N, z_dim) whose codes, seen by `view`, come near `targets`, the best found on the way from `start`.

    Adam, at a rate that follows a cosine to 0, minimises the squared error in units of the channels' deviations `std`
    (C,). The noise besides z is that of the sample of `seed`. Rows do not influence each other.
    """

    def errors_of(z: Tensor) -> Tensor:
        return ((view(_drawn(generator, z, seed)) - targets) / std.view(-1, 1, 1)).square().mean((1, 2, 3))

    z, best = start.detach().clone().requires_grad_(True), start.detach().clone()
    least = torch.full((len(z),), math.inf, device=z.device)
    optimizer = torch.optim.Adam([z], lr, BETAS)
    for step in range(steps + 1):
        with torch.enable_grad():
            errors = errors_of(z)
        better = errors.detach() < least
        least, best = torch.where(better, errors.detach(), least), torch.where(better[:, None], z.detach(), best)
        if step == steps:
            break
        (z.grad,) = torch.autograd.grad(errors.sum(), z)
        optimizer.param_groups[0]["lr"] = lr * (1 + math.cos(math.pi * step / steps)) / 2
        optimizer.step()
        with torch.no_grad():
            norm, usual = z.norm(dim=1, keepdim=True), math.sqrt(z.shape[1])
            z *= norm.clamp(NORMS[0] * usual, NORMS[1] * usual) / norm.clamp(min=1e-12)
    return best


def _drawn(generator: CodeGenerator, z: Tensor, seed: int) -> Tensor:
    """The codes of z, all with the noise besides z that the sample of `seed` has."""
    devices = [z.device] if z.device.type == "cuda" else []
    with torch.random.fork_rng(devices), shared_noise():
        torch.manual_seed(derive_seed(seed, IMAGE_NOISE))
        codes: Tensor = generator(z)
    return codes
