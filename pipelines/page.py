"""One HTML file that needs nothing else: template, tables, pictures as data URIs. Every function escapes its text."""

import base64
import io
from collections.abc import Iterable, Sequence
from html import escape
from string import Template

from PIL import Image

from data.decoding import decode

# The policy forbids every request, so the page can neither load nor send anything.
_PAGE = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<meta name="color-scheme" content="light dark">
<title>$title</title>
<style>
:root { color-scheme: light dark; --page: #fff; --ink: #1c1e21; --soft: #646a73; --rule: #e3e5e8; --panel: #f6f7f8;
  --line-0: #0b62b8; --line-1: #c2570c; --line-2: #14805e; --line-3: #8c4aa8; }
@media (prefers-color-scheme: dark) {
  :root { --page: #141517; --ink: #e7e8ea; --soft: #9aa0a8; --rule: #2e3135; --panel: #1d1f22;
    --line-0: #6cb2f2; --line-1: #f0a062; --line-2: #5fc9a5; --line-3: #c99be0; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 3rem 1.5rem 5rem; max-width: 62rem; background: var(--page); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
h1 { font-size: 2rem; line-height: 1.2; letter-spacing: -0.02em; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; letter-spacing: -0.01em; margin: 0 0 0.75rem; }
section { margin-top: 3rem; }
p { margin: 0.5rem 0; max-width: 46rem; }
.soft, .note, figcaption span { color: var(--soft); }
.note, figcaption { font-size: 0.85rem; }
dl.facts { display: flex; flex-wrap: wrap; gap: 1rem 2.5rem; margin: 1.5rem 0; }
dl.facts dt { font-size: 0.8rem; color: var(--soft); }
dl.facts dd { margin: 0; font-size: 1.35rem; font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
pre { margin: 0.75rem 0; padding: 0.75rem 1rem; background: var(--panel); border-radius: 6px; white-space: pre-wrap;
  overflow-wrap: anywhere; font: 0.82rem/1.5 ui-monospace, "SF Mono", Menlo, Consolas, monospace; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: 0.4rem 1.5rem 0.4rem 0; text-align: right; border-bottom: 1px solid var(--rule); }
th:last-child, td:last-child { padding-right: 0; }
thead th { font-size: 0.8rem; font-weight: 400; color: var(--soft); }
tbody th { text-align: left; font-weight: 500; }
td:first-of-type { font-weight: 600; }
table.text { font-size: 0.85rem; }
table.text td, table.text th { text-align: left; vertical-align: top; font-weight: 400; overflow-wrap: anywhere; }
figure { margin: 0; }
img { display: block; max-width: 100%; border-radius: 4px; }
img[hidden] { display: none; }
.player img { width: 100%; max-height: min(85vh, 46rem); object-fit: contain; object-position: left; }
.player .controls { display: flex; align-items: center; gap: 1rem; margin-bottom: 0.75rem; }
.player .controls[hidden] { display: none; }
.player input { flex: 1; max-width: 24rem; accent-color: var(--line-0); }
.player output { font-size: 0.85rem; color: var(--soft); font-variant-numeric: tabular-nums; }
button { font: inherit; font-size: 0.85rem; width: 4.5rem; padding: 0.25rem 0; color: inherit;
  background: var(--panel); border: 1px solid var(--rule); border-radius: 6px; cursor: pointer; }
:focus-visible { outline: 2px solid var(--line-0); outline-offset: 2px; }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(24rem, 100%), 1fr)); gap: 2rem; }
.pairs { display: grid; grid-template-columns: repeat(auto-fill, minmax(12rem, 1fr)); gap: 1.25rem 1rem; }
.pairs img { width: 100%; }
.pairs img + img { margin-top: 2px; }
.pairs figcaption { margin-top: 0.3rem; font-variant-numeric: tabular-nums; }
.chart figcaption { display: flex; justify-content: space-between; gap: 1rem; margin-bottom: 0.4rem; }
.chart svg { display: block; width: 100%; }
.chart text { font-size: 11px; fill: var(--soft); font-variant-numeric: tabular-nums; }
.chart .end { text-anchor: end; } .chart .middle { text-anchor: middle; }
.chart .grid { stroke: var(--rule); } .chart .axis { stroke: var(--soft); }
.chart polyline { fill: none; stroke: currentColor; stroke-width: 1.75; stroke-linejoin: round; }
.chart circle { fill: currentColor; }
.chart .pale { opacity: 0.3; stroke-width: 1; }
.chart .line-0 { color: var(--line-0); } .chart .line-1 { color: var(--line-1); }
.chart .line-2 { color: var(--line-2); } .chart .line-3 { color: var(--line-3); }
.chart .line-1:not(.pale) { stroke-dasharray: 6 3; }
.chart .key { margin-left: 0.75rem; white-space: nowrap; }
.chart .key::before { content: ""; display: inline-block; width: 1.25rem; margin-right: 0.35rem; vertical-align: middle;
  border-top: 2px solid currentColor; }
.chart .key.line-1::before { border-top-style: dashed; }
summary { cursor: pointer; }
</style>
</head>
<body>
$body
<script>
for (const player of document.querySelectorAll(".player")) {
  const frames = [...player.querySelectorAll("img")], controls = player.querySelector(".controls");
  if (!controls) continue;
  const [button, slider, label] = ["button", "input", "output"].map(name => controls.querySelector(name));
  const last = frames.length - 1;
  let timer = 0;
  const show = index => {
    frames.forEach((frame, number) => { frame.hidden = number !== index; });
    slider.value = index;
    label.textContent = frames[index].dataset.label;
    slider.setAttribute("aria-valuetext", label.textContent);
  };
  const stop = () => { clearInterval(timer); timer = 0; button.textContent = "Play"; };
  const next = () => { if (+slider.value >= last) stop(); else show(+slider.value + 1); };
  slider.oninput = () => { stop(); show(+slider.value); };
  button.onclick = () => {
    if (timer) return stop();
    show(+slider.value >= last ? 0 : +slider.value);
    timer = setInterval(next, 500);
    button.textContent = "Pause";
  };
  controls.hidden = false;
  show(last);
}
</script>
</body>
</html>
""")

_JPEG_STEPS = ((4096, 95), (2048, 90), (1024, 90), (768, 90), (512, 88), (384, 85), (256, 80))  # longer side, quality


def page(title: str, parts: Iterable[str]) -> bytes:
    return _PAGE.substitute(title=escape(title), body="\n".join(parts)).encode()


def heading(text: str) -> str:
    return f"<h1>{escape(text)}</h1>"


def section(name: str, title: str, *parts: str) -> str:
    return f'<section id="{name}"><h2>{escape(title)}</h2>{"".join(parts)}</section>'


def paragraph(text: str, kind: str = "") -> str:
    return f'<p class="{kind}">{escape(text)}</p>' if kind else f"<p>{escape(text)}</p>"


def command_block(command: str) -> str:
    return f'<pre tabindex="0"><code>{escape(command)}</code></pre>'


def missing(sentence: str, command: str) -> str:
    """What is not there, and the command that makes it."""
    return paragraph(sentence, "missing") + command_block(command)


def facts(entries: Iterable[tuple[str, str]]) -> str:
    return (
        '<dl class="facts">'
        + "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in entries)
        + "</dl>"
    )


def table(head: Sequence[str], rows: Iterable[Sequence[str]], kind: str = "") -> str:
    """The first column names the row."""
    columns = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    lines = "".join(
        f'<tr><th scope="row">{escape(first)}</th>{"".join(f"<td>{escape(cell)}</td>" for cell in rest)}</tr>'
        for first, *rest in rows
    )
    inside = f"<thead><tr>{columns}</tr></thead><tbody>{lines}</tbody>"
    return f'<div class="scroll"><table class="{kind}">{inside}</table></div>'


def picture(uri: str, alt: str, extra: str = "") -> str:
    """`extra` are further attributes, escaped already."""
    return f'<img src="{uri}" alt="{escape(alt)}"{extra}>'


def player(frames: Sequence[tuple[str, str, str]]) -> str:
    """Pictures over time, each (data URI, alt text, label): the last one, and a slider and a button for the others."""
    last = len(frames) - 1
    images = "".join(
        picture(uri, alt, f' data-label="{escape(label)}"{"" if index == last else " hidden"}')
        for index, (uri, alt, label) in enumerate(frames)
    )
    if not last:
        return f'<figure class="player">{images}<figcaption>{escape(frames[0][2])}</figcaption></figure>'
    controls = (
        '<div class="controls" hidden><button type="button">Play</button>'
        f'<input type="range" min="0" max="{last}" value="{last}" autocomplete="off" aria-label="Progress of training">'
        f"<output>{escape(frames[-1][2])}</output></div>"
    )
    return f'<figure class="player">{controls}{images}</figure>'


def picture_uri(content: bytes, budget: int) -> str:
    """A picture file as a data URI of at most about `budget` bytes before base64: as it is, or else as a JPEG, smaller
    and smaller. Raises `data.decoding.Unreadable` for anything else than a picture.
    """
    image, _ = decode(content)
    if len(content) <= budget and content.startswith(b"\x89PNG"):
        return _uri("png", content)
    shrunk = b""
    for side, quality in _JPEG_STEPS:
        image.thumbnail((side, side))
        file = io.BytesIO()
        image.save(file, "JPEG", quality=quality)
        shrunk = file.getvalue()
        if len(shrunk) <= budget:
            break
    return _uri("jpeg", shrunk)


def image_uri(image: Image.Image, budget: int) -> str:
    file = io.BytesIO()
    image.save(file, "PNG")
    return picture_uri(file.getvalue(), budget)


def _uri(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
