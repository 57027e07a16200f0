"""`codegan mix` and `ImageGenerator.mix`: contents of some pictures in the styles of others."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from data.errors import MismatchError, UsageError
from data.images import image_grid, save_png
from pipelines.cli import run
from pipelines.project import load_projected
from stage1_autoencoder.networks import Autoencoder
from stage2_codegen.codes import CodeScale
from stage2_codegen.image_generator import NOISE_SEED, ImageGenerator
from stage2_codegen.variants import build_networks
from stage2_codegen.variants.sle_networks import NoiseInjection
from tests.tiny_variants import TINY


def make(name: str, side: int = 32) -> ImageGenerator:
    """Of pixels, so that pictures are codes, and with noise that shows."""
    torch.manual_seed(0)
    G, _ = build_networks(name, (3, side, side), **TINY[name])
    for module in G.modules():
        if isinstance(module, NoiseInjection):
            torch.nn.init.constant_(module.weight, 0.3)
    scale = CodeScale((0.0,) * 3, (1.0,) * 3)
    return ImageGenerator(G.eval().requires_grad_(False), scale, Autoencoder.built_in("pixels"), side)


@pytest.mark.parametrize("name", ["sle", "projected"])
def test_a_content_in_its_own_style_is_its_sample_and_others_change_it(name: str) -> None:
    pipe = make(name)
    mixed = pipe.mix([1, 2, 3], [2, 3])
    assert mixed.shape == (2, 3, 3, 32, 32)
    assert mixed.dtype == np.uint8
    samples = pipe([1, 2, 3])
    np.testing.assert_array_equal(mixed[0, 1], samples[1])
    np.testing.assert_array_equal(mixed[1, 2], samples[2])
    assert (mixed[0, 0] != samples[0]).any()
    assert (mixed[0, 0] != mixed[1, 0]).any()


def test_gates_take_their_own_part_of_a_style() -> None:
    pipe = make("sle", 64)
    assert pipe.gates == [4, 8, 16]
    whole = pipe.mix([0], [1])
    parts = [pipe.mix([0], [1], [gate]) for gate in pipe.gates]
    np.testing.assert_array_equal(pipe.mix([0], [1], [16, 4, 8]), whole)
    assert all((part != whole).any() for part in parts)
    assert (parts[0] != parts[1]).any()


@pytest.mark.parametrize("gates", [[], [5], [4, 32]])
def test_other_gates_are_refused(gates: list[int]) -> None:
    with pytest.raises(UsageError, match="are not gates") as caught:
        make("sle").mix([0], [1], gates)
    assert caught.value.fix == "choose from 4, 8"


def test_a_generator_without_gates_is_refused(trained_run: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has no gates"):
        run(["mix", "--run", str(trained_run), "--out", str(tmp_path / "m.png")])
    assert not list(tmp_path.iterdir())


def test_the_grid_has_a_column_a_content_and_a_row_a_style(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = make("projected")
    monkeypatch.setattr("pipelines.mix.open_generator", lambda *_: pipe)
    out = tmp_path / "new" / "m.png"
    run(["mix", "--run", "r", "--out", str(out), "--contents", "0-2", "--styles", "7,9", "--gates", str(pipe.gates[0])])
    with Image.open(out) as image:
        grid = np.asarray(image).transpose(2, 0, 1)
    assert grid.shape == (3, 2 * 34 - 2, 3 * 34 - 2)
    expected = pipe.mix([0, 1, 2], [7, 9], pipe.gates[:1])
    np.testing.assert_array_equal(grid[:, 34:66, 68:100], expected[1, 2])


@pytest.mark.parametrize("name", ["sle", "projected"])
def test_z_in_place_of_seeds_are_mixed_with_the_noise_of_projections(name: str) -> None:
    pipe = make(name)
    z = pipe.noise([5, 6])
    mixed = pipe.mix(z, torch.cat([z[1:], pipe.noise([0])]))
    own = pipe.between([(z[[1]], z[[1]], 0.0)], NOISE_SEED)[0]
    np.testing.assert_array_equal(mixed[0, 1], own)
    np.testing.assert_array_equal(mixed[1], pipe.mix(z, [NOISE_SEED])[0])
    assert (mixed[1, 1] != own).any()


def test_projected_pictures_are_contents_or_styles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = make("projected")
    pipe.nimg = 7
    for module in ("mix", "project"):
        monkeypatch.setattr(f"pipelines.{module}.open_generator", lambda *_: pipe)
    pictures, found = tmp_path / "mine", tmp_path / "0 found"
    for number, picture in enumerate(pipe([3, 4])):
        save_png(pictures / f"{number}.png", picture)
    few = ["--steps", "2", "--candidates", "5"]
    run(["project", "--run", "r", "--data", str(pictures), "--out", str(found), *few])
    z = load_projected(found, pipe)
    for flags, contents, styles in (
        (["--contents", str(found), "--styles", "7,9"], z, [7, 9]),
        (["--contents", "7", "--styles", str(found)], [7], z),
        (["--contents", str(found), "--styles", str(found)], z, z),
    ):
        run(["mix", "--run", "r", "--out", str(tmp_path / "m.png"), *flags])
        with Image.open(tmp_path / "m.png") as image:
            grid = np.asarray(image).transpose(2, 0, 1)
        expected = pipe.mix(contents, styles)
        np.testing.assert_array_equal(grid, image_grid(expected.reshape(-1, 3, 32, 32), columns=len(contents)))
    pipe.nimg = 8
    with pytest.raises(MismatchError, match="another generator"):
        run(["mix", "--run", "r", "--out", str(tmp_path / "m.png"), "--styles", str(found)])


def test_a_folder_that_is_named_like_seeds_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "3").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("pipelines.mix.open_generator", lambda *_: make("projected"))
    run(["mix", "--run", "r", "--out", "m.png", "--contents", "3", "--styles", "4"])
    with pytest.raises(UsageError, match="holds no projected pictures"):
        run(["mix", "--run", "r", "--out", "m.png", "--contents", "./3"])


@pytest.mark.parametrize(
    ("flags", "what"),
    [
        (["--contents", "a"], "--contents a"),
        (["--styles", "2-1"], "--styles 2-1"),
        (["--gates", "4;8"], "--gates 4;8"),
        (["--contents", "0-99", "--styles", "0-99"], "too many"),
        (["--out", "mix.jpg"], "not the name of a .png"),
    ],
)
def test_impossible_grids_are_refused(trained_run: Path, tmp_path: Path, flags: list[str], what: str) -> None:
    with pytest.raises(UsageError, match=what):
        run(["mix", "--run", str(trained_run), "--out", str(tmp_path / "m.png"), *flags])
