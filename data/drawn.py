"""Where drawn pictures go: a folder with 000000.png ..., one tar, or one zarr array.

What an earlier command drew there is replaced, and nothing else.
"""

import io
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import NDArray

from data.errors import UsageError
from data.files.atomic import commit_folder, publish, read_json, remove_partials, write_bytes, write_json
from data.flags import PictureFormat
from data.images import to_bytes, to_image
from data.limits import Limit
from data.sizes import Size, height_width
from data.sources.locations import DRAWN

type Put = Callable[[int, NDArray[np.uint8]], None]  # takes a picture's number and its pixels (3, H, W)

ARCHIVES = (".tar", ".zarr")
ROWS = 64  # pictures in a chunk of a zarr array
MADE_BY = "drawn by codegan"
QUALITY = {"jpeg": 95, "webp": 95}
SUFFIXES: dict[PictureFormat, str] = {"png": ".png", "jpeg": ".jpg", "webp": ".webp"}


@dataclass(frozen=True)
class _Drawn:
    """The shape of the file that says what was drawn into a folder."""

    num: Annotated[int, Limit(least=0, most=10**7)] = 0
    format: PictureFormat = "png"


def picture_file(out: Path, number: int, kind: PictureFormat = "png") -> Path:
    return out / f"{number:06d}{SUFFIXES[kind]}"


def claim_folder(out: Path, num: int, kind: PictureFormat = "png") -> None:
    """Take away what was drawn here before, and claim the folder; `UsageError` for one that belongs to others."""
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out}: is a file", "give a folder for --out")
    if not (out / DRAWN).is_file():
        ours, foreign = list[Path](), sorted(out.glob("[!.]*"))
    else:
        fix = f"delete it after a look at the pictures in {out}, or choose another --out"
        drawn = {"num": 0, "format": "png", **read_json(out / DRAWN, _Drawn, fix)}
        ours = [out / "grid.png", *(picture_file(out, number, drawn["format"]) for number in range(drawn["num"]))]
        wanted = {picture_file(out, number, kind) for number in range(num)}
        foreign = sorted(file for file in wanted.difference(ours) if file.exists())
    if foreign:
        what = f"{foreign[0]}: is there already, and codegan did not put it there"
        raise UsageError(what, "choose another --out, which is empty or does not exist")
    remove_partials(out)
    for file in ours:
        file.unlink(missing_ok=True)
    # Before anything is drawn, so that it is known what an interrupted command leaves.
    write_json(out / DRAWN, {"num": num, "format": kind})


def encoded(image_u8: NDArray[np.uint8], kind: PictureFormat) -> bytes:
    """(3, H, W) as the bytes of a file."""
    options = {"quality": QUALITY[kind]} if kind in QUALITY else {}
    return to_bytes(to_image(image_u8), kind.upper(), **options)


def check_archive(out: Path) -> None:
    """`UsageError` where a file or folder of that name is there and nothing was drawn into it."""
    if out.exists() and not (_is_our_tar(out) if out.suffix == ".tar" else _is_our_array(out)):
        raise UsageError(f"{out}: is there already, and codegan did not put it there", "choose another --out")


@contextmanager
def open_pictures(out: Path, count: int, size: Size, kind: PictureFormat) -> Iterator[Put]:
    """Yield what takes `count` pictures of `size`; an archive takes them in order, and all or none."""
    if out.suffix == ".tar":
        with publish(out) as partial, tarfile.open(partial, "w", pax_headers={"comment": MADE_BY}) as tar:
            yield lambda number, image_u8: _add(tar, picture_file(Path(), number, kind).name, encoded(image_u8, kind))
    elif out.suffix == ".zarr":
        with commit_folder(out) as partial:
            yield from _open_array(partial, (count, 3, *height_width(size)))
    else:
        yield lambda number, image_u8: write_bytes(picture_file(out, number, kind), encoded(image_u8, kind))


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))


def _open_array(folder: Path, shape: tuple[int, ...]) -> Iterator[Put]:
    """An array of zarr v3, written chunk by chunk."""
    import zarr  # late: slow to load, and the other forms do not need it

    rows = min(ROWS, shape[0])
    array = zarr.create_array(
        folder, shape=shape, chunks=(rows, *shape[1:]), dtype="uint8", attributes={"made": MADE_BY}
    )
    waiting: list[NDArray[np.uint8]] = []

    def put(number: int, image_u8: NDArray[np.uint8]) -> None:
        waiting.append(image_u8)
        if len(waiting) == rows or number + 1 == shape[0]:
            array[number + 1 - len(waiting) : number + 1] = np.stack(waiting)
            waiting.clear()

    yield put


def is_drawn(location: Path) -> bool:
    """Whether codegan drew the pictures of a folder or tar."""
    return (location / DRAWN).is_file() or (location.suffix == ".tar" and _is_our_tar(location))


def _is_our_tar(path: Path) -> bool:
    try:
        with tarfile.open(path, "r:") as tar:
            return tar.pax_headers.get("comment") == MADE_BY
    except (tarfile.TarError, OSError):
        return False


def _is_our_array(path: Path) -> bool:
    import zarr

    try:
        return zarr.open_array(path, mode="r").attrs.get("made") == MADE_BY
    except (OSError, ValueError, KeyError):
        return False
