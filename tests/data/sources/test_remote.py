"""Pictures elsewhere are the same set as pictures here, read by parts; a host is asked only if it was allowed."""

import contextlib
import io
import re
import tarfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import boto3
import numpy as np
import pytest
from PIL import Image

from data.errors import CodeganError, CorruptError, InputError, UnsafeError, UsageError
from data.images import ImageSet, open_images
from data.sources import web
from data.sources.listing import list_entries
from data.sources.locations import redacted
from data.sources.web import WebFile
from pipelines.cli import run

RNG = np.random.default_rng(0)


def png(height: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(RNG.integers(0, 256, (height, 30, 3), np.uint8)).save(file, "PNG")
    return file.getvalue()


FILES = {f"{kind}/{index}.png": png(20 + index) for kind in ("cat", "dog") for index in range(3)}


def zipped(files: Mapping[str, bytes]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return content.getvalue()


def tarred(files: Mapping[str, bytes]) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return content.getvalue()


LABELLED = FILES | {name.replace("png", "cls"): str(5 * (name[0] == "d")).encode() for name in FILES}
STORED = {
    **{f"folder/{name}": content for name, content in FILES.items()},
    "all.zip": zipped(FILES),
    "all.tar": tarred(LABELLED),
    **{f"s-{n:03d}.tar": tarred(dict(list(FILES.items())[2 * n : 2 * n + 2])) for n in range(3)},
}


@dataclass
class WebServer:
    """What a server of files does, and its log: (path, first, last) of every request."""

    files: dict[str, bytes] = field(default_factory=lambda: dict(STORED))
    redirects: dict[str, str] = field(default_factory=dict)
    failures: list[Callable[[BaseHTTPRequestHandler], None]] = field(default_factory=list)  # one a request
    ignores_ranges: bool = False
    log: list[tuple[str, int, int]] = field(default_factory=list)
    port: int = 0

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        path, first, last = self.asked(handler)
        self.log.append((path, first, last))
        (self.failures.pop(0) if self.failures else self.serve)(handler)

    @staticmethod
    def asked(handler: BaseHTTPRequestHandler) -> tuple[str, int, int]:
        first, last = map(int, re.findall(r"\d+", handler.headers["Range"]))
        return handler.path.partition("?")[0].removeprefix("/"), first, last

    def serve(self, handler: BaseHTTPRequestHandler) -> None:
        path, first, last = self.asked(handler)
        if path in self.redirects:
            handler.send_response(302)
            handler.send_header("Location", self.redirects[path])
            handler.end_headers()
        elif path not in self.files:
            handler.send_error(404)
        else:
            whole = self.files[path]
            content = whole if self.ignores_ranges else whole[first : last + 1]
            handler.send_response(200 if self.ignores_ranges else 206)
            if not self.ignores_ranges:
                handler.send_header("Content-Range", f"bytes {first}-{first + len(content) - 1}/{len(whole)}")
            handler.send_header("Content-Length", str(len(content)))
            handler.end_headers()
            handler.wfile.write(content)

    def __str__(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def hosts(self) -> tuple[str, ...]:
        """What has to be allowed."""
        return (f"127.0.0.1:{self.port}",)


def unavailable(handler: BaseHTTPRequestHandler) -> None:
    handler.send_error(503)


def cut(handler: BaseHTTPRequestHandler) -> None:
    _, first, last = WebServer.asked(handler)
    handler.send_response(206)
    handler.send_header("Content-Range", f"bytes {first}-{last}/{len(STORED['all.tar'])}")
    handler.send_header("Content-Length", str(last - first + 1))
    handler.end_headers()
    handler.wfile.write(bytes((last - first) // 2))


def hang_up(handler: BaseHTTPRequestHandler) -> None:
    handler.close_connection = True


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[WebServer]:
    monkeypatch.setattr(web, "_WAITS_SEC", (0.0,) * len(web._WAITS_SEC))
    files = WebServer()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            files.answer(self)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        files.port = listening.server_port
        thread = threading.Thread(target=partial(listening.serve_forever, 0.01))
        thread.start()
        yield files
        listening.shutdown()
        thread.join()


@pytest.fixture
def stored(bucket: str) -> str:
    for name, content in STORED.items():
        boto3.client("s3").put_object(Bucket=bucket.removeprefix("s3://"), Key=f"some where/{name}", Body=content)
    return f"{bucket}/some where"


@pytest.fixture
def local(tmp_path: Path) -> Path:
    for name, content in STORED.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    return tmp_path


def assert_same(one: ImageSet, other: ImageSet) -> None:
    assert (one.fingerprint, one.keys) == (other.fingerprint, other.keys)
    assert (one.skipped, one.notes) == (other.skipped, other.notes)
    np.testing.assert_equal(one.labels, other.labels)  # None and None are equal
    for index in range(len(one)):
        np.testing.assert_array_equal(one.image(index), other.image(index))


# --- one set, wherever it lies ---


@pytest.mark.parametrize("name", ["folder", "folder/", "folder/cat", "all.zip", "all.tar", "s-{000..002}.tar"])
def test_an_object_store_holds_the_same_set_as_a_disk(local: Path, stored: str, name: str) -> None:
    here, there = open_images(f"{local}/{name}"), open_images(f"{stored}/{name}")
    assert_same(here, there)
    small, same = (np.concatenate(list(open_images(images.name, 16).batches(4))) for images in (here, there))
    np.testing.assert_array_equal(small, same)  # read by several threads


@pytest.mark.parametrize("name", ["all.zip", "all.tar", "s-{000..002}.tar"])
def test_a_web_server_holds_the_same_set_as_a_disk(local: Path, server: WebServer, name: str) -> None:
    assert_same(open_images(f"{local}/{name}"), open_images(f"{server}/{name}", allow_hosts=server.hosts))


def test_shards_of_several_places_are_one_set(local: Path, stored: str, server: WebServer) -> None:
    names = [f"{local}/s-000.tar", f"{stored}/s-001.tar", f"{server}/s-002.tar"]
    images, whole = open_images(names, allow_hosts=server.hosts), open_images(f"{local}/folder")
    assert sorted(key.rpartition(".tar/")[2] for key in images.keys) == whole.keys
    assert len(set(images.keys)) == 6


def test_a_member_is_one_request_of_its_own_bytes(server: WebServer) -> None:
    noise = RNG.integers(0, 256, (3, 1000, 700, 3), np.uint8)
    files = {}
    for index, pixels in enumerate(noise):
        content = io.BytesIO()
        Image.fromarray(pixels).save(content, "BMP")
        files[f"{index}.bmp"] = content.getvalue()
    server.files = {"large.tar": tarred(files)}
    (entry, *_) = list_entries([f"{server}/large.tar"], server.hosts).entries
    assert sum(last - first + 1 for _, first, last in server.log) < sum(map(len, files.values()))
    server.log.clear()
    assert entry.read() == files["0.bmp"]
    assert server.log == [("large.tar", 512, 512 + len(files["0.bmp"]) - 1)]


def test_nothing_is_written_to_disk(
    server: WebServer, stored: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("TMPDIR", "HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.chdir(tmp_path)
    open_images(f"{server}/all.tar", allow_hosts=server.hosts)
    open_images(f"{stored}/all.zip")
    assert list(tmp_path.iterdir()) == []


# --- hosts ---


@pytest.mark.parametrize(
    "hosts", [(), ("example.org",), ("0.0.1",), ("127.0.0.1.example.org",), ("127.0.0.1",), ("127.0.0.1:80",)]
)
def test_a_host_that_is_not_allowed_is_not_asked(server: WebServer, hosts: tuple[str, ...]) -> None:
    with pytest.raises(UnsafeError, match=re.escape(f"add --allow-host 127.0.0.1:{server.port}")):
        open_images(f"{server}/all.tar", allow_hosts=hosts)
    assert server.log == []


def test_redirects_are_followed_among_allowed_hosts_only(server: WebServer) -> None:
    other = f"http://localhost:{server.port}"
    server.redirects = {"moved.tar": "/all.tar", "away.tar": f"{other}/all.tar?token=hidden"}
    assert len(open_images(f"{server}/moved.tar", allow_hosts=server.hosts)) == 6
    assert len(open_images(f"{server}/away.tar", allow_hosts=(f"LOCALHOST:{server.port}", *server.hosts))) == 6
    server.log.clear()
    with pytest.raises(UnsafeError, match="leads to localhost") as caught:
        open_images(f"{server}/away.tar", allow_hosts=server.hosts)
    assert f"add --allow-host localhost:{server.port}" in caught.value.fix
    assert "hidden" not in str(caught.value)
    assert [path for path, _, _ in server.log] == ["away.tar"]


@pytest.mark.parametrize(
    "target", ["file:///etc/passwd", "ftp://127.0.0.1/x.tar", "//user@127.0.0.1/x.tar", "http://[x/"]
)
def test_redirects_out_of_the_web_are_refused(server: WebServer, target: str) -> None:
    server.redirects = {"x.tar": target}
    with pytest.raises(CodeganError) as caught:
        open_images(f"{server}/x.tar", allow_hosts=server.hosts)
    assert caught.value.exit_code in (3, 6)


def test_secrets_of_an_address_stay_out_of_names_and_messages(server: WebServer) -> None:
    assert open_images(f"{server}/all.tar?signature=hidden", allow_hosts=server.hosts).name == f"{server}/all.tar"
    for name in ("gone.tar?key=hidden", "x.txt?key=hidden", "all.tar#hidden", "{a,b.tar?key=hidden"):
        with pytest.raises(CodeganError) as caught:
            open_images([f"{server}/{name}", "/nowhere"], allow_hosts=server.hosts)
        assert "hidden" not in str(caught.value)
    with pytest.raises(UnsafeError) as refused:
        open_images("https://me:hidden@127.0.0.1/x.tar", allow_hosts=server.hosts)
    assert "hidden" not in str(refused.value)
    assert redacted("https://me:hidden@127.0.0.1/x.tar?hidden#hidden") == "https://127.0.0.1/x.tar"


# --- what goes wrong on the way ---


@pytest.mark.parametrize("failure", [unavailable, cut, hang_up])
def test_a_passing_failure_is_tried_again_and_a_lasting_one_is_an_input_error(
    server: WebServer, failure: Callable[[BaseHTTPRequestHandler], None]
) -> None:
    server.failures = [failure] * 3
    assert len(open_images(f"{server}/all.tar", allow_hosts=server.hosts)) == 6
    server.failures = [failure] * 4
    with pytest.raises(InputError, match=r"all\.tar: cannot be read") as caught:
        open_images(f"{server}/all.tar", allow_hosts=server.hosts)
    assert str(caught.value).count("\n") == 1
    assert server.failures == []


def test_a_failing_network_stops_the_scan_instead_of_leaving_pictures_out(server: WebServer) -> None:
    list_entries([f"{server}/all.tar"], server.hosts)
    server.failures = [*[server.serve] * (len(server.log) + 2), *[unavailable] * 100]
    with pytest.raises(InputError, match="HTTP status 503"):
        open_images(f"{server}/all.tar", max_skip=1, allow_hosts=server.hosts)


def test_a_picture_that_is_gone_is_asked_for_once(server: WebServer) -> None:
    images = open_images(f"{server}/all.tar", allow_hosts=server.hosts)
    server.files.clear()
    server.log.clear()
    with pytest.raises(InputError, match="HTTP status 404"):
        images.image(0)
    assert len(server.log) == 1


def slow(handler: BaseHTTPRequestHandler) -> None:
    """A byte at a time, and never a pause that would be a timeout."""
    _, first, last = WebServer.asked(handler)
    handler.send_response(206)
    handler.send_header("Content-Range", f"bytes {first}-{last}/{len(STORED['all.tar'])}")
    handler.end_headers()
    with contextlib.suppress(OSError):
        for _ in range(200):
            handler.wfile.write(b"x")
            handler.wfile.flush()
            time.sleep(0.02)


def slow_to_begin(handler: BaseHTTPRequestHandler) -> None:
    with contextlib.suppress(OSError):
        handler.wfile.write(b"HTTP/1.1 206 Partial\r\nX: ")
        slow(handler)


@pytest.mark.parametrize("failure", [slow, slow_to_begin])
def test_a_server_that_never_ends_is_given_up(
    server: WebServer, failure: Callable[[BaseHTTPRequestHandler], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web, "_TIMEOUT_SEC", 0.2)
    monkeypatch.setattr(web, "_LEAST_BYTES_PER_SEC", 1e9)
    server.failures = [failure] * 4
    started = time.monotonic()
    with pytest.raises(InputError, match=r"too slow|timed out"):
        WebFile(f"{server}/all.tar", frozenset(server.hosts)).fetch(0, 10_000)
    assert time.monotonic() - started < 3


@pytest.mark.parametrize("name", ["all.tar", "all.zip"])
@pytest.mark.parametrize("claimed", [10**17, 10**30, 1, 0])
def test_a_size_that_a_server_claims_is_not_believed(server: WebServer, name: str, claimed: int) -> None:
    def lie(handler: BaseHTTPRequestHandler) -> None:
        _, first, last = WebServer.asked(handler)
        content = STORED[name][first : last + 1]
        handler.send_response(206)
        handler.send_header("Content-Range", f"bytes {first}-{first + len(content) - 1}/{claimed}")
        handler.end_headers()
        handler.wfile.write(content)

    server.failures = [lie] * 1000
    with pytest.raises(CodeganError) as caught:
        open_images(f"{server}/{name}", allow_hosts=server.hosts)
    assert name in caught.value.what


def test_a_server_without_ranges_is_an_input_error(server: WebServer) -> None:
    server.ignores_ranges = True
    with pytest.raises(InputError, match="ignores range requests"):
        open_images(f"{server}/all.tar", allow_hosts=server.hosts)


@pytest.mark.parametrize("name", ["all.tar", "all.zip"])
def test_a_cut_archive_elsewhere_is_corrupt(server: WebServer, name: str) -> None:
    server.files[name] = STORED[name][: len(STORED[name]) // 2]
    with pytest.raises(CorruptError, match=name):
        open_images(f"{server}/{name}", allow_hosts=server.hosts)


def test_damaged_zip_members_elsewhere_are_skipped(server: WebServer) -> None:
    content = bytearray(STORED["all.zip"])
    content[60] ^= 0xFF
    server.files["all.zip"] = bytes(content)
    images = open_images(f"{server}/all.zip", max_skip=0.5, allow_hosts=server.hosts)
    assert [skip.key for skip in images.skipped] == ["cat/0.png"]


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("gone.tar", InputError),
        ("gone.zip", InputError),
        ("gone", InputError),
        ("x.tar.gz", UsageError),
        ("shard-{000..003.tar", UsageError),
        ("/../../no-such-bucket/x.tar", InputError),
    ],
)
def test_bad_data_in_an_object_store_is_an_error_with_a_remedy(
    bucket: str, name: str, error: type[CodeganError]
) -> None:
    with pytest.raises(error) as caught:
        open_images(f"{bucket}/{name}")
    assert caught.value.fix
    assert "a-secret" not in str(caught.value)


@pytest.mark.parametrize("name", ["http:///x.tar", "https:x.tar", "http://[hidden/x.tar", "http://"])
def test_an_address_without_a_host_is_a_usage_error(name: str) -> None:
    with pytest.raises(UsageError) as caught:
        open_images(name, allow_hosts=("127.0.0.1",))
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize("name", ["folder", "x.tar.gz", "x.txt", ""])
def test_a_web_server_gives_archives_only(server: WebServer, name: str) -> None:
    with pytest.raises(UsageError):
        open_images(f"{server}/{name}", allow_hosts=server.hosts)


def test_the_flag_reaches_the_data_and_is_repeated_in_the_next_command(
    server: WebServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UnsafeError):
        run(["inspect", f"{server}/all.tar"])
    run(["inspect", f"{server}/all.tar?key=hidden", "--out", str(tmp_path), "--allow-host", *server.hosts])
    output = capsys.readouterr().out
    assert "6 images, 0 skipped" in output
    assert f"--data {server}/all.tar --allow-host 127.0.0.1:{server.port}" in output
    assert "hidden" not in output + (tmp_path / "summary.json").read_text()
