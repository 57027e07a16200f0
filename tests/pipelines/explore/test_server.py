"""`codegan explore`: every address of the page, what is refused, and how it ends."""

import base64
import http.client
import io
import json
import re
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from data.errors import UsageError
from data.images import to_png
from pipelines import cli
from pipelines.explore import explorer as explorer_module
from pipelines.explore import server as server_module
from pipelines.explore.server import FILES, Server, open_server
from stage2_codegen.directions import directions
from stage2_codegen.image_generator import ImageGenerator
from stage2_codegen.interpolation import slerp
from tests.pipelines.explore.conftest import GATED_SIDE, gated_generator, served


class Reply(NamedTuple):
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        assert self.headers["Content-Type"] == "application/json"
        return json.loads(self.body)

    @property
    def picture(self) -> NDArray[np.uint8]:
        assert self.headers["Content-Type"] == "image/png"
        return decoded(self.body)


def decoded(content: bytes) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(content)) as image:
        assert image.format == "PNG"
        return np.asarray(image).transpose(2, 0, 1)


def ask(server: Server, address: str, method: str = "GET", body: bytes | None = None, **headers: str) -> Reply:
    """Headers are those of a browser on the page itself, unless given."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=60)
    own = {"Origin": server.address} if method == "POST" else {}
    connection.request(method, address, body, own | headers)
    answer = connection.getresponse()
    reply = Reply(answer.status, dict(answer.getheaders()), answer.read())
    connection.close()
    return reply


def assert_refused(reply: Reply, status: int, what: str) -> None:
    assert reply.status == status
    assert what in reply.json["error"]
    assert reply.json["fix"]


@pytest.mark.parametrize("path", FILES)
def test_the_page_is_served_and_may_load_nothing_from_elsewhere(server: Server, path: str) -> None:
    reply = ask(server, path)
    assert reply.status == 200
    name, kind = FILES[path]
    assert reply.headers["Content-Type"] == kind
    assert reply.body == (Path(server_module.__file__).parent / name).read_bytes()
    assert reply.headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert reply.headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert not re.search(rb"(https?:)?//\w", reply.body)


def test_runs_are_described(server: Server) -> None:
    first, second = ask(server, "/api/runs").json["runs"]
    assert first == {
        "name": "runs/0",
        "image_size": [64, 64],
        "nimg": 48,
        "classes": [],
        "gates": [],
        "directions": 8,
    }
    assert second["gates"] == [4, 8]
    assert second["nimg"] is None


def test_images_are_the_samples_of_their_seeds(server: Server, trained: ImageGenerator) -> None:
    images = ask(server, "/api/images?run=0&seeds=7,3-4").json["images"]
    assert [image["seed"] for image in images] == [7, 3, 4]
    for image, expected in zip(images, trained([7, 3, 4]), strict=True):
        np.testing.assert_array_equal(decoded(base64.b64decode(image["png"])), expected)


def test_truncation_is_that_of_the_generator(server: Server, gated: ImageGenerator) -> None:
    (image,) = ask(server, "/api/images?run=1&seeds=5&truncation=0.3").json["images"]
    expected = gated.drawing(truncation=0.3)([5])[0]
    np.testing.assert_array_equal(decoded(base64.b64decode(image["png"])), expected)
    np.testing.assert_array_equal(ask(server, "/api/picture?run=1&point=5&truncation=0.3").picture, expected)
    assert (expected != gated([5])[0]).any()


def test_classes_are_those_of_the_generator() -> None:
    generator = gated_generator(classes=2)
    with served(generator) as server:
        assert ask(server, "/api/runs").json["runs"][0]["classes"] == ["rose", "tulip"]
        drawn = {name: ask(server, f"/api/picture?run=0&point=5&class={name}").picture for name in ("rose", "tulip")}
        assert (drawn["rose"] != drawn["tulip"]).any()
        np.testing.assert_array_equal(drawn["tulip"], generator.drawing("tulip")([5])[0])
        assert_refused(ask(server, "/api/picture?run=0&point=5&class=oak"), 400, "oak")


def test_a_picture_moves_along_the_directions(server: Server, gated: ImageGenerator) -> None:
    still = ask(server, "/api/picture?run=1&point=5").picture
    np.testing.assert_array_equal(still, gated([5])[0])
    np.testing.assert_array_equal(ask(server, "/api/picture?run=1&point=5&amounts=0,0").picture, still)
    z = gated.noise([5]) + 2.5 * directions(gated, 8)[1]
    moved = ask(server, "/api/picture?run=1&point=5&amounts=0,2.5").picture
    np.testing.assert_array_equal(moved, gated.between([(z, z, 0.0)], seed=5)[0])
    assert (moved != still).any()


def test_a_walk_goes_from_corner_to_corner(server: Server, gated: ImageGenerator) -> None:
    def at(x: float, y: float) -> NDArray[np.uint8]:
        return ask(server, f"/api/walk?run=1&corners=3,4,5,6&x={x}&y={y}").picture

    for (x, y), seed in zip([(0, 0), (1, 0), (0, 1), (1, 1)], [3, 4, 5, 6], strict=True):
        z = gated.noise([seed])
        corner = gated.between([(z, z, 0.0)], seed=3)[0].astype(int)  # with the noise of the first corner
        assert np.abs(at(x, y) - corner).max() <= 1
    z = gated.noise([3, 4, 5, 6])
    share = np.float32(0.25)
    top, bottom = (slerp(z[[one]], z[[other]], z.new_tensor([share])) for one, other in ((0, 1), (2, 3)))
    inside = gated.between([(top, bottom, 0.5)], seed=3)[0].astype(int)
    assert np.abs(at(0.25, 0.5) - inside).max() <= 1


def test_mixes_are_those_of_the_generator(server: Server, gated: ImageGenerator) -> None:
    mixed = ask(server, "/api/mix?run=1&content=3&style=4&gates=8").picture
    np.testing.assert_array_equal(mixed, gated.mix([3], [4], [8])[0, 0])
    everything = ask(server, "/api/mix?run=1&content=3&style=4").picture
    np.testing.assert_array_equal(everything, gated.mix([3], [4])[0, 0])


def test_a_projected_picture_becomes_a_point(
    server: Server, gated: ImageGenerator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(explorer_module, "CANDIDATES", 8)
    given = gated([3])[0]  # one of the candidates, so that it is found
    reply = ask(server, "/api/project?run=1&steps=5", "POST", to_png(given)).json
    assert reply["point"] == "p0"
    assert reply["psnr"] > 20
    found = decoded(base64.b64decode(reply["png"]))
    assert found.shape == (3, GATED_SIDE, GATED_SIDE)
    for address in (
        "picture?run=1&point=p0",
        "walk?run=1&corners=p0,3,4,5&x=0&y=0",
        "mix?run=1&content=p0&style=p0",
    ):
        np.testing.assert_array_equal(ask(server, f"/api/{address}").picture, found)
    np.testing.assert_array_equal(ask(server, "/api/picture?run=1&point=p0&truncation=0.1").picture, found)
    mixed = [
        ask(server, f"/api/mix?run=1&content={content}&style={style}").picture
        for content, style in (("p0", "9"), ("9", "p0"))
    ]
    assert all((picture != found).any() for picture in mixed)
    assert ask(server, "/api/project?run=1&steps=1", "POST", to_png(given)).json["point"] == "p1"
    assert_refused(ask(server, "/api/picture?run=0&point=p0"), 400, "was not projected here")


@pytest.mark.parametrize(
    ("address", "what"),
    [
        ("images?run=0", "seeds: is missing"),
        ("images?seeds=1", "run: is missing"),
        ("images?run=0&seeds=0-64", "more than 64 seeds"),
        ("images?run=0&seeds=0-999999999999999999", "more than 64 seeds"),
        ("images?run=0&seeds=a", "seeds a"),
        ("images?run=0&seeds=1&run=0", "given twice"),
        ("images?run=0&seeds=1&colour=red", "colour: is not a parameter"),
        ("images?run=0&seeds=1&class=rose", "without classes"),
        ("images?run=0&seeds=1&truncation=3", "truncation 3.0: is out of range"),
        ("images?run=0&seeds=1&truncation=nan", "truncation nan: is not a number"),
        ("images?" + "&".join(f"a{number}=1" for number in range(30)), "too many parameters"),
        ("picture?run=0&point=-1", "point -1: is not a picture"),
        ("picture?run=0&point=p0", "was not projected here"),
        ("picture?run=0&point=../../etc/passwd", "is not a picture"),
        ("picture?run=0&point=1&amounts=", "amounts : is not a number"),
        ("picture?run=0&point=1&amounts=1,x", "amounts x: is not a number"),
        ("picture?run=0&point=1&amounts=99", "out of range"),
        ("picture?run=0&point=1&amounts=1,1,1,1,1,1,1,1,1", "amounts: are 9"),
        ("walk?run=0&corners=1,2,3&x=0&y=0", "corners: are 3"),
        ("walk?run=0&corners=1,2,3,4&x=2&y=0", "x 2.0: is out of range"),
        ("walk?run=0&corners=1,2,3,4&x=0", "y: is missing"),
        ("mix?run=0&content=1&style=2", "has no gates"),
        ("mix?run=1&content=1&style=2&gates=5", "are not gates"),
        ("mix?run=1&content=x&style=2", "point x: is not a picture"),
        ("mix?run=1&content=1&style=p9", "point p9: was not projected here"),
        ("mix?run=1&content=1", "style: is missing"),
        ("runs?run=0", "run: is not a parameter"),
    ],
)
def test_wrong_parameters_are_refused_in_two_lines(server: Server, address: str, what: str) -> None:
    assert_refused(ask(server, f"/api/{address}"), 400, what)


@pytest.mark.parametrize(
    ("method", "address", "what"),
    [
        ("GET", "/api/images?run=2&seeds=1", "run 2"),
        ("GET", "/api/images?run=-1&seeds=1", "run -1"),
        ("GET", "/api/images?run=..%2F..&seeds=1", "run ../.."),
        ("GET", "/server.py", "nothing is here"),
        ("GET", "/../server.py", "nothing is here"),
        ("GET", "/%2e%2e/server.py", "nothing is here"),
        ("GET", "/api/project?run=0", "nothing is here"),
        ("POST", "/api/runs", "nothing is here"),
        ("POST", "/", "nothing is here"),
    ],
)
def test_what_is_not_there_is_not_found(server: Server, method: str, address: str, what: str) -> None:
    assert_refused(ask(server, address, method, b"" if method == "POST" else None), 404, what)


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:1", "[::1]:{port}", ""]
)
def test_other_names_of_this_machine_are_refused(server: Server, host: str) -> None:
    named = host.format(port=server.server_address[1])
    for address in ("/", "/api/runs"):
        assert_refused(ask(server, address, Host=named), 403, "not that of the page")


def test_localhost_is_a_name_of_the_page(server: Server) -> None:
    host = f"localhost:{server.server_address[1]}"
    assert ask(server, "/", Host=host).status == 200
    posted = ask(server, "/api/project?run=0", "POST", b"x", Host=host, Origin=f"http://{host}")
    assert_refused(posted, 400, "cannot be used")


@pytest.mark.parametrize(
    "origin", ["null", "http://evil.example", "https://127.0.0.1:{port}", "http://127.0.0.1:1", ""]
)
def test_what_other_pages_post_is_refused(server: Server, origin: str) -> None:
    sent = origin.format(port=server.server_address[1])
    assert_refused(ask(server, "/api/project?run=0", "POST", b"x", Origin=sent), 403, "does not come from the page")


def test_what_is_no_picture_is_refused(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    address = "/api/project?run=0"
    assert_refused(ask(server, address, "POST", b"no picture"), 400, "not an image in a known format")
    assert_refused(ask(server, address, "POST", b""), 400, "empty file")
    assert_refused(ask(server, f"{address}&steps=0", "POST", b"x"), 400, "steps 0")
    assert_refused(ask(server, f"{address}&steps=99999", "POST", b"x"), 400, "steps 99999")
    monkeypatch.setattr(server_module, "MAX_UPLOAD", 9)
    assert_refused(ask(server, address, "POST", b"0123456789"), 413, "more than")


@pytest.mark.parametrize("length", [None, "x", "-1", "1_0"])
def test_a_picture_without_its_length_is_refused(server: Server, length: str | None) -> None:
    headers = [f"Host: {server.address[7:]}", f"Origin: {server.address}"]
    headers += [] if length is None else [f"Content-Length: {length}"]
    request = "\r\n".join(["POST /api/project?run=0 HTTP/1.1", *headers, "", ""])
    with socket.create_connection(("127.0.0.1", server.server_address[1]), timeout=60) as connection:
        connection.sendall(request.encode())
        assert connection.makefile("rb").readline().split()[1] == b"411"


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS"])
def test_other_methods_are_refused_in_json(server: Server, method: str) -> None:
    assert_refused(ask(server, "/api/runs", method), 501, "")


def test_a_connection_serves_several_pictures(server: Server) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=60)
    sockets = set()
    for _ in range(2):
        connection.request("GET", "/api/picture?run=0&point=1")
        assert len(connection.getresponse().read()) > 100
        sockets.add(connection.sock)
    assert len(sockets) == 1
    connection.close()


def test_a_failure_of_ours_says_so_and_the_server_goes_on(
    server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def break_down(*_: object) -> None:
        raise RuntimeError("unforeseen")

    with monkeypatch.context() as patch:
        patch.setattr(explorer_module.Explorer, "sample", break_down)
        assert_refused(ask(server, "/api/images?run=0&seeds=1"), 500, "the server failed")
    assert "unforeseen" in caplog.text
    assert ask(server, "/api/images?run=0&seeds=1").status == 200


def test_a_port_that_is_taken_leaves_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    with open_server([], 0) as first:
        port = first.server_address[1]
        assert first.server_address[0] == "127.0.0.1"
        monkeypatch.setattr(server_module, "PORTS_TRIED", 1)
        with pytest.raises(UsageError, match=f"--port {port}"):
            open_server([], port)
        monkeypatch.setattr(server_module, "PORTS_TRIED", 20)
        with open_server([], port) as second:
            assert port < second.server_address[1] < port + 20


def test_a_run_is_needed() -> None:
    with pytest.raises(UsageError, match="no run given"):
        cli.run(["explore"])


def test_an_interrupt_ends_it_with_exit_code_0(
    trained_run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(self: Server) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Server, "serve_forever", interrupted)
    monkeypatch.setattr(sys, "argv", ["codegan", "explore", str(trained_run), "--port", "0"])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 0
    shown = capsys.readouterr()
    assert re.match(r"explore: http://127\.0\.0\.1:\d+ ", shown.out)
    assert shown.err == ""
