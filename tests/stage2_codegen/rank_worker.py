"""A script that trains in float64, where rounding neither hides nor feigns a difference; alone or as one of the ranks.

Its arguments are a store, a folder for the runs, and as JSON {run: [variant, model's fields, trainer's fields]}.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from stage2_codegen.codes import CodeScale
from stage2_codegen.configs.projected import ProjectedConfig
from stage2_codegen.configs.train import TrainConfig
from stage2_codegen.frozen.context import Frozen
from stage2_codegen.frozen.projection import Mixing
from stage2_codegen.train import train
from stage2_codegen.variants import VARIANTS, projected

to_codes = CodeScale.to_codes


def to_double_codes(self: CodeScale, latents: Tensor) -> Tensor:
    return to_codes(self, latents.double())


class DoubleMixing(Mixing):
    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__(widths)
        self.double()


def double_frozen(config: ProjectedConfig) -> dict[str, Frozen]:
    opened = projected.frozen(config)
    for frozen in opened.values():
        frozen.network.double()
    return opened


if __name__ == "__main__":
    store, folder, runs = sys.argv[1:]
    torch.set_default_dtype(torch.float64)
    CodeScale.to_codes = to_double_codes  # type: ignore[method-assign]
    projected.Mixing = DoubleMixing  # type: ignore[misc]
    VARIANTS["projected"] = VARIANTS["projected"]._replace(frozen=double_frozen)
    for run, (name, model, fields) in json.loads(runs).items():
        train(
            name, TrainConfig(store=Path(store), out=Path(folder) / run, model=VARIANTS[name].Config(**model), **fields)
        )
