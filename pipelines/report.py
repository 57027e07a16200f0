"""`codegan report`: everything about a run on one HTML page that opens from the disk."""

import contextlib
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from data.checkpoints import load_weights
from data.console import finish
from data.decoding import Unreadable, decode, one_line
from data.errors import CodeganError, InputError
from data.images import fit, open_images, to_array, to_float, to_uint8
from data.sources import list_entries
from data.storage import write_bytes
from pipelines.charts import Line, line_chart
from pipelines.page import (
    command_block,
    facts,
    heading,
    image_uri,
    missing,
    page,
    paragraph,
    picture,
    picture_uri,
    player,
    section,
    table,
)
from pipelines.run_view import RunView, next_command, reproducing_command, score_command
from stage1_autoencoder.evaluate import psnr
from stage1_autoencoder.networks import Autoencoder

_FRAMES, _PAIRS = 24, 8
_LAST_FRAME_BYTES, _EARLIER_FRAMES_BYTES, _PAIR_BYTES = 1_200_000, 3_000_000, 110_000  # keeps a page below 10 MB
_UNBIASED_FROM = 2048

_CHARTS = {  # log key: title, unit
    "loss/l1": ("Reconstruction loss", "mean difference, images in [-1, 1]"),
    "loss/adversarial": ("Adversarial loss", "nats"),
    "loss/discriminator": ("Discriminator loss", "nats"),
    "loss/g": ("Generator loss", "critic output"),
    "loss/critic": ("Critic loss", "critic output"),
    "penalty/gp": ("Gradient penalty, unweighted", "mean (norm - 1)²"),
    "time/sec_per_kimg": ("Time", "seconds per thousand images"),
    "time/data_share": ("Waiting for data", "share of the time"),
}


@dataclass(frozen=True)
class ReportConfig:
    """Put a run on one HTML page: scores, samples, curves, reconstructions, configuration.

    Example: codegan report --run runs/photos
    """

    run: Path
    """Run folder of `codegan train` or `codegan train-ae`."""


def report(config: ReportConfig) -> None:
    """Write RUN/report.html; what the run does not have yet is named on it, with the command that makes it.

    Raises `InputError` for a folder that is not a run, `CorruptError` when one of its JSON files does not parse.
    """
    run = RunView.open(config.run)
    result = [_scores(run), _samples(run), _pairs(run)] if run.is_generator else [_table_of_sizes(run), _samples(run)]
    parts = [_header(run), *result, _curves(run), _configuration(run)]
    path = run.folder / "report.html"
    write_bytes(path, page(f"{run.folder.resolve().name} - codegan", parts))
    finish([path], next_command(run))


def _header(run: RunView) -> str:
    config, goal = run.config, 1000 * float(run.config.get("kimg", 0))
    done = run.nimg >= goal
    entries = [("Trained on", f"{run.nimg:,} images" if done else f"{run.nimg:,} of {goal:,.0f} images")]
    if run.metrics:
        entries.append(("Wall time", _duration(float(run.last.get("wall_sec", 0)))))
    entries += [(name, _number(entry["value"])) for name, entry in _score_entries(run).items()]
    entries += [(f"PSNR at {row['size']} px", f"{row['psnr']:.2f} dB") for row in _reconstructions(run)[:1]]
    if run.data:
        entries.append(("Data", _data(run)))
    command = reproducing_command(config)
    if done:
        how = f"<details><summary>Command that reproduces this run</summary>{command_block(command)}</details>"
    else:
        how = missing("Training is not complete. This command goes on with it:", command)
    versions = " · ".join(f"{name} {version}" for name, version in config.get("versions", {}).items())
    title = heading(run.folder.resolve().name)
    parts = [title, paragraph(_subtitle(run), "soft"), facts(entries), how, _note(versions)]
    return f'<header id="header">{"".join(parts)}</header>'


def _subtitle(run: RunView) -> str:
    if run.is_generator:
        size = run.weights.get("image_size")
        return f"Generator, variant {run.config.get('variant')}" + (f", {size} x {size} pixels" if size else "")
    return f"Autoencoder, factor {run.config.get('factor')}, {run.config.get('code_channels')} code channels"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"
    return f"{minutes // 60} h {minutes % 60} min"


def _number(value: Any) -> str:
    return "-" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def _note(text: str) -> str:
    return paragraph(text, "note")


def _score_entries(run: RunView) -> dict[str, dict[str, Any]]:
    scores = run.optional_json("scores.json") if run.is_generator else None
    return {name: entry for name, entry in (scores or {}).items() if isinstance(entry, dict) and "value" in entry}


def _scores(run: RunView) -> str:
    entries, command = _score_entries(run), shlex.join(score_command(run))
    if not entries:
        return section("scores", "Scores", missing("There are no scores yet. This command measures them:", command))
    scores = run.optional_json("scores.json")
    columns = ("value", "autoencoder_floor", "real_floor", "num_generated", "num_real", "num_half")
    head = ["", "distance", "autoencoder floor", "real floor", "generated", "real", "half of real"]
    rows = [[name, *(_number(entry.get(column)) for column in columns)] for name, entry in entries.items()]
    count = min(min(entry.get("num_generated", 0), entry.get("num_real", 0)) for entry in entries.values())
    bias = f" Below {_UNBIASED_FROM:,} images a Frechet distance (fid, fd) is biased upward, and so are its floors."
    explained = (
        "Lower is better. Autoencoder floor: real images, encoded and decoded, against real images; a generator of "
        "latents hardly gets below it. Real floor: one random half of the real images against the other."
    )
    source = f"Features: {scores.get('features')}. Reference: {scores.get('reference')}."
    note = paragraph(explained + (bias if count < _UNBIASED_FROM else ""), "note")
    return section("scores", "Scores", table(head, rows), note, _note(source))


def _reconstructions(run: RunView) -> list[dict[str, Any]]:
    stored = None if run.is_generator else run.optional_json("reconstructions.json")
    return stored["rows"] if stored else []


def _table_of_sizes(run: RunView) -> str:
    """An autoencoder's measured reconstructions; its sample grids show them."""
    rows, title = _reconstructions(run), "Reconstruction of held-out images"
    if not rows:
        sentence = "They are measured when training ends. This command goes on with it:"
        return section("reconstructions", title, missing(sentence, reproducing_command(run.config)))
    head = ["pixels a side", "PSNR, dB", "mean squared error, images in [-1, 1]", "images"]
    cells = [[str(row["size"]), f"{row['psnr']:.2f}", f"{row['mse']:.3e}", str(row["count"])] for row in rows]
    return section("reconstructions", title, table(head, cells), _note("Higher PSNR is better."))


def _samples(run: RunView) -> str:
    title = "Samples over training" if run.is_generator else "Reconstructions over training"
    paths = sorted((run.folder / "samples").glob("[!.]*.png"))
    chosen = [paths[i] for i in np.unique(np.linspace(0, len(paths) - 1, _FRAMES).round().astype(int))] if paths else []
    frames, broken = [], []
    for path in chosen:
        budget = _LAST_FRAME_BYTES if path == paths[-1] else _EARLIER_FRAMES_BYTES // len(chosen)
        label = f"{int(path.stem) / 1000:,.4g} thousand images" if path.stem.isdecimal() else path.stem
        what = "Generated samples" if run.is_generator else "Originals above their reconstructions"
        try:
            frames.append((picture_uri(path.read_bytes(), budget), f"{what} after {label}", label))
        except Unreadable as reason:
            broken.append(f"{path.name} is left out: {reason}.")
    damage = [_note(" ".join(broken))] if broken else []
    if not frames:
        sentence = "There are no samples yet; training draws them at every snapshot. This command goes on with it:"
        return section("samples", title, missing(sentence, reproducing_command(run.config)), *damage)
    shown = "The same noise at every snapshot." if run.is_generator else "Originals above, reconstructions below."
    if len(frames) == 1:
        shown += f" There is one snapshot so far; training adds one every {run.config.get('snapshot_kimg')} kimg."
    elif len(paths) > len(chosen):
        shown += f" {len(chosen)} of {len(paths)} snapshots, evenly spread; large ones are shrunk."
    return section("samples", title, player(frames), _note(f"{shown} In full: {run.folder / 'samples'}"), *damage)


def _pairs(run: RunView) -> str:
    """What the autoencoder alone loses: the first pictures of the generator's data beside their reconstructions."""
    title, folder = "Reconstructions", str(run.folder)
    if not run.weights:
        sentence = "There are no weights yet; training writes them at every snapshot. This command goes on with it:"
        return section("reconstructions", title, missing(sentence, reproducing_command(run.config)))
    try:
        weights = load_weights(run.folder / "weights")
        autoencoder = Autoencoder.from_weights(weights.tensors["autoencoder"], weights.state["autoencoder"], run.folder)
    except Exception as error:  # damage, or networks of another version: the rest of the page is still worth having
        sentence = f"The run's autoencoder cannot be loaded ({_reason(error)}). This command looks for damage:"
        return section("reconstructions", title, missing(sentence, shlex.join(["codegan", "check", folder])))
    try:
        originals = _first_pictures(run.data, int(run.weights["image_size"]))
    except Exception as error:  # the data is no part of the run: whatever has become of it, there is a page
        sentence = (
            f"The data set {', '.join(run.data)} can no longer be opened ({_reason(error)}). Run this where it can:"
        )
        return section("reconstructions", title, missing(sentence, shlex.join(["codegan", "report", "--run", folder])))
    figures = "".join(_pair(autoencoder, number, original) for number, original in enumerate(originals))
    note = f"Above: the first pictures of {_data(run)}. Below: encoded and decoded, the best the generator can look."
    return section("reconstructions", title, f'<div class="pairs">{figures}</div>', _note(note))


def _reason(error: Exception) -> str:
    return error.what if isinstance(error, CodeganError) else one_line(error)


def _data(run: RunView) -> str:
    return ", ".join(run.data)


def _first_pictures(names: list[str], size: int) -> list[Image.Image]:
    """Up to 8, fitted. Only they are decoded: opening a set as training does reads all of it."""
    if names[0].startswith("scenes:"):
        scenes = open_images(names, size=size)
        return [fit(scenes.pil(index), size) for index in range(min(_PAIRS, len(scenes)))]
    pictures: list[Image.Image] = []
    for entry in list_entries(names).entries:
        with contextlib.suppress(Unreadable):
            pictures.append(fit(decode(entry.read())[0], size))
        if len(pictures) == _PAIRS:
            break
    if not pictures:
        raise InputError("it holds no pictures", "give it its pictures back")
    return pictures


@torch.inference_mode()
def _pair(autoencoder: Autoencoder, number: int, original: Image.Image) -> str:
    images = to_float(torch.from_numpy(to_array(original))[None])
    decoded = autoencoder(images)
    quality = f"{psnr((decoded - images).square().mean().item()):.1f} dB"
    reconstruction = Image.fromarray(to_uint8(decoded)[0].permute(1, 2, 0).contiguous().numpy())
    above = picture(image_uri(original, _PAIR_BYTES), f"Original {number + 1}")
    below = picture(image_uri(reconstruction, _PAIR_BYTES), f"Reconstruction of original {number + 1}, {quality}")
    return f"<figure>{above}{below}<figcaption>PSNR {quality}</figcaption></figure>"


def _curves(run: RunView) -> str:
    if not run.metrics:
        sentence = "Nothing has been logged yet. This command trains:"
        return section("curves", "Curves", missing(sentence, reproducing_command(run.config)))
    keys = sorted({key for row in run.metrics for key in row if "/" in key}, key=lambda key: (_order(key), key))
    together = [key for key in keys if key.startswith("score/")]
    charts = [_chart(run, "Critic scores", "critic output", together)] if together else []
    charts += [_chart(run, *_CHARTS.get(key, (key, "")), [key]) for key in keys if key not in together]
    return section("curves", "Curves", f'<div class="charts">{"".join(charts)}</div>')


def _order(key: str) -> int:
    """Losses, then whatever else a variant logs, then times."""
    return {"loss": 0, "time": 2}.get(key.partition("/")[0], 1)


def _chart(run: RunView, title: str, unit: str, keys: list[str]) -> str:
    lines = [
        Line(
            key.partition("/")[2] if len(keys) > 1 else "last",
            [(row["nimg"] / 1000, float(row[key])) for row in run.metrics if key in row],
        )
        for key in sorted(keys, key=lambda key: key != "score/real")
    ]
    return line_chart(title, unit, lines, "thousand images")


def _configuration(run: RunView) -> str:
    rows = [[name, value] for name, value in _flat(run.config)]
    return section("configuration", "Configuration", table(["field", "value"], rows, "text"))


def _flat(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in config.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", " ".join(map(str, value)) if isinstance(value, list) else str(value)
