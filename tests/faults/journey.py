"""Stages of work that any fault may interrupt and the same call resumes: a store, a run, and drawn pictures.

The networks are tiny and their weights a function of the images shown, so what a stage leaves is always the same.
"""

import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NoReturn
from unittest import mock

import numpy as np
import torch
from torch import nn

from data.drawn import claim_folder, picture_file
from data.files.atomic import lock, remove_partials
from data.files.checkpoints import Progress, described_weights, load_state, save_state, save_weights
from data.files.runs import MetricsLog, open_run
from data.images import save_png
from data.store.seal import SEAL
from data.store.writer import LatentWriter, remove_journal
from stage1_autoencoder.networks import Autoencoder
from stage2_codegen.variants import build_networks
from tests.tiny_variants import TINY

COUNT, SHAPE, SHARD_ROWS = 5, (2, 16, 16), 3
LATENTS = np.tanh(np.random.default_rng(0).normal(size=(COUNT, *SHAPE))).astype(np.float32)
TOTAL_NIMG, STEP_NIMG = 16, 8
CONFIG = {"kind": "generator", "variant": "accel", "seed": 0, "kimg": TOTAL_NIMG / 1000}
PICTURE = np.arange(3 * 16 * 16, dtype=np.uint8).reshape(3, 16, 16)


class Parts:
    """What is saved: a generator and an autoencoder that can be loaded and drawn with."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.autoencoder = Autoencoder(2, SHAPE[0], 2)
        self.generator, _ = build_networks("accel", SHAPE, **TINY["accel"])
        self.described = {
            "kind": "generator",
            "variant": "accel",
            "model": TINY["accel"],
            "code_shape": list(SHAPE),
            "scale": {"mean": [0.0, 0.0], "std": [1.0, 1.0]},
            "image_size": 32,
            "classes": [],
            "data": ["photos"],
            "autoencoder": self.autoencoder.config,
            "autoencoder_fingerprint": self.autoencoder.fingerprint,
        }
        self.settings = {
            "fingerprint": self.autoencoder.fingerprint,
            "image_size": 32,
            "data": ["photos"],
            "skipped": [],
            "autoencoder": self.autoencoder.config,
            "autoencoder_run": "pixels",
            "flip": False,
        }


def write_store(path: Path, parts: Parts) -> None:
    with lock(path):
        if (path / SEAL).is_file():
            remove_journal(path)
            return
        remove_partials(path)
        writer = LatentWriter(path, COUNT, SHAPE, "float16", parts.settings, SHARD_ROWS)
        for shard in writer.missing_shards():
            writer.write_shard(shard, LATENTS[writer.rows_of(shard).start : writer.rows_of(shard).stop])
        writer.seal([f"{index}.png" for index in range(COUNT)])


def train(run: Path, parts: Parts) -> None:
    with lock(run):
        remove_partials(run)
        open_run(run, CONFIG)
        torch.manual_seed(0)
        network = nn.Linear(2, 2)
        optimizer = torch.optim.Adam(network.parameters())
        progress = load_state(run / "checkpoints", {"G": network}, {"opt": optimizer})
        log = MetricsLog(run, progress.nimg)
        if progress.nimg:  # an interruption may have come between the state and these
            _save_for_use(run, parts, progress.nimg)
        while progress.nimg < TOTAL_NIMG:
            network(torch.full((1, 2), 0.01 * progress.nimg)).sum().backward()
            optimizer.step()
            optimizer.zero_grad()
            progress = Progress(progress.nimg + STEP_NIMG, progress.step + 1)
            log.append(progress.step, progress.nimg, {"loss/g": 0.5 / progress.step, "ranks": 1})
            save_state(run / "checkpoints", {"G": network}, {"opt": optimizer}, progress)
            _save_for_use(run, parts, progress.nimg)


def draw(out: Path, parts: Parts) -> None:
    with lock(out):
        claim_folder(out, 3)
        for number in range(3):
            save_png(picture_file(out, number), PICTURE + np.uint8(number))


type Stage = Callable[[Path, Parts], None]
STAGES: dict[str, Stage] = {"store": write_store, "run": train, "drawn": draw}


def journey(root: Path, parts: Parts) -> None:
    """All stages."""
    for name, stage in STAGES.items():
        stage(root / name, parts)


def _save_for_use(run: Path, parts: Parts, nimg: int) -> None:
    picture = run / "samples" / f"{nimg:09d}.png"
    if described_weights(run / "weights").get("nimg") == nimg and picture.is_file():
        return
    weights = {"generator": parts.generator.state_dict(), "autoencoder": parts.autoencoder.state_dict()}
    save_weights(run / "weights", weights, parts.described | {"nimg": nimg})
    save_png(picture, PICTURE)


def contents(root: Path) -> dict[str, bytes]:
    """Every file below `root` by name, without the moment it took."""
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@contextmanager
def stopped_clock() -> Iterator[None]:
    """The log's times are all the same, so that two journeys can be compared byte by byte."""
    with mock.patch("data.files.runs.time.monotonic", return_value=0.0):
        yield


@contextmanager
def backward_clock() -> Iterator[None]:
    """Every look at a clock gives an earlier time than the one before."""
    now = [1e9]

    def earlier() -> float:
        now[0] -= 1000
        return now[0]

    with mock.patch.object(time, "time", earlier), mock.patch("data.files.runs.time.monotonic", earlier):
        yield


@contextmanager
def fault_at(number: int, fault: Callable[[], object]) -> Iterator[list[int]]:
    """Call `fault` just before the call of this number that changes something on the disk, and halfway through a write.

    Yields a list that holds the number of calls so far.
    """
    calls = [0]

    def due() -> bool:
        calls[0] += 1
        return calls[0] == number

    def before(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            if due():
                fault()
            return function(*args, **options)

        return call

    write_bytes, open_file = Path.write_bytes, Path.open

    def half_written(path: Path, content: bytes) -> int:
        if due():
            write_bytes(path, content[: len(content) // 2])
            fault()
        return write_bytes(path, content)

    def half_appended(path: Path, mode: str = "r", *args: Any, **options: Any) -> Any:
        file = open_file(path, mode, *args, **options)
        if mode == "a" and due():
            write = file.write

            def tear(text: str) -> NoReturn:
                write(text[: len(text) // 2])
                file.flush()
                fault()
                raise AssertionError

            file.write = tear  # type: ignore[method-assign, assignment]
        return file

    with ExitStack() as stack:
        for owner, name in (
            *((Path, "replace"), (Path, "rename"), (Path, "mkdir"), (Path, "unlink")),
            *((os, "fsync"), (shutil, "rmtree"), (os, "link")),
        ):
            stack.enter_context(mock.patch.object(owner, name, before(getattr(owner, name))))
        stack.enter_context(mock.patch.object(Path, "write_bytes", half_written))
        stack.enter_context(mock.patch.object(Path, "open", half_appended))
        yield calls


def die() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError
