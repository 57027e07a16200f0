"""GAN objectives as small objects with two mirror methods; nothing here calls backward.

`critic_loss` and `generator_loss` take (critic, real, fake), with `real` codes (N, C, S, S) and `fake` what the
generator gives (codes, or several scales of them), and return the scalar to minimise and detached scalars to log.
A critic gives scores (N, k): k = 1, or one column a patch or a stage.

A loss with a gradient penalty multiplies it by `penalty_factor`; at 0 it is not computed and not logged. The trainer
that gives k at every k-th critic update and 0 at the others has the same penalty in the mean at a fraction of its cost
(lazy regularisation; Karras et al., StyleGAN2, section 3.1).
"""

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from stage2_codegen.augment import Judged
from stage2_codegen.configs.choices import Penalty
from stage2_codegen.fp32 import at_least_fp32, full_precision
from stage2_codegen.rank_noise import normal_rows, uniform_rows

AnyCritic = Callable[..., Any]
LossAndLogs = tuple[Tensor, dict[str, Tensor]]
ScoresAndPenalty = tuple[Tensor, Tensor]


class Loss(Protocol):
    def critic_loss(self, critic: AnyCritic, real: Any, fake: Any, penalty_factor: float = 1.0) -> LossAndLogs: ...
    def generator_loss(self, critic: AnyCritic, real: Any, fake: Any) -> LossAndLogs: ...


def score_logs(scores_real: Tensor, scores_fake: Tensor) -> dict[str, Tensor]:
    return {"score/real": scores_real.detach().mean(), "score/fake": scores_fake.detach().mean()}


def gradient_penalty(critic: AnyCritic, real: Tensor, fake: Tensor) -> Tensor:
    """WGAN-GP, unweighted: mean over samples of (||d critic(y) / d y||_2 - 1)^2 (Gulrajani et al., eq. 3).

    y = e real + (1 - e) fake, with one e ~ U[0, 1) a sample and both ends detached; this is what the acceleration
    framework calls a "random sample y" (its eq. 7). The norm is over all entries of a sample, (N, C, H, W). Several
    scores a sample are summed. Computed in fp32 at least, whatever surrounds it; the critic must not mix samples.
    """
    with full_precision(real):
        between = _between(real, fake)
        (gradient,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
        return (gradient.flatten(1).norm(2, dim=1) - 1).square().mean()


def finite_difference_gradient_penalty(critic: AnyCritic, real: Tensor, fake: Tensor, step: float = 0.1) -> Tensor:
    """`gradient_penalty` without double backward, exact up to step^2 where the critic is smooth.

    With u the gradient's own direction, ||g|| = (critic(y + step u) - critic(y - step u)) / (2 step). `step` is the
    length of the shift of a whole sample.
    """
    with full_precision(real):
        between = _between(real, fake)
        (gradient,) = torch.autograd.grad(critic(between).sum(), between)
        # ||g|| is the largest <u, g> over unit vectors u. At a maximum the maximiser's own motion with the weights
        # changes nothing to first order (envelope theorem), so a constant u gives the derivative of the norm too.
        direction = F.normalize(gradient.flatten(1)).view_as(gradient)
        slope = _central_difference(critic, between.detach(), direction, step).sum(1)
        return (slope - 1).square().mean()


def _between(real: Tensor, fake: Tensor) -> Tensor:
    """A random point on the segment from each fake sample to its real one, a leaf; (N, ...)."""
    real, fake = at_least_fp32(real.detach()), at_least_fp32(fake.detach())
    mix = uniform_rows(len(real), *[1] * (real.dim() - 1), device=real.device).to(real)
    return (mix * real + (1 - mix) * fake).requires_grad_(True)


def _central_difference(critic: AnyCritic, x: Tensor, direction: Tensor, step: float) -> Tensor:
    """<direction, d critic(x) / d x> of each score, (N, k)."""
    scores = critic(torch.cat([x + step * direction, x - step * direction]))
    ahead, behind = scores.chunk(2)
    return (ahead - behind) / (2 * step)


def zero_centred_penalty(critic: AnyCritic, x: Judged) -> ScoresAndPenalty:
    """(scores (N, k), mean over samples of ||d critic(x) / d x||_2^2): R1 on real, R2 on fake samples, unweighted.

    Mescheder et al., "Which training methods for GANs do actually converge?", eq. 9. The critic's value of a sample is
    the mean of its scores; the norm is over all entries of the sample, in all tensors where `x` is several. fp32
    whatever surrounds it. The scores come from the same evaluation and keep their gradients, which spares a pass.
    """
    parts = x if isinstance(x, tuple) else (x,)
    with full_precision(parts[0]):
        parts = tuple(at_least_fp32(part.detach()).requires_grad_(True) for part in parts)
        scores = critic(parts if isinstance(x, tuple) else parts[0])
        total = scores.mean(1).sum()
        gradients = torch.autograd.grad(total, parts, create_graph=True, allow_unused=True, materialize_grads=True)
        squares = [gradient.square().flatten(1).sum(1) for gradient in gradients]
        return scores, torch.stack(squares).sum(0).mean()


def finite_difference_penalty(critic: AnyCritic, x: Tensor, step: float = 0.01) -> ScoresAndPenalty:
    """An estimate of `zero_centred_penalty` that needs no double backward, with the scores in ambient precision.

    For u ~ N(0, I), E[(u . g)^2] = ||g||^2; the directional derivative is (critic(x + step u) - critic(x - step u)) /
    (2 step), exact up to step^2 where the critic is smooth. With one u a sample the deviation of (u . g)^2 is
    sqrt(2) ||g||^2, so that of the mean is about sqrt(2 / N) of it.
    """
    scores = _scores(critic, x)
    with full_precision(x):
        x = at_least_fp32(x.detach())
        direction = normal_rows(len(x), *x.shape[1:], device=x.device).to(x)
        return scores, _central_difference(critic, x, direction, step).mean(1).square().mean()


def _scores(critic: AnyCritic, x: Any) -> Tensor:
    """(N, k), for sums over the batch in fp32 at least."""
    return at_least_fp32(critic(x))


class WGANGP:
    """Wasserstein loss with gradient penalty (Liu, Yao, Ren, eqs. 5 to 8; weight lambda = 10)."""

    def __init__(self, gp_weight: float = 10.0, drift: float = 0.0, penalty: Penalty = "exact") -> None:
        self.gp_weight, self.drift = gp_weight, drift
        forms = {"exact": gradient_penalty, "finite-difference": finite_difference_gradient_penalty}
        self.penalty = forms[penalty]

    def critic_loss(self, critic: AnyCritic, real: Tensor, fake: Tensor, penalty_factor: float = 1.0) -> LossAndLogs:
        """E[critic(fake)] - E[critic(real)] + gp_weight penalty + drift E[critic(real)^2]."""
        scores_real, scores_fake = _scores(critic, real), _scores(critic, fake)
        loss, logs = scores_fake.mean() - scores_real.mean(), score_logs(scores_real, scores_fake)
        if penalty_factor:
            penalty = self.penalty(critic, real, fake)
            loss = loss + penalty_factor * self.gp_weight * penalty
            logs["penalty/gp"] = penalty.detach()
        return loss + self.drift * scores_real.square().mean(), logs

    def generator_loss(self, critic: AnyCritic, real: Tensor, fake: Tensor) -> LossAndLogs:
        """-E[critic(fake)]."""
        return -_scores(critic, fake).mean(), {}


class BCE:
    """The original non-saturating loss on logits (Goodfellow et al., section 3); columns of the scores are summed."""

    def __init__(self, weight: float = 1.0) -> None:
        self.weight = weight

    def critic_loss(self, critic: AnyCritic, real: Tensor, fake: Any, penalty_factor: float = 1.0) -> LossAndLogs:
        """weight (E[-log sigmoid(critic(real))] + E[-log(1 - sigmoid(critic(fake)))])."""
        scores_real, scores_fake = _scores(critic, real), _scores(critic, fake)
        loss = F.softplus(-scores_real).sum(1).mean() + F.softplus(scores_fake).sum(1).mean()
        return self.weight * loss, score_logs(scores_real, scores_fake)

    def generator_loss(self, critic: AnyCritic, real: Tensor, fake: Any) -> LossAndLogs:
        """weight E[-log sigmoid(critic(fake))]."""
        return self.weight * F.softplus(-_scores(critic, fake)).sum(1).mean(), {}


class LeastSquares:
    """Least-squares GAN with targets 0 and 1 (Mao et al., eq. 9)."""

    def critic_loss(self, critic: AnyCritic, real: Tensor, fake: Any, penalty_factor: float = 1.0) -> LossAndLogs:
        """E[(critic(real) - 1)^2] / 2 + E[critic(fake)^2] / 2."""
        scores_real, scores_fake = _scores(critic, real), _scores(critic, fake)
        loss = (scores_real - 1).square().mean() / 2 + scores_fake.square().mean() / 2
        return loss, score_logs(scores_real, scores_fake)

    def generator_loss(self, critic: AnyCritic, real: Tensor, fake: Any) -> LossAndLogs:
        """E[(critic(fake) - 1)^2] / 2."""
        return (_scores(critic, fake) - 1).square().mean() / 2, {}


class Hinge:
    """Hinge loss (SAGAN eq. 4, FastGAN eqs. 3 and 4).

    `soft_margin` draws the margin of every score from U[low, high); (1, 1) is the published form.
    """

    def __init__(self, soft_margin: tuple[float, float] = (1.0, 1.0)) -> None:
        self.soft_margin = soft_margin

    def critic_loss(self, critic: AnyCritic, real: Tensor, fake: Any, penalty_factor: float = 1.0) -> LossAndLogs:
        """E[max(0, margin - critic(real))] + E[max(0, margin + critic(fake))]."""
        return self.of_scores(_scores(critic, real), _scores(critic, fake))

    def of_scores(self, scores_real: Tensor, scores_fake: Tensor) -> LossAndLogs:
        """The critic's loss of scores (N, k) already at hand."""
        loss = F.relu(self._margin(scores_real) - scores_real).mean()
        loss = loss + F.relu(self._margin(scores_fake) + scores_fake).mean()
        return loss, score_logs(scores_real, scores_fake)

    def generator_loss(self, critic: AnyCritic, real: Tensor, fake: Any) -> LossAndLogs:
        """-E[critic(fake)]."""
        return -_scores(critic, fake).mean(), {}

    def _margin(self, scores: Tensor) -> Tensor:
        low, high = self.soft_margin
        return low + (high - low) * uniform_rows(*scores.shape, device=scores.device)


class RelativisticPairing:
    """Relativistic pairing loss with zero-centred penalties on both sides (Huang et al., "The GAN is dead; long live
    the GAN!", section 2): each score says how much more real a sample is than the fake it is paired with.
    """

    def __init__(self, gamma: float, penalty: Penalty = "exact") -> None:
        self.gamma = gamma
        forms: dict[Penalty, Callable[[AnyCritic, Any], ScoresAndPenalty]] = {
            "exact": zero_centred_penalty,
            "finite-difference": finite_difference_penalty,
        }
        self.judge = forms[penalty]

    def critic_loss(self, critic: AnyCritic, real: Any, fake: Any, penalty_factor: float = 1.0) -> LossAndLogs:
        """E[softplus(critic(fake) - critic(real))] + gamma / 2 (R1 + R2)."""
        if not penalty_factor:
            scores_real, scores_fake = _scores(critic, real), _scores(critic, fake)
            return F.softplus(scores_fake - scores_real).mean(), score_logs(scores_real, scores_fake)
        (scores_real, r1), (scores_fake, r2) = self.judge(critic, real), self.judge(critic, fake)
        loss = F.softplus(scores_fake - scores_real).mean() + penalty_factor * self.gamma / 2 * (r1 + r2)
        penalties = {"penalty/r1": r1.detach(), "penalty/r2": r2.detach()}
        return loss, {**score_logs(scores_real, scores_fake), **penalties}

    def generator_loss(self, critic: AnyCritic, real: Any, fake: Any) -> LossAndLogs:
        """E[softplus(critic(real) - critic(fake))]."""
        return F.softplus(_scores(critic, real) - _scores(critic, fake)).mean(), {}
