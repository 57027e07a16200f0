"""A real browser on the page: every tool draws, a drag asks for the newest place alone, and nothing goes wrong."""

import base64
import io
import time
from collections.abc import Iterator
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from data.images import to_png
from pipelines.explore import explorer as explorer_module
from pipelines.explore.explorer import Explorer, Picture, Settings
from pipelines.explore.server import Server
from stage2_codegen.image_generator import ImageGenerator
from tests.browser import CHROMIUM, Browser
from tests.pipelines.explore.conftest import served

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium (apt-get install chromium)")

CAPTION = "document.getElementById('caption').textContent"
MESSAGE = "document.getElementById('message').textContent"
DRAWN = "document.querySelectorAll('#grid .tile:not(.waiting)').length"
PICTURE = """(async () => {
  const image = document.getElementById("picture"), canvas = document.createElement("canvas");
  await image.decode();
  [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
  canvas.getContext("2d").drawImage(image, 0, 0);
  return canvas.toDataURL("image/png");
})()"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("profile")) as running:
        yield running


@pytest.fixture(scope="module")
def server(trained: ImageGenerator, gated: ImageGenerator) -> Iterator[Server]:
    with served(gated, trained) as running:
        yield running


@pytest.fixture
def page(server: Server, browser: Browser) -> Iterator[Browser]:
    """The generator with gates; afterwards nothing may have been complained of, and nobody else asked."""
    browser.complaints.clear()
    browser.requests.clear()
    browser.open(server.address)
    browser.wait(f"{CAPTION} === 'Seed 0' && {DRAWN} === 24")
    yield browser
    assert browser.complaints == []
    asked = [request for request in browser.requests if not request.startswith(("data:", "blob:"))]
    assert asked
    assert all(request.startswith(server.address) for request in asked)


def choose(browser: Browser, control: str, value: float) -> None:
    """As a person sets a control."""
    browser.run(f"document.getElementById('{control}').value = {value}")
    for event in ("input", "change"):
        browser.run(f"document.getElementById('{control}').dispatchEvent(new Event('{event}'))")


def click(browser: Browser, selector: str) -> None:
    browser.run(f"document.querySelector('{selector}').click()")


def shown(browser: Browser) -> NDArray[np.uint8]:
    """The large picture, (3, H, W)."""
    content = base64.b64decode(browser.run(PICTURE).partition(",")[2])
    with Image.open(io.BytesIO(content)) as image:
        return np.asarray(image.convert("RGB")).transpose(2, 0, 1)


def asked(browser: Browser, name: str) -> list[dict[str, str]]:
    """The parameters of what was asked for."""
    addresses = [urlsplit(request) for request in browser.requests]
    queries = [parse_qs(address.query) for address in addresses if address.path == f"/api/{name}"]
    return [{name: values[0] for name, values in query.items()} for query in queries]


def test_a_picture_is_chosen_and_moved_along_directions(page: Browser, gated: ImageGenerator) -> None:
    click(page, '#grid [data-point="5"]')
    page.wait(f"{CAPTION} === 'Seed 5'")
    np.testing.assert_array_equal(shown(page), gated([5])[0])
    assert page.run("document.getElementById('download').download") == "0-seed-5.png"
    assert page.run("document.querySelector('#grid [aria-pressed=true]').dataset.point") == "5"
    page.run("document.querySelector('#sliders input').value = 3")
    page.run("document.querySelector('#sliders input').dispatchEvent(new Event('input'))")
    page.wait(f"{CAPTION} === 'Seed 5, moved'")
    assert (shown(page) != gated([5])[0]).any()
    click(page, "#reset")
    page.wait(f"{CAPTION} === 'Seed 5'")


def test_more_pictures_come_from_any_seed_and_as_truncated_as_one_likes(page: Browser, gated: ImageGenerator) -> None:
    expected = gated.drawing(truncation=0.5)([110])[0]  # now, while the server does not draw
    click(page, "#more")
    page.wait(f"{DRAWN} === 48")
    choose(page, "first", 100)
    page.wait(f"{DRAWN} === 24 && document.querySelector('#grid [data-point=\"123\"]')")
    choose(page, "truncation", 0.5)
    page.wait(f"document.getElementById('truncation-value').textContent === '0.50' && {DRAWN} === 24")
    click(page, '#grid [data-point="110"]')
    page.wait(f"{CAPTION} === 'Seed 110'")
    np.testing.assert_array_equal(shown(page), expected)


def test_a_drag_asks_for_the_newest_place_alone(page: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    between = Explorer.between

    def slow(self: Explorer, corners: list[str], x: float, y: float, settings: Settings) -> Picture:
        time.sleep(0.15)
        return between(self, corners, x, y, settings)

    monkeypatch.setattr(Explorer, "between", slow)
    click(page, "#tab-walk")
    click(page, '#grid [data-point="9"]')  # takes the first corner
    page.wait(f"{CAPTION} === 'Between seeds 9, 1, 2 and 3'")
    left, top, width, height = page.run(
        "Object.values(document.getElementById('pad').getBoundingClientRect().toJSON())"
    )[:4]
    way = [(left + width * step / 40, top + height * step / 80) for step in range(10, 31)]
    page.press(*way[0], *way)
    page.wait("performance.getEntriesByType('resource').some(entry => entry.name.includes('x=0.75'))")
    walks = asked(page, "walk")
    assert 3 <= len(walks) < 12
    assert walks[-1] == {"run": "0", "corners": "9,1,2,3", "x": "0.75", "y": "0.375"}
    page.run("document.getElementById('pad').dispatchEvent(new KeyboardEvent('keydown', {key: 'ArrowLeft'}))")
    page.wait("performance.getEntriesByType('resource').some(entry => entry.name.includes('x=0.7&'))")


def test_contents_are_mixed_with_styles(page: Browser, gated: ImageGenerator) -> None:
    click(page, "#tab-mix")
    page.wait("document.querySelectorAll('#mixes button img').length === 6")
    page.wait(f"{CAPTION} === 'Seed 0 in the style of seed 3'")
    np.testing.assert_array_equal(shown(page), gated.mix([0], [3])[0, 0])
    click(page, "#gates input")  # leaves the maps of side 8
    click(page, 'input[value="styles"]')
    click(page, '#grid [data-point="7"]')
    page.wait("document.querySelectorAll('#mixes button img').length === 9")
    page.run("[...document.querySelectorAll('#mixes button')].at(-1).click()")
    page.wait(f"{CAPTION} === 'Seed 2 in the style of seed 7'")
    np.testing.assert_array_equal(shown(page), gated.mix([2], [7], [8])[0, 0])
    choose(page, "run", 1)  # has no gates
    page.wait("document.getElementById('tab-mix').hidden && !document.getElementById('directions').hidden")


def test_a_dropped_picture_is_projected_and_can_be_chosen(
    page: Browser, gated: ImageGenerator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(explorer_module, "CANDIDATES", 8)
    monkeypatch.setattr("pipelines.explore.api.DEFAULT_STEPS", 3)
    content = base64.b64encode(to_png(gated([3])[0])).decode()
    page.run(f"""
      const bytes = Uint8Array.from(atob("{content}"), letter => letter.charCodeAt(0)), dropped = new DataTransfer();
      dropped.items.add(new File([bytes], "<b>mine</b>.png"));
      document.dispatchEvent(new DragEvent("drop", {{dataTransfer: dropped, cancelable: true}}));
    """)
    page.wait(f"{CAPTION} === '<b>mine</b>.png'")
    assert page.run(MESSAGE).startswith("Projected <b>mine</b>.png, PSNR")
    assert page.run("document.querySelector('#grid .tile').dataset.point").startswith("p")
    click(page, "#tab-mix")
    click(page, '#grid [data-point="p0"]')  # joins the contents
    page.wait("document.querySelectorAll('#mixes button img').length === 8")
    page.run("document.querySelectorAll('#mixes button')[3].click()")
    page.wait(f"{CAPTION} === '<b>mine</b>.png in the style of seed 3'")
    click(page, "#tab-directions")
    page.run(
        "document.dispatchEvent(new DragEvent('drop', {dataTransfer: (() => {"
        "const dropped = new DataTransfer(); dropped.items.add(new File(['x'], 'x.png')); return dropped; })()}))"
    )
    page.wait(f"{MESSAGE}.includes('not an image')")
    assert page.complaints  # the browser itself names the answer 400
    page.complaints.clear()


def test_the_page_fits_a_phone_and_follows_the_colours_of_the_system(page: Browser) -> None:
    page.resize(375, 812)
    for tool in ("directions", "walk", "mix"):
        click(page, f"#tab-{tool}")
        page.wait(f"!document.getElementById('{tool}').hidden")
        assert page.run("document.documentElement.scrollWidth - document.documentElement.clientWidth") == 0
    page.resize(1280, 900)
    colours = []
    for scheme in ("light", "dark"):
        page.prefer(scheme)
        colours.append(page.run("getComputedStyle(document.body).backgroundColor"))
    assert colours == ["rgb(255, 255, 255)", "rgb(20, 21, 23)"]


def test_a_server_that_does_not_answer_is_told(page: Browser) -> None:
    page.connect(False)
    click(page, '#grid [data-point="5"]')
    page.wait(f"{MESSAGE}.startsWith('The server does not answer')")
    page.connect(True)
    click(page, '#grid [data-point="6"]')
    page.wait(f"{CAPTION} === 'Seed 6' && {MESSAGE} === ''")
    assert page.complaints  # the browser itself names the refused connection
    page.complaints.clear()
