"""Is it memory? Generated images beside the training images nearest to them in feature space."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from data.images import image_grid, save_png
from data.storage import write_json
from pipelines.feature_pass import Images, Rows, Source
from pipelines.metrics import Exact, Indices, nearest

NEIGHBOURS = 3
_ROWS = 10  # of the sheet, the images nearest to a training image first
_QUERIES = 1000  # whose neighbours are looked for, of each kind
_QUANTILES = (0, 5, 25, 50, 75, 95, 100)  # per cent
_CAPTION = 14  # pixels below each picture
_DEVIATIONS = 3  # beyond which two samples of distances differ by more than chance


class Neighbours(NamedTuple):
    distances: Exact  # (queries, NEIGHBOURS) of generated images, ascending
    which: Indices  # (queries, NEIGHBOURS) real images
    among_real: Exact  # (queries,) from a real image to the nearest other
    reconstructed: Exact | None  # (queries,) from a decoded real image to the nearest real one


def find_neighbours(fake: Rows, real: Rows, decoded: Rows | None) -> Neighbours:
    """Of the first `_QUERIES` images of each kind, (n, dim), among all real ones; needs two of these."""
    distances, which = nearest(fake[:_QUERIES], real, NEIGHBOURS)
    among_real, _ = nearest(real[:_QUERIES], real, 1, leave_out_itself=True)
    reconstructed = None if decoded is None else nearest(decoded[:_QUERIES], real, 1)[0][:, 0]
    return Neighbours(distances, which, among_real[:, 0], reconstructed)


def summary(found: Neighbours) -> dict[str, Any]:
    """Quantiles of the distances to the nearest, and how many generated images are suspiciously near.

    For images that are as far from the training images as those are from each other,
    `closer_than_5_percent_of_real` is 0.05 and `probability_nearer`, of a generated image against a real one, is 0.5;
    `nearer_than_real` says that it is more by a rank test (Mann and Whitney 1947). A copy of a training image is as far
    as the autoencoder alone takes it, where `reconstructed_to_real` is.
    """
    to_real = found.distances[:, 0]
    kinds = {
        "generated_to_real": to_real,
        "real_to_real": found.among_real,
        "reconstructed_to_real": found.reconstructed,
    }
    nearer = float(np.searchsorted(np.sort(to_real), found.among_real).mean() / len(to_real))
    chance = np.sqrt((len(to_real) + len(found.among_real) + 1) / (12 * len(to_real) * len(found.among_real)))
    return {
        **{
            name: None if values is None else dict(zip(map(str, _QUANTILES), _quantiles(values), strict=True))
            for name, values in kinds.items()
        },
        "closer_than_5_percent_of_real": float((to_real < np.quantile(found.among_real, 0.05)).mean()),
        "probability_nearer": nearer,
        "nearer_than_real": bool(nearer > 0.5 + _DEVIATIONS * chance),
        "num_generated": len(to_real),
        "num_real": len(found.among_real),
    }


def _quantiles(values: Exact) -> list[float]:
    return [float(value) for value in np.percentile(values, _QUANTILES)]


def write_neighbours(folder: Path, found: Neighbours, generated: Source, real: Source) -> list[Path]:
    """folder/neighbours.png and neighbours.json: what `summary` says, and the pictures of the sheet by position."""
    order = np.argsort(found.distances[:, 0], kind="stable")[:_ROWS]
    cells: list[NDArray[np.uint8]] = []
    for position in order:
        neighbours, distances = found.which[position], found.distances[position]
        cells.append(_captioned(generated.images([int(position)])[0], f"#{position}"))
        pictures = real.images([int(neighbour) for neighbour in neighbours])
        cells += [_captioned(picture, f"{d:.4g}") for picture, d in zip(pictures, distances, strict=True)]
    rows = [
        {"generated": int(i), "real": found.which[i].tolist(), "distances": found.distances[i].tolist()} for i in order
    ]
    sheet, numbers = folder / "neighbours.png", folder / "neighbours.json"
    save_png(sheet, image_grid(cells, columns=1 + found.which.shape[1]))
    write_json(numbers, summary(found) | {"sheet": rows})
    return [sheet, numbers]


def _captioned(image_u8: Images, text: str) -> NDArray[np.uint8]:
    """A line of text below (3, H, W)."""
    strip = Image.new("L", (image_u8.shape[2], _CAPTION), 255)
    ImageDraw.Draw(strip).text((2, 1), text, fill=0)
    caption = np.broadcast_to(np.asarray(strip), (3, *np.asarray(strip).shape))
    return np.concatenate([image_u8, caption], axis=1)
