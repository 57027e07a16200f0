"""The code generators one can train, by name."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from torch import nn

from data.errors import UsageError
from stage2_codegen.variants import accel, baselines, chain, gca, giu, lrm, projected, r3, sle
from stage2_codegen.variants.contract import CodeGenerator, CodeShape, Variant, check_config

VARIANTS: dict[str, Variant] = {
    "projected": Variant(
        projected.Config,
        projected.Generator,
        projected.Critic,
        projected.loss,
        condition=projected.condition,
        view=projected.view,
        frozen=projected.frozen,
        uses_context=True,
    ),
    "accel": Variant(accel.Config, accel.Generator, accel.Critic, accel.loss),
    "dcgan": Variant(baselines.DCGANConfig, chain.Generator, chain.Critic, baselines.dcgan_loss),
    "lsgan": Variant(baselines.LSGANConfig, chain.Generator, chain.Critic, baselines.lsgan_loss),
    "wgan-gp": Variant(
        baselines.WGANGPConfig, baselines.wgan_gp_generator, baselines.wgan_gp_critic, baselines.wgan_gp_loss
    ),
    "sngan": Variant(baselines.SNGANConfig, chain.Generator, chain.Critic, baselines.sngan_loss),
    "sagan": Variant(baselines.SAGANConfig, baselines.sagan_generator, baselines.sagan_critic, baselines.sagan_loss),
    "giu": Variant(giu.Config, giu.generator, giu.critic, giu.loss),
    "gca": Variant(gca.Config, gca.generator, gca.critic, gca.loss),
    "lrm": Variant(lrm.Config, lrm.Generator, lrm.Critic, lrm.loss, condition=lrm.condition),
    "r3": Variant(r3.Config, r3.Generator, r3.Critic, r3.loss, r3.schedule),
    "sle": Variant(sle.Config, sle.Generator, sle.Critic, sle.loss, frozen=sle.frozen, uses_context=True),
}

RECOMMENDED = "projected"  # where nobody names a variant
SIDES = (16, 32, 64, 128, 256)  # of codes, or of pixels
MAX_CHANNELS = 64


def check_code_shape(code_shape: CodeShape) -> None:
    """Raise `UsageError` unless codes are square, of a side in `SIDES` and of 1 to 64 channels."""
    channels, height, width = code_shape
    if height != width or height not in SIDES:
        raise UsageError(
            f"codes of {height} x {width}: no variant takes them",
            f"encode at a --size that gives a side of {', '.join(map(str, SIDES))} (image size / factor)",
        )
    if not 1 <= channels <= MAX_CHANNELS:
        raise UsageError(f"codes of {channels} channels: no variant takes them", f"use 1 to {MAX_CHANNELS} channels")


def configured(name: str, code_shape: CodeShape, overrides: Mapping[str, Any]) -> tuple[Variant, Any]:
    """A variant and its Config with fields overridden.

    Raises `UsageError` for an unknown variant or field, for a value it cannot have and for a shape no variant takes.
    """
    if name not in VARIANTS:
        raise UsageError(f"{name}: is not a variant", f"choose one of {', '.join(VARIANTS)}")
    check_code_shape(code_shape)
    variant = VARIANTS[name]
    if unknown := overrides.keys() - {field.name for field in dataclasses.fields(variant.Config)}:
        raise UsageError(f"{name}: has no field {', '.join(sorted(unknown))}", f"see `codegan train {name} --help`")
    config = variant.Config(**overrides)
    check_config(config)
    return variant, config


def build_networks(name: str, code_shape: CodeShape, **overrides: Any) -> tuple[CodeGenerator, nn.Module]:
    """(generator, critic) of a variant for codes of that shape; raises what `configured` raises.

    A critic that looks at decoded pictures decodes by an untrained autoencoder (`Context.stand_in`).
    """
    variant, config = configured(name, code_shape, overrides)
    return variant.Generator(code_shape, config), variant.Critic(code_shape, config)
