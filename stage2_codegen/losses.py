"""GAN objectives as small objects with two mirror methods; nothing here calls backward.

`critic_loss` and `generator_loss` take (critic, real, fake), with `real` and `fake` as the data and the generator give
them, and return the scalar to minimise and detached scalars to log.
"""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from stage2_codegen.noise import uniform_rows

Critic = Callable[[Tensor], Tensor]
LossAndLogs = tuple[Tensor, dict[str, Tensor]]


class Loss(Protocol):
    def critic_loss(self, critic: Critic, real: Tensor, fake: Tensor) -> LossAndLogs: ...
    def generator_loss(self, critic: Critic, real: Tensor, fake: Tensor) -> LossAndLogs: ...


def gradient_penalty(critic: Critic, real: Tensor, fake: Tensor) -> Tensor:
    """WGAN-GP, unweighted: mean over samples of (||d critic(y) / d y||_2 - 1)^2 (Gulrajani et al., eq. 3).

    y = e real + (1 - e) fake, with one e ~ U[0, 1) a sample and both ends detached; this is what the acceleration
    framework calls a "random sample y" (its eq. 7). The norm is over all entries of a sample, (N, C, H, W). Several
    scores a sample are summed. Computed in fp32 whatever precision surrounds it; the critic must not mix samples.
    """
    with torch.autocast(real.device.type, enabled=False):
        real, fake = real.detach().float(), fake.detach().float()
        mix = uniform_rows(len(real), *[1] * (real.dim() - 1), device=real.device).to(real)
        between = (mix * real + (1 - mix) * fake).requires_grad_(True)
        (gradient,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
        return (gradient.flatten(1).norm(2, dim=1) - 1).square().mean()


class WGANGP:
    """Wasserstein loss with gradient penalty (Liu, Yao, Ren, eqs. 5 to 8; weight lambda = 10)."""

    def __init__(self, gp_weight: float = 10.0, drift: float = 0.0) -> None:
        self.gp_weight, self.drift = gp_weight, drift

    def critic_loss(self, critic: Critic, real: Tensor, fake: Tensor) -> LossAndLogs:
        """E[critic(fake)] - E[critic(real)] + gp_weight penalty + drift E[critic(real)^2]."""
        scores_real, scores_fake = critic(real).float(), critic(fake).float()
        penalty = gradient_penalty(critic, real, fake)
        loss = scores_fake.mean() - scores_real.mean() + self.gp_weight * penalty
        loss = loss + self.drift * scores_real.square().mean()
        logs = {"score/real": scores_real.mean(), "score/fake": scores_fake.mean(), "penalty/gp": penalty}
        return loss, {name: value.detach() for name, value in logs.items()}

    def generator_loss(self, critic: Critic, real: Tensor, fake: Tensor) -> LossAndLogs:
        """-E[critic(fake)]."""
        return -critic(fake).float().mean(), {}
