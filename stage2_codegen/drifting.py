"""Drift of generated samples towards real ones and away from each other: an objective that needs no adversary.

After Deng, Li, Li, Du, He, "Generative Modeling via Drifting", arXiv:2602.04770, 2026. A critic pushes all samples
towards whatever would look more real now, so early in training they may all follow one motif. The drift moves each
sample towards the real ones nearest to it and away from other generated ones. The paper found that it needs features;
here it takes those that the critic sees, and the codes.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from stage2_codegen.fp32 import at_least_fp32, full_precision
from stage2_codegen.losses import AnyCritic, Judge, Loss, LossAndLogs
from stage2_codegen.ranks import count_ranks, rows_of_all_ranks, this_rank

TEMPERATURES = (0.02, 0.05, 0.2)  # of the kernels, in units of the mean distance; the paper's
PARTS = 3  # parts per side into which a map is divided to compare its moments part by part
MOST_PLACES = 32  # largest side of a map that is compared place by place; larger maps are averaged down to it
_DESCRIPTOR = (-3, -2, -1)  # dimensions over which one descriptor of a batch extends
ITSELF = 1e6  # distance from a sample to itself, at which every kernel is 0: it must not repel itself


def drift(generated: Tensor, real: Tensor, foreign: Tensor | None = None) -> Tensor:
    """Return where each generated vector should move, (..., L, N, D), given the real ones (..., L, M, D).

    At each of the L places of a descriptor, with k(x, y) = exp(-|x - y| / temperature) normalised over both of its
    arguments, V(x) = sum over real r and other generated g of k(x, r) k(x, g) (r - g), summed over `TEMPERATURES`, for
    each of which V has a mean square of 1 over the descriptor. Pairs for which `foreign` (N, N) holds are of different
    classes and do not move each other. A sample that is alone in its class does not move at all. With `foreign`, M must
    be N.
    """
    distances = torch.cdist(generated, torch.cat([real, generated], -2))
    # In units of the mean distance, so that the same temperatures suit features of any number and scale.
    distances = distances / distances.mean(_DESCRIPTOR, keepdim=True).clamp(min=1e-12)
    count = generated.shape[-2]
    distances[..., -count:] += ITSELF * torch.eye(count, device=generated.device)
    if foreign is not None:
        distances += ITSELF * foreign.repeat(1, 2)
    total = torch.zeros_like(generated)
    for temperature in TEMPERATURES:
        logits = -distances / temperature
        # Normalised over both arguments (their geometric mean), so that a real sample near many generated ones does
        # not draw them all: it shares its pull among them.
        kernel = (logits.softmax(-1) * logits.softmax(-2)).sqrt()
        to_real, to_generated = kernel[..., :-count], kernel[..., -count:]
        # The double sum over r and g factors into two products of matrices. Each side is weighed with the other's sum,
        # so attraction and repulsion cancel, on average, where real and generated samples are distributed alike.
        attraction = to_real * to_generated.sum(-1, keepdim=True) @ real
        repulsion = to_generated * to_real.sum(-1, keepdim=True) @ generated
        field = attraction - repulsion
        total += field / field.square().mean(_DESCRIPTOR, keepdim=True).sqrt().clamp(min=1e-12)
    return total


def descriptors(seen: Sequence[Tensor]) -> list[Tensor]:
    """Return the vectors by which samples are compared, at L places each, (N, L, D), in fp32 at least.

    `seen` is (codes, pictures, *maps of features), (N, C, H, W) each.
    """
    # Codes are compared by their moments alone: as the paper found, distances place by place need features.
    # Pictures are for the critic.
    codes, _, *maps = (at_least_fp32(x) for x in seen)
    found = moments(codes)
    for features in maps:
        found += [_vectors(_at_most(features, MOST_PLACES)), *moments(features)]
    return found


def moments(features: Tensor) -> list[Tensor]:
    """Return mean and deviation of each channel over the map, (N, 1, C), and over its 3 x 3 parts, (N, 9, C).

    Maps with fewer than 2 x 2 places in a part give the former alone.
    """
    sides = [1, PARTS] if features.shape[-1] >= 2 * PARTS else [1]
    found = []
    for side in sides:
        mean = F.adaptive_avg_pool2d(features, side)
        square = F.adaptive_avg_pool2d(features.square(), side)
        # The root has an infinite slope at 0, where a part is constant.
        found += [_vectors(mean), _vectors((square - mean.square()).clamp(min=1e-4).sqrt())]
    return found


def stacked(found: Sequence[Tensor]) -> list[Tensor]:
    """Stack descriptors (N, L, D) of the same shape to (N, count, L, D)."""
    # One after another, small descriptors would spend more time in calls than in arithmetic.
    groups: dict[torch.Size, list[Tensor]] = {}
    for descriptor in found:
        groups.setdefault(descriptor.shape, []).append(descriptor)
    return [torch.stack(group, 1) for group in groups.values()]


def _vectors(features: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, H W, C)."""
    return features.flatten(2).transpose(1, 2)


def _at_most(features: Tensor, side: int) -> Tensor:
    return F.adaptive_avg_pool2d(features, side) if features.shape[-1] > side else features


def drift_loss(generated: Tensor, real: Tensor, classes: Tensor | None = None) -> Tensor:
    """Return scalars (...) whose gradients move each generated vector along its drift; both are (N, ..., L, D).

    Vectors are measured in units of their deviation. Samples of all ranks attract and repel each other, except those of
    different `classes` (N,).
    """
    everyone, foreign = rows_of_all_ranks(generated), None
    if classes is not None:
        classes = rows_of_all_ranks(classes)
        foreign = classes[:, None] != classes
    field = drift(everyone.movedim(0, -2), rows_of_all_ranks(real).movedim(0, -2), foreign).movedim(-2, 0)
    # The paper minimises |x - (x + V(x))|^2 / 2 with x + V(x) held fixed. That has the same gradient, -V, but its value
    # would always be that of V, which has unit size.
    extent = (0, -2, -1)  # of a descriptor
    inward = -(generated * field.chunk(count_ranks())[this_rank()]).mean(extent)
    return inward / everyone.std(extent, correction=0).clamp(min=1e-6)


class Drifting:
    """An adversarial loss whose generator also drifts; `real` and `fake` are (codes, pictures, *maps of features)."""

    def __init__(self, adversarial: Loss, weight: float) -> None:
        self.adversarial, self.weight = adversarial, weight

    def critic_loss(
        self, critic: AnyCritic, real: Sequence[Tensor], fake: Sequence[Tensor], penalty_factor: float = 1.0
    ) -> LossAndLogs:
        """Return the adversarial loss alone."""
        return self.adversarial.critic_loss(critic, real, fake, penalty_factor)

    def generator_loss(self, critic: AnyCritic, real: Sequence[Tensor], fake: Sequence[Tensor]) -> LossAndLogs:
        """Return the adversarial loss + weight times the sum over descriptors of `drift_loss`."""
        loss, logs = self.adversarial.generator_loss(critic, real, fake)
        with full_precision(fake[0]):  # moments and softmaxes of many terms
            classes = critic.classes if isinstance(critic, Judge) else None
            pairs = zip(stacked(descriptors(fake)), stacked(descriptors(real)), strict=True)
            drifts = torch.stack([drift_loss(generated, aim, classes).sum() for generated, aim in pairs])
        return loss + self.weight * drifts.sum(), logs
