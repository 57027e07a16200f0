"""One HTML file that needs nothing else: its style, its script and its tables. Every function escapes its text."""

import base64
import hashlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import NamedTuple

from pipelines.report.pictures import Embedded
from pipelines.report.run_view import Missing

_STYLE, _SCRIPT = (Path(__file__).with_name(name).read_text() for name in ("page.css", "page.js"))

# The policy forbids every request, and all styles and scripts but the page's own two.
_PAGE = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src '$style_hash'; script-src '$script_hash'">
<meta name="color-scheme" content="light dark">
<title>$title</title>
<style>$style</style>
</head>
<body>
$body
<script>$script</script>
</body>
</html>
""")


class Fact(NamedTuple):
    name: str
    value: str
    more: str = ""


class Frame(NamedTuple):
    picture: Embedded
    alt: str
    label: str


def page(title: str, parts: Iterable[str]) -> bytes:
    return _PAGE.substitute(
        title=escape(title),
        body="\n".join(parts),
        style=_STYLE,
        style_hash=_hash(_STYLE),
        script=_SCRIPT,
        script_hash=_hash(_SCRIPT),
    ).encode()


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def contents(titles: Mapping[str, str]) -> str:
    """Links to the sections, by their names."""
    links = "".join(f'<a href="#{name}">{escape(title)}</a>' for name, title in titles.items())
    return f'<nav aria-label="Sections">{links}</nav>'


def heading(text: str, colour: int | None = None) -> str:
    return f"<h1>{escape(text) if colour is None else colour_name(colour, text)}</h1>"


def section(name: str, title: str, body: str) -> str:
    return f'<section id="{name}"><h2>{escape(title)}</h2>{body}</section>'


def paragraph(text: str, kind: str = "") -> str:
    return f'<p class="{kind}">{escape(text)}</p>' if kind else f"<p>{escape(text)}</p>"


def note(text: str) -> str:
    return paragraph(text, "note")


def command_block(command: str) -> str:
    return f'<pre tabindex="0"><code>{escape(command)}</code></pre>'


def missing(sentence: str, command: str) -> str:
    """What is not there, and the command that makes it."""
    return paragraph(sentence, "missing") + command_block(command)


def attempt[About](make: Callable[[About], str], about: About) -> str:
    """Part of a page, or what it lacks."""
    try:
        return make(about)
    except Missing as lack:
        return missing(lack.sentence, lack.command)


def folded(summary: str, body: str) -> str:
    return f"<details><summary>{escape(summary)}</summary>{body}</details>"


def colour_name(index: int, name: str) -> str:
    """A name beside the colour of its lines."""
    return f'<span class="swatch line-{index}"><b>{escape(name)}</b></span>'


def facts(entries: Iterable[Fact]) -> str:
    def item(fact: Fact) -> str:
        more = f'<dd class="more">{escape(fact.more)}</dd>' if fact.more else ""
        return f"<div><dt>{escape(fact.name)}</dt><dd>{escape(fact.value)}</dd>{more}</div>"

    return f'<dl class="facts">{"".join(map(item, entries))}</dl>'


def table(
    head: Sequence[str], rows: Iterable[Sequence[str]], kind: str = "", marked: Iterable[int] = (), limit: int = 0
) -> str:
    """The first column names the row. The rows numbered in `marked` stand out; `limit` folds all after so many away."""
    stand_out = set(marked)
    columns = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    lines = []
    for number, (first, *rest) in enumerate(rows):
        cells = f'<th scope="row">{escape(first)}</th>' + "".join(f"<td>{escape(cell)}</td>" for cell in rest)
        lines.append(f"<tr{' class="differs"' if number in stand_out else ''}>{cells}</tr>")

    def rendered(lines: Sequence[str]) -> str:
        inside = f"<thead><tr>{columns}</tr></thead><tbody>{''.join(lines)}</tbody>"
        return f'<div class="scroll"><table class="{kind}">{inside}</table></div>'

    if not limit or len(lines) <= limit:
        return rendered(lines)
    return rendered(lines[:limit]) + folded(f"{len(lines) - limit} more", rendered(lines[limit:]))


def image(picture: Embedded, alt: str, extra: str = "") -> str:
    """`extra` are further attributes, escaped already."""
    size = f'width="{picture.width}" height="{picture.height}"'
    return f'<img src="{picture.uri}" alt="{escape(alt)}" {size}{extra}>'


def film(frames: Sequence[Frame]) -> str:
    """Pictures over time: the last one, and a slider and a button for the others."""
    last = len(frames) - 1
    images = "".join(
        image(frame.picture, frame.alt, f' data-label="{escape(frame.label)}"{"" if index == last else " hidden"}')
        for index, frame in enumerate(frames)
    )
    if not last:
        return f'<figure class="film">{images}<figcaption>{escape(frames[0].label)}</figcaption></figure>'
    controls = (
        '<div class="controls" hidden><button type="button">Play</button>'
        f'<input type="range" min="0" max="{last}" value="{last}" autocomplete="off" aria-label="Progress of training">'
        f"<output>{escape(frames[-1].label)}</output></div>"
    )
    return f'<figure class="film">{controls}{images}</figure>'


class Triple(NamedTuple):
    original: Embedded
    decoded: Embedded
    difference: Embedded
    psnr: float  # dB
    name: str


def triples(entries: Sequence[Triple]) -> str:
    """Originals, decoded ones and differences side by side, the worst first, and a way to turn the order round."""
    controls = (
        '<div class="controls" hidden><label>Order <select autocomplete="off">'
        '<option value="worst">worst first</option><option value="best">best first</option></select></label></div>'
    )
    figures = "".join(_triple(entry) for entry in sorted(entries, key=lambda entry: entry.psnr))
    return f'<div class="sorted">{controls}<div class="triples">{figures}</div></div>'


def _triple(entry: Triple) -> str:
    exact = math.isinf(entry.psnr)  # of a run on pixels
    quality = "∞ dB" if exact else f"{entry.psnr:.1f} dB"
    images = (
        image(entry.original, f"{entry.name}, original"),
        image(entry.decoded, f"{entry.name}, encoded and decoded, {quality}"),
        image(entry.difference, f"{entry.name}, difference"),
    )
    caption = f"<figcaption><span>{escape(entry.name)}</span><b>PSNR {quality}</b></figcaption>"
    number = "Infinity" if exact else f"{entry.psnr:.4f}"  # as scripts spell it
    return f'<figure data-psnr="{number}"><div>{"".join(images)}</div>{caption}</figure>'
