"""What follows a backward pass: a step with finite gradients only, and the average of the weights."""

from collections.abc import Iterable

import torch
from torch import nn

from data.errors import DivergedError
from stage1_autoencoder.training.clock import LOG_EVERY_STEPS


class FiniteGuard:
    """Keeps a gradient that is not finite out of the weights, without the host waiting for the device.

    A fused optimiser leaves a step out whose `found_inf` is 1 (torch.amp.GradScaler's protocol). Here all optimisers of
    a run share one such flag, and it stays up: the weights remain those before the first bad gradient until the host
    looks, as it does when it logs and before it saves. Gradients are averaged over ranks, so all see the same NaN.
    """

    def __init__(self, optimizers: Iterable[torch.optim.Optimizer], device: torch.device) -> None:
        self._found = torch.zeros((), dtype=torch.float32, device=device)
        for optimizer in optimizers:
            optimizer.found_inf = self._found  # type: ignore[attr-defined]

    def update(self, optimizer: torch.optim.Optimizer) -> None:
        """Step with the gradients at hand and clear them."""
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        finite = torch.stack(torch._foreach_norm(gradients)).sum().isfinite()
        self._found.masked_fill_(~finite, 1.0)
        optimizer.step()
        optimizer.zero_grad()

    def found(self) -> bool:
        return bool(self._found.item())

    def refuse(self, nimg: int, fix: str) -> None:
        """Raise `DivergedError` if there was one, before `nimg` images."""
        if self.found():
            raise diverged(nimg, fix)

    def reset(self) -> None:
        self._found.zero_()


def diverged(nimg: int, fix: str) -> DivergedError:
    what = f"a gradient became NaN or infinite within {LOG_EVERY_STEPS} steps before image {nimg}"
    return DivergedError(f"{what}; it changed no weight", fix)


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = lr


def set_adam(optimizer: torch.optim.Optimizer, lr: float, beta1: float, beta2: float) -> None:
    for group in optimizer.param_groups:
        group["lr"], group["betas"] = lr, (beta1, beta2)


def ema_beta(batch_size: int, halflife_kimg: float, nimg: int, ramp: float = 0.05) -> float:
    """Decay of one update, 0.5 ** (batch / half-life); early on the half-life is `ramp` of the images seen."""
    halflife = min(halflife_kimg * 1000, nimg * ramp)
    return 0.5 ** (batch_size / max(halflife, 1e-8))


@torch.no_grad()
def update_ema(ema: nn.Module, network: nn.Module, beta: float) -> None:
    """ema <- beta ema + (1 - beta) network for parameters; buffers are copied."""
    torch._foreach_lerp_(list(ema.parameters()), list(network.parameters()), 1 - beta)
    for target, source in zip(ema.buffers(), network.buffers(), strict=True):
        target.copy_(source)
