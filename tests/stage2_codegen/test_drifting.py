"""Drift towards real samples: its field against loops, what it is blind to, and what a generator learns from it."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from stage2_codegen import drifting
from stage2_codegen.drifting import TEMPERATURES, Drifting, descriptors, drift, drift_loss, moments, stacked
from stage2_codegen.losses import Hinge, Loss

SHAPES = [(2, 3), (4, 3), (2, 3), (2, 5)]  # places and sizes of descriptors


def points(count: int, places: int = 2, size: int = 3, seed: int = 0) -> Tensor:
    """(L, N, D) in float64."""
    return torch.randn(
        places, count, size, generator=torch.Generator().manual_seed(seed + 100 * count), dtype=torch.float64
    )


def drift_by_loops(generated: Tensor, real: Tensor) -> Tensor:
    """The sum over pairs of a real and another generated sample, as the docstring of `drift` writes it."""
    everyone = torch.cat([real, generated], 1)
    places, count, reals = len(generated), generated.shape[1], real.shape[1]
    distance = [[[math.dist(x, y) for y in everyone[p]] for x in generated[p]] for p in range(places)]
    mean = sum(d for at_place in distance for row in at_place for d in row) / (places * count * (reals + count))
    total = torch.zeros_like(generated)
    for temperature in TEMPERATURES:
        field = torch.zeros_like(generated)
        for p in range(places):
            raw = torch.tensor([[-d / mean / temperature for d in row] for row in distance[p]], dtype=torch.float64)
            for i in range(count):
                raw[i, reals + i] = -math.inf
            kernel = (F.softmax(raw, 1) * F.softmax(raw, 0)).sqrt()
            for i in range(count):
                for r in range(reals):
                    for g in range(count):
                        weight = kernel[i, r] * kernel[i, reals + g]
                        field[p, i] += weight * (real[p, r] - generated[p, g])
        total += field / field.square().mean().sqrt()
    return total


def test_the_field_is_the_sum_over_pairs_of_real_and_generated_samples() -> None:
    generated, real = points(4), points(5)
    torch.testing.assert_close(drift(generated, real), drift_by_loops(generated, real))


def test_it_depends_neither_on_the_unit_nor_on_the_order_nor_on_the_origin() -> None:
    generated, real = points(4), points(5)
    field = drift(generated, real)
    torch.testing.assert_close(drift(7 * generated + 3, 7 * real + 3), field)
    torch.testing.assert_close(drift(generated[:, [2, 0, 3, 1]], real.flip(1)), field[:, [2, 0, 3, 1]])


def test_samples_move_to_the_real_ones_and_apart() -> None:
    """Two clusters of real samples and generated ones that start as one: they end on both clusters, half and half."""
    generator = torch.Generator().manual_seed(0)
    real = torch.cat([torch.full((1, 20, 2), -1.0), torch.full((1, 20, 2), 1.0)], 1)
    real += 0.05 * torch.randn(real.shape, generator=generator)
    samples = 0.01 * torch.randn(1, 40, 2, generator=generator)
    for _ in range(400):
        samples = samples + 0.01 * drift(samples, real)
    nearest = torch.cdist(samples, real).min(2).values
    assert nearest.median() < 0.15
    assert 15 <= (samples[0, :, 0] > 0).sum() <= 25


@pytest.mark.parametrize("count", [1, 2])
def test_few_samples_give_a_finite_field(count: int) -> None:
    assert drift(points(count), points(1)).isfinite().all()
    same = points(2)[:, :1].expand(-1, 3, -1)
    assert drift(same, same).isfinite().all()


def test_the_gradient_is_that_of_the_distance_to_the_moved_samples() -> None:
    """|x - (x + V)|^2 / 2 with the target held, in units of the deviation."""
    x, y = (points(n).transpose(0, 1).clone() for n in (4, 5))
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(drift_loss(x, y), x)
    target = x.detach() + drift(x.detach().transpose(0, 1), y.transpose(0, 1)).transpose(0, 1)
    deviation = x.detach().std(correction=0)
    (expected,) = torch.autograd.grad((x - target).square().mean() / 2 / deviation, x)
    torch.testing.assert_close(gradient, expected)


def test_a_rank_moves_its_own_rows_as_one_process_would(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = (points(4, seed=s).transpose(0, 1) for s in (0, 1))
    together = x.clone().requires_grad_()
    (whole,) = torch.autograd.grad(drift_loss(together, y), together)
    for rank in range(2):
        rows = slice(2 * rank, 2 * rank + 2)
        own = x[rows].clone().requires_grad_()
        answers = iter([x, y])
        monkeypatch.setattr(drifting, "rows_of_all_ranks", lambda _, answers=answers: next(answers))
        monkeypatch.setattr(drifting, "this_rank", lambda rank=rank: rank)
        monkeypatch.setattr(drifting, "count_ranks", lambda: 2)
        (part,) = torch.autograd.grad(drift_loss(own, y[rows]), own)
        torch.testing.assert_close(part / 2, whole[rows])  # ranks average their gradients


def test_descriptors_are_moments_of_the_map_and_of_its_parts() -> None:
    x = torch.randn(2, 5, 9, 9, dtype=torch.float64)
    mean, deviation, means, deviations = moments(x)
    torch.testing.assert_close(mean[:, 0], x.mean((2, 3)))
    torch.testing.assert_close(deviation[:, 0], x.std((2, 3), correction=0))
    part = x[:, :, 3:6, 6:9]  # in the second row, at the right
    torch.testing.assert_close(means[:, 5], part.mean((2, 3)))
    torch.testing.assert_close(deviations[:, 5], part.std((2, 3), correction=0))
    assert len(moments(x[..., :4, :4])) == 2
    places = descriptors([x, x, x])[4]
    torch.testing.assert_close(places[:, 10], x[:, :, 1, 1])
    assert descriptors([x, x, torch.zeros(1, 2, 64, 64)])[4].shape == (1, 32 * 32, 2)


def test_stacked_descriptors_drift_each_for_itself() -> None:
    generated, real = ([points(5, places, size, seed) for places, size in SHAPES] for seed in (0, 1))
    generated, real = ([x.transpose(0, 1) for x in found] for found in (generated, real))
    apart = sum(drift_loss(x, y) for x, y in zip(generated, real, strict=True))
    stacks = list(zip(stacked(generated), stacked(real), strict=True))
    assert len(stacks) == len(set(SHAPES)) < len(SHAPES)
    torch.testing.assert_close(sum(drift_loss(x, y).sum() for x, y in stacks), apart)


def test_the_drift_is_added_to_the_generators_loss_alone() -> None:
    torch.manual_seed(0)
    real, fake = ([torch.randn(3, 2, 8, 8), torch.randn(3, 3, 8, 8), torch.randn(3, 4, 8, 8)] for _ in range(2))

    def critic(judged: list[Tensor]) -> Tensor:
        return judged[1].mean((1, 2, 3), keepdim=True).flatten(1)

    hinge: Loss = Hinge()
    loss = Drifting(hinge, 0.5)
    assert loss.critic_loss(critic, real, fake)[0] == hinge.critic_loss(critic, real, fake)[0]
    pairs = zip(descriptors(fake), descriptors(real), strict=True)
    expected = hinge.generator_loss(critic, real, fake)[0] + 0.5 * sum(drift_loss(f, r) for f, r in pairs)
    torch.testing.assert_close(loss.generator_loss(critic, real, fake)[0], expected)
