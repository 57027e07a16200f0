"""`codegan explore`: a page for this machine alone, and its server.

It listens on 127.0.0.1 and answers with the page's own files, JSON and PNG. Pages of other sites cannot use it: a name
that they point at this machine is refused (the Host header), what changes anything must come from the page itself (the
Origin header), and answers cannot be embedded elsewhere. No part of a request becomes a path on the disk.
"""

import logging
import re
import socketserver
import sys
import threading
from collections.abc import Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from data.errors import CodeganError, UnsafeError, UsageError
from data.shared import shown
from pipelines.configs import ExploreConfig
from pipelines.explore.api import ROUTES, Answer, Query, Refusal, as_json
from pipelines.explore.explorer import Explorer
from pipelines.sample import load_generator

HOST = "127.0.0.1"
PORTS_TRIED = 20
MAX_UPLOAD = 64 * 2**20  # bytes of a picture
IDLE_SEC = 60  # after which a silent connection is closed
FILES = {
    "/": ("page.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; img-src data: blob:; style-src 'self'; script-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


def explore(config: ExploreConfig) -> None:
    """Serve the page until the user interrupts, which is how it is meant to end."""
    lock = threading.Lock()
    generators = {shown(run): load_generator(run, config.best, config.allow_host) for run in config.run}
    explorers = [Explorer(name, generator, lock) for name, generator in generators.items()]
    with open_server(explorers, config.port) as server:
        print(f"explore: {server.address} (Ctrl-C ends it)", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            lock.acquire()  # for good: the picture that is being drawn is finished, and no other one begins
            print()


def open_server(explorers: Sequence[Explorer], port: int) -> "Server":
    """Listening at `port` or at the next free one; 0 is any. Raises `UsageError` where none is free."""
    for tried in range(port, min(port + PORTS_TRIED, 2**16) if port else 1):
        try:
            return Server(explorers, tried)
        except OSError:
            continue
    raise UsageError(f"--port {port}: can be used no more than those after it", "choose another --port")


class Server(ThreadingHTTPServer):
    """A thread for each connection; the explorers draw for one of them at a time."""

    def __init__(self, explorers: Sequence[Explorer], port: int = 0) -> None:
        self.explorers = explorers
        here = Path(__file__).parent
        self.files = {path: Answer((here / name).read_bytes(), kind) for path, (name, kind) in FILES.items()}
        super().__init__((HOST, port), _Handler)
        self.hosts = {f"{name}:{self.server_address[1]}" for name in (HOST, "localhost")}
        self.address = f"http://{HOST}:{self.server_address[1]}"

    def server_bind(self) -> None:
        """Without asking the network for the name of 127.0.0.1, as `HTTPServer` does."""
        socketserver.TCPServer.server_bind(self)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that no longer waits for a picture closes the connection, which is no error."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "codegan", ""
    timeout = IDLE_SEC

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def _answer(self) -> None:
        try:
            self._check_sender()
            status, answer = HTTPStatus.OK, self._made(self._body())
        except Refusal as refusal:
            status, answer = refusal.status, _complaint(refusal.what, refusal.fix)
        except CodeganError as error:
            status = HTTPStatus.FORBIDDEN if isinstance(error, UnsafeError) else HTTPStatus.BAD_REQUEST
            answer = _complaint(error.what, error.fix)
        except ConnectionError:
            raise
        except Exception:
            logging.exception("%s could not be answered", self.path)
            status = HTTPStatus.INTERNAL_SERVER_ERROR
            answer = _complaint("the server failed", "see what it printed on the terminal")
        self._send(status, answer)

    def _check_sender(self) -> None:
        """Raises `UnsafeError` for what another site has sent, by a name of its own or from its page."""
        hosts, origins = (self.headers.get_all(name, []) for name in ("Host", "Origin"))
        if len(hosts) != 1 or hosts[0] not in self.server.hosts:
            raise UnsafeError("this address is not that of the page", f"open {self.server.address}")
        if self.command == "POST" and origins != [f"http://{hosts[0]}"]:
            raise UnsafeError("this request does not come from the page", f"open {self.server.address}")

    def _body(self) -> bytes:
        """What a POST brings; nothing is read of anything else."""
        if self.command != "POST":
            return b""
        length = self.headers.get("Content-Length", "")
        if not re.fullmatch(r"\d{1,18}", length, re.ASCII):
            raise Refusal(HTTPStatus.LENGTH_REQUIRED, "the length of the picture is missing", "send Content-Length")
        if int(length) > MAX_UPLOAD:
            what = f"this picture has more than {MAX_UPLOAD // 2**20} MiB"
            raise Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, what, "choose a smaller file")
        return self.rfile.read(int(length))

    def _made(self, body: bytes) -> Answer:
        try:
            address = urlsplit(self.path)
        except ValueError as error:
            raise UsageError("this is not an address", f"open {self.server.address}") from error
        if self.command == "GET" and address.path in self.server.files:
            return self.server.files[address.path]
        if route := ROUTES.get((self.command, address.path)):
            return route(self.server.explorers, Query(address.query), body)
        raise Refusal(HTTPStatus.NOT_FOUND, "nothing is here", f"open {self.server.address}")

    def _send(self, status: HTTPStatus, answer: Answer) -> None:
        self.close_connection = self.close_connection or status != HTTPStatus.OK  # what was sent may not have been read
        self.send_response(status)
        self.send_header("Content-Type", answer.kind)
        self.send_header("Content-Length", str(len(answer.content)))
        if self.close_connection:
            self.send_header("Connection", "close")
        for name, value in HEADERS.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(answer.content)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What the base class refuses by itself, such as another method, in our form."""
        status = HTTPStatus(code)
        self.close_connection = True
        self._send(status, _complaint(status.phrase.lower(), f"open {self.server.address}"))

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: every picture would be a line."""


def _complaint(what: str, fix: str) -> Answer:
    return as_json({"error": what, "fix": fix})
