"""No stream of random numbers ever changes: runs go on with those that they were started with.

The expected values were drawn in November 2026, before the streams had names.
"""

import ast
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import torch
from PIL import Image

from data.images import open_images
from data.scenes.factors import scene
from data.seeds import coins
from data.store.order import SampleOrder
from pipelines.scoring.entries import make_entries
from pipelines.scoring.extraction import Extracted
from pipelines.scoring.metrics import halves
from pipelines.scoring.neighbours import find_neighbours
from pipelines.scoring.sets import LazyImages, Sets, choose
from stage1_autoencoder.crops import CodeNoise, RandomCrops
from stage1_autoencoder.networks import Autoencoder
from stage1_autoencoder.train import split
from stage1_autoencoder.training.processes import make_accelerator
from stage2_codegen.codes import CodeScale
from stage2_codegen.frozen.context import Context
from stage2_codegen.image_generator import ImageGenerator
from stage2_codegen.inversion import invert
from stage2_codegen.step import AdversarialStep
from stage2_codegen.variants import VARIANTS
from stage2_codegen.variants.contract import Batch
from tests.tiny_variants import TINY

SHAPE = (3, 16, 16)


@contextmanager
def recorded_seeds() -> Iterator[list[int]]:
    """What torch's generator is seeded with inside."""
    seeds: list[int] = []
    seed_torch = torch.manual_seed

    def record(seed: int) -> torch.Generator:
        seeds.append(seed)
        return seed_torch(seed)

    with mock.patch.object(torch, "manual_seed", record):
        yield seeds


def test_those_of_scenes_and_coins() -> None:
    first, fourth = scene(5, 0), scene(5, 3)
    assert (first.sky, first.ground, fourth.sky, fourth.ground) == ("dusk", "sand", "dusk", "heather")
    np.testing.assert_allclose((first.horizon, fourth.horizon), (0.431795656, 0.400614274), rtol=1e-8)
    assert coins(5, 0, 16).astype(int).tolist() == [0, 0, 1, 0, 0, 0, 0, 1, 1, 0, 1, 0, 1, 1, 0, 0]


def test_those_of_the_order_of_samples() -> None:
    one_window, two_windows = SampleOrder(7, 5, 7), SampleOrder(7, 5, 2, window_shards=2)
    assert one_window.rows(0, 14).tolist() == [1, 4, 2, 3, 6, 5, 0, 4, 2, 0, 6, 5, 3, 1]
    assert two_windows.rows(0, 14).tolist() == [6, 2, 3, 1, 0, 4, 5, 5, 4, 1, 0, 2, 3, 6]


def test_those_of_stage_one() -> None:
    _, held_out = split(60, 5)
    assert held_out.tolist() == [4, 16, 58]
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16)
    image = Image.fromarray(np.stack([ramp, ramp.T, ramp], 2))
    images: Any = SimpleNamespace(pil=lambda index: image)
    corners = RandomCrops(images, np.arange(3), 4, seed=5, jitter=0.1).batch(0, 3)[:, :, 0, 0]
    assert corners.tolist() == [[52, 130, 51], [47, 219, 51], [43, 215, 35]]
    noise = CodeNoise((1, 1, 2), 1.0, seed=5).batch(0, 3).ravel()
    expected = [-0.90400475, 0.25424662, 0.3616209, 0.7086355, -0.40049228, -0.18489954]
    np.testing.assert_allclose(noise, expected, rtol=1e-6)


def test_those_of_the_training_of_stage_two() -> None:
    config = VARIANTS["wgan-gp"].Config(**TINY["wgan-gp"])
    context = Context.stand_in(SHAPE, VARIANTS["wgan-gp"].frozen(config))
    with recorded_seeds() as seeds:
        step = AdversarialStep(VARIANTS["wgan-gp"], config, SHAPE, context, make_accelerator(), seed=5)
        for nimg in (0, 4):
            step(map(Batch, torch.zeros(2, 4, *SHAPE)), nimg)
    weights, *updates = seeds
    assert weights == 6315739163131927091
    assert updates[:3] == [2153485280332438425, 5900253131158821752, 7760099336911183838]  # two of the critic, one of G
    assert updates[3:] == [423314986016612971, 8204931655160154047, 6446509324483455833]


def test_those_of_generated_images() -> None:
    G = VARIANTS["sle"].Generator(SHAPE, VARIANTS["sle"].Config(**TINY["sle"])).eval().requires_grad_(False)
    scale = CodeScale((0.0,) * 3, (1.0,) * 3)
    pipe = ImageGenerator(G, scale, Autoencoder.built_in("pixels"), 16)
    expected = [[-1.0564861, 1.2904390], [-0.7575899, -0.0537377]]
    np.testing.assert_allclose(pipe.noise([5, 6])[:, :2].cpu(), expected, rtol=1e-5)
    with recorded_seeds() as seeds:
        pipe([5, 6])
        pipe.codes(torch.zeros(1, G.z_dim), seed=0)
        invert(G, torch.zeros(1, *SHAPE), torch.zeros(1, G.z_dim), torch.ones(3), steps=0, seed=7)
    assert seeds == [2080082186671054586, 8712014179388824241, 8597659618385908031, 9139555415570476218]


def test_those_of_scores() -> None:
    assert choose(open_images("scenes:9@16"), 4, seed=5).tolist() == [1, 2, 3, 4]
    assert [half.tolist() for half in next(halves((8, 6), 1, seed=5))] == [[0, 4, 5, 7], [2, 4, 5]]
    positions = LazyImages("positions", 9, lambda chosen: np.array(chosen))
    assert positions.drawn(9, seed=5).at(range(9)).tolist() == [5, 7, 8, 1, 0, 2, 6, 3, 4]
    rows = np.arange(1001, dtype=np.float32)[:, None]
    assert set(range(1001)) - set(find_neighbours(rows, rows, None, seed=5).generated.tolist()) == {485}
    squares, nothing = np.arange(8, dtype=np.float32)[:, None] ** 2, np.empty((8, 0), np.float32)
    extracted = Extracted(squares, nothing, nothing)
    entry = make_entries("fid", Sets(extracted, extracted), seed=5)["fid"]
    np.testing.assert_allclose(entry["real_floor"], 279.83541970930446)


def test_no_stream_is_a_bare_number() -> None:
    """All are named in `data/seeds.py`, so that a free one is found there."""
    root = Path(__file__).parents[1]
    packages = ("data", "stage1_autoencoder", "stage2_codegen", "pipelines")
    for path in (path for package in packages for path in (root / package).rglob("*.py")):
        for call in (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)):
            if ast.unparse(call.func).endswith(("derive_seed", "SeedSequence", "default_rng", "Philox")):
                parts = [*call.args, *(keyword.value for keyword in call.keywords if keyword.arg == "key")]
                numbers = [node for part in parts for node in ast.walk(part) if isinstance(node, ast.Constant)]
                assert not numbers, f"{path}:{call.lineno}: {ast.unparse(call)}"
