"""The table of all variants, by name."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from data.errors import UsageError
from stage2_codegen.configs.base import VariantConfig
from stage2_codegen.configs.registry import CONFIGS, SIDES, is_trainable
from stage2_codegen.variants import accel, baselines, chain, consingan, gca, giu, lrm, projected, r3, sle
from stage2_codegen.variants.conditional import build_generator
from stage2_codegen.variants.contract import CodeGenerator, CodeShape, Variant

VARIANTS: dict[str, Variant] = {
    "projected": Variant(
        CONFIGS["projected"],
        projected.Generator,
        projected.Critic,
        projected.loss,
        condition=projected.condition,
        view=projected.view,
        frozen=projected.frozen,
        uses_context=True,
    ),
    "accel": Variant(CONFIGS["accel"], accel.Generator, accel.Critic, accel.loss),
    "dcgan": Variant(CONFIGS["dcgan"], chain.Generator, chain.Critic, baselines.dcgan_loss),
    "lsgan": Variant(CONFIGS["lsgan"], chain.Generator, chain.Critic, baselines.lsgan_loss),
    "wgan-gp": Variant(
        CONFIGS["wgan-gp"], baselines.wgan_gp_generator, baselines.wgan_gp_critic, baselines.wgan_gp_loss
    ),
    "sngan": Variant(CONFIGS["sngan"], chain.Generator, chain.Critic, baselines.sngan_loss),
    "sagan": Variant(CONFIGS["sagan"], baselines.sagan_generator, baselines.sagan_critic, baselines.sagan_loss),
    "giu": Variant(CONFIGS["giu"], giu.generator, giu.critic, giu.loss),
    "gca": Variant(CONFIGS["gca"], gca.generator, gca.critic, gca.loss),
    "lrm": Variant(CONFIGS["lrm"], lrm.Generator, lrm.Critic, lrm.loss, condition=lrm.condition),
    "r3": Variant(CONFIGS["r3"], r3.Generator, r3.Critic, r3.loss, r3.schedule),
    "sle": Variant(CONFIGS["sle"], sle.Generator, sle.Critic, sle.loss, frozen=sle.frozen, uses_context=True),
    "consingan": Variant(
        CONFIGS["consingan"],
        consingan.Generator,
        consingan.Critic,
        consingan.loss,
        consingan.schedule,
        condition=consingan.condition,
    ),
}

MAX_CHANNELS = 64


def check_code_shape(name: str, code_shape: CodeShape) -> None:
    """Raise `UsageError` unless the variant takes codes of this shape.

    All take squares with a side in `SIDES` and 1 to 64 channels, and those of `any_shape` all sides that are multiples
    of 16 up to 256.
    """
    channels, height, width = code_shape
    usual = f"squares with a side of {', '.join(map(str, SIDES))}"
    if not is_trainable(height, width):
        raise UsageError(
            f"codes of {height} x {width}: no variant takes them",
            f"encode at a --size whose sides, divided by the autoencoder's factor, are multiples of {SIDES[0]} up to "
            f"{SIDES[-1]}",
        )
    if (height != width or height not in SIDES) and not CONFIGS[name].any_shape:
        raise UsageError(f"codes of {height} x {width}: {name} takes {usual} alone", "choose another variant")
    if not 1 <= channels <= MAX_CHANNELS:
        raise UsageError(f"codes of {channels} channels: no variant takes them", f"use 1 to {MAX_CHANNELS} channels")


def configured(name: str, code_shape: CodeShape, overrides: Mapping[str, Any]) -> tuple[Variant, Any]:
    """Return a variant and its Config with fields overridden, which may come from JSON.

    Raises `UsageError` for an unknown variant or field, for a value that a field cannot have, and for a shape of codes
    that no variant takes.
    """
    if name not in VARIANTS:
        raise UsageError(f"{name}: is not a variant", f"choose one of {', '.join(VARIANTS)}")
    check_code_shape(name, code_shape)
    variant = VARIANTS[name]
    retired, known = variant.Config.retired(), {field.name for field in dataclasses.fields(variant.Config)}
    given = {key: value for key, value in overrides.items() if key not in retired}
    given |= {key: tuple(value) for key, value in given.items() if isinstance(value, list)}
    if unknown := given.keys() - known:
        raise UsageError(f"{name}: has no field {', '.join(sorted(unknown))}", f"its fields are {', '.join(known)}")
    make: Callable[..., VariantConfig] = variant.Config
    return variant, make(**given)


def build_networks(name: str, code_shape: CodeShape, **overrides: Any) -> tuple[CodeGenerator, nn.Module]:
    """Build (generator, critic) of a variant for codes of that shape; raises what `configured` raises.

    A critic that looks at decoded pictures decodes them with an untrained autoencoder (`Context.stand_in`).
    """
    variant, config = configured(name, code_shape, overrides)
    return build_generator(variant, code_shape, config), variant.Critic(code_shape, config)
