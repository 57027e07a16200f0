"""Is it memory? Generated images beside the training images nearest to them in feature space."""

from collections.abc import Mapping
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
_QUERIES = 1000  # images of each kind whose neighbours are looked for
_QUANTILES = (0, 5, 25, 50, 75, 95, 100)  # per cent
_CAPTION = 14  # pixels below each picture
_DEVIATIONS = 3  # beyond which two samples of distances differ by more than chance


class Neighbours(NamedTuple):
    generated: Indices  # (queries,) whose neighbours these are
    distances: Exact  # (queries, NEIGHBOURS), ascending
    which: Indices  # (queries, NEIGHBOURS) real images
    among_real: Exact  # (queries,) from a real image to the nearest other
    reconstructed: Exact | None  # (queries,) from a decoded real image to the nearest real one


def find_neighbours(fake: Rows, real: Rows, decoded: Rows | None, seed: int) -> Neighbours:
    """Of `_QUERIES` random images of each kind, (n, dim), among all real ones; needs two of these.

    Not of the first: files are often sorted, and those of one class may lie closer to each other than others do.
    """
    rng = np.random.default_rng([seed, 3])
    generated, taken = (np.sort(rng.permutation(len(rows))[:_QUERIES]) for rows in (fake, real))
    distances, which = nearest(fake[generated], real, NEIGHBOURS)
    among_real, _ = nearest(real[taken], real, 1, itself=taken)
    reconstructed = None if decoded is None else nearest(decoded[taken], real, 1)[0][:, 0]
    return Neighbours(generated, distances, which, among_real[:, 0], reconstructed)


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


def write_neighbours(
    path: Path, found: Neighbours, generated: Source, real: Source, described: Mapping[str, Any]
) -> list[Path]:
    """`path`.png, a sheet, and `path`.json: `described`, what `summary` says, and the sheet's pictures by position."""
    rows: list[dict[str, Any]] = []
    cells: list[NDArray[np.uint8]] = []
    for query in np.argsort(found.distances[:, 0], kind="stable")[:_ROWS]:
        position = int(found.generated[query])
        neighbours, distances = found.which[query].tolist(), found.distances[query].tolist()
        rows.append({"generated": position, "real": neighbours, "distances": distances})
        cells.append(_captioned(generated.images([position])[0], f"#{position}"))
        pictures = zip(real.images(neighbours), distances, strict=True)
        cells += [_captioned(picture, f"{distance:.4g}") for picture, distance in pictures]
    sheet, numbers = path.with_suffix(".png"), path.with_suffix(".json")
    save_png(sheet, image_grid(cells, columns=1 + found.which.shape[1]))
    write_json(numbers, {**described, **summary(found), "sheet": rows})
    return [sheet, numbers]


def _captioned(image_u8: Images, text: str) -> NDArray[np.uint8]:
    """A line of text below (3, H, W)."""
    strip = Image.new("L", (image_u8.shape[2], _CAPTION), 255)
    ImageDraw.Draw(strip).text((2, 1), text, fill=0)
    caption = np.broadcast_to(np.asarray(strip), (3, *np.asarray(strip).shape))
    return np.concatenate([image_u8, caption], axis=1)
