"""One training step of a variant on random codes: what the speed benchmarks time."""

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from stage2_codegen.augment import augmentation
from stage2_codegen.variants import VARIANTS
from stage2_codegen.variants.contract import CodeShape


class Step:
    """One critic and one generator update of the trainer's, without its checks, average and logs.

    A training step has `n_critic` of the first. Fields are as given, not as a variant schedules them.
    """

    def __init__(self, name: str, shape: CodeShape, batch: int, bf16: bool = False, **model: Any) -> None:
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.batch, self.shape, self.bf16 = batch, shape, bf16
        variant = VARIANTS[name]
        config = variant.Config(**model)
        with torch.device(self.device):
            # not build_networks: the pixel networks that a paper starts from are larger than what one trains here
            self.networks = variant.Generator(shape, config), variant.Critic(shape, config)
            self.augment = augmentation(config.augment, torch.ones(shape[0]))
        self.loss = variant.loss(config)
        for network in self.networks:
            network.to(memory_format=torch.channels_last)
        rates, betas = (config.lr, config.critic_lr), (config.beta1, config.beta2)
        self.optimizers = [
            torch.optim.Adam(network.parameters(), lr, betas, fused=True)
            for network, lr in zip(self.networks, rates, strict=True)
        ]

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


class _Counter(TorchDispatchMode):
    """What `FlopCounterMode` counts; that one also follows modules, and stumbles over gradients of gradients."""

    flops = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if formula := flop_registry.get(func._overloadpacket):
            self.flops += formula(*args, **(kwargs or {}), out_val=out)
        return out


def flops(step: Step) -> int:
    """Floating-point operations of one step, which is made; a multiply-add is two."""
    with _Counter() as counter:
        step()
    return counter.flops
