"""The update after a backward pass: a step if gradients are finite, and the average of the weights."""

from collections.abc import Iterable

import torch
from torch import nn

from data.errors import DivergedError
from stage1_autoencoder.training.clock import LOG_EVERY_STEPS


class FiniteGuard:
    """Keeps gradients that are not finite out of the weights, without the host waiting for the device.

    All optimisers of a run share one flag, which stays up: the weights remain those before the first bad gradient until
    the host looks, as it does when it logs and before it saves.
    """

    def __init__(self, optimizers: Iterable[torch.optim.Optimizer], device: torch.device) -> None:
        self._found = torch.zeros((), dtype=torch.float32, device=device)
        # A fused optimiser skips its step while `found_inf` is 1 (the protocol of torch.amp.GradScaler).
        for optimizer in optimizers:
            optimizer.found_inf = self._found  # type: ignore[attr-defined]

    def update(self, optimizer: torch.optim.Optimizer) -> None:
        """Step with the current gradients, unless one is not finite now or was before, and clear them."""
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        finite = torch.stack(torch._foreach_norm(gradients)).sum().isfinite()
        self._found.masked_fill_(~finite, 1.0)  # gradients are averaged over ranks, so all see the same NaN
        optimizer.step()
        optimizer.zero_grad()

    def found(self) -> bool:
        """Return whether a gradient was not finite; the host then waits for the device."""
        return bool(self._found.item())

    def refuse(self, nimg: int, fix: str) -> None:
        """Raise `DivergedError`, with the advice `fix`, if a gradient before image `nimg` was not finite."""
        if self.found():
            raise diverged(nimg, fix)

    def reset(self) -> None:
        """Let optimisers step again."""
        self._found.zero_()


def diverged(nimg: int, fix: str) -> DivergedError:
    """Return the error for a gradient before image `nimg` that was not finite."""
    what = f"a gradient became NaN or infinite within {LOG_EVERY_STEPS} steps before image {nimg}"
    return DivergedError(f"{what}; it changed no weight", fix)


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the learning rate of all parameters."""
    for group in optimizer.param_groups:
        group["lr"] = lr


def set_adam(optimizer: torch.optim.Optimizer, lr: float, beta1: float, beta2: float) -> None:
    """Set learning rate and decays of all parameters of an Adam."""
    for group in optimizer.param_groups:
        group["lr"], group["betas"] = lr, (beta1, beta2)


def ema_beta(batch_size: int, halflife_kimg: float, nimg: int, ramp: float = 0.05) -> float:
    """Return the decay of one update of an average, 0.5 ** (batch / half-life)."""
    # Early in training the half-life is a share of the images seen: a longer one would remember the initial weights.
    halflife = min(halflife_kimg * 1000, nimg * ramp)
    return 0.5 ** (batch_size / max(halflife, 1e-8))


@torch.no_grad()
def update_ema(ema: nn.Module, network: nn.Module, beta: float) -> None:
    """Set ema <- beta ema + (1 - beta) network for parameters, and copy buffers."""
    torch._foreach_lerp_(list(ema.parameters()), list(network.parameters()), 1 - beta)
    for target, source in zip(ema.buffers(), network.buffers(), strict=True):
        target.copy_(source)
