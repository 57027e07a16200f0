"""A script that trains in float64, where rounding neither hides nor feigns a difference; alone or as one of the ranks.

Its arguments are a store, a folder for the runs, and as JSON {run: [variant, model's fields, trainer's fields]}.
"""

import json
import sys
from pathlib import Path

import torch
from torch import Tensor

from stage2_codegen.codes import CodeScale
from stage2_codegen.configs.train import TrainConfig
from stage2_codegen.train import train
from stage2_codegen.variants import VARIANTS

to_codes = CodeScale.to_codes


def to_double_codes(self: CodeScale, latents: Tensor) -> Tensor:
    return to_codes(self, latents.double())


if __name__ == "__main__":
    store, folder, runs = sys.argv[1:]
    torch.set_default_dtype(torch.float64)
    CodeScale.to_codes = to_double_codes  # type: ignore[method-assign]
    for run, (name, model, fields) in json.loads(runs).items():
        train(
            name, TrainConfig(store=Path(store), out=Path(folder) / run, model=VARIANTS[name].Config(**model), **fields)
        )
