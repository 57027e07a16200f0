"""Codes that are no squares of a power of two: which variants take them, and the whole way to pictures."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from data.errors import UsageError
from data.latents import LatentStore
from pipelines import cli
from pipelines.sample import load_generator
from stage2_codegen.variants import VARIANTS, build_networks
from stage2_codegen.variants.shapes import Maps
from tests.tiny_variants import TINY

ANY_SHAPE = [name for name, variant in VARIANTS.items() if variant.Config.any_shape]


@pytest.mark.parametrize(
    ("shape", "size", "base", "stretch"),
    [
        ((4, 16, 16), 16, (4, 4), 1),
        ((4, 256, 256), 256, (4, 4), 1),
        ((16, 96, 128), 32, (12, 16), 2),
        ((16, 128, 64), 64, (8, 4), 1),
        ((3, 48, 48), 16, (12, 12), 2),
    ],
)
def test_maps_grow_from_the_smallest_base(
    shape: tuple[int, int, int], size: int, base: tuple[int, int], stretch: int
) -> None:
    maps = Maps.of(shape)
    assert (maps.channels, maps.size, maps.base, maps.stretch) == (shape[0], size, base, stretch)
    assert shape[1:] == (base[0] * size // 4, base[1] * size // 4)


@pytest.mark.parametrize("name", ANY_SHAPE)
@pytest.mark.parametrize("shape", [(4, 16, 32), (4, 48, 32)])
def test_every_convolutional_variant_takes_them(name: str, shape: tuple[int, int, int]) -> None:
    generator, critic = build_networks(name, shape, **TINY[name])
    judged = generator.judged(generator.random_z(2, torch.device("cpu")))
    codes = judged[-1] if isinstance(judged, tuple) else judged
    assert codes.shape == (2, *shape)
    assert critic(judged).shape == critic(codes).shape
    assert critic(judged).isfinite().all()


@pytest.mark.parametrize("name", [name for name in VARIANTS if name not in ANY_SHAPE])
def test_a_variant_that_has_a_weight_for_each_place_says_no(name: str) -> None:
    with pytest.raises(UsageError, match=f"{name} takes squares"):
        build_networks(name, (4, 16, 32), **TINY[name])


@pytest.mark.parametrize("side", [8, 24, 100, 272])
def test_sides_that_no_variant_takes_are_refused(side: int) -> None:
    with pytest.raises(UsageError, match="no variant takes them") as raised:
        build_networks("accel", (4, side, 32))
    assert "multiples of 16" in raised.value.fix


@pytest.mark.usefixtures("single_thread")
def test_from_pictures_to_pictures_of_another_shape(tmp_path: Path) -> None:
    store, run, samples = tmp_path / "store", tmp_path / "run", tmp_path / "samples"
    for _ in range(2):  # the second time it is complete
        cli.run(["encode", "--data", "scenes:8", "--out", str(store), "--size", "128x64"])
    assert LatentStore.open(store).code_shape == (16, 16, 32)
    assert LatentStore.open(store).image_size == (64, 128)
    fields = {f"--model.{name.replace('_', '-')}": str(value) for name, value in TINY["projected"].items()}
    model = [word for flag in fields.items() for word in flag]
    train = ["train", "projected", "--store", str(store), "--out", str(run), "--batch-size", "4", *model]
    for kimg in ("0.004", "0.008"):
        cli.run([*train, "--kimg", kimg])
    cli.run(["sample", "--run", str(run), "--out", str(samples), "--num", "2"])
    with Image.open(samples / "000000.png") as drawn:
        assert drawn.size == (128, 64)
        assert np.asarray(drawn).astype(float).std() > 0
    assert load_generator(run).image_size == (64, 128)
    cli.run(["score", "--run", str(run), "--data", "scenes:8", "--num", "4", "--features", "offline"])
    cli.run(["report", "--run", str(run)])
    assert "128x64 pixels" in (run / "report.html").read_text()
