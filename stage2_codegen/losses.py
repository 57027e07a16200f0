"""GAN objectives as small objects with two mirror methods; nothing here calls backward.

`critic_loss` and `generator_loss` take (critic, real, fake), with `real` codes (N, C, S, S) and `fake` what the
generator gives (codes, or several scales of them), and return the scalar to minimise and detached scalars to log.
A critic gives scores (N, k): k = 1, or one column for each patch or stage.

A loss with a gradient penalty multiplies it by `penalty_factor`; at 0 it is neither computed nor logged. A trainer that
gives k at every k-th critic update and 0 at the others has the same penalty on average at a fraction of its cost (lazy
regularisation; Karras et al., StyleGAN2, section 3.1).
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


class Judge:
    """A critic together with the classes (N,) of the batch that it judges, if there are any."""

    def __init__(self, critic: AnyCritic, classes: Tensor | None) -> None:
        self.critic, self.classes = critic, classes

    def __call__(self, judged: Judged, **options: Any) -> Any:
        if self.classes is None:
            return self.critic(judged, **options)
        return self.critic(judged, classes=self.classes, **options)


class Loss(Protocol):
    """An objective, with the two methods that the module's docstring describes."""

    def critic_loss(self, critic: AnyCritic, real: Any, fake: Any, penalty_factor: float = 1.0) -> LossAndLogs: ...
    def generator_loss(self, critic: AnyCritic, real: Any, fake: Any) -> LossAndLogs: ...


def score_logs(scores_real: Tensor, scores_fake: Tensor) -> dict[str, Tensor]:
    """Return the mean scores, without gradients, by the names under which they are logged."""
    return {"score/real": scores_real.detach().mean(), "score/fake": scores_fake.detach().mean()}


def gradient_penalty(critic: AnyCritic, real: Tensor, fake: Tensor) -> Tensor:
    """Return the mean over samples of (||d critic(y) / d y||_2 - 1)^2, unweighted (Gulrajani et al., eq. 3).

    y lies at random between `real` and `fake` (N, C, H, W); the norm is over all entries of a sample. Where a sample
    has several scores, they are summed. The critic must not mix samples.
    """
    # In bf16 numbers near 1 are 1 / 128 apart, too coarse for the distance of a norm from 1.
    with full_precision(real):
        between = _between(real, fake)
        # Each score depends on its own sample alone, so one backward pass of the sum gives all samples' gradients.
        (gradient,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
        return (gradient.flatten(1).norm(2, dim=1) - 1).square().mean()


def finite_difference_gradient_penalty(critic: AnyCritic, real: Tensor, fake: Tensor, step: float = 0.1) -> Tensor:
    """Return `gradient_penalty` without double backward, exact up to step^2 where the critic is smooth.

    With g the gradient and u its direction, ||g|| = (critic(y + step u) - critic(y - step u)) / (2 step). `step` is the
    length by which a whole sample is shifted.
    """
    with full_precision(real):
        between = _between(real, fake)
        (gradient,) = torch.autograd.grad(critic(between).sum(), between)
        # ||g|| is the largest <u, g> over unit vectors u. At a maximum the maximiser's own motion with the weights
        # changes nothing to first order (envelope theorem), so a constant u also gives the derivative of the norm.
        direction = F.normalize(gradient.flatten(1)).view_as(gradient)
        slope = _central_difference(critic, between.detach(), direction, step).sum(1)
        return (slope - 1).square().mean()


def _between(real: Tensor, fake: Tensor) -> Tensor:
    """A random point on the segment from each fake sample to its real one, a leaf; (N, ...)."""
    # The acceleration framework (eq. 7) only speaks of a "random sample y"; this is the sample that WGAN-GP takes.
    real, fake = at_least_fp32(real.detach()), at_least_fp32(fake.detach())
    mix = uniform_rows(len(real), *[1] * (real.dim() - 1), device=real.device).to(real)
    return (mix * real + (1 - mix) * fake).requires_grad_(True)


def _central_difference(critic: AnyCritic, x: Tensor, direction: Tensor, step: float) -> Tensor:
    """<direction, d critic(x) / d x> of each score, (N, k)."""
    # Both ends in one call: with spectral normalisation a second call would already have other weights.
    scores = critic(torch.cat([x + step * direction, x - step * direction]))
    ahead, behind = scores.chunk(2)
    return (ahead - behind) / (2 * step)


def zero_centred_penalty(critic: AnyCritic, x: Judged) -> ScoresAndPenalty:
    """Return scores (N, k) and the mean over samples of ||d critic(x) / d x||_2^2, unweighted.

    That is R1 on real and R2 on fake samples (Mescheder et al., "Which training methods for GANs do actually
    converge?", eq. 9). The critic's value of a sample is the mean of its scores. The norm is over all entries of the
    sample, of all tensors where `x` has several. The scores have gradients and come from the same evaluation, which
    spares a forward pass.
    """
    parts = x if isinstance(x, tuple) else (x,)
    with full_precision(parts[0]):
        parts = tuple(at_least_fp32(part.detach()).requires_grad_(True) for part in parts)
        scores = critic(parts if isinstance(x, tuple) else parts[0])
        total = scores.mean(1).sum()
        # A part that no head reads, such as the codes beside the pictures of `projected`, has a slope of zero.
        gradients = torch.autograd.grad(total, parts, create_graph=True, allow_unused=True, materialize_grads=True)
        squares = [gradient.square().flatten(1).sum(1) for gradient in gradients]
        return scores, torch.stack(squares).sum(0).mean()


def finite_difference_penalty(critic: AnyCritic, x: Tensor, step: float = 0.01) -> ScoresAndPenalty:
    """Return scores (N, k) and an estimate of `zero_centred_penalty` that needs no double backward.

    For u ~ N(0, I), E[(u . g)^2] = ||g||^2; the directional derivative u . g is (critic(x + step u) -
    critic(x - step u)) / (2 step), exact up to step^2 where the critic is smooth. With one u for each sample the
    standard deviation of (u . g)^2 is sqrt(2) ||g||^2, and that of the mean about sqrt(2 / N) of the penalty.
    """
    scores = _scores(critic, x)  # in the surrounding precision, unlike the small difference below
    with full_precision(x):
        x = at_least_fp32(x.detach())
        direction = normal_rows(len(x), *x.shape[1:], device=x.device).to(x)
        return scores, _central_difference(critic, x, direction, step).mean(1).square().mean()


def _scores(critic: AnyCritic, x: Any) -> Tensor:
    """Scores (N, k), in fp32 at least."""
    # Losses are means over the batch, whose sums bf16 would round.
    return at_least_fp32(critic(x))


class WGANGP:
    """Wasserstein loss with a gradient penalty (Liu, Yao, Ren, eqs. 5 to 8; weight lambda = 10).

    `drift` keeps scores near zero, which the loss itself leaves free (Karras et al., "Progressive Growing of GANs",
    appendix A.1).
    """

    def __init__(self, gp_weight: float = 10.0, drift: float = 0.0, penalty: Penalty = "exact") -> None:
        self.gp_weight, self.drift = gp_weight, drift
        forms = {"exact": gradient_penalty, "finite-difference": finite_difference_gradient_penalty}
        self.penalty = forms[penalty]

    def critic_loss(self, critic: AnyCritic, real: Tensor, fake: Tensor, penalty_factor: float = 1.0) -> LossAndLogs:
        """Return E[critic(fake)] - E[critic(real)] + gp_weight penalty + drift E[critic(real)^2]."""
        scores_real, scores_fake = _scores(critic, real), _scores(critic, fake)
        loss, logs = scores_fake.mean() - scores_real.mean(), score_logs(scores_real, scores_fake)
        if penalty_factor:
            penalty = self.penalty(critic, real, fake)
            loss = loss + penalty_factor * self.gp_weight * penalty
            logs["penalty/gp"] = penalty.detach()
        # Real scores are enough to hold, since the loss ties those of fakes to them.
        return loss + self.drift * scores_real.square().mean(), logs

    def generator_loss(self, critic: AnyCritic, real: Tensor, fake: Tensor) -> LossAndLogs:
        """Return -E[critic(fake)]."""
        return -_scores(critic, fake).mean(), {}


class BCE:
    """The original non-saturating loss on logits (Goodfellow et al., section 3).

    Columns of the scores are summed, so that every stage of a critic with several counts in full (LRM GAN, eqs. 4, 5).
    """

    def __init__(self, weight: float = 1.0) -> None:
        self.weight = weight

    def critic_loss(self, critic: AnyCritic, real: Tensor, fake: Any, penalty_factor: float = 1.0) -> LossAndLogs:
        """Return weight (E[-log sigmoid(critic(real))] + E[-log(1 - sigmoid(critic(fake)))])."""
        # In two calls, so that batch normalisation in a critic has the moments of real or of fake samples, not of both.
        scores_real, scores_fake = _scores(critic, real), _scores(critic, fake)
        # -log sigmoid(x) is softplus(-x), which stays finite where the sigmoid rounds to 0.
        loss = F.softplus(-scores_real).sum(1).mean() + F.softplus(scores_fake).sum(1).mean()
        return self.weight * loss, score_logs(scores_real, scores_fake)

    def generator_loss(self, critic: AnyCritic, real: Tensor, fake: Any) -> LossAndLogs:
        """Return weight E[-log sigmoid(critic(fake))]."""
        return self.weight * F.softplus(-_scores(critic, fake)).sum(1).mean(), {}


class LeastSquares:
    """Least-squares GAN with targets 0 and 1 (Mao et al., eq. 9)."""

    def critic_loss(self, critic: AnyCritic, real: Tensor, fake: Any, penalty_factor: float = 1.0) -> LossAndLogs:
        """Return E[(critic(real) - 1)^2] / 2 + E[critic(fake)^2] / 2."""
        scores_real, scores_fake = _scores(critic, real), _scores(critic, fake)
        loss = (scores_real - 1).square().mean() / 2 + scores_fake.square().mean() / 2
        return loss, score_logs(scores_real, scores_fake)

    def generator_loss(self, critic: AnyCritic, real: Tensor, fake: Any) -> LossAndLogs:
        """Return E[(critic(fake) - 1)^2] / 2."""
        return (_scores(critic, fake) - 1).square().mean() / 2, {}


class Hinge:
    """Hinge loss (SAGAN eq. 4, FastGAN eqs. 3 and 4).

    `soft_margin` is the range (low, high) from which the margin of every score is drawn; (1, 1) is the published form.
    """

    def __init__(self, soft_margin: tuple[float, float] = (1.0, 1.0)) -> None:
        self.soft_margin = soft_margin

    def critic_loss(self, critic: AnyCritic, real: Tensor, fake: Any, penalty_factor: float = 1.0) -> LossAndLogs:
        """Return E[max(0, margin - critic(real))] + E[max(0, margin + critic(fake))]."""
        return self.of_scores(_scores(critic, real), _scores(critic, fake))

    def of_scores(self, scores_real: Tensor, scores_fake: Tensor) -> LossAndLogs:
        """Return the critic's loss for scores (N, k) that have been computed already."""
        loss = F.relu(self._margin(scores_real) - scores_real).mean()
        loss = loss + F.relu(self._margin(scores_fake) + scores_fake).mean()
        return loss, score_logs(scores_real, scores_fake)

    def generator_loss(self, critic: AnyCritic, real: Tensor, fake: Any) -> LossAndLogs:
        """Return -E[critic(fake)]."""
        # Without a margin: a fake that already passes for real still has a gradient.
        return -_scores(critic, fake).mean(), {}

    def _margin(self, scores: Tensor) -> Tensor:
        # Drawn for every score, as in the code that FastGAN's authors published: the critic cannot settle on a margin.
        low, high = self.soft_margin
        return low + (high - low) * uniform_rows(*scores.shape, device=scores.device)


class RelativisticPairing:
    """Relativistic pairing loss with zero-centred penalties on both sides (Huang et al., "The GAN is dead; long live
    the GAN!", section 2).

    The difference of two scores says how much more real a sample is than the fake with which it is paired.
    """

    def __init__(self, gamma: float, penalty: Penalty = "exact") -> None:
        self.gamma = gamma
        forms: dict[Penalty, Callable[[AnyCritic, Any], ScoresAndPenalty]] = {
            "exact": zero_centred_penalty,
            "finite-difference": finite_difference_penalty,
        }
        self.judge = forms[penalty]

    def critic_loss(self, critic: AnyCritic, real: Any, fake: Any, penalty_factor: float = 1.0) -> LossAndLogs:
        """Return E[softplus(critic(fake) - critic(real))] + gamma / 2 (R1 + R2)."""
        if not penalty_factor:  # without a penalty the scores need not be fp32
            scores_real, scores_fake = _scores(critic, real), _scores(critic, fake)
            return F.softplus(scores_fake - scores_real).mean(), score_logs(scores_real, scores_fake)
        # On both sides: with R1 alone the paper's trainings diverge, because the slope at fakes is free.
        (scores_real, r1), (scores_fake, r2) = self.judge(critic, real), self.judge(critic, fake)
        # Each real sample is paired with the fake of the same row, which is as random a partner as any.
        loss = F.softplus(scores_fake - scores_real).mean() + penalty_factor * self.gamma / 2 * (r1 + r2)
        penalties = {"penalty/r1": r1.detach(), "penalty/r2": r2.detach()}
        return loss, {**score_logs(scores_real, scores_fake), **penalties}

    def generator_loss(self, critic: AnyCritic, real: Any, fake: Any) -> LossAndLogs:
        """Return E[softplus(critic(real) - critic(fake))]."""
        return F.softplus(_scores(critic, real) - _scores(critic, fake)).mean(), {}
