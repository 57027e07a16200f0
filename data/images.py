"""Sets of images as RGB uint8, and every conversion between pixels in files and in networks."""

import hashlib
import io
import json
import math
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import batched
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from data.advice import Action, Advice
from data.errors import CodeganError, InputError, UsageError, one_line
from data.files.atomic import write_bytes
from data.files.checksums import crc32c
from data.prefetch import prefetch
from data.scenes.factors import Scenes, parse_scenes
from data.sizes import Size, height_width
from data.sources.decoding import Unreadable, decode, probe
from data.sources.listing import Entry, Listing, Skip, list_entries
from data.sources.locations import redacted
from data.spacing import share_of

if TYPE_CHECKING:
    from torch import Tensor

_THREADS = min(8, os.cpu_count() or 1)


def fit(image: Image.Image, size: Size) -> Image.Image:
    """Centre crop to the shape of `size`, then Lanczos to it."""
    height, width = height_width(size)
    scale = max(width / image.width, height / image.height)
    crop_width, crop_height = min(image.width, round(width / scale)), min(image.height, round(height / scale))
    left, top = (image.width - crop_width) // 2, (image.height - crop_height) // 2
    cropped = image
    if (crop_width, crop_height) != image.size:
        cropped = image.crop((left, top, left + crop_width, top + crop_height))
    return cropped if cropped.size == (width, height) else cropped.resize((width, height), Image.Resampling.LANCZOS)


def to_array(image: Image.Image) -> NDArray[np.uint8]:
    """RGB -> (3, H, W), writable."""
    return np.array(np.asarray(image).transpose(2, 0, 1), order="C")


def to_image(image_u8: NDArray[np.uint8]) -> Image.Image:
    """(3, H, W) -> RGB, the inverse of `to_array`."""
    return Image.fromarray(np.ascontiguousarray(image_u8.transpose(1, 2, 0)))


def to_float(images_u8: "Tensor") -> "Tensor":
    """uint8 -> float32 in [-1, 1]."""
    return images_u8.float() / 127.5 - 1


def to_uint8(images: "Tensor") -> "Tensor":
    """[-1, 1] -> uint8, rounded and clamped; the inverse of `to_float` for all 256 values."""
    return ((images.float() + 1) * 127.5).round().clamp(0, 255).byte()


def image_grid(
    images_u8: Sequence[NDArray[np.uint8]] | NDArray[np.uint8], columns: int | None = None, padding: int = 2
) -> NDArray[np.uint8]:
    """(n, 3, H, W) -> (3, rows * (H + padding) - padding, ...), row by row on white; by default nearly square."""
    count, (channels, height, width) = len(images_u8), images_u8[0].shape
    columns = columns or math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    grid = np.full((channels, rows * (height + padding), columns * (width + padding)), 255, np.uint8)
    for index, image in enumerate(images_u8):
        top, left = index // columns * (height + padding), index % columns * (width + padding)
        grid[:, top : top + height, left : left + width] = image
    return grid[:, : grid.shape[1] - padding, : grid.shape[2] - padding]


def to_bytes(image: Image.Image, kind: str, **options: int) -> bytes:
    """The bytes of a file of a `kind` and with the options that Pillow knows."""
    content = io.BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


def to_png(image_u8: NDArray[np.uint8]) -> bytes:
    """(3, H, W) -> the bytes of a file."""
    return to_bytes(to_image(image_u8), "PNG")


def save_png(path: Path, image_u8: NDArray[np.uint8]) -> None:
    """Write (3, H, W) atomically."""
    write_bytes(path, to_png(image_u8))


def write_skipped(path: Path, skipped: Iterable[Skip]) -> None:
    """Write one JSON object {"key", "reason"} on each line."""
    write_bytes(path, "".join(json.dumps(skip._asdict()) + "\n" for skip in skipped).encode())


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images by index, sorted by key. Each of them was found readable when the set was opened.

    Several threads may read at once. Reading raises `InputError` when a file is gone or its bytes have changed.
    """

    name: str  # DATA as given
    keys: list[str]  # unique
    sizes: NDArray[np.int64]  # (N, 2): height, width, upright
    labels: NDArray[np.int64] | None  # (N,), from `.cls` members of tars or from one folder per class
    fingerprint: str  # hexadecimal, of all keys and bytes, whatever their location
    skipped: list[Skip]
    notes: dict[str, str]  # remarks by key
    size: Size | None  # that `image` and `batches` fit images to
    pil: Callable[[int], Image.Image]  # an image by its index: RGB, upright, in its own size
    draw: Callable[[int, Size], NDArray[np.uint8]] | None = (
        None  # (index, size) -> a scene, if they have no size of their own
    )

    def __len__(self) -> int:
        return len(self.keys)

    def image(self, index: int) -> NDArray[np.uint8]:
        """(3, H, W), fitted if the set has a `size`."""
        image = self.pil(index)
        return to_array(image if self.size is None else fit(image, self.size))

    def fitted(self, index: int, sizes: Iterable[Size]) -> list[NDArray[np.uint8]]:
        """An image fitted to each of `sizes`, (3, H, W), and decoded only once."""
        if self.draw is not None:
            return [self.draw(index, size) for size in sizes]
        image = self.pil(index)
        return [to_array(fit(image, size)) for size in sizes]

    def batches(self, batch_size: int, indices: Iterable[int] | None = None) -> Iterator[NDArray[np.uint8]]:
        """Batches (n, 3, H, W) in order, the last one perhaps smaller, decoded ahead in a few threads."""
        if self.size is None:
            raise UsageError(f"{self.name}: batches need one size", "open the set with a size")
        order = range(len(self)) if indices is None else indices
        images = prefetch(self.image, order, ahead=max(batch_size, 2 * _THREADS), threads=_THREADS)
        return (np.stack(batch) for batch in batched(images, batch_size))


def open_image(path: str | Path, size: Size | None = None) -> NDArray[np.uint8]:
    """Read one picture, (3, H, W), fitted to `size`; raises `InputError` for a file that cannot be read or decoded."""
    try:
        image = decode(Path(path).read_bytes())
    except (OSError, Unreadable) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"{path}: cannot be read ({reason})", "give a picture file") from error
    return to_array(image if size is None else fit(image, size))


class Share(NamedTuple):
    """The part of one process in work that several do. `gather` gives all of them the lists of all, joined by rank."""

    rank: int
    ranks: int
    gather: Callable[[list[Any]], list[Any]]


SINGLE_PROCESS = Share(0, 1, lambda part: part)


def open_images(
    data: str | Path | Sequence[str],
    size: Size | None = None,
    max_skip: float = 0.01,
    seed: int = 0,
    on_progress: Callable[[int, int], None] | None = None,
    allow_hosts: Collection[str] = (),
    share: Share = SINGLE_PROCESS,
) -> ImageSet:
    """Open DATA, which is a folder, a `.zip`, `.tar` shards (brace patterns work) or `scenes:N`, and read every file.

    Images are fitted to `size`, and scenes without a size of their own are rendered at it. `seed` draws the scenes.
    `on_progress` receives (files done, files in all) of this process, which reads its `share` of the files. Archives
    on web servers are read from `allow_hosts` only. Raises `InputError` if no file can be read, or if the fraction
    that cannot be read exceeds `max_skip`, `CorruptError` for damaged archives, and `UsageError` or `UnsafeError` for
    DATA of another kind.
    """
    names = [str(data)] if isinstance(data, str | Path) else list(map(str, data))
    if not names:
        raise UsageError("no data given", "name a folder, a .zip, .tar shards or scenes:N")
    if size is not None and min(height_width(size)) < 1:
        raise UsageError(f"size {size}: is not a number of pixels", "give a size of at least 1")
    if not 0 <= max_skip <= 1:
        raise UsageError(f"max skip {max_skip}: is not a fraction", "give a number from 0 to 1")
    if len(names) == 1 and names[0].startswith("scenes:"):
        return _open_scenes(names[0], size, seed)
    listing = list_entries(names, allow_hosts)
    scans = _scan_all(listing.entries, share, on_progress or (lambda done, total: None))
    images = _gather_set(", ".join(map(redacted, names)), listing, scans, size)
    inspect = Advice(Action.INSPECT_DATA, {"data": names, "hosts": list(allow_hosts)})
    _check_skipped(images, listing.closed, max_skip, inspect)
    return images


def _scan_all(entries: Sequence[Entry], share: Share, on_progress: Callable[[int, int], None]) -> list["_Scan"]:
    """Scan every entry, those of its share in this process, and gather what all processes found."""
    mine = share_of(len(entries), share.rank, share.ranks)
    scans: list[_Scan] = []
    for scan in prefetch(_scan, entries[mine.start : mine.stop], ahead=4 * _THREADS, threads=_THREADS):
        scans.append(scan)
        on_progress(len(scans), len(mine))
    return share.gather(scans)


def _gather_set(name: str, listing: Listing, scans: Sequence["_Scan"], size: Size | None) -> ImageSet:
    scanned = list(zip(listing.entries, scans, strict=True))
    kept = [(entry, scan) for entry, scan in scanned if not scan.problem]
    skipped = sorted(listing.skipped + [Skip(entry.key, scan.problem) for entry, scan in scanned if scan.problem])
    entries, checksums = [entry for entry, _ in kept], [scan.crc32c for _, scan in kept]
    labels = [entry.label for entry in entries]
    return ImageSet(
        name=name,
        keys=[entry.key for entry in entries],
        sizes=np.array([(scan.height, scan.width) for _, scan in kept], np.int64),
        labels=None if None in labels else np.array(labels, np.int64),
        fingerprint=_digest(f"{entry.key} {scan.crc32c:08x}" for entry, scan in kept),
        skipped=skipped,
        notes=listing.notes | {entry.key: scan.notes for entry, scan in kept if scan.notes},
        size=size,
        pil=lambda index: _reload(entries[index], checksums[index]),
    )


def _open_scenes(name: str, size: Size | None, seed: int) -> ImageSet:
    count, side = parse_scenes(name)
    sized = "@" in name
    if size is not None and not sized:
        side = max(height_width(size))  # a scene looks the same at every size, so it is drawn rather than enlarged
    scenes = Scenes(count, side, seed)
    return ImageSet(
        name=name,
        keys=[f"scene-{index:06d}" for index in range(count)],
        sizes=np.full((count, 2), side, np.int64),
        labels=None,
        fingerprint=_digest([f"{name} seed {seed}"]),
        skipped=[],
        notes={},
        size=size,
        pil=lambda index: to_image(scenes.image(range(count)[index])),
        draw=None if sized else lambda index, size: _draw_scene(count, range(count)[index], size, seed),
    )


def _draw_scene(count: int, index: int, size: Size, seed: int) -> NDArray[np.uint8]:
    """(3, H, W); scenes are square, so another shape is cut from one."""
    image = Scenes(count, max(height_width(size)), seed).image(index)
    return image if isinstance(size, int) else to_array(fit(to_image(image), size))


@dataclass(frozen=True)
class _Scan:
    crc32c: int = 0
    height: int = 0
    width: int = 0
    notes: str = ""
    problem: str = ""


def _scan(entry: Entry) -> _Scan:
    try:
        content = _read(entry)
        height, width, notes = probe(content)
    except Unreadable as reason:
        return _Scan(problem=str(reason))
    return _Scan(crc32c(content), height, width, "; ".join(notes))


def _read(entry: Entry) -> bytes:
    try:
        return entry.read()
    except (CodeganError, MemoryError):  # a failing network is no reason to go on without the image
        raise
    except Exception as error:  # damaged archives raise nearly any class
        raise Unreadable(f"cannot be read: {one_line(error)}") from error


def _reload(entry: Entry, checksum: int) -> Image.Image:
    """Decode an image, if its bytes are those in the set's fingerprint, with which everything made of it is marked."""
    fix = "put it back as it was and run the same command again, or start again with another --out"
    try:
        content = _read(entry)
        if crc32c(content) != checksum:
            raise InputError(f"{entry.key}: has changed since the data was read through", fix)
        return decode(content)
    except Unreadable as reason:
        raise InputError(f"{entry.key}: could be read before and cannot be read now: {reason}", fix) from reason


def _check_skipped(images: ImageSet, closed: list[str], max_skip: float, inspect: Advice) -> None:
    name, kept, skipped = images.name, len(images), images.skipped
    reasons = "; ".join(f"{key}: {reason}" for key, reason in skipped[:3]) + ("; ..." if len(skipped) > 3 else "")
    if not kept and not skipped:
        found = "".join(f" ({key}: {note})" for key, note in list(images.notes.items())[:1])
        fix = "name a folder, .zip or .tar that holds JPEG, PNG or WEBP files"
        raise InputError(f"{name}: holds no images{found}", fix)
    if not kept:
        raise InputError(
            f"{name}: none of its {len(skipped)} images can be used ({reasons})", "convert or replace them"
        )
    if len(skipped) > max_skip * (kept + len(skipped)):
        raise InputError(
            f"{name}: {len(skipped)} of {kept + len(skipped)} images cannot be used ({reasons})",
            f"repair them, or allow a larger fraction than {max_skip:g} with --max-skip; to see them all",
            inspect,
        )
    if closed and max_skip < 1:  # it may hold any number of images
        raise InputError(
            f"{closed[0]}: this folder cannot be read", "correct its permissions, or go on without it with --max-skip 1"
        )


def _digest(lines: Iterable[str]) -> str:
    return hashlib.blake2b("\n".join(lines).encode(), digest_size=16).hexdigest()
