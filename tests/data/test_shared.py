"""Runs are found by name: on this machine, on a web server by their SHA-256, and on the hub."""

import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest

from data import cache
from data.errors import CodeganError, CorruptError, InputError, UnsafeError, UsageError
from data.hub import HubAddress, upload
from data.shared import find_run, name_of, own_folder, shown
from tests.file_server import host_of, serving

CONTENT = bytes(range(256)) * 100
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CODEGAN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(cache, "_PART", 10_000)
    return tmp_path / "cache"


@pytest.fixture
def web() -> Iterator[tuple[str, list[str], dict[str, bytes]]]:
    files = {"run.zip": CONTENT}
    with serving(files) as (address, asked):
        yield address, asked, files


def kept(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_a_local_run_is_itself(tmp_path: Path) -> None:
    assert find_run("runs/photos") == find_run(Path("runs/photos")) == Path("runs/photos")
    (tmp_path / "run.zip").touch()
    assert own_folder("runs/photos") == Path("runs/photos")
    assert own_folder(tmp_path / "run.zip") is None
    assert own_folder("hf://a/b") is None
    assert own_folder("https://host/run.zip#sha256=0") is None


def test_a_file_is_downloaded_once_and_known_by_its_hash(
    web: tuple[str, list[str], dict[str, bytes]], own_cache: Path
) -> None:
    address, asked, files = web
    url = f"{address}/run.zip?signature=secret#sha256={DIGEST.upper()}"
    found = find_run(url, [host_of(address)])
    assert found.read_bytes() == CONTENT
    assert found.is_relative_to(own_cache)
    count = len(asked)
    assert count == 4  # its size, and three parts
    del files["run.zip"]
    assert find_run(url, [host_of(address)]) == found
    assert len(asked) == count
    found.write_bytes(b"damaged")
    files["run.zip"] = CONTENT
    assert find_run(url, [host_of(address)]).read_bytes() == CONTENT


def test_another_file_than_the_one_meant_is_not_kept(
    web: tuple[str, list[str], dict[str, bytes]], own_cache: Path
) -> None:
    address, _, files = web
    files["run.zip"] = CONTENT[:-1] + b"x"
    with pytest.raises(CorruptError, match="its SHA-256 is"):
        find_run(f"{address}/run.zip#sha256={DIGEST}", [host_of(address)])
    assert kept(own_cache) == []


def test_a_large_file_is_not_downloaded(
    web: tuple[str, list[str], dict[str, bytes]], own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "MAX_BYTES", 1000)
    with pytest.raises(UnsafeError, match="has more than"):
        find_run(f"{web[0]}/run.zip#sha256={DIGEST}", [host_of(web[0])])
    assert kept(own_cache) == []


@pytest.mark.parametrize(
    ("end", "hosts", "error", "message"),
    [
        ("", ("host",), UsageError, "does not say which file"),
        ("#sha256=12", ("host",), UsageError, "does not say which file"),
        (f"#md5={DIGEST}", ("host",), UsageError, "does not say which file"),
        (f"#sha256={DIGEST}", (), UnsafeError, "not allowed"),
        (f"#sha256={DIGEST}", ("localhost",), UnsafeError, "not allowed"),
    ],
)
def test_unclear_addresses_and_other_hosts_are_refused_without_a_request(
    web: tuple[str, list[str], dict[str, bytes]],
    end: str,
    hosts: tuple[str, ...],
    error: type[CodeganError],
    message: str,
) -> None:
    with pytest.raises(error, match=message) as caught:
        find_run(f"{web[0]}/run.zip?signature=secret{end}", hosts)
    assert "secret" not in str(caught.value)
    assert web[1] == []


@pytest.mark.parametrize("address", ["s3://bucket/run", "ftp://host/run.zip", "file:///run.zip", "pipe:cat run"])
def test_other_addresses_are_refused(address: str) -> None:
    with pytest.raises(UsageError, match="is not where runs are read from"):
        find_run(address)


@pytest.mark.parametrize(
    ("run", "name"),
    [
        ("runs/photos/", "photos"),
        ("x/photos.zip", "photos"),
        ("https://host/photos.zip?key=1#sha256=00", "photos"),
        ("hf://user/photos@v1", "photos"),
    ],
)
def test_names_are_short(run: str, name: str) -> None:
    assert name_of(run) == name


def test_what_is_shown_can_be_typed_and_holds_no_secret() -> None:
    assert shown("https://host/run.zip?key=1#sha256=00") == "https://host/run.zip#sha256=00"
    assert shown(Path("runs/photos")) == "runs/photos"
    assert shown("hf://user/photos") == "hf://user/photos"


class Hub:
    """A stand-in for the client of the hub that keeps what it was asked."""

    asked: list[tuple[Any, ...]]
    error: Exception | None = None

    def __init__(self, **_: object) -> None: ...

    def snapshot_download(self, repository: str, revision: str | None, allow_patterns: list[str]) -> str:
        if self.error:
            raise self.error
        self.asked.append((repository, revision, allow_patterns))
        return "somewhere"

    def create_repo(self, repository: str, private: bool, exist_ok: bool) -> None:
        self.asked.append((repository, private, exist_ok))

    def upload_folder(self, **given: Any) -> None:
        self.asked.append((given["repo_id"], given["folder_path"], given["allow_patterns"]))


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> type[Hub]:
    stand_in = type("StandIn", (Hub,), {"asked": []})
    monkeypatch.setattr(huggingface_hub, "HfApi", stand_in)
    return stand_in


def test_a_run_on_the_hub_is_its_weights_alone(hub: type[Hub]) -> None:
    patterns = ["weights/*.json", "weights/*.safetensors"]
    assert find_run("hf://user/photos") == Path("somewhere")
    assert find_run("hf://user/photos@v1.0") == Path("somewhere")
    assert hub.asked == [("user/photos", None, patterns), ("user/photos", "v1.0", patterns)]


@pytest.mark.parametrize("address", ["hf://photos", "hf://a/b/c", "hf://a/../b", "hf://a/b?x=1", "hf://", "hf://a/b@"])
def test_other_names_are_refused(hub: type[Hub], address: str) -> None:
    with pytest.raises(UsageError, match="is not the name of a repository"):
        find_run(address)
    assert hub.asked == []


def test_what_the_hub_refuses_is_told_in_two_lines(hub: type[Hub]) -> None:
    hub.error = OSError("401 Client Error. (Request ID: x)\n\nRepository Not Found")
    with pytest.raises(InputError, match=r"hf://user/photos: .*Repository Not Found") as caught:
        find_run("hf://user/photos")
    assert "hf auth login" in caught.value.fix


def test_new_repositories_are_private_unless_asked_otherwise(hub: type[Hub], tmp_path: Path) -> None:
    for public in (False, True):
        upload(tmp_path, HubAddress.parse("hf://user/photos"), public)
    assert [asked[1:] for asked in hub.asked[::2]] == [(True, True), (False, True)]
    assert hub.asked[1][2] == ["README.md", "samples.jpg", "weights/*.json", "weights/*.safetensors"]


def test_a_missing_client_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UsageError, match="needs the package huggingface_hub") as caught:
        find_run("hf://user/photos")
    assert "codegan[hub]" in caught.value.fix
