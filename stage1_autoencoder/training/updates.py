"""The update after a backward pass: a step if gradients are finite, and the average of the weights."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from data.errors import DivergedError
from stage1_autoencoder.training.clock import LOG_EVERY_STEPS
from stage1_autoencoder.training.config import OptimizerName


class FiniteGuard:
    """Keeps gradients that are not finite out of the weights, without the host waiting for the device.

    All optimisers of a run share one flag, which stays up: the weights remain those before the first bad gradient until
    the host looks, as it does when it logs and before it saves.
    """

    def __init__(self, optimizers: Iterable[torch.optim.Optimizer], device: torch.device) -> None:
        self._found = torch.zeros((), dtype=torch.float32, device=device)
        # A fused optimiser skips its step while `found_inf` is 1 (the protocol of torch.amp.GradScaler).
        for optimizer in filter(_is_fused, optimizers):
            optimizer.found_inf = self._found  # type: ignore[attr-defined]

    def update(self, optimizer: torch.optim.Optimizer) -> None:
        """Step with the current gradients, unless one is not finite now or was before, and clear them."""
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        finite = torch.stack(torch._foreach_norm(gradients)).sum().isfinite()
        self._found.masked_fill_(~finite, 1.0)  # gradients are averaged over ranks, so all see the same NaN
        if not _is_fused(optimizer):  # one without momentum stands still where gradients are zero
            for gradient in gradients:
                gradient.masked_fill_(self._found.bool(), 0.0)
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


def _is_fused(optimizer: torch.optim.Optimizer) -> bool:
    return bool(optimizer.defaults.get("fused"))


def diverged(nimg: int, fix: str) -> DivergedError:
    """Return the error for a gradient before image `nimg` that was not finite."""
    what = f"a gradient became NaN or infinite within {LOG_EVERY_STEPS} steps before image {nimg}"
    return DivergedError(f"{what}; it changed no weight", fix)


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the learning rate of all parameters."""
    for group in optimizer.param_groups:
        group["lr"] = lr


def make_optimizer(name: OptimizerName, parameters: Iterable[Any], lr: float) -> torch.optim.Optimizer:
    """Make an optimiser that a `FiniteGuard` can stop; its decays are those of the next `set_rates`."""
    match name:
        case "adam":
            return torch.optim.Adam(parameters, lr, fused=True)
        case "adagrad":
            return torch.optim.Adagrad(parameters, lr)
        case "rmsprop":
            return torch.optim.RMSprop(parameters, lr)


def set_rates(optimizer: torch.optim.Optimizer, lr: float, beta1: float, beta2: float) -> None:
    """Set learning rate and decays of all parameters; RMSprop has the second decay alone, and Adagrad none."""
    for group in optimizer.param_groups:
        group["lr"] = lr
        if "betas" in group:
            group["betas"] = beta1, beta2
        elif "alpha" in group:
            group["alpha"] = beta2


def ema_beta(batch_size: int, halflife_kimg: float, nimg: int, ramp: float = 0.05) -> float:
    """Return the decay of one update of an average, 0.5 ** (batch / half-life)."""
    # Early in training the half-life is a share of the images seen: a longer one would remember the initial weights.
    halflife = min(halflife_kimg * 1000, nimg * ramp)
    return 0.5 ** (batch_size / max(halflife, 1e-8))


@torch.no_grad()
def update_ema(ema: nn.Module, network: nn.Module, beta: float) -> None:
    """Set ema <- beta ema + (1 - beta) network for parameters, and copy buffers."""
    torch._foreach_lerp_(list(ema.parameters()), list(network.parameters()), 1 - beta)
    if buffers := list(network.buffers()):
        torch._foreach_copy_(list(ema.buffers()), buffers)
