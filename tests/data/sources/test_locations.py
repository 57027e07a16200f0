"""Files elsewhere behave as those here do, and an address is read only if it can do no harm."""

import dataclasses
import hashlib
import re
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import boto3
import pytest
import tyro

from data.errors import CodeganError, InputError, UnsafeError, UsageError
from data.files import atomic
from data.flags import LocationArg
from data.sources.locations import Location, file_sizes, parse_location, put, remove_tree


@pytest.fixture(params=["here", "elsewhere"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Location:
    where = str(tmp_path) if request.param == "here" else request.getfixturevalue("bucket")
    return parse_location(f"{where}/a folder")


def write_bytes(file: Location, content: bytes) -> None:
    if isinstance(file, Path):
        atomic.write_bytes(file, content)
    else:
        put(file, content)


def write_elsewhere(bucket: str, key: str, content: bytes) -> None:
    """What another process would write."""
    boto3.client("s3").put_object(Bucket=bucket.removeprefix("s3://"), Key=key, Body=content)


def test_written_bytes_are_read_back_and_replaced(folder: Location) -> None:
    file = folder / "sub" / "a.bin"
    assert not file.exists()
    for content in (b"first", b"", bytes(range(256)) * 5000):
        write_bytes(file, content)
        assert file.read_bytes() == content
        assert file.stat().st_size == len(content)
    assert [entry.name for entry in (folder / "sub").iterdir()] == ["a.bin"]


def test_folders_are_walked_and_named_alike(folder: Any) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("a.bin", "sub/b.bin", "sub/deep/c.bin"):
        write_bytes(folder / name, name.encode())
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert files == {"a.bin", "sub/b.bin", "sub/deep/c.bin"}
    assert file_sizes(folder) == {name: len(name) for name in files}
    assert {path.name for path in folder.iterdir()} == {"a.bin", "sub"}
    assert (folder.is_dir(), folder.is_file(), (folder / "sub").is_dir()) == (True, False, True)
    assert ((folder / "a.bin").is_file(), (folder / "none").exists()) == (True, False)
    assert (folder / "sub/b.bin").parent.with_name("x").name == "x"
    with (folder / "a.bin").open("rb") as file:
        assert file.read(3) == b"a.b"
    with pytest.raises(FileNotFoundError):
        (folder / "none").read_bytes()


def test_removed_is_what_was_named_and_nothing_else(folder: Location) -> None:
    for name in ("x/a.bin", "x/y/b.bin", "xx/c.bin"):
        write_bytes(folder / name, b"")
    (folder / "x" / "a.bin").unlink()
    assert not (folder / "x" / "a.bin").exists()
    remove_tree(folder / "x")
    remove_tree(folder / "x")
    assert not (folder / "x").exists()
    assert (folder / "xx" / "c.bin").is_file()


def test_a_place_is_what_its_text_says(folder: Location) -> None:
    again = parse_location(str(folder))
    assert again == folder == parse_location(folder)
    assert str(again) == str(folder)
    assert len({again, folder}) == 1


def test_a_write_elsewhere_is_one_request(bucket: str) -> None:
    content = bytes(range(256)) * (1 << 13)
    file = parse_location(f"{bucket}/x")
    assert not isinstance(file, Path)
    put(file, content)
    head = boto3.client("s3").head_object(Bucket=bucket.removeprefix("s3://"), Key="x")
    assert head["ETag"].strip('"') == hashlib.md5(content).hexdigest()  # an upload in parts has another tag


def test_what_others_write_is_seen_at_once(bucket: str) -> None:
    folder = parse_location(f"{bucket}/f")
    assert not folder.exists()
    for number in range(3):
        write_elsewhere(bucket, f"f/{number}", b"")
        assert [path.name for path in folder.iterdir()] == [str(other) for other in range(number + 1)]
    write_elsewhere(bucket, "f/0", b"more")
    assert (folder / "0").stat().st_size == 4


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("pipe:cat x", UnsafeError),
        ("https://example.org/store", UsageError),
        ("file:///etc", UsageError),
        ("reference://x", UsageError),
        ("sftp://host/x", UsageError),
        ("s3:bucket/x", UsageError),
        ("s3://", UsageError),
        ("s3:///x", UsageError),
        ("s3://bucket/x::file:///etc", UsageError),
        ("s3://[hidden/x", UsageError),
        ("s3://me:hidden@bucket/x", UnsafeError),
    ],
)
def test_other_addresses_are_refused_without_their_secrets(text: str, error: type[CodeganError]) -> None:
    with pytest.raises(error) as caught:
        parse_location(text)
    assert "hidden" not in str(caught.value)
    assert caught.value.fix


def test_a_missing_driver_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(UsageError, match=re.escape("pip install 'codegan[remote]' gcsfs")):
        parse_location("gs://bucket/x")
    monkeypatch.setitem(sys.modules, "upath", None)
    with pytest.raises(UsageError, match=re.escape("pip install 'codegan[remote]'")):
        parse_location("s3://bucket/x")


@dataclasses.dataclass(frozen=True)
class Flags:
    """For this test."""

    store: LocationArg
    out: LocationArg | None = None


def test_a_flag_keeps_both_slashes(bucket: str) -> None:
    flags = tyro.cli(Flags, args=["--store", f"{bucket}/x", "--out", "here/y"])
    assert str(flags.store) == f"{bucket}/x"
    assert flags.out == Path("here/y")
    assert tyro.cli(Flags, args=["--store", "x"]).out is None


@pytest.fixture
def dead_endpoint(object_store: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    from s3fs import S3FileSystem

    S3FileSystem.clear_instance_cache()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    yield
    S3FileSystem.clear_instance_cache()


def test_an_unreachable_place_is_an_input_error_without_secrets(dead_endpoint: Any) -> None:
    folder = parse_location("s3://bucket/x")
    for use in (partial(write_bytes, folder, b""), partial(remove_tree, folder), partial(file_sizes, folder)):
        with pytest.raises(InputError) as caught:
            use()
        assert str(caught.value).startswith("error: s3://bucket/x: cannot be reached")
        assert str(caught.value).count("\n") == 1
        assert "a-secret" not in str(caught.value)
