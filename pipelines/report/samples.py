"""What a run draws: its samples over time, what its autoencoder loses, its samples' nearest neighbours, its data."""

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from data.images import fit, image_grid, to_array, to_float, to_uint8
from data.sources.decoding import Unreadable
from pipelines.report.page import Frame, Triple, attempt, colour_name, film, folded, image, note, table, triples
from pipelines.report.pictures import embed, embed_array, embed_file
from pipelines.report.run_view import (
    Missing,
    RunView,
    flat,
    is_number,
    needing,
    reproducing_command,
    score_command,
    spread,
)
from pipelines.report.scores import outdated
from stage1_autoencoder.evaluate import psnr
from stage1_autoencoder.networks import Autoencoder

# Bytes before base64, which adds a third: all together stay below 13 MB, a page below 20 MB.
_HEADER_BYTES, _LAST_FRAME_BYTES, _EARLIER_FRAMES_BYTES = 500_000, 1_200_000, 3_000_000  # of all runs together
_TRIPLE_BYTES, _NEIGHBOURS_BYTES, _CONTACT_BYTES = 100_000, 1_500_000, 900_000
_FRAMES, _TRIPLES = 24, 15
_CONTACT_SIDE = 96
_SKIPPED_SHOWN = 10
_MEMORISED = (
    "{:.0%} of the samples are nearer to a training image than 5% of the training images are to each other; much more "
    "than 5% means that the generator repeats training images."
)


def latest(run: RunView, runs: int) -> str:
    """The newest readable sample grid; nothing without one."""
    for path in reversed(sample_paths(run)):
        try:
            picture = embed_file(path.read_bytes(), _HEADER_BYTES // runs)
        except Unreadable:
            continue
        return image(picture, f"{_what(run)} after {_label(path)}")
    return ""


def samples(runs: Sequence[RunView]) -> str:
    """A film of each run; raises `Missing` when there is none at all."""
    if not any(sample_paths(run) for run in runs):
        sentence = "There are no samples yet; training draws them at every snapshot. This command goes on with it:"
        raise Missing(sentence, reproducing_command(runs[0].config))
    films = [_film(run, len(runs)) for run in runs]
    if len(runs) == 1:
        return films[0]
    titled = [f"<div><h3>{colour_name(number, run.name)}</h3>{films[number]}</div>" for number, run in enumerate(runs)]
    return f'<div class="films">{"".join(titled)}</div>'


def sample_paths(run: RunView) -> list[Path]:
    return sorted((run.folder / "samples").glob("[!.]*.png"))


def _what(run: RunView) -> str:
    return "Generated samples" if run.is_generator else "Originals above their reconstructions"


def _label(path: Path) -> str:
    return f"{int(path.stem) / 1000:,.4g} thousand images" if path.stem.isdecimal() else path.stem


def _film(run: RunView, runs: int) -> str:
    paths = sample_paths(run)
    chosen = [paths[index] for index in spread(len(paths), _FRAMES)]
    frames, broken = [], []
    for path in chosen:
        budget = _LAST_FRAME_BYTES if path == paths[-1] else _EARLIER_FRAMES_BYTES // len(chosen)
        try:
            picture = embed_file(path.read_bytes(), budget // runs)
            frames.append(Frame(picture, f"{_what(run)} after {_label(path)}", _label(path)))
        except Unreadable as reason:
            broken.append(f"{path.name} is left out: {reason}.")
    told = "The same noise at every snapshot." if run.is_generator else "Originals above, reconstructions below."
    if len(frames) == 1:
        told += f" There is one snapshot so far; training adds one every {run.config.get('snapshot_kimg')} kimg."
    elif len(paths) > len(chosen):
        told += f" {len(chosen)} of {len(paths)} snapshots, evenly spread; large ones are shrunk."
    notes = note(f"{told} In full: {run.folder / 'samples'}") + (note(" ".join(broken)) if broken else "")
    return (film(frames) if frames else "") + notes


def reconstructions(run: RunView) -> str:
    """What the autoencoder alone loses; raises `Missing` without weights or the data."""
    autoencoder = run.autoencoder
    chosen = [run.originals[index] for index in spread(len(run.originals), _TRIPLES)]
    compared = [_Compared(autoencoder, name, original) for name, original in chosen]
    factor = _amplification([entry.difference for entry in compared])
    entries = [
        Triple(
            embed(entry.original, _TRIPLE_BYTES),
            embed_array(entry.decoded, _TRIPLE_BYTES),
            embed_array((entry.difference * factor).clip(0, 255).astype(np.uint8), _TRIPLE_BYTES),
            entry.psnr,
            entry.name,
        )
        for entry in compared
    ]
    told = (
        f"{len(entries)} pictures spread over {run.data_name}: original, encoded and decoded, and their difference "
        f"times {factor}. " + ("No generator of these latents can look better." if run.is_generator else "")
    )
    return triples(entries) + note(told)


class _Compared:
    """A picture, fitted, beside what the autoencoder makes of it."""

    @torch.inference_mode()
    def __init__(self, autoencoder: Autoencoder, name: str, original: Image.Image) -> None:
        original_u8 = to_array(original)  # (3, H, W)
        images = to_float(torch.from_numpy(original_u8)[None])
        decoded = autoencoder(images)
        self.name, self.original = name, original
        self.decoded: NDArray[np.uint8] = to_uint8(decoded)[0].numpy()
        self.difference = np.abs(self.decoded.astype(np.int64) - original_u8)
        self.psnr = psnr((decoded - images).square().mean().item())


def _amplification(differences: Sequence[NDArray[np.int64]]) -> int:
    """The largest power of two, of at most 32, that leaves 99 % of all differences below white."""
    bound = max(1.0, float(np.quantile(np.stack(differences), 0.99)))
    return max(factor for factor in (1, 2, 4, 8, 16, 32) if factor == 1 or factor * bound <= 255)


def neighbours(run: RunView) -> str:
    """The sheet that `codegan score` makes; raises `Missing` without it."""
    path = run.folder / "neighbours.png"
    command = shlex.join(score_command(run))
    if not path.is_file():
        sentence = "Nobody has looked yet whether samples repeat training images. This command does:"
        raise Missing(sentence, command)
    with needing("The sheet of neighbours cannot be read", "This command makes it again:", command):
        sheet = embed_file(path.read_bytes(), _NEIGHBOURS_BYTES)
    told = "Samples, those nearest to a training image first, beside the training images nearest to them."
    return image(sheet, told, ' class="sheet"') + note(told) + attempt(_distances, run)


def _distances(run: RunView) -> str:
    """How the samples' distances to the training images compare with these images' own."""
    found = run.side_file("neighbours.json", shlex.join(score_command(run)))
    near = found.get("closer_than_5_percent_of_real")
    told = note(_MEMORISED.format(near)) if is_number(near) else ""
    rows = [[name, _short(value)] for name, value in flat(found) if not isinstance(value, list)]
    details = folded("Distances", table(["", ""], rows, "text")) if rows else ""
    return outdated(run, found) + told + details


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def data(run: RunView) -> str:
    """A contact sheet of the images, the store they were encoded into, and what was left out; each may be missing."""
    return attempt(_contact_sheet, run) + attempt(_store if run.is_generator else _skipped_by_training, run)


def _contact_sheet(run: RunView) -> str:
    pictures = [to_array(fit(original, min(_CONTACT_SIDE, original.width))) for _, original in run.originals]
    sheet = embed_array(image_grid(pictures, columns=min(16, len(pictures))), _CONTACT_BYTES)
    told = f"{len(pictures)} pictures spread over {run.data_name}, cropped as training sees them"
    return image(sheet, told, ' class="wide"') + note(f"{told}.")


def _store(run: RunView) -> str:
    store = run.store
    shape, mirrored = " x ".join(map(str, store.code_shape)), ", mirrored ones among them" * store.seal["flip"]
    mirrored += ", each shown as it is or mirrored" * bool(run.config.get("mirror"))
    size = f"images of {store.image_size} x {store.image_size} pixels"
    told = (
        f"Store {store.path.name}: {len(store):,} latents of {shape}{mirrored}, {store.seal['dtype']}, of {size}."
    )
    return note(told) + _skipped_table(store.seal["skipped"])


def _skipped_by_training(run: RunView) -> str:
    path, again = run.folder / "skipped.jsonl", shlex.join(["codegan", "inspect", *run.data])
    with needing("The list of skipped files cannot be read", "This command makes one:", again):
        return _skipped_table([json.loads(line) for line in path.read_text().splitlines()])


def _skipped_table(skipped: Sequence[dict[str, str]]) -> str:
    if not skipped:
        return note("No file was skipped.")
    rows = [[entry["key"], entry["reason"]] for entry in skipped]
    return table([f"{len(rows)} files skipped", "reason"], rows, "text", limit=_SKIPPED_SHOWN)
