"""One set of pictures is the same set in a folder, a zip or tars, and damage to any of them is said, not swallowed."""

import errno
import io
import os
import re
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from data.errors import CodeganError, CorruptError, InputError, UnsafeError, UsageError
from data.images import open_images
from data.sources.listing import MAX_FILE_BYTES, Listing, clean_key, is_image, list_entries
from data.sources.locations import CONFIG_COPY, DRAWN
from pipelines.commands import command

RNG = np.random.default_rng(0)
PIXELS: dict[str, NDArray[np.uint8]] = {
    f"{kind}/{index}.png": RNG.integers(0, 256, (20 + index, 30, 3), np.uint8)
    for kind in ("cat", "dog")
    for index in range(3)
}


def png(pixels: NDArray[Any]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


FILES = {name: png(pixels) for name, pixels in PIXELS.items()}


def make_folder(root: Path, files: Mapping[str, bytes]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def make_zip(path: Path, files: Mapping[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def make_tar(path: Path, files: Mapping[str, bytes]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_folder(tmp_path / "pictures", FILES)


# --- one set, four ways to store it ---


def test_folder_zip_and_tar_are_the_same_set(tmp_path: Path, folder: Path) -> None:
    sets = [
        open_images(folder),
        open_images(str(folder) + "/"),
        open_images(make_zip(tmp_path / "a.zip", FILES)),
        open_images(make_tar(tmp_path / "a.tar", dict(reversed(FILES.items())))),
    ]
    small = [np.concatenate(list(open_images(images.name, size=16).batches(4))) for images in sets]
    for images, batched in zip(sets, small, strict=True):
        np.testing.assert_array_equal(batched, small[0])  # read by several threads
        assert images.keys == sorted(FILES)
        assert images.fingerprint == sets[0].fingerprint
        assert images.sizes.tolist() == [list(PIXELS[key].shape[:2]) for key in images.keys]
        for index, key in enumerate(images.keys):
            np.testing.assert_array_equal(images.image(index), PIXELS[key].transpose(2, 0, 1))
            np.testing.assert_array_equal(np.asarray(images.pil(index)), PIXELS[key])


def test_litter_is_ignored_and_not_skipped(tmp_path: Path) -> None:
    litter = [".DS_Store", "Thumbs.db", "README.txt", "._a.png", "__MACOSX/a.png", ".git/a.png", "cat/.hidden.jpg", "x"]
    files = {**FILES, **dict.fromkeys(litter, b"no picture")}
    for data in (
        make_folder(tmp_path / "f", files),
        make_zip(tmp_path / "f.zip", files),
        make_tar(tmp_path / "f.tar", files),
    ):
        images = open_images(data)
        assert (images.keys, images.skipped) == (sorted(FILES), [])


def test_upper_case_and_wrong_extensions_are_read(tmp_path: Path) -> None:
    content = FILES["cat/0.png"]
    images = open_images(make_folder(tmp_path / "f", {"A.PNG": content, "b.jpg": content, "c.JPEG": content}))
    assert images.keys == ["A.PNG", "b.jpg", "c.JPEG"]


# --- labels ---


def test_folder_labels_number_the_sub_folders(tmp_path: Path, folder: Path) -> None:
    nested = {f"all/of/it/{name}": content for name, content in FILES.items()}
    for data in (folder, make_zip(tmp_path / "n.zip", nested)):
        labels = open_images(data).labels
        assert labels is not None
        assert labels.tolist() == [0, 0, 0, 1, 1, 1]


@pytest.mark.parametrize("names", [["a/0.png", "a/1.png"], ["a/0.png", "b/0.png", "0.png"], ["0.png", "1.png"]])
def test_no_labels_without_two_classes_or_with_pictures_beside_them(tmp_path: Path, names: list[str]) -> None:
    assert open_images(make_folder(tmp_path / "f", dict.fromkeys(names, FILES["cat/0.png"]))).labels is None


def test_tar_labels_and_naming_follow_webdataset(tmp_path: Path) -> None:
    from webdataset.tariterators import group_by_keys, tar_file_iterator

    picture = FILES["cat/0.png"]
    files = {"a/0.png": picture, "a/0.cls": b"7", "a/0.mask.png": picture, "b.1/1.PNG": picture, "b.1/1.CLS": b" 3\n"}
    path = make_tar(tmp_path / "s.tar", files)
    images = open_images(path)
    with path.open("rb") as stream:
        samples = list(group_by_keys({**file, "__url__": ""} for file in tar_file_iterator(stream)))
    assert [key.lower() for key in images.keys] == [f"{sample['__key__']}.png" for sample in samples]
    assert images.labels is not None
    assert images.labels.tolist() == [int(sample["cls"]) for sample in samples]
    assert list(images.notes) == ["a/0.mask.png"]


def test_dotted_names_without_a_plain_sibling_are_pictures(tmp_path: Path) -> None:
    files = dict.fromkeys(["photo.2019.png", "photo.2020.png"], FILES["cat/0.png"])
    assert open_images(make_tar(tmp_path / "s.tar", files)).keys == list(files)


@pytest.mark.parametrize("label", [None, b"cat", b"", b"1" * 30])
def test_one_missing_label_leaves_the_set_without(tmp_path: Path, label: bytes | None) -> None:
    files = {"0.png": FILES["cat/0.png"], "0.cls": b"1", "1.png": FILES["cat/1.png"]}
    images = open_images(make_tar(tmp_path / "s.tar", files if label is None else {**files, "1.cls": label}))
    assert images.labels is None
    assert "1.png" in images.notes


# --- shards ---


def test_brace_pattern_list_and_folder_give_the_same_pictures(tmp_path: Path) -> None:
    names = sorted(FILES)
    for shard in range(3):
        make_tar(tmp_path / f"s-{shard:03d}.tar", {name: FILES[name] for name in names[2 * shard : 2 * shard + 2]})
    pattern = open_images(str(tmp_path / "s-{000..002}.tar"))
    listed = open_images([str(tmp_path / f"s-{shard:03d}.tar") for shard in (2, 0, 1)])
    assert pattern.keys == listed.keys == [f"s-{i // 2:03d}.tar/{name}" for i, name in enumerate(names)]
    assert pattern.fingerprint == listed.fingerprint
    np.testing.assert_array_equal(pattern.image(5), PIXELS[names[5]].transpose(2, 0, 1))


def test_shards_of_one_name_in_two_folders_keep_apart(tmp_path: Path) -> None:
    shards = []
    for name in ("x", "y"):
        (tmp_path / name).mkdir()
        shards.append(str(make_tar(tmp_path / name / "0.tar", FILES)))
    images = open_images(shards)
    assert len(images) == len(set(images.keys)) == 12
    assert images.keys[0] == "x/0.tar/cat/0.png"


def test_a_path_with_braces_that_exists_is_taken_as_it_is(tmp_path: Path) -> None:
    assert len(open_images(make_folder(tmp_path / "{a,b}", FILES))) == 6


# --- damage ---


def member_ends(path: Path) -> list[int]:
    with tarfile.open(path) as archive:
        return [m.offset_data + -(-m.size // 512) * 512 for m in archive]


@pytest.mark.parametrize("place", ["between members", "in a header", "in a body", "one zero block", "at the start"])
def test_cut_tar_is_corrupt(tmp_path: Path, place: str) -> None:
    path = make_tar(tmp_path / "s.tar", FILES)
    ends = member_ends(path)
    length = {
        "between members": ends[2],
        "in a header": ends[2] + 100,
        "in a body": ends[2] + 600,
        "one zero block": ends[-1] + 512,
        "at the start": 0,
    }[place]
    os.truncate(path, length)
    with pytest.raises(CorruptError, match=r"s\.tar"):
        open_images(path)


def test_damaged_header_joined_tars_and_other_files_are_corrupt(tmp_path: Path) -> None:
    path = make_tar(tmp_path / "s.tar", FILES)
    whole = path.read_bytes()
    damaged = bytearray(whole)
    damaged[member_ends(path)[1] + 5] ^= 1
    for content in (bytes(damaged), whole + whole, b"\x1f\x8b" + bytes(2000), b"text"):
        path.write_bytes(content)
        with pytest.raises(CorruptError, match=r"s\.tar"):
            open_images(path)


def test_cut_zip_is_corrupt(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "a.zip", FILES)
    os.truncate(path, path.stat().st_size - 30)
    with pytest.raises(CorruptError, match=r"a\.zip"):
        open_images(path)


class _Pipe(io.RawIOBase):
    """A file that can only be written on, so that sizes and checksums come after the members."""

    def __init__(self) -> None:
        self.content = b""

    def writable(self) -> bool:
        return True

    def write(self, block: Any) -> int:
        self.content += bytes(block)
        return len(block)


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_zips_of_every_kind_are_read(tmp_path: Path, folder: Path, compression: int) -> None:
    """Written to a pipe, with 64-bit sizes, after a script that unpacks it, and with a comment."""
    pipe = _Pipe()
    with zipfile.ZipFile(pipe, "w", compression) as archive:
        archive.comment = b"a comment"
        for name, content in FILES.items():
            with archive.open(name, "w", force_zip64=True) as member:
                member.write(content)
    (tmp_path / "a.zip").write_bytes(b"#!/bin/sh\n" + pipe.content)
    assert open_images(tmp_path / "a.zip").fingerprint == open_images(folder).fingerprint


def test_damaged_and_encrypted_zip_members_are_skipped(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "a.zip", FILES)
    with zipfile.ZipFile(path) as archive:
        infos = archive.infolist()
    content = bytearray(path.read_bytes())
    content[infos[0].header_offset + 60] ^= 0xFF
    directory = content.rindex(b"PK\x01\x02")  # of the last member
    content[directory + 8] |= 1
    path.write_bytes(content)
    images = open_images(path, max_skip=0.5)
    assert images.keys == sorted(FILES)[1:-1]
    assert [skip.key for skip in images.skipped] == [infos[0].filename, infos[-1].filename]
    assert images.skipped[1].reason == "encrypted"


def test_links_pipes_and_unsupported_formats_are_skipped_or_noted(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "secret.png").write_bytes(FILES["cat/0.png"])
    (folder / "out.png").symlink_to(tmp_path / "secret.png")
    (folder / "inside.png").symlink_to(folder / "cat/0.png")
    (folder / "gone.png").symlink_to(folder / "nothing.png")
    (folder / "round").symlink_to(folder)
    os.mkfifo(folder / "pipe.png")
    (folder / "phone.HEIC").write_bytes(b"ftypheic")
    images = open_images(folder, max_skip=1)
    assert images.keys == sorted([*FILES, "inside.png"])
    reasons = dict(images.skipped)
    assert sorted(reasons) == ["gone.png", "out.png", "phone.HEIC", "pipe.png"]
    assert "outside" in reasons["out.png"]
    assert "convert it" in reasons["phone.HEIC"]
    assert "not followed" in images.notes["round"]


def test_tar_links_and_repeated_names_are_skipped(tmp_path: Path) -> None:
    path = tmp_path / "s.tar"
    with tarfile.open(path, "w") as archive:
        for name in ("a.png", "b.png", "../a.png"):
            member = tarfile.TarInfo(name)
            member.size = len(FILES["cat/0.png"])
            archive.addfile(member, io.BytesIO(FILES["cat/0.png"]))
        link = tarfile.TarInfo("link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    images = open_images(path, max_skip=0.5)
    assert images.keys == ["a.png", "b.png"]
    assert [skip.key for skip in images.skipped] == ["a.png", "link.png"]


def test_file_above_the_limit_is_not_read() -> None:
    listing = Listing()
    listing.add("a.png", MAX_FILE_BYTES + 1, read=lambda: pytest.fail("was read"))
    assert "too large" in listing.skipped[0].reason


def test_file_that_changes_after_the_scan_is_an_input_error(tmp_path: Path, folder: Path) -> None:
    images, packed = open_images(folder), open_images(tar := make_tar(tmp_path / "s.tar", FILES))
    (folder / "cat/0.png").write_bytes(b"")
    (folder / "cat/1.png").unlink()
    os.truncate(tar, 100)
    for gone in (lambda: images.image(0), lambda: images.pil(1), lambda: packed.pil(0)):
        with pytest.raises(InputError, match=r"could be read before|has changed since"):
            gone()


@pytest.mark.parametrize(
    ("data", "error"),
    [
        ("nowhere", InputError),
        ("empty", InputError),
        ("broken", InputError),
        ("empty.tar", InputError),
        ("empty.zip", InputError),
        ("shard-{000..003}.tar", InputError),
        ("shard-{000..003.tar", UsageError),
        ("file.txt", UsageError),
        ("x.tar.gz", UsageError),
        ("pipe:cat secret.tar", UnsafeError),
        ("https://example.org/x.tar", UnsafeError),
        ("file:///etc", UsageError),
        ("s3:bucket/x.tar", UsageError),
        ("scenes:many", UsageError),
        ("scenes:0", UsageError),
        (["scenes:3", "empty"], CodeganError),
        (["empty.tar", "empty"], UsageError),
        (["empty.tar", "empty.tar"], UsageError),
    ],
)
def test_bad_data_is_an_error_with_a_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: str | list[str], error: type[CodeganError]
) -> None:
    monkeypatch.chdir(tmp_path)
    make_folder(tmp_path, {"empty/a.txt": b"", "broken/a.png": b"", "x.tar.gz": b"", "file.txt": b""})
    make_tar(tmp_path / "empty.tar", {})
    make_zip(tmp_path / "empty.zip", {})
    with pytest.raises(error) as caught:
        open_images(data, max_skip=1)
    assert caught.value.what
    assert caught.value.fix


# --- names ---


@pytest.mark.parametrize("marker", [CONFIG_COPY, DRAWN])
def test_what_codegan_put_beside_the_pictures_is_not_read(tmp_path: Path, marker: str) -> None:
    folder = make_folder(tmp_path / "f", dict.fromkeys(["a.png", "b/0.png", "run/samples/0.png"], FILES["cat/0.png"]))
    whole = open_images(folder)
    assert len(whole) == 3
    (folder / "run" / marker).touch()
    images = open_images(folder)
    assert images.keys == ["a.png", "b/0.png"]
    assert images.notes == {"run": "made by codegan, not read"}
    assert open_images(folder / "run").keys == ["samples/0.png"]  # but when it is asked for


def test_an_unreadable_folder_moves_no_label_and_is_not_one_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_folder(tmp_path / "f", dict.fromkeys(["a/0.png", "b/0.png", "c/0.png"], FILES["cat/0.png"]))
    scandir = os.scandir

    def closed(path: Path | str) -> Any:
        if Path(path).name in names:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    names = {"b"}
    monkeypatch.setattr(os, "scandir", closed)
    images = open_images(folder, max_skip=1)
    assert images.keys == ["a/0.png", "c/0.png"]
    assert images.labels is not None
    assert images.labels.tolist() == [0, 2]
    assert images.skipped == [("b/*", "folder cannot be read: Permission denied")]
    with pytest.raises(InputError, match="b: this folder cannot be read"):
        open_images(folder, max_skip=0.5)
    names = {"f"}
    with pytest.raises(InputError, match=re.escape("(*: folder cannot be read: Permission denied)")):
        open_images(folder, max_skip=1)


@pytest.mark.parametrize(
    ("find", "put"), [("é".encode(), b"\xc3\x29"), (b"PK\x01\x02\x14\x03\x14", b"PK\x01\x02\x14\x03\x94")]
)
def test_a_damaged_zip_directory_is_told(tmp_path: Path, find: bytes, put: bytes) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("é.png", FILES["cat/0.png"])
    content = path.read_bytes()
    where = content.rindex(find)
    path.write_bytes(content[:where] + put + content[where + len(find) :])
    with pytest.raises(CorruptError, match="not a whole zip archive"):
        open_images(path)


def test_the_advice_to_see_what_was_skipped_is_a_command(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "my photos", {"a.png": FILES["cat/0.png"], "b.png": b"no picture"})
    with pytest.raises(InputError) as refused:
        open_images(folder)
    assert refused.value.advice
    assert command(refused.value.advice) == ["codegan", "inspect", str(folder)]


@given(st.text(st.characters(), max_size=30))
def test_clean_key_is_relative_printable_and_stable(name: str) -> None:
    key = clean_key(name)
    assert key.isprintable()
    assert not key.startswith("/")
    assert not {"..", "."} & set(key.split("/"))
    assert clean_key(key) == key
    assert isinstance(is_image(name), bool)


def test_undecodable_names_on_disk_become_printable_keys(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"caf\xe9\n.png")).write_bytes(FILES["cat/0.png"])
    (key,) = open_images(tmp_path).keys
    assert key.isprintable()
    assert key.encode()


def test_a_zip_bomb_is_refused_and_what_a_zip_shrinks_is_not(tmp_path: Path) -> None:
    """Nothing is unpacked to find this out."""
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("bomb.png", "w") as member:
            for _ in range(80):
                member.write(bytes(1 << 20))
        archive.writestr("plain.bmp", bytes(4 << 20))
    listing = list_entries([str(tmp_path / "bomb.zip")])
    assert [entry.key for entry in listing.entries] == ["plain.bmp"]
    ((key, reason),) = listing.skipped
    assert key == "bomb.png"
    assert re.fullmatch(r"expands from \d+ to 83886080 bytes", reason)


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME])
@pytest.mark.parametrize("size", [2 << 20, 1 << 40, (1 << 62)])
def test_a_tar_that_claims_a_huge_header_is_refused(tmp_path: Path, kind: bytes, size: int) -> None:
    info = tarfile.TarInfo("x")
    info.type, info.size = kind, size
    (tmp_path / "x.tar").write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(4096))
    with pytest.raises(CorruptError, match=r"x\.tar: is not a whole tar"):
        list_entries([str(tmp_path / "x.tar")])
