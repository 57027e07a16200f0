"""The objectives against closed forms."""

import functools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from stage2_codegen.losses import (
    BCE,
    WGANGP,
    Hinge,
    LeastSquares,
    Loss,
    RelativisticPairing,
    finite_difference_gradient_penalty,
    finite_difference_penalty,
    gradient_penalty,
    zero_centred_penalty,
)


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("shape", [(5, 3, 8, 8), (4, 16, 4, 4), (1, 1, 2, 2)])
def test_penalty_of_a_linear_critic_is_closed_form(shape: tuple[int, ...]) -> None:
    """D(x) = <a, x> has gradient a everywhere, whatever the mixing."""
    a = torch.randn(shape[1:])
    penalty = gradient_penalty(lambda x: (x * a).flatten(1).sum(1), torch.randn(shape), torch.randn(shape))
    assert penalty.item() == pytest.approx((a.norm().item() - 1) ** 2, rel=1e-5)


def test_penalties_keep_double_precision() -> None:
    a = torch.randn(3, 4, 4, dtype=torch.float64)
    real, fake = torch.randn(2, 5, 3, 4, 4, dtype=torch.float64)

    def critic(x: Tensor) -> Tensor:
        return (x * a).flatten(1).sum(1, keepdim=True)

    assert gradient_penalty(critic, real, fake).item() == pytest.approx((a.norm().item() - 1) ** 2, rel=1e-12)
    assert zero_centred_penalty(critic, real)[1].item() == pytest.approx(a.square().sum().item(), rel=1e-12)
    assert finite_difference_penalty(critic, real)[1].dtype == torch.float64


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


SHAPE = (6, 3, 4, 4)
PENALTIES = (zero_centred_penalty, finite_difference_penalty)


def linear_critic(a: Tensor) -> Callable[[Tensor], Tensor]:
    """D(x) = <a, x>, of gradient a."""
    return lambda x: (x * a).flatten(1).sum(1, keepdim=True)


def quadratic_critic(x: Tensor) -> Tensor:
    """D(x) = |x|^2 / 2, of gradient x."""
    return x.square().flatten(1).sum(1, keepdim=True) / 2


def test_zero_centred_penalty_is_the_mean_square_of_the_gradients() -> None:
    a, x = torch.randn(SHAPE[1:]), torch.randn(SHAPE)
    scores, penalty = zero_centred_penalty(linear_critic(a), x)
    assert penalty.item() == pytest.approx(sum(v**2 for v in a.flatten().tolist()), rel=1e-5)
    torch.testing.assert_close(scores, linear_critic(a)(x))
    _, penalty = zero_centred_penalty(quadratic_critic, x)
    assert penalty.item() == pytest.approx(sum(v**2 for v in x.flatten().tolist()) / 6, rel=1e-5)


@pytest.mark.parametrize("penalty", PENALTIES)
def test_zero_centred_penalties_take_the_mean_of_several_scores(
    penalty: Callable[..., tuple[Tensor, Tensor]],
) -> None:
    a, b, x = torch.randn(SHAPE[1:]), torch.randn(SHAPE[1:]), torch.randn(6, 3, 4, 4)
    values = []
    for critic in (lambda x: torch.cat([linear_critic(a)(x), linear_critic(b)(x)], 1), linear_critic((a + b) / 2)):
        torch.manual_seed(1)
        values.append(penalty(critic, x)[1].item())
    assert values[0] == pytest.approx(values[1], rel=1e-4)
    if penalty is zero_centred_penalty:
        assert values[0] == pytest.approx((a + b).square().sum().item() / 4, rel=1e-5)


def test_zero_centred_penalty_adds_the_gradients_of_several_maps() -> None:
    """D(x, y, z) = <a, x> <b, y>, which does not look at z."""
    a, b = torch.randn(SHAPE[1:]), torch.randn(2, 3, 3)
    x, y, z = torch.randn(SHAPE), torch.randn(6, 2, 3, 3), torch.randn(6, 5)
    scores, penalty = zero_centred_penalty(
        lambda maps: linear_critic(a)(maps[0]) * linear_critic(b)(maps[1]), (x, y, z)
    )
    by_x, by_y = linear_critic(b)(y).flatten().tolist(), linear_critic(a)(x).flatten().tolist()
    of_a, of_b = (sum(v**2 for v in w.flatten().tolist()) for w in (a, b))
    expected = sum(p**2 * of_a + q**2 * of_b for p, q in zip(by_x, by_y, strict=True)) / 6
    assert penalty.item() == pytest.approx(expected, rel=1e-5)
    torch.testing.assert_close(scores, linear_critic(a)(x) * linear_critic(b)(y))


def test_finite_difference_is_right_in_the_mean_with_the_variance_of_a_squared_normal() -> None:
    """For a linear critic (u . a)^2 / |a|^2 is chi-squared with one degree of freedom: mean 1, variance 2."""
    a = torch.randn(SHAPE[1:])
    draws = torch.stack([finite_difference_penalty(linear_critic(a), torch.zeros(1, 3, 4, 4))[1] for _ in range(4000)])
    ratio = draws / a.square().sum()
    assert ratio.mean().item() == pytest.approx(1, abs=4 * math.sqrt(2 / 4000))
    assert ratio.var().item() == pytest.approx(2, rel=0.2)


@pytest.mark.parametrize("step", [1e-3, 1e-2, 1.0])
def test_central_difference_of_a_quadratic_critic_has_no_error_in_the_step(step: float) -> None:
    x = torch.randn(1, 2, 3, 3).expand(20000, -1, -1, -1)
    scores, penalty = finite_difference_penalty(quadratic_critic, x, step)
    assert penalty.item() == pytest.approx(x[0].square().sum().item(), rel=4 * math.sqrt(2 / 20000) + 0.01)
    torch.testing.assert_close(scores, quadratic_critic(x))


def test_both_penalties_of_a_smooth_critic_and_their_weight_gradients_agree() -> None:
    """D(x) = tanh(<w, x>), one x repeated, so that the estimate is a mean over many directions."""
    x, gradients = (0.3 * torch.randn(1, 1, 2, 3)).expand(20000, -1, -1, -1), []
    for penalty in PENALTIES:
        w = torch.linspace(-1, 1, 6, requires_grad=True)
        _, value = penalty(lambda y, w=w: torch.tanh(y.flatten(1) @ w)[:, None], x)
        gradients.append(torch.cat([torch.autograd.grad(value, w, retain_graph=True)[0], value.detach()[None]]))
    torch.testing.assert_close(gradients[1], gradients[0], rtol=0.05, atol=0.03)


def test_zero_centred_gradient_agrees_with_finite_differences_in_the_weights() -> None:
    """d penalty / d w of D(x) = tanh(<w, x>): the penalty is mean (1 - tanh^2)^2 |w|^2, in float64."""
    w, x = torch.randn(6, requires_grad=True), torch.randn(3, 1, 2, 3)
    _, value = zero_centred_penalty(lambda y: torch.tanh(y.flatten(1) @ w)[:, None], x)
    (gradient,) = torch.autograd.grad(value, w)

    def closed_form(v: Tensor) -> float:
        return ((1 - torch.tanh(x.double().flatten(1) @ v) ** 2) ** 2 * v.square().sum()).mean().item()

    for i in range(6):
        shift = torch.zeros(6, dtype=torch.float64)
        shift[i] = 1e-5
        numeric = (closed_form(w.detach().double() + shift) - closed_form(w.detach().double() - shift)) / 2e-5
        assert gradient[i].item() == pytest.approx(numeric, rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("penalty", PENALTIES)
def test_zero_centred_penalties_stay_fp32_inside_bf16_and_reach_weights_alone(
    penalty: Callable[..., tuple[Tensor, Tensor]],
) -> None:
    critic = nn.Sequential(nn.Conv2d(3, 4, 3), nn.LeakyReLU(0.2), nn.Flatten(), nn.Linear(16, 1))
    x = torch.randn(2, 3, 4, 4, requires_grad=True)
    torch.manual_seed(1)
    _, plain = penalty(critic, x)
    torch.manual_seed(1)
    with torch.autocast("cpu", torch.bfloat16):
        scores, mixed = penalty(critic, x)
    assert scores.dtype == mixed.dtype == torch.float32
    assert mixed.item() == pytest.approx(plain.item(), rel=1e-6)
    mixed.backward()
    assert all(w.grad is not None for w in critic.parameters() if w.dim() > 1)
    assert x.grad is None


def test_relativistic_pairing_compares_each_real_with_its_fake() -> None:
    """log(1 + exp(difference)) by loops over pairs; the penalties of a quadratic critic are mean squares."""
    real, fake = 0.5 * torch.randn(SHAPE), 0.5 * torch.randn(SHAPE)
    loss = RelativisticPairing(gamma=0.6)
    value, logs = loss.critic_loss(quadratic_critic, real, fake)
    r1, r2 = (sum(v**2 for v in x.flatten().tolist()) / 6 for x in (real, fake))
    scores = [
        (sum(v**2 for v in r.flatten().tolist()) / 2, sum(v**2 for v in f.flatten().tolist()) / 2)
        for r, f in zip(real, fake, strict=True)
    ]
    critic_term = sum(math.log(1 + math.exp(f - r)) for r, f in scores) / 6
    generator_term = sum(math.log(1 + math.exp(r - f)) for r, f in scores) / 6
    assert value.item() == pytest.approx(critic_term + 0.3 * (r1 + r2), rel=1e-5)
    assert loss.generator_loss(quadratic_critic, real, fake)[0].item() == pytest.approx(generator_term, rel=1e-5)
    expected = {"penalty/r1": r1, "penalty/r2": r2}
    expected |= {"score/real": sum(r for r, _ in scores) / 6, "score/fake": sum(f for _, f in scores) / 6}
    assert {key: log.item() for key, log in logs.items()} == pytest.approx(expected, rel=1e-5)
    assert not any(log.requires_grad for log in logs.values())


def test_relativistic_pairing_uses_the_penalty_it_is_told() -> None:
    real, fake = torch.randn(2, *SHAPE)
    torch.manual_seed(4)
    value, logs = RelativisticPairing(2.0, "finite-difference").critic_loss(quadratic_critic, real, fake)
    torch.manual_seed(4)
    r1, r2 = finite_difference_penalty(quadratic_critic, real)[1], finite_difference_penalty(quadratic_critic, fake)[1]
    assert (logs["penalty/r1"].item(), logs["penalty/r2"].item()) == (r1.item(), r2.item())
    pairs = (quadratic_critic(fake) - quadratic_critic(real)).exp().log1p().mean()
    assert value.item() == pytest.approx((pairs + r1 + r2).item(), rel=1e-5)


def given(scores_real: Tensor, scores_fake: Tensor) -> tuple[Callable[[Tensor], Tensor], Tensor, Tensor]:
    """(critic, real, fake) for which the critic gives those scores: the inputs are the scores themselves."""
    return lambda x: x, scores_real, scores_fake


def sigmoid(score: float) -> float:
    return 1 / (1 + math.exp(-score))


def of_rows(scores: Tensor, term: Callable[[float], float], over_columns: Callable[[list[float]], float]) -> float:
    rows = [over_columns([term(score) for score in row]) for row in scores.tolist()]
    return sum(rows) / len(rows)


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


@pytest.mark.parametrize("columns", [1, 3])
@pytest.mark.parametrize("weight", [1.0, 0.5])
def test_bce_is_the_log_of_sigmoids(columns: int, weight: float) -> None:
    """-weight log sigmoid, columns summed: two stages count twice. With weight 1/2 the LRM GAN's form."""
    real, fake = 3 * torch.randn(2, 5, columns)
    value, logs = BCE(weight).critic_loss(*given(real, fake))
    expected = of_rows(real, lambda s: -math.log(sigmoid(s)), sum) + of_rows(
        fake, lambda s: -math.log(1 - sigmoid(s)), sum
    )
    assert value.item() == pytest.approx(weight * expected, rel=1e-5)
    assert logs["score/real"].item() == pytest.approx(real.mean().item())
    generator_value, _ = BCE(weight).generator_loss(*given(real, fake))
    assert generator_value.item() == pytest.approx(
        weight * of_rows(fake, lambda s: -math.log(sigmoid(s)), sum), rel=1e-5
    )


@pytest.mark.parametrize("columns", [1, 3])
def test_least_squares_is_half_the_squared_distance_from_the_targets(columns: int) -> None:
    real, fake = 3 * torch.randn(2, 5, columns)
    value, _ = LeastSquares().critic_loss(*given(real, fake))
    expected = of_rows(real, lambda s: (s - 1) ** 2 / 2, mean) + of_rows(fake, lambda s: s**2 / 2, mean)
    assert value.item() == pytest.approx(expected, rel=1e-5)
    generator_value, _ = LeastSquares().generator_loss(*given(real, fake))
    assert generator_value.item() == pytest.approx(of_rows(fake, lambda s: (s - 1) ** 2 / 2, mean), rel=1e-5)


@pytest.mark.parametrize("columns", [1, 50])
def test_hinge_without_soft_margin_is_equation_3(columns: int) -> None:
    """E[max(0, 1 - D(x))] + E[max(0, 1 + D(G(z)))], and -E[D(G(z))] for the generator."""
    real, fake = 2 * torch.randn(2, 5, columns)
    value, _ = Hinge().critic_loss(*given(real, fake))
    expected = of_rows(real, lambda s: max(0, 1 - s), mean) + of_rows(fake, lambda s: max(0, 1 + s), mean)
    assert value.item() == pytest.approx(expected, rel=1e-5)
    assert Hinge().generator_loss(*given(real, fake))[0].item() == pytest.approx(
        -of_rows(fake, float, mean), rel=1e-4, abs=1e-6
    )


def test_a_soft_margin_is_drawn_for_every_score() -> None:
    """At score zero the critic's loss is the sum of two margins; far from it the mean margin is seen."""
    zeros = torch.zeros(4000, 5)
    hinge = Hinge((0.8, 1.0))
    assert hinge.critic_loss(*given(zeros, zeros))[0].item() == pytest.approx(1.8, abs=0.005)
    partly = hinge.critic_loss(*given(zeros + 0.9, zeros - 1))[0].item()  # E[max(0, m - 0.9)] for m ~ U[0.8, 1)
    assert partly == pytest.approx(0.1**2 / 2 / 0.2, rel=0.05)


@pytest.mark.parametrize("loss", [BCE(), LeastSquares(), Hinge(), Hinge((0.8, 1.0)), RelativisticPairing(0.0)])
@pytest.mark.parametrize("score", [-100.0, 100.0])
def test_losses_and_gradients_are_finite_at_extreme_scores(loss: Loss, score: float) -> None:
    weight = torch.ones((), requires_grad=True)
    x = torch.full((2, 1), score)
    for value in (
        loss.critic_loss(lambda s: weight * s, x, -x)[0],
        loss.generator_loss(lambda s: weight * s, x, -x)[0],
    ):
        (gradient,) = torch.autograd.grad(value, weight)
        assert value.isfinite()
        assert gradient.isfinite()


ONE_CENTRED = (gradient_penalty, finite_difference_gradient_penalty)


@pytest.mark.parametrize("penalty", ONE_CENTRED)
def test_one_centred_penalties_of_a_linear_critic_and_their_gradients_are_closed_form(
    penalty: Callable[..., Tensor],
) -> None:
    """(|a| - 1)^2, with the gradient 2 (|a| - 1) a / |a|."""
    a = torch.randn(SHAPE[1:], dtype=torch.float64, requires_grad=True)
    value = penalty(linear_critic(a), *torch.randn(2, *SHAPE, dtype=torch.float64))
    (gradient,) = torch.autograd.grad(value, a)
    norm = a.detach().norm()
    torch.testing.assert_close(value.detach(), (norm - 1) ** 2, rtol=1e-9, atol=0)
    torch.testing.assert_close(gradient, 2 * (norm - 1) * a.detach() / norm, rtol=1e-9, atol=1e-12)


def test_the_one_centred_difference_converges_with_the_square_of_its_step() -> None:
    """Value and gradients in all weights of a smooth critic: a tenth of the step leaves a hundredth of the error."""
    first, second = nn.Linear(48, 16).double(), nn.Linear(16, 1).double()
    weights = [first.weight, first.bias, second.weight]
    real, fake = 0.3 * torch.randn(2, *SHAPE, dtype=torch.float64)

    def critic(x: Tensor) -> Tensor:
        return second(torch.tanh(first(x.flatten(1))))

    def found(penalty: Callable[..., Tensor]) -> Tensor:
        torch.manual_seed(5)
        value = penalty(critic, real, fake)
        gradients = torch.autograd.grad(value, weights, materialize_grads=True)
        return torch.cat([value.detach()[None], *(gradient.flatten() for gradient in gradients)])

    exact = found(gradient_penalty)
    errors = [
        (found(functools.partial(finite_difference_gradient_penalty, step=step)) - exact).abs().max().item()
        for step in (0.1, 0.01)
    ]
    assert errors[0] < 1e-3 * exact.abs().max().item()
    assert errors[0] / errors[1] == pytest.approx(100, rel=0.05)


def test_the_one_centred_difference_stands_a_large_score_in_fp32() -> None:
    """A Wasserstein critic's scores drift; the difference of two of them must keep its digits."""
    a = torch.randn(SHAPE[1:])
    value = finite_difference_gradient_penalty(lambda x: 1000 + linear_critic(a)(x), *torch.randn(2, *SHAPE))
    assert value.item() == pytest.approx((a.norm().item() - 1) ** 2, rel=1e-2)


def test_the_one_centred_difference_is_fp32_inside_bf16_and_reaches_the_weights_alone() -> None:
    critic = nn.Sequential(nn.Conv2d(3, 4, 3), nn.LeakyReLU(0.2), nn.Flatten(), nn.Linear(16, 1))
    real, fake = torch.randn(SHAPE, requires_grad=True), torch.randn(SHAPE)
    torch.manual_seed(1)
    plain = finite_difference_gradient_penalty(critic, real, fake)
    torch.manual_seed(1)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = finite_difference_gradient_penalty(critic, real, fake)
    assert mixed.dtype == torch.float32
    assert mixed.item() == pytest.approx(plain.item(), rel=1e-6)
    mixed.backward()
    assert all(weight.grad is not None for weight in critic.parameters() if weight.dim() > 1)
    assert real.grad is None


def test_a_constant_critic_has_no_direction_and_no_nan() -> None:
    weight = torch.ones((), requires_grad=True)
    for penalty in ONE_CENTRED:
        value = penalty(lambda x: 0 * weight * x.flatten(1).sum(1, keepdim=True), *torch.randn(2, *SHAPE))
        assert value.item() == 1
        assert torch.autograd.grad(value, weight)[0].isfinite()


@pytest.mark.parametrize("penalty", ["exact", "finite-difference"])
@pytest.mark.parametrize("make", [lambda penalty: WGANGP(7.0, penalty=penalty), lambda p: RelativisticPairing(7.0, p)])
def test_a_penalty_k_times_as_strong_at_every_k_th_update_is_the_same_in_the_mean(
    make: Callable[[Any], Loss], penalty: str
) -> None:
    """Loss and gradient of a linear critic, whose penalties are the same everywhere but for a drawn direction."""
    a = torch.randn(SHAPE[1:], dtype=torch.float64, requires_grad=True)
    real, fake = torch.randn(2, *SHAPE, dtype=torch.float64)
    loss = make(penalty)

    def found(factor: float) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        torch.manual_seed(2)  # the same direction where one is drawn
        value, logs = loss.critic_loss(linear_critic(a), real, fake, factor)
        return value.detach(), torch.autograd.grad(value, a)[0], logs

    always, lazy = found(1), [found(factor) for factor in (4, 0, 0, 0)]
    for index in range(2):
        mean = torch.stack([torch.as_tensor(update[index]) for update in lazy]).mean(0)
        torch.testing.assert_close(mean, always[index], rtol=1e-10, atol=1e-10)
    assert lazy[0][2].keys() == always[2].keys()
    assert not [key for _, _, logs in lazy[1:] for key in logs if key.startswith("penalty/")]


@pytest.mark.parametrize("loss", [WGANGP(), RelativisticPairing(1.0)])
def test_without_a_penalty_the_critic_judges_twice_and_nothing_more(loss: Loss) -> None:
    calls: list[Tensor] = []

    def critic(x: Tensor) -> Tensor:
        calls.append(x)
        return quadratic_critic(x)

    real, fake = torch.randn(2, *SHAPE)
    loss.critic_loss(critic, real, fake, penalty_factor=0)
    assert len(calls) == 2
    assert not any(x.requires_grad for x in calls)
