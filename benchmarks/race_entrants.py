"""Who races, with which settings, and how the time of each is taken: a part of `benchmarks.race`.

The clock of an entrant runs from nothing: loading torch, reading the pictures, encoding them, training, and what a stop
saves. It rests while samples are drawn, and while a stopped `codegan train` starts again: those are the race's own.
"""

import json
import math
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from benchmarks.race_rivals import NARROWER, PACKAGES, SAMPLES, SEED
from data.errors import Preempted
from data.files.runs import read_metrics
from data.images import open_images, save_png

LOOKS = 4  # at samples during a race
_ENDLESS_KIMG = 100_000
_POLL_SECONDS = 0.1


class Ours(NamedTuple):
    """A run of `codegan`: a variant with its own settings but for these."""

    variant: str
    flags: str
    narrower: Mapping[int, str]  # side of the pictures -> where the published width would see too few samples
    encoding: str = ""


PIXELS = "--autoencoder pixels"
_HALF = "--model.width 128"
# Two cores' worth of fp32 convolutions make 2,000 samples or more of these in 20 minutes on one thread.
OURS: dict[str, Ours] = {
    "projected": Ours("projected", "--batch-size 16", {}),
    "sle": Ours("sle", "--batch-size 16 --model.width 32", {}),
    "r3": Ours("r3", "--batch-size 16", {128: _HALF}),
    "accel": Ours("accel", "--batch-size 16", {128: _HALF}),
    "sle-pixels": Ours(  # the public FastGAN's networks and its augmentation
        "sle",
        "--batch-size 16 --model.augment color,translation --model.activation swish",
        {64: "--model.width 32", 128: "--model.width 32"},
        PIXELS,
    ),
}
ENTRANTS = (*OURS, *PACKAGES)


class Pictures(NamedTuple):
    data: str  # as `codegan` takes it
    size: int  # pixels a side


class Look(NamedTuple):
    number: int
    seconds: float  # of the race, when these samples were drawn
    nimg: int  # samples that the generator had been shown

    def samples(self, folder: Path) -> Path:
        return folder / "samples" / str(self.number)


class Terms(NamedTuple):
    """What must be the same for every entrant of a table."""

    pictures: Pictures
    minutes: float
    threads: int

    @property
    def moments(self) -> list[float]:
        return [60 * self.minutes * part / LOOKS for part in range(1, LOOKS + 1)]

    @property
    def environment(self) -> dict[str, str]:
        threads = str(self.threads)
        return {**os.environ, "OMP_NUM_THREADS": threads, "CODEGAN_THREADS": threads}


def missing(entrant: str) -> str | None:
    """What has to be installed first, if anything has."""
    package = PACKAGES.get(entrant)
    if package is None or find_spec(package):
        return None
    if package == "torch_mimicry":  # its requirements include TensorFlow, for scores that nobody asks it for
        return f"{entrant}: is not installed; run uv pip install --no-deps torch-mimicry"
    return f"{entrant}: is not installed; run uv pip install {entrant}"


def settings(entrant: str, size: int) -> str:
    """A cell of the table of settings."""
    if entrant in PACKAGES:
        return ", ".join(f"{name} {value}" for name, value in NARROWER[entrant][size].items())
    ours = OURS[entrant]
    return " ".join(filter(None, [ours.encoding, f"train {ours.variant}", ours.flags, ours.narrower.get(size)]))


def race(entrant: str, terms: Terms, folder: Path) -> list[Look]:
    """Race it once, however often this is asked; its looks, at least one.

    Ends the program where the folder is of another race, or where the entrant failed or drew nothing in its time.
    """
    record = folder / "race.json"
    described = {
        "minutes": terms.minutes,
        "threads": terms.threads,
        **terms.pictures._asdict(),
        "settings": settings(entrant, terms.pictures.size),
    }
    if record.exists():
        known = json.loads(record.read_text())
        if {name: known[name] for name in described} != described:
            raise SystemExit(f"{folder}: is of a race on other terms; choose another --out")
    else:
        shutil.rmtree(folder, ignore_errors=True)  # half a race cannot go on
        folder.mkdir(parents=True)
        run = _race_rival if entrant in PACKAGES else _race_ours
        looks = run(entrant, terms, folder)
        if not looks:
            raise SystemExit(f"{entrant}: had no samples after {terms.minutes:g} minutes")
        known = {**described, "looks": looks}
        record.write_text(json.dumps(known))
    return [Look(*look) for look in known["looks"]]


def _race_ours(entrant: str, terms: Terms, folder: Path) -> list[Look]:
    ours, (data, size) = OURS[entrant], terms.pictures
    store, run, looks = folder / "store", folder / "run", list[Look]()
    spent = timed(codegan(f"encode --data {data} --out {store} --size {size} {ours.encoding}"), terms)
    training = f"train {ours.variant} --store {store} --out {run} --kimg {_ENDLESS_KIMG} --seed {SEED}"
    training += f" --snapshot-kimg {_ENDLESS_KIMG} {ours.flags} {ours.narrower.get(size, '')}"
    for number, moment in enumerate(terms.moments, 1):
        if spent >= moment:
            continue
        spent += timed(codegan(training), terms, moment - spent, run / "metrics.jsonl")
        rows = read_metrics(run)
        if rows and (not looks or rows[-1]["nimg"] > looks[-1].nimg):
            looks.append(Look(number, spent, rows[-1]["nimg"]))
            drawing = f"sample --run {run} --out {looks[-1].samples(folder)} --num {SAMPLES} --seed {SEED}"
            check(subprocess.run(codegan(drawing), stdout=sys.stderr))
    return looks


def _race_rival(entrant: str, terms: Terms, folder: Path) -> list[Look]:
    pictures = folder.with_name("pictures")
    _write_pictures(terms.pictures, pictures)
    words = [sys.executable, "-m", "benchmarks.race_rivals", entrant, "--images", str(pictures), "--out", str(folder)]
    words += ["--size", str(terms.pictures.size), "--moments", *map(str, terms.moments)]
    timed(words, terms)
    return [Look(**json.loads(line)) for line in (folder / "looks.jsonl").read_text().splitlines()]


def _write_pictures(pictures: Pictures, folder: Path) -> None:
    """What our own entrants see, as files: rivals do not read our data sets. Not on anybody's clock."""
    images = open_images(pictures.data, pictures.size)
    folder.mkdir(exist_ok=True)
    for index in range(len(images)):
        if not (file := folder / f"{index:06d}.png").exists():
            save_png(file, images.image(index))


def codegan(command: str) -> list[str]:
    return [sys.executable, "-m", "pipelines", *command.split()]


def timed(words: list[str], terms: Terms, seconds: float = math.inf, log: Path | None = None) -> float:
    """Run it, stopping it by SIGTERM after `seconds`; how long it took.

    A run that goes on where it was stopped writes its `log` anew just before its first step; the clock starts there.
    """
    before = _changed(log)
    process, began = subprocess.Popen(words, env=terms.environment, stdout=sys.stderr), time.monotonic()
    try:
        while before and _changed(log) == before and process.poll() is None:
            time.sleep(_POLL_SECONDS)
            began = time.monotonic()
        process.wait(None if math.isinf(seconds) else seconds)
    except subprocess.TimeoutExpired:
        pass
    finally:
        process.terminate()  # does nothing to one that has ended
        process.wait()
    check(process)
    return time.monotonic() - began


def _changed(log: Path | None) -> int:
    return log.stat().st_mtime_ns if log and log.exists() else 0


def check(process: "subprocess.Popen[bytes] | subprocess.CompletedProcess[bytes]") -> None:
    """A stopped training has saved itself and said so by its exit code, or was stopped before it had begun."""
    if process.returncode not in (0, Preempted.exit_code, -15):
        words = process.args if isinstance(process.args, list) else [process.args]
        raise SystemExit(f"{' '.join(map(str, words[1:6]))} ...: ended with {process.returncode}")
