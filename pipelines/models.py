"""`codegan models`: how large and how costly every variant is, without training one."""

from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from data.errors import UsageError
from pipelines.configs import ModelsConfig
from stage2_codegen.configs.registry import SIDES
from stage2_codegen.variants import VARIANTS, build_networks
from stage2_codegen.variants.contract import CodeShape


@dataclass(frozen=True)
class Cost:
    """Parameters, and floating-point operations of one image's forward pass (a multiply-add counts as two)."""

    generator_parameters: int
    critic_parameters: int
    generator_flops: int
    critic_flops: int


def cost(name: str, code_shape: CodeShape, **overrides: object) -> Cost:
    """What a variant of these fields takes; nothing is allocated or computed."""
    with torch.device("meta"):
        G, critic = build_networks(name, code_shape, **overrides)
        G.eval()
        critic.eval()
        with FlopCounterMode(display=False) as in_generator:
            fake = G.judged(torch.empty(1, G.z_dim))
        with FlopCounterMode(display=False) as in_critic:
            critic(fake)
    in_both = [sum(p.numel() for p in network.parameters()) for network in (G, critic)]
    return Cost(in_both[0], in_both[1], in_generator.get_total_flops(), in_critic.get_total_flops())


def models(config: ModelsConfig) -> None:
    """Print the table."""
    if not config.sizes:
        raise UsageError("--sizes: is empty", f"give some of {', '.join(map(str, SIDES))}")
    print(f"Codes of {config.channels} channels; generator / critic; G = 1e9 operations, forward, one image.\n")
    print("| variant | code side | parameters, M | GFLOPs |\n|---|---|---|---|")
    for name in VARIANTS:
        for side in config.sizes:
            taken = cost(name, (config.channels, side, side))
            parameters = f"{taken.generator_parameters / 1e6:.2f} / {taken.critic_parameters / 1e6:.2f}"
            flops = f"{taken.generator_flops / 1e9:.2f} / {taken.critic_flops / 1e9:.2f}"
            print(f"| {name} | {side} | {parameters} | {flops} |")
