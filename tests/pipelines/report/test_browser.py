"""A real browser finds every section of a report, its controls work, and it asks for nothing and complains of nothing.

The page is driven by a script put into a copy of it, which writes what it saw into the page that the browser dumps.
"""

import base64
import hashlib
import json
import re
import shutil
import subprocess
from collections.abc import Sequence
from html import unescape
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from pipelines.configs import ReportConfig
from pipelines.report.report import report
from tests.report_pages import train_autoencoder_run

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium (apt-get install chromium)")

SECTIONS = [
    *("scores", "samples", "curves", "reconstructions", "latents"),
    *("interpolation", "neighbours", "data", "configuration"),
]

WATCH = """
const complaints = [];
addEventListener("error", event => complaints.push(`error: ${event.message}`), true);
addEventListener("unhandledrejection", event => complaints.push(`rejection: ${event.reason}`));
addEventListener("securitypolicyviolation", event => complaints.push(`policy: ${event.violatedDirective}`));
for (const kind of ["error", "warn"]) console[kind] = (...words) => complaints.push(`${kind}: ${words.join(" ")}`);
"""
DRIVE = """
addEventListener("load", async () => {
  const film = document.querySelector(".film"), slider = film.querySelector("input");
  const button = film.querySelector("button"), select = document.querySelector(".sorted select");
  const shown = () => [...film.querySelectorAll("img")].findIndex(frame => !frame.hidden);
  const order = () => [...document.querySelectorAll(".triples figure")].map(figure => +figure.dataset.psnr);
  const wait = time => new Promise(done => setTimeout(done, time));
  const slide = place => { slider.value = place; slider.dispatchEvent(new Event("input")); return shown(); };
  const choose = value => { select.value = value; select.dispatchEvent(new Event("change")); return order(); };
  const found = {
    sections: [...document.querySelectorAll("section")].map(section => section.id),
    hidden: [...document.querySelectorAll("section, h2, .controls")].filter(part => !part.checkVisibility()).length,
    broken: [...document.images].filter(image => !image.complete || !image.naturalWidth).length,
    overflow: document.documentElement.scrollWidth - document.documentElement.clientWidth,
    bands: [...document.querySelectorAll(".mark .hover")].map(line => getComputedStyle(line).stroke),
    films: document.querySelectorAll(".film").length,
    frames: film.querySelectorAll("img").length,
    first: shown(),
    slid: [0, 1].map(slide),
    label: film.querySelector("output").textContent,
    worst: choose("worst"),
    best: choose("best"),
  };
  slide(0);
  button.click();
  found.playing = button.textContent;
  await wait(5000);
  found.played = [shown(), button.textContent];
  slide(0);
  slider.dispatchEvent(new KeyboardEvent("keydown", {key: " ", cancelable: true}));
  found.space = button.textContent;
  slider.dispatchEvent(new KeyboardEvent("keydown", {key: " ", cancelable: true}));
  found.stopped = button.textContent;
  const focusable = "a[href], button, input, select, summary, [tabindex]";
  found.unfocusable = [...document.querySelectorAll(focusable)].filter(part => {
    part.focus();
    return part.checkVisibility() && document.activeElement !== part;
  }).length;
  found.page = getComputedStyle(document.body).backgroundColor;
  found.requests = performance.getEntriesByType("resource").map(entry => entry.name);
  found.complaints = complaints;
  const result = document.createElement("pre");
  result.id = "found";
  result.textContent = JSON.stringify(found);
  document.body.append(result);
});
"""


def allow(html: str, script: str) -> str:
    """The page with a script of ours at its start, and a policy that lets it run."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    html = html.replace("script-src '", f"script-src 'sha256-{digest}' '", 1)
    return html.replace("<title>", f"<script>{script}</script><title>", 1)


def browse(page: Path, folder: Path, *flags: str) -> tuple[str, str]:
    """What the page is after its scripts ran, and what the browser said meanwhile."""
    assert CHROMIUM
    fixed = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-background-networking",
        "--enable-logging=stderr",
    ]
    # no name resolves, so that a request would be an error that shows
    fixed += [
        f"--user-data-dir={folder / 'profile'}",
        "--host-resolver-rules=MAP * ~NOTFOUND",
        "--window-size=1280,900",
    ]
    command = [CHROMIUM, *fixed, *flags, "--virtual-time-budget=20000", "--dump-dom", page.resolve().as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    return done.stdout, done.stderr


def drive(runs: Sequence[Path], folder: Path, *flags: str) -> dict[str, Any]:
    """What the script found on the page of the runs."""
    described = json.loads((runs[0] / "weights" / "config.json").read_text())
    data = tuple(described.get("data") or json.loads((runs[0] / "config.json").read_text())["data"])
    report(ReportConfig(run=tuple(runs), data=data, store=described.get("store")))
    copy = folder / "page.html"
    copy.write_text(allow((runs[0] / "report.html").read_text(), WATCH + DRIVE))
    dom, said = browse(copy, folder, *flags)
    assert "CONSOLE" not in said
    found = re.search(r'<pre id="found">(.*?)</pre>', dom, re.DOTALL)
    assert found, said[-2000:]
    values: dict[str, Any] = json.loads(unescape(found[1]))
    return values


def assert_clean(found: dict[str, Any], sections: Sequence[str]) -> None:
    """All sections and pictures show, nothing sticks out, nothing was requested, and nobody complained."""
    assert found["complaints"] == []
    assert [request for request in found["requests"] if not request.startswith("data:")] == []
    assert found["sections"] == sections
    assert (found["hidden"], found["broken"], found["overflow"], found["unfocusable"]) == (0, 0, 0, 0)


def test_in_a_browser_every_section_shows_the_controls_work_and_nothing_is_requested(
    trained_run: Path, tmp_path: Path
) -> None:
    found = drive([trained_run], tmp_path)
    assert_clean(found, SECTIONS)
    assert set(found["bands"]) == {"rgba(0, 0, 0, 0)"}  # for the pointer to find, not for the eye
    last = found["frames"] - 1
    assert last >= 1
    assert (found["first"], found["slid"]) == (last, [0, 1])
    assert found["label"].endswith("thousand images")
    assert (found["playing"], found["played"]) == ("Pause", [last, "Play"])
    assert (found["space"], found["stopped"]) == ("Pause", "Play")
    assert len(set(found["worst"])) == 6
    assert all(one < other for one, other in pairwise(found["worst"]))
    assert found["best"] == found["worst"][::-1]


def test_in_a_browser_an_autoencoder_shows_every_section(tmp_path: Path) -> None:
    found = drive([train_autoencoder_run(tmp_path)], tmp_path)
    assert_clean(found, ["scores", "samples", "curves", "reconstructions", "data", "configuration"])
    assert found["frames"] == 2
    assert found["worst"] == sorted(found["worst"])


def test_two_runs_follow_the_browser_into_the_dark_and_fit_a_telephone(trained_run: Path, tmp_path: Path) -> None:
    first = shutil.copytree(trained_run, tmp_path / "first")
    dark = "--blink-settings=preferredColorScheme=0"
    found = drive([first, trained_run], tmp_path, dark, "--window-size=500,900")
    assert_clean(found, SECTIONS)
    assert found["films"] == 2
    assert max(map(int, re.findall(r"\d+", found["page"]))) < 64
