"""Folders of drawn pictures, 000000.png ...: what an earlier command drew there is replaced, nothing else."""

from pathlib import Path

from data.errors import UsageError
from data.files.atomic import read_json, write_json
from data.files.runs import DRAWN
from pipelines.configs import PictureFormat

SUFFIXES: dict[PictureFormat, str] = {"png": ".png", "jpeg": ".jpg", "webp": ".webp"}


def picture_file(out: Path, number: int, kind: PictureFormat = "png") -> Path:
    return out / f"{number:06d}{SUFFIXES[kind]}"


def claim_folder(out: Path, num: int, kind: PictureFormat = "png") -> None:
    """Take away what was drawn here before, and claim the folder; `UsageError` when other pictures would be lost."""
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out}: is a file", "give a folder for --out")
    claimed = (out / DRAWN).is_file()
    drawn = {"num": 0, "format": "png", **(read_json(out / DRAWN) if claimed else {})}
    ours = [picture_file(out, number, drawn["format"]) for number in range(drawn["num"])]
    others = [file for number in range(num) if (file := picture_file(out, number, kind)) not in set(ours)]
    (ours if claimed else others).append(out / "grid.png")
    if foreign := [file for file in others if file.exists()]:
        what = f"{foreign[0]}: is there already, and codegan did not put it there"
        raise UsageError(what, "choose another --out")
    for file in ours:
        file.unlink(missing_ok=True)
    # Before anything is drawn, so that it is known what an interrupted command leaves.
    write_json(out / DRAWN, {"num": num, "format": kind})
