"""Parts of files on web servers, by range requests to allowed hosts only."""

import http.client
import io
import re
import socket
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from functools import lru_cache
from pathlib import PurePosixPath
from typing import IO, Any
from urllib.parse import SplitResult, unquote, urlsplit

from data.errors import InputError, UnsafeError, UsageError, one_line

_TIMEOUT_SEC = 60.0  # of a connection, and of each wait for more bytes
_LEAST_BYTES_PER_SEC = 16_000  # of a transfer as a whole, after that time
_PORTS = {"http": 80, "https": 443}
_WAITS_SEC = (0.5, 1.0, 2.0)  # before the second, third and fourth attempt
_TRANSIENT = (408, 429, 500, 502, 503, 504)


def split_address(url: str) -> SplitResult:
    """The parts of an address; raises `UsageError` where it cannot be split."""
    try:
        return urlsplit(url)
    except ValueError as error:
        raise UsageError(f"{url.partition(':')[0]}://...: {one_line(error)}", "check the address") from error


def without_secrets(url: str) -> str:
    """An address without user, password and query, which may hold a signature."""
    parts = split_address(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()


@dataclass(frozen=True)
class WebFile:
    """A file at an http(s) address. Raises `UnsafeError` unless its host, and that of every redirect, is allowed.

    A host is allowed on the usual port of http or https alone; another port is named with it: `example.org:8080`.
    """

    url: str
    allow_hosts: frozenset[str]

    def __post_init__(self) -> None:
        _check_host(self.url, self.allow_hosts, f"{self}: is on a host that is not allowed")

    def __str__(self) -> str:
        return without_secrets(self.url)

    @property
    def name(self) -> str:
        return PurePosixPath(unquote(urlsplit(self.url).path)).name

    @property
    def suffix(self) -> str:
        return PurePosixPath(self.name).suffix

    def fetch(self, offset: int, count: int) -> bytes:
        """Read `count` bytes from `offset` on, fewer at the end; raises `InputError` where the server fails."""
        return self._get(offset, offset + count - 1)[0]

    def size(self) -> int:
        """The size in bytes, learnt by reading the first one, since signed addresses do not answer HEAD requests."""
        return self._get(0, 0)[1]

    def _get(self, first: int, last: int) -> tuple[bytes, int]:
        """Bytes first ... last and the size of the whole file. What may be a passing failure is tried again."""
        limit = _TIMEOUT_SEC + (last - first) / _LEAST_BYTES_PER_SEC
        for wait in (*_WAITS_SEC, None):
            headers = {"Range": f"bytes={first}-{last}", "User-Agent": "codegan"}
            request = urllib.request.Request(urlsplit(self.url).geturl(), headers=headers)
            try:
                with _opener(self.allow_hosts).open(request, timeout=limit) as response:
                    return self._read(response, first, last)
            except urllib.error.HTTPError as error:
                error.close()
                problem, transient = f"HTTP status {error.code}", error.code in _TRANSIENT
            except (OSError, http.client.HTTPException, ValueError) as error:  # a redirect may raise ValueError
                problem, transient = one_line(error), True
            if wait is None or not transient:
                break
            time.sleep(wait)
        raise InputError(f"{self}: cannot be read ({problem})", "check the address and the network, and try again")

    def _read(self, response: http.client.HTTPResponse, first: int, last: int) -> tuple[bytes, int]:
        given = re.fullmatch(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})", response.headers.get("Content-Range", ""))
        if response.status != 206 or given is None or int(given[1]) != first:
            raise InputError(
                f"{self}: its server ignores range requests", "download it and give the file, or use another server"
            )
        content = response.read(last - first + 1)
        if len(content) != min(int(given[2]), last) - first + 1:  # whatever its headers claim
            raise http.client.IncompleteRead(content)
        return content, int(given[3])


def _check_host(url: str, allow_hosts: frozenset[str], problem: str) -> None:
    """Raise `UnsafeError`, which says `problem` and how to allow the host, unless it is allowed."""
    parts = split_address(url)
    if not parts.hostname:
        raise UsageError(f"{without_secrets(url)}: names no host", "write https://HOST/FILE.tar")
    if "@" in parts.netloc:
        raise UnsafeError(f"{without_secrets(url)}: holds a user name", "leave out everything before the @")
    host = _with_port(parts)
    if parts.scheme not in _PORTS or host not in {allowed.lower() for allowed in allow_hosts}:
        raise UnsafeError(problem, f"add --allow-host {host}, if you trust it")


def _with_port(parts: SplitResult) -> str:
    """The host and, unless it is the usual one of the scheme, the port; raises `UsageError` for no port at all."""
    try:
        port = parts.port or _PORTS.get(parts.scheme)
    except ValueError as error:
        raise UsageError(f"{parts.hostname}: {one_line(error)}", "check the address") from error
    if port == _PORTS.get(parts.scheme):
        return str(parts.hostname)
    return f"[{parts.hostname}]:{port}" if ":" in str(parts.hostname) else f"{parts.hostname}:{port}"


class _Redirects(urllib.request.HTTPRedirectHandler):
    def __init__(self, allow_hosts: frozenset[str]) -> None:
        self._allow_hosts = allow_hosts

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        fp.close()
        problem = f"{without_secrets(req.full_url)}: leads to {_with_port(split_address(newurl))}, which is not allowed"
        _check_host(newurl, self._allow_hosts, problem)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


class _InTime(io.RawIOBase):
    """What a socket receives, until the time that its timeout gave for the whole answer is over."""

    def __init__(self, connected: socket.socket, received: io.RawIOBase) -> None:
        self._socket, self._received = connected, received
        self._end = time.monotonic() + (connected.gettimeout() or _TIMEOUT_SEC)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError("the server is too slow")
        self._socket.settimeout(min(left, _TIMEOUT_SEC))
        return self._received.readinto(buffer)

    def close(self) -> None:
        self._received.close()
        super().close()


class _Answer(http.client.HTTPResponse):
    """An answer whose headers and content together have to arrive in time."""

    def __init__(self, sock: socket.socket, *args: Any, **options: Any) -> None:
        super().__init__(sock, *args, **options)
        self.fp = io.BufferedReader(_InTime(sock, self.fp.detach()))


class _Connection(http.client.HTTPConnection):
    response_class = _Answer


class _SecureConnection(http.client.HTTPSConnection):
    response_class = _Answer


class _Http(urllib.request.HTTPHandler):
    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_Connection, req)


class _Https(urllib.request.HTTPSHandler):
    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_SecureConnection, req)


@lru_cache
def _opener(allow_hosts: frozenset[str]) -> urllib.request.OpenerDirector:
    """The opener of all files; making one loads the certificates of the machine."""
    return urllib.request.build_opener(_Redirects(allow_hosts), _Http, _Https)
