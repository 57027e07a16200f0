"""Links are followed once and inside the folder; later members of tars count; JSON gives labels."""

import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from data.errors import InputError
from data.images import ImageSet, open_images
from data.sources.labels import MAX_SAMPLE_BYTES, parse_dataset_json, parse_sample_json
from tests.data.sources.test_listing import make_folder, make_tar, make_zip

RNG = np.random.default_rng(0)


def png() -> bytes:
    file = io.BytesIO()
    Image.fromarray(RNG.integers(0, 256, (20, 20, 3), np.uint8)).save(file, "PNG")
    return file.getvalue()


FILES = {name: png() for name in ("cat/0.png", "cat/1.png", "dog/0.png")}


# --- links ---


def test_links_inside_are_followed_once_and_circles_end(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "f", FILES)
    (folder / "again").symlink_to(folder / "cat")  # walked in its own place
    (folder / "dog" / "up").symlink_to(folder)
    (folder / "dog" / "self").symlink_to(folder / "dog" / "self")
    images = open_images(folder)
    assert images.keys == sorted(FILES)
    assert set(images.notes) == {"again", "dog/up"}
    assert images.labels is not None


def test_folders_reached_by_links_alone_are_listed_once(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "f", {f".store/{name}": content for name, content in FILES.items()})
    for name in ("cat", "dog"):
        (folder / name).symlink_to(folder / ".store" / name)
    (folder / "zoo").symlink_to(folder / ".store")  # holds both of them again
    (folder / ".store/loop").symlink_to(folder / ".store")
    assert open_images(folder).keys == sorted(FILES)


def test_the_folder_itself_may_be_a_link(tmp_path: Path) -> None:
    make_folder(tmp_path / "f", FILES)
    (tmp_path / "link").symlink_to(tmp_path / "f")
    assert open_images(tmp_path / "link").keys == sorted(FILES)


@pytest.mark.parametrize("target", ["real", "real/cat/0.png"])
def test_links_that_lead_out_are_told_with_what_to_do(tmp_path: Path, target: str) -> None:
    make_folder(tmp_path / "real", FILES)
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / "x.png").symlink_to(tmp_path / target)
    with pytest.raises(InputError, match=r"x\.png.*: a link to a (file|folder) outside the folder.*cp --recursive"):
        open_images(tmp_path / "f", max_skip=1)


# --- tars ---


def tar_of(path: Path, *members: tuple[str, bytes | str]) -> Path:
    """A string is the name that a hard link has in its place."""
    with tarfile.open(path, "w") as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            if isinstance(content, str):
                info.type, info.linkname = tarfile.LNKTYPE, content
                archive.addfile(info)
            else:
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return path


def test_of_members_of_one_name_the_last_counts(tmp_path: Path) -> None:
    old, new = FILES["cat/0.png"], FILES["cat/1.png"]
    path = tar_of(tmp_path / "s.tar", ("a.png", old), ("a.cls", b"1"), ("a.png", new), ("a.cls", b"2"))
    images = open_images(path)
    assert (images.keys, images.skipped) == (["a.png"], [])
    assert np.array_equal(np.asarray(images.pil(0)), np.asarray(Image.open(io.BytesIO(new))))
    assert images.labels is not None
    assert images.labels.tolist() == [2]
    assert "last one" in images.notes["a.png"]


def test_hard_links_are_resolved(tmp_path: Path) -> None:
    path = tar_of(
        tmp_path / "s.tar", ("a.png", FILES["cat/0.png"]), ("b.png", "a.png"), ("c.png", "b.png"), ("d.png", "nowhere")
    )
    images = open_images(path, max_skip=1)
    assert images.keys == ["a.png", "b.png", "c.png"]
    assert np.array_equal(images.image(2), images.image(0))
    assert "hard link to 'nowhere'" in images.skipped[0].reason


@pytest.mark.parametrize(
    ("names", "listed"),
    [
        (["Track 1.png", "Track 1.5.png"], 2),
        (["shot at 10.20.30.png", "shot at 10.20.31.png"], 2),
        (["v1.0/a.png", "v1.1/a.png"], 2),
        (["a.png", "a.seg.png"], 1),
        (["a.b.png", "a.b.seg.png"], 1),
        (["a.png", "a.b.seg.png"], 1),
        (["a.jpg", "b.seg.png"], 2),
    ],
)
def test_dots_in_names_part_annotations_but_no_numbers(tmp_path: Path, names: list[str], listed: int) -> None:
    images = open_images(make_tar(tmp_path / "s.tar", dict.fromkeys(names, FILES["cat/0.png"])))
    assert len(images) == listed
    assert len(images.notes) == len(names) - listed


# --- labels in JSON ---


def labels_of(images: ImageSet) -> list[int] | None:
    return None if images.labels is None else images.labels.tolist()


def jsons(values: Mapping[str, Any]) -> dict[str, bytes]:
    return {f"{stem}.json": json.dumps(value).encode() for stem, value in values.items()}


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        ({"0": {"label": 3}, "1": {"cls": 5, "text": "x"}}, [3, 5]),
        ({"0": {"label": 3}, "1": {"label": "dog"}}, None),
        ({"0": {"label": 3}, "1": {"label": True}}, None),
        ({"0": {"label": 3}, "1": {"label": 10**20}}, None),
        ({"0": {"label": 3}, "1": [1]}, None),
        ({"0": {"text": "a"}, "1": {"text": "b"}}, None),
    ],
)
def test_json_members_of_tars_give_labels(tmp_path: Path, values: dict[str, Any], labels: list[int] | None) -> None:
    pictures = {"0.png": FILES["cat/0.png"], "1.png": FILES["cat/1.png"]}
    images = open_images(make_tar(tmp_path / "s.tar", pictures | jsons(values)))
    assert labels_of(images) == labels
    assert bool(images.notes) == (labels is None and "label" in values["0"])


def test_a_cls_member_counts_before_a_json_member(tmp_path: Path) -> None:
    files = {"0.png": FILES["cat/0.png"], "0.cls": b"1", "0.json": b'{"label": 2}'}
    assert labels_of(open_images(make_tar(tmp_path / "s.tar", files))) == [1]


STATED = {"cat/0.png": 4, "cat/1.png": 6, "dog/0.png": 4}


@pytest.mark.parametrize("make", [make_folder, make_zip])
@pytest.mark.parametrize(
    ("content", "labels", "noted"),
    [
        ({"labels": [[name, label] for name, label in STATED.items()]}, [4, 6, 4], False),
        ({"labels": None}, None, False),  # not even those of the folders
        ({"labels": [["cat/0.png", 1]]}, None, True),
        ({"labels": [["cat/0.png", 1.5]]}, None, True),
        ({"labels": {"cat/0.png": 1}}, None, True),
        ({"labels": [[["cat/0.png"], 1]]}, None, True),
        ({"about": "cats"}, [0, 0, 1], True),
        ([], [0, 0, 1], True),
    ],
)
def test_dataset_json_gives_labels(
    tmp_path: Path, make: Any, content: Any, labels: list[int] | None, noted: bool
) -> None:
    images = open_images(make(tmp_path / "d.zip", {**FILES, "dataset.json": json.dumps(content).encode()}))
    assert labels_of(images) == labels
    assert list(images.notes) == ["dataset.json"] * noted


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe{", b"[" * 200_000, b'{"labels":' * 50_000, b"1" * 5000])
def test_malformed_json_is_noted(tmp_path: Path, content: bytes) -> None:
    assert parse_dataset_json(content).labels is None
    assert parse_sample_json(content)[0] is None
    images = open_images(make_folder(tmp_path / "f", {**FILES, "dataset.json": content}))
    assert labels_of(images) == [0, 0, 1]
    assert "not used" in images.notes["dataset.json"]


def test_json_above_its_limit_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("data.sources.listing.MAX_BYTES", 10)
    images = open_images(make_folder(tmp_path / "f", {**FILES, "dataset.json": b'{"labels": null}'}))
    assert labels_of(images) == [0, 0, 1]
    assert "takes more than" in images.notes["dataset.json"]
    large = {"0.png": FILES["cat/0.png"], "0.json": b'{"label": 1}' + b" " * MAX_SAMPLE_BYTES}
    assert labels_of(open_images(make_tar(tmp_path / "s.tar", large))) is None
