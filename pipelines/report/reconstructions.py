"""What an autoencoder alone loses: pictures beside their reconstructions, and what was measured on held-out images."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from data.files.atomic import read_json
from data.images import to_array, to_float, to_uint8
from data.spacing import evenly_spaced
from pipelines.report.missing import Missing, attempt
from pipelines.report.pictures import embed, embed_array
from pipelines.report.run_folder import RunFolder
from stage1_autoencoder.evaluate import psnr
from stage1_autoencoder.networks import Autoencoder

_TRIPLES, _TRIPLE_BYTES = 15, 100_000


def reconstructions(run: RunFolder) -> dict[str, Any]:
    """Triples of pictures, the worst first; raises `Missing` without weights or the data."""
    autoencoder = run.autoencoder
    chosen = [run.originals[index] for index in evenly_spaced(len(run.originals), _TRIPLES)]
    compared = [_Compared(autoencoder, name, original) for name, original in chosen]
    factor = _amplification([entry.difference for entry in compared])
    triples = [entry.triple(factor) for entry in sorted(compared, key=lambda entry: entry.psnr)]
    return {"triples": triples, "factor": factor, "data": run.data_name}


class _Compared:
    """A picture, fitted, beside what the autoencoder makes of it."""

    @torch.inference_mode()
    def __init__(self, autoencoder: Autoencoder, name: str, original: Image.Image) -> None:
        original_u8 = to_array(original)  # (3, H, W)
        images = to_float(torch.from_numpy(original_u8)[None])
        decoded = autoencoder(images)
        self.name, self.original = name, original
        self.decoded: NDArray[np.uint8] = to_uint8(decoded)[0].numpy()
        self.difference = np.abs(self.decoded.astype(np.int64) - original_u8)
        self.psnr = psnr((decoded - images).square().mean().item())

    def triple(self, factor: int) -> dict[str, Any]:
        """With the difference times `factor`."""
        difference = (self.difference * factor).clip(0, 255).astype(np.uint8)
        return {
            "name": self.name,
            "psnr": self.psnr,
            "original": embed(self.original, _TRIPLE_BYTES),
            "decoded": embed_array(self.decoded, _TRIPLE_BYTES),
            "difference": embed_array(difference, _TRIPLE_BYTES),
        }


def _amplification(differences: Sequence[NDArray[np.int64]]) -> int:
    """The largest power of two, of at most 32, that leaves 99 % of all differences below white."""
    bound = max(1.0, float(np.quantile(np.stack(differences), 0.99)))
    return max(factor for factor in (1, 2, 4, 8, 16, 32) if factor == 1 or factor * bound <= 255)


def sizes(runs: Sequence[RunFolder]) -> dict[str, Any]:
    """The measured reconstructions of autoencoders: run, pixels a side, PSNR, mean squared error and count."""
    found = [(run, attempt(run.check_command, sizes_of, run)) for run in runs]
    return {
        "rows": [[run.name, *row] for run, rows in found if not isinstance(rows, Missing) for row in rows],
        "missing": [lack for _, lack in found if isinstance(lack, Missing)],
    }


def sizes_of(run: RunFolder) -> list[list[str]]:
    """Pixels a side, PSNR, mean squared error and count, as they are shown.

    Raises `Missing` when nothing was measured, or when the file is damaged.
    """
    rows = run.beside("reconstructions.json", lambda path: _rows(read_json(path)["rows"]), run.train_command)
    if not rows:
        told = f"{run.name} is measured when training ends. This command goes on with it:"
        raise Missing(told, run.train_command)
    return rows


def _rows(measured: list[dict[str, float]]) -> list[list[str]]:
    return [[str(row["size"]), f"{row['psnr']:.2f}", f"{row['mse']:.3e}", str(row["count"])] for row in measured]
