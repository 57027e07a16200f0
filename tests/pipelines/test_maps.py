"""`codegan inspect RUN` names the modules of every variant, and draws what one of them makes of pictures."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from data.errors import UsageError
from pipelines import maps
from pipelines.cli import run
from pipelines.maps import Networks, heat, principal_component, sheet, table, watched
from stage1_autoencoder.networks import PIXELS, Autoencoder
from stage2_codegen.codes import CodeScale
from stage2_codegen.image_generator import ImageGenerator
from stage2_codegen.modules import GraphConvolution, NonLocal, SelfAttention, SpatialLongRange
from stage2_codegen.variants import VARIANTS, build_networks
from tests.tiny_variants import TINY

pytestmark = pytest.mark.usefixtures("single_thread")


def networks_of(name: str) -> Networks:
    torch.manual_seed(0)
    G, critic = build_networks(name, (3, 16, 16), **TINY[name])
    scale = CodeScale((0.0,) * 3, (1.0,) * 3)
    return Networks(ImageGenerator(G.eval(), scale, Autoencoder.built_in(PIXELS), 16), critic.eval())


@pytest.mark.parametrize("name", VARIANTS)
def test_modules_of_both_networks_are_listed(name: str) -> None:
    listed = [line.split()[0] for line in table(Path("run"), networks_of(name)).splitlines()[1:]]
    assert {line.partition(".")[0] for line in listed} == {"G", "critic"}
    assert not any("parametrizations" in line for line in listed)


def test_a_sheet_has_a_row_for_each_thing_and_a_column_for_each_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maps, "TILE", 16)
    networks = networks_of("sagan")
    (name, module) = next(pair for pair in networks.modules.items() if isinstance(pair[1], SelfAttention))
    with watched({name: module}) as seen:
        pictures = [networks.draw(seed) for seed in range(3)]
    for picture, seed in zip(pictures, range(3), strict=True):
        np.testing.assert_array_equal(picture, networks.pipe([seed])[0])
    tiles, told = sheet(pictures, module, seen[name])
    assert (len(tiles), len(told)) == (3 * 6, 6)
    np.testing.assert_array_equal(tiles[2], pictures[2])
    (parameter,) = [p for p in module.parameters() if p.dim() == 0]
    assert parameter == 0  # what it does not add yet can be seen all the same
    tiles, told = sheet(pictures, nn.Identity(), seen[name])
    assert (len(tiles), len(told)) == (3 * 3, 3)


def test_the_grey_is_the_first_principal_component() -> None:
    torch.manual_seed(0)
    maps = torch.randn(3, 4, 5, 6) * torch.tensor([1, 9, 2, 1])[:, None, None] + 7
    grey, share = principal_component(maps)
    samples = maps.movedim(1, -1).reshape(-1, 4).numpy().astype(np.float64)
    values, vectors = np.linalg.eigh(np.cov(samples.T))
    along = (samples - samples.mean(0)) @ vectors[:, -1]
    assert abs(np.corrcoef(along, grey.ravel())[0, 1]) > 0.99
    assert np.corrcoef(samples[:, 1], grey.ravel())[0, 1] > 0.98  # of the two signs that of the strongest channel
    assert share == pytest.approx(values[-1] / values.sum())


def test_a_heat_map_goes_from_black_to_white() -> None:
    colours = heat(np.array([[0, 1 / 3, 2 / 3, 1]])).transpose(1, 2, 0)[0]
    assert colours.tolist() == [[0, 0, 0], [255, 0, 0], [255, 255, 0], [255, 255, 255]]
    assert heat(np.zeros((2, 2))).max() == 0


@pytest.mark.parametrize("kind", [SelfAttention, NonLocal, SpatialLongRange, GraphConvolution])
def test_relations_are_those_of_the_point(kind: type[nn.Module]) -> None:
    """The softmax that each paper has, position by position."""
    torch.manual_seed(0)
    module = kind(8, 4) if kind in (SpatialLongRange, GraphConvolution) else kind(8)
    read = 3 * torch.randn(1, 8, 4, 4)
    asking, asked = ("key", "query") if kind is GraphConvolution else ("query", "key")
    row, column = 1, 1  # a quarter of 4 x 4
    vector: Tensor = module.get_submodule(asking)(read)[0, :, row, column]
    logits = [(vector * module.get_submodule(asked)(read)[0, :, i, j]).sum() for i in range(4) for j in range(4)]
    expected = heat(torch.stack(logits).softmax(0).detach().view(4, 4).numpy())
    expected[:, row, column] = maps.POINT_COLOUR
    np.testing.assert_allclose(maps.related(module, read, 0.25), expected, atol=1)


def test_the_verb_lists_and_draws(trained_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(["inspect", str(trained_run)])
    printed = capsys.readouterr().out
    assert printed.endswith(f"next: codegan inspect {trained_run} --module NAME --out maps\n")
    for part in ("G", "critic"):
        name = next(word for line in printed.splitlines() if (word := line.split()[0]).startswith(f"{part}."))
        run(["inspect", str(trained_run), "--module", name, "--out", str(tmp_path)])
        assert "first principal component" in capsys.readouterr().out
        with Image.open(tmp_path / f"{name}.png") as image:
            assert image.size == (8 * 130 - 2, 3 * 130 - 2)


def test_what_cannot_be_drawn_is_refused(trained_run: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no folder for the maps"):
        run(["inspect", str(trained_run), "--module", "G.layers"])
    with pytest.raises(UsageError, match=r"--module G\.nothing: is not in this run"):
        run(["inspect", str(trained_run), "--module", "G.nothing", "--out", str(tmp_path)])
    with pytest.raises(UsageError, match=r"--module G\.dense: makes no maps"):
        run(["inspect", str(trained_run), "--module", "G.dense", "--out", str(tmp_path)])
    with pytest.raises(UsageError, match="only the run of a generator has modules"):
        run(["inspect", "scenes:2", "--module", "G.dense"])
