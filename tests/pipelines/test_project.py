"""`codegan project`: the z of pictures, found again for those the generator made; resumed, and walked through."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from data.errors import CorruptError, MismatchError, UsageError
from pipelines import project
from pipelines.cli import run
from pipelines.project import load_projected
from pipelines.sample import load_generator
from stage2_codegen.inversion import compared, invert, nearest
from stage2_codegen.rank_noise import normal_rows, shared_noise
from stage2_codegen.variants import build_networks
from stage2_codegen.variants.contract import CodeGenerator
from stage2_codegen.variants.sle_networks import NoiseInjection
from tests.tiny_variants import TINY


def noisy_generator() -> CodeGenerator:
    torch.manual_seed(0)
    G, _ = build_networks("projected", (4, 16, 16), **TINY["projected"])
    for module in G.modules():
        if isinstance(module, NoiseInjection):
            nn.init.constant_(module.weight, 0.1)
    G.head.weight.data *= 30  # type: ignore[operator, union-attr]  # it starts near grey
    return G.eval().requires_grad_(False)


def draw(G: CodeGenerator, z: torch.Tensor) -> torch.Tensor:
    """As `invert` does, with the noise of seed 5."""
    from data.seeds import IMAGE_NOISE, derive_seed

    with torch.random.fork_rng(devices=[]), shared_noise():
        torch.manual_seed(derive_seed(5, IMAGE_NOISE))
        return G(z)


def test_shared_noise_is_that_of_one_row_for_all() -> None:
    torch.manual_seed(3)
    one = normal_rows(1, 2, 4, device=torch.device("cpu"))
    torch.manual_seed(3)
    with shared_noise():
        torch.testing.assert_close(normal_rows(5, 2, 4, device=torch.device("cpu")), one.expand(5, -1, -1))
    assert len(normal_rows(5, 2, 4, device=torch.device("cpu")).unique()) == 40


def test_the_nearest_candidate_is_a_sample_itself() -> None:
    codes = torch.randn(9, 4, 16, 16)
    assert nearest(codes[[7, 2]] + 0.01, compared(codes)).tolist() == [7, 2]
    large = torch.randn(5, 2, 64, 64)
    assert nearest(large[[3]], compared(large)).tolist() == [3]


def test_codes_of_the_generator_are_found_again_each_for_itself() -> None:
    G = noisy_generator()
    hidden = nn.functional.normalize(torch.randn(3, G.z_dim)) * G.z_dim**0.5  # as long as noise usually is
    std = torch.ones(4)
    targets, start = draw(G, hidden), hidden + 0.5 * torch.randn(3, G.z_dim)
    found = invert(G, targets, start, std, steps=150, seed=5)
    before, after = ((draw(G, z) - targets).square().mean((1, 2, 3)) for z in (start, found))
    assert (after < 0.05 * before).all()
    alone = invert(G, targets[1:2], start[1:2], std, steps=150, seed=5)
    torch.testing.assert_close(alone, found[1:2], rtol=0.02, atol=0.02)


def test_the_way_never_ends_worse_than_it_began_and_stays_where_noise_is() -> None:
    G = noisy_generator()
    start = torch.randn(2, G.z_dim)
    targets = torch.randn(2, 4, 16, 16)  # nothing it can draw
    found = invert(G, targets, start, torch.ones(4), steps=20, seed=5)
    before, after = ((draw(G, z) - targets).square().mean((1, 2, 3)) for z in (start, found))
    assert (after <= before + 1e-6).all()
    assert (found.norm(dim=1) <= 1.21 * G.z_dim**0.5).all()
    torch.testing.assert_close(invert(G, draw(G, start), start, torch.ones(4), 5, seed=5), start)


def test_a_view_decides_what_is_compared() -> None:
    """Of two channels one is seen: it is found, although the other is nothing the generator can draw."""
    G = noisy_generator()
    hidden = nn.functional.normalize(torch.randn(2, G.z_dim)) * G.z_dim**0.5
    targets, start = draw(G, hidden)[:, :1], hidden + 0.5 * torch.randn(2, G.z_dim)
    found = invert(G, targets, start, torch.ones(1), steps=100, seed=5, view=lambda codes: codes[:, :1])
    before, after = ((draw(G, z)[:, :1] - targets).square().mean((1, 2, 3)) for z in (start, found))
    assert (after < 0.1 * before).all()


@pytest.fixture(scope="module")
def own_pictures(trained_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three pictures that the generator made."""
    out = tmp_path_factory.mktemp("own") / "samples"
    run(["sample", "--run", str(trained_run), "--out", str(out), "--seeds", "3,5,40"])
    (out / "grid.png").unlink()
    return out


def words(trained_run: Path, data: Path, out: Path, *more: str) -> list[str]:
    given = ["project", "--run", str(trained_run), "--data", str(data), "--out", str(out)]
    return [*given, "--steps", "8", "--candidates", "20", *more]


def test_pictures_are_projected_shown_and_walked_through(
    trained_run: Path, own_pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "projected"
    run(words(trained_run, own_pictures, out))
    assert "next: codegan walk" in capsys.readouterr().out
    results = json.loads((out / "results.json").read_text())["pictures"]
    assert [entry["key"] for entry in results] == ["000000.png", "000001.png", "000002.png"]
    generator = load_generator(trained_run)
    z = load_projected(out, generator)
    for number, entry in enumerate(results):
        with Image.open(out / entry["file"]) as image:
            shown = np.asarray(image).transpose(2, 0, 1)
        picture, projection = shown[:, :, :64], shown[:, :, 66:]
        with Image.open(own_pictures / f"{number:06d}.png") as image:
            np.testing.assert_array_equal(picture, np.asarray(image).transpose(2, 0, 1))
        np.testing.assert_array_equal(projection, generator.between([(z[[number]], z[[number]], 0.0)], 0)[0])
        error = np.square(picture.astype(float) - projection).mean()
        assert entry["psnr"] == pytest.approx(min(10 * np.log10(255**2 / max(error, 1e-30)), 99), abs=0.01)
    film = tmp_path / "w.png"
    run(["walk", "--run", str(trained_run), "--projected", str(out), "--out", str(film), "--frames", "3"])
    with Image.open(film) as image:
        image.seek(1)
        middle = np.asarray(image.convert("RGB")).transpose(2, 0, 1)
    expected = generator.between([(z[[1]], z[[1]], 0.0)], 0)[0]
    assert np.abs(middle.astype(int) - expected).max() <= 1


def test_a_stopped_projection_goes_on_and_ends_the_same(
    trained_run: Path, own_pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(project, "AT_ONCE", 1)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run(words(trained_run, own_pictures, whole))
    show, shown = project._show, []

    def stop_at_the_second(*given: object) -> object:
        shown.append(given)
        if len(shown) == 2:
            raise KeyboardInterrupt
        return show(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(project, "_show", stop_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        run(words(trained_run, own_pictures, parts))
    assert len(json.loads((parts / "results.json").read_text())["pictures"]) == 1
    run(words(trained_run, own_pictures, parts))
    assert len(shown) == 4  # the first is not done again
    for file in ("results.json", "projected.safetensors", "000001.png", "000002.png"):
        assert (parts / file).read_bytes() == (whole / file).read_bytes()
    before = (parts / "000002.png").stat().st_mtime_ns
    run(words(trained_run, own_pictures, parts))
    assert (parts / "000002.png").stat().st_mtime_ns == before


def test_what_does_not_belong_together_is_refused(trained_run: Path, own_pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "projected"
    run(words(trained_run, own_pictures, out))
    with pytest.raises(MismatchError, match="another steps"):
        run(words(trained_run, own_pictures, out, "--steps", "9"))
    with pytest.raises(UsageError, match="out of range"):
        run(words(trained_run, own_pictures, out, "--steps", "0"))
    with pytest.raises(UsageError, match="holds no projected pictures"):
        run(["walk", "--run", str(trained_run), "--projected", str(tmp_path), "--out", str(tmp_path / "w.gif")])
    changed = json.loads((out / "results.json").read_text())
    changed["settings"]["nimg"] += 1
    (out / "results.json").write_text(json.dumps(changed))
    with pytest.raises(MismatchError, match="another generator"):
        load_projected(out, load_generator(trained_run))
    (out / "projected.safetensors").write_bytes(b"nonsense")
    with pytest.raises(CorruptError, match="cannot be read"):
        load_projected(out, load_generator(trained_run))


@pytest.mark.parametrize("content", ["null", "[]", "{}", '{"settings": 3}', '{"settings": {}, "pictures": [{}]}', "{"])
def test_damaged_results_are_refused(trained_run: Path, own_pictures: Path, tmp_path: Path, content: str) -> None:
    out = tmp_path / "projected"
    run(words(trained_run, own_pictures, out))
    (out / "results.json").write_text(content)
    with pytest.raises(CorruptError):
        run(words(trained_run, own_pictures, out))
    with pytest.raises(CorruptError):
        load_projected(out, load_generator(trained_run))


def test_a_folder_with_other_pictures_is_left_alone(trained_run: Path, own_pictures: Path, tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "000001.png")
    with pytest.raises(UsageError, match="codegan did not put it there"):
        run(words(trained_run, own_pictures, tmp_path))
    assert [path.name for path in tmp_path.glob("*.png")] == ["000001.png"]


def test_refining_by_pixels_brings_the_pictures_nearer(trained_run: Path, own_pictures: Path, tmp_path: Path) -> None:
    found = []
    for number, more in enumerate(([], ["--refine-steps", "8"])):
        run(words(trained_run, own_pictures, tmp_path / str(number), *more))
        results = json.loads((tmp_path / str(number) / "results.json").read_text())["pictures"]
        found.append(sum(picture["psnr"] for picture in results))
    assert found[1] > found[0]
