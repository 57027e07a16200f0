"""Flags for which the type of a field is not enough."""

from typing import Annotated

import tyro

from data.errors import UsageError
from stage1_autoencoder.training.config import Precision

_MIRROR = (
    "Show half of the codes, at random, as those of mirrored pictures. By default this is done where the store's "
    "autoencoder has learnt to mirror (default, pixels, or one trained with --mirror) and the store does not contain "
    "mirrored pictures (encoded with --flip)."
)
_NO_MIRROR = "Show every code as it is."
_BY_STORE = "(default: decided by the store)"
type _Switch = tyro.conf.FlagCreatePairsOff[bool]


def _mirror_flags(
    mirror: Annotated[_Switch, tyro.conf.arg(help=_MIRROR, help_behavior_hint=_BY_STORE)] = False,
    no_mirror: Annotated[_Switch, tyro.conf.arg(help=_NO_MIRROR, help_behavior_hint=_BY_STORE)] = False,
) -> bool | None:
    """Return the choice that the two flags make together, None if neither is given."""
    if mirror and no_mirror:
        raise UsageError("--mirror and --no-mirror: exclude each other", "leave out one of them")
    return mirror or (False if no_mirror else None)


type MirrorFlags = Annotated[bool | None, tyro.conf.arg(name="", constructor=_mirror_flags)]
"""`--mirror`, `--no-mirror`, or neither, which is None."""

type PrecisionFlag = Annotated[
    Precision | None, tyro.conf.arg(metavar="fp32|bf16", help_behavior_hint="(default: decided by the machine)")
]
