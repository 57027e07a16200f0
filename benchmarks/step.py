"""One training step of a variant on random codes: what the speed benchmarks time."""

from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from stage2_codegen.augment import augmentation
from stage2_codegen.variants import VARIANTS, build_networks
from stage2_codegen.variants.contract import CodeShape


class Step:
    """One critic and one generator update, as the trainer makes them."""

    def __init__(self, name: str, shape: CodeShape, batch: int, bf16: bool = False, device: str = "", **model: Any):
        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self.batch, self.shape, self.bf16 = batch, shape, bf16
        config = VARIANTS[name].Config(**model)
        with torch.device(self.device):
            self.networks = build_networks(name, shape, **model)
            self.augment = augmentation(config.augment, torch.ones(shape[0]))
        self.loss = VARIANTS[name].loss(config)
        for network in self.networks:
            network.to(memory_format=torch.channels_last)
        fused = self.device != "meta"
        self.optimizers = [torch.optim.Adam(n.parameters(), config.lr, (0.0, 0.9), fused=fused) for n in self.networks]

    def _normal(self, *shape: int) -> Tensor:
        return torch.randn(self.batch, *shape, device=self.device)

    def __call__(self) -> None:
        G, critic = self.networks
        real = self._normal(*self.shape).clamp(-1, 1).contiguous(memory_format=torch.channels_last)
        critic.requires_grad_(True)
        with torch.autocast(self.device, torch.bfloat16, enabled=self.bf16):
            with torch.no_grad():
                fake = G.judged(self._normal(G.z_dim))
            loss, _ = self.loss.critic_loss(critic, self.augment(real), self.augment(fake))
        loss.backward()
        self._update(1)
        critic.requires_grad_(False)
        with torch.autocast(self.device, torch.bfloat16, enabled=self.bf16):
            fake = G.judged(self._normal(G.z_dim))
            loss, _ = self.loss.generator_loss(critic, self.augment(real), self.augment(fake))
        loss.backward()
        self._update(0)

    def _update(self, index: int) -> None:
        self.optimizers[index].step()
        self.optimizers[index].zero_grad()


def flops(name: str, shape: CodeShape, batch: int, **model: Any) -> int:
    """Floating-point operations of one step, counted without computing them; a multiply-add is two."""
    step = Step(name, shape, batch, device="meta", **model)
    with FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops()
