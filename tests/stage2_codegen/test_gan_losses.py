"""The objectives against closed forms."""

import pytest
import torch
from torch import Tensor, nn

from stage2_codegen.losses import WGANGP, gradient_penalty


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("shape", [(5, 3, 8, 8), (4, 16, 4, 4), (1, 1, 2, 2)])
def test_penalty_of_a_linear_critic_is_closed_form(shape: tuple[int, ...]) -> None:
    """D(x) = <a, x> has gradient a everywhere, whatever the mixing."""
    a = torch.randn(shape[1:])
    penalty = gradient_penalty(lambda x: (x * a).flatten(1).sum(1), torch.randn(shape), torch.randn(shape))
    assert penalty.item() == pytest.approx((a.norm().item() - 1) ** 2, rel=1e-5)


def test_penalty_of_a_quadratic_critic_is_taken_on_the_segment_between() -> None:
    """D(x) = |x|^2 / 2 has gradient x, so the penalty tells which point e real + (1 - e) fake it was taken at."""
    real, fake = torch.full((1000, 1, 1, 1), 2.0), torch.full((1000, 1, 1, 1), 4.0)
    seen: list[Tensor] = []

    def critic(x: Tensor) -> Tensor:
        seen.append(x.detach())
        return x.square().flatten(1).sum(1) / 2

    penalty = gradient_penalty(critic, real, fake)
    mix = (4 - seen[0].flatten()) / 2
    assert penalty.item() == pytest.approx((seen[0].flatten() - 1).square().mean().item(), rel=1e-5)
    assert 0 <= mix.min() < 0.02 < 0.98 < mix.max() <= 1
    assert mix.unique().numel() > 900
    assert mix.mean().item() == pytest.approx(0.5, abs=0.05)


def test_one_mixing_number_serves_all_entries_of_a_sample() -> None:
    real, fake = torch.zeros(6, 3, 4, 4), torch.ones(6, 3, 4, 4)
    seen: list[Tensor] = []
    gradient_penalty(lambda x: seen.append(x.detach()) or x.flatten(1).sum(1), real, fake)  # type: ignore[func-returns-value]
    assert (seen[0].flatten(1).std(1) < 1e-6).all()
    assert seen[0][:, 0, 0, 0].std() > 0.05


def test_penalty_reaches_the_critics_weights_and_nothing_else() -> None:
    first = nn.Conv2d(3, 4, 3)
    critic = nn.Sequential(first, nn.LeakyReLU(0.2), nn.Flatten(), nn.Linear(16, 1))
    real, fake = torch.randn(2, 3, 4, 4, requires_grad=True), torch.randn(2, 3, 4, 4, requires_grad=True)
    gradient_penalty(critic, real, fake).backward()
    assert first.weight.grad is not None
    assert first.weight.grad.abs().sum() > 0
    assert real.grad is None
    assert fake.grad is None


def test_penalty_gradient_agrees_with_finite_differences() -> None:
    """Double backward through a small critic against a numerical derivative of the penalty, in float64."""
    weight = torch.randn(6, dtype=torch.float64, requires_grad=True)
    real, fake = torch.randn(3, 1, 2, 3), torch.randn(3, 1, 2, 3)

    def penalty(w: Tensor) -> Tensor:
        torch.manual_seed(7)
        return gradient_penalty(lambda x: torch.tanh(x.double().flatten(1) @ w), real, fake)

    (exact,) = torch.autograd.grad(penalty(weight), weight)
    step = 1e-4
    for i in range(6):
        shift = torch.zeros(6, dtype=torch.float64)
        shift[i] = step
        numeric = (penalty(weight.detach() + shift) - penalty(weight.detach() - shift)).item() / (2 * step)
        assert exact[i].item() == pytest.approx(numeric, rel=2e-2, abs=1e-3)


def test_penalty_is_computed_in_fp32_inside_bf16() -> None:
    critic = nn.Conv2d(3, 1, 4)
    real, fake = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    torch.manual_seed(1)
    plain = gradient_penalty(critic, real, fake)
    torch.manual_seed(1)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = gradient_penalty(critic, real, fake.bfloat16().float())
    assert mixed.dtype == torch.float32
    assert mixed.item() == pytest.approx(plain.item(), abs=1e-6)  # a linear critic: independent of the mixed inputs


def test_wgan_gp_sums_its_parts() -> None:
    """Against eqs. 5 to 8 written out for a linear critic."""
    a, real, fake = torch.randn(3, 4, 4), torch.randn(8, 3, 4, 4), torch.randn(8, 3, 4, 4)

    def critic(x: Tensor) -> Tensor:
        return (x * a).flatten(1).sum(1, keepdim=True)

    loss, logs = WGANGP(gp_weight=10, drift=0.5).critic_loss(critic, real, fake)
    real_scores = [sum((r * a).flatten().tolist()) for r in real]
    fake_scores = [sum((f * a).flatten().tolist()) for f in fake]
    expected = sum(fake_scores) / 8 - sum(real_scores) / 8 + 10 * (a.norm().item() - 1) ** 2
    expected += 0.5 * sum(score**2 for score in real_scores) / 8
    assert loss.item() == pytest.approx(expected, rel=1e-4)
    assert logs["score/real"].item() == pytest.approx(sum(real_scores) / 8, rel=1e-4)
    assert not any(value.requires_grad for value in logs.values())
    generator_loss, _ = WGANGP().generator_loss(critic, real, fake)
    assert generator_loss.item() == pytest.approx(-sum(fake_scores) / 8, rel=1e-4)
