"""Does a generator memorise? Generated images beside the training images nearest to them in feature space."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from data.files.atomic import write_json
from data.images import image_grid, save_png
from data.seeds import NEIGHBOUR_QUERIES
from pipelines.scoring.metrics import Exact, Indices, Rows, nearest
from pipelines.scoring.sets import Images, LazyImages

NEIGHBOURS = 3
_ROWS = 10  # of the sheet, the images nearest to a training image first
_QUERIES = 1000  # images of each kind whose neighbours are looked for
_QUANTILES = (0, 5, 25, 50, 75, 95, 100)  # per cent
_CAPTION = 14  # pixels below each image
_DEVIATIONS = 3  # beyond which two samples of distances differ by more than chance


class Neighbours(NamedTuple):
    generated: Indices  # (queries,) whose neighbours these are
    distances: Exact  # (queries, NEIGHBOURS), ascending
    which: Indices  # (queries, NEIGHBOURS) real images
    mirrored: NDArray[np.bool_]  # (queries, NEIGHBOURS), whether it is their mirror image that is so near
    among_real: Exact  # (queries,) from a real image to the nearest other
    reconstructed: Exact | None  # (queries,) from a decoded real image to the nearest real one


def find_neighbours(
    fake: Rows, real: Rows, decoded: Rows | None, seed: int, mirrored: Rows | None = None
) -> Neighbours:
    """The neighbours of `_QUERIES` random images of each kind, (n, dim), among all real ones; needs two of these.

    The images are random, as files are often sorted, and those of one class may lie closer to each other than others
    do. Where the generator was also shown the real images `mirrored`, each is as near as the nearer of the two.
    """
    rng = np.random.default_rng([seed, NEIGHBOUR_QUERIES])
    generated, taken = (np.sort(rng.permutation(len(rows))[:_QUERIES]) for rows in (fake, real))
    shown = [real] if mirrored is None else [real, mirrored]
    distances, which, is_mirrored = _nearest_images(fake[generated], shown)
    among_real = np.stack([nearest(real[taken], rows, 1, itself=taken)[0][:, 0] for rows in shown]).min(axis=0)
    reconstructed = None if decoded is None else _nearest_images(decoded[taken], shown)[0][:, 0]
    return Neighbours(generated, distances, which, is_mirrored, among_real, reconstructed)


def _nearest_images(points: Rows, shown: Sequence[Rows]) -> tuple[Exact, Indices, NDArray[np.bool_]]:
    """Distances to the nearest images, which they are, and whether by the second of their rows; (n, NEIGHBOURS).

    Row i of each set in `shown` is of image i. The nearest of both sets together hold the nearest images, but may hold
    one twice.
    """
    found = [nearest(points, rows, NEIGHBOURS) for rows in shown]
    distances, which = (np.concatenate(columns, axis=1) for columns in zip(*found, strict=True))
    count, order = found[0][1].shape[1], np.argsort(distances, axis=1, kind="stable")
    first_places = (np.unique(row, return_index=True)[1] for row in np.take_along_axis(which, order, axis=1))
    places = np.stack([np.sort(places)[:count] for places in first_places])
    kept = np.take_along_axis(order, places, axis=1)
    return np.take_along_axis(distances, kept, axis=1), np.take_along_axis(which, kept, axis=1), kept >= count


def summary(found: Neighbours) -> dict[str, Any]:
    """Quantiles of the distances to the nearest, and how many generated images are suspiciously near.

    For images that are as far from the training images as those are from each other, `closer_than_5_percent_of_real` is
    0.05 and `probability_nearer`, of a generated image against a real one, is 0.5; `nearer_than_real` says that the
    latter is more by a rank test (Mann and Whitney 1947). A copy of a training image is as far from it as the
    autoencoder alone takes it: `reconstructed_to_real`.
    """
    to_real = found.distances[:, 0]
    nearer = float(np.searchsorted(np.sort(to_real), found.among_real).mean() / len(to_real))
    chance = np.sqrt((len(to_real) + len(found.among_real) + 1) / (12 * len(to_real) * len(found.among_real)))
    return {
        "generated_to_real": _quantiles(to_real),
        "real_to_real": _quantiles(found.among_real),
        "reconstructed_to_real": None if found.reconstructed is None else _quantiles(found.reconstructed),
        "closer_than_5_percent_of_real": float((to_real < np.quantile(found.among_real, 0.05)).mean()),
        "probability_nearer": nearer,
        "nearer_than_real": bool(nearer > 0.5 + _DEVIATIONS * chance),
        "num_generated": len(to_real),
        "num_real": len(found.among_real),
    }


def _quantiles(values: Exact) -> dict[str, float]:
    return dict(zip(map(str, _QUANTILES), np.percentile(values, _QUANTILES).tolist(), strict=True))


def write_neighbours(
    path: Path, found: Neighbours, generated: LazyImages, real: LazyImages, described: Mapping[str, Any]
) -> list[Path]:
    """`path`.png, a sheet, and `path`.json: `described`, the `summary`, and the sheet's images by position."""
    rows: list[dict[str, Any]] = []
    cells: list[NDArray[np.uint8]] = []
    for query in np.argsort(found.distances[:, 0], kind="stable")[:_ROWS]:
        position = int(found.generated[query])
        neighbours, distances = found.which[query].tolist(), found.distances[query].tolist()
        mirrored = found.mirrored[query].tolist()
        rows.append({"generated": position, "real": neighbours, "mirrored": mirrored, "distances": distances})
        cells.append(_captioned(generated.at([position])[0], f"#{position}"))
        for image, is_mirrored, distance in zip(real.at(neighbours), mirrored, distances, strict=True):
            cells.append(_captioned(image[..., ::-1] if is_mirrored else image, f"{distance:.4g}"))
    sheet, numbers = path.with_suffix(".png"), path.with_suffix(".json")
    save_png(sheet, image_grid(cells, columns=1 + found.which.shape[1]))
    write_json(numbers, {**described, **summary(found), "sheet": rows})
    return [sheet, numbers]


def _captioned(image_u8: Images, text: str) -> NDArray[np.uint8]:
    """(3, H, W) with a line of text below."""
    strip = Image.new("L", (image_u8.shape[2], _CAPTION), 255)
    ImageDraw.Draw(strip).text((2, 1), text, fill=0)
    caption = np.broadcast_to(np.asarray(strip), (3, *np.asarray(strip).shape))
    return np.concatenate([image_u8, caption], axis=1)
