"""Training on classes: what a critic makes of them, what a generator draws, and what commands do with their names."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from data.errors import InputError, UsageError
from data.files.atomic import read_json
from pipelines import cli
from pipelines.sample import load_generator
from stage1_autoencoder.configs import EncodeConfig
from stage1_autoencoder.encode import encode
from stage2_codegen.configs.train import TrainConfig
from stage2_codegen.drifting import drift_loss
from stage2_codegen.modules import ClassScores
from stage2_codegen.train import train
from stage2_codegen.variants import VARIANTS, configured
from stage2_codegen.variants.conditional import ConditionalGenerator, build_generator
from tests.tiny_variants import TINY
from tests.training_runs import assert_same_bits

SHAPE = (4, 16, 16)
CONDITIONAL = [name for name, variant in VARIANTS.items() if variant.Config.takes_classes]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve dark pictures, and four light ones."""
    folder, draw = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for name, low, count in (("dark", 0, 12), ("light", 180, 4)):
        (folder / name).mkdir()
        for number in range(count):
            pixels = draw.integers(low, low + 75, (16, 16, 3), np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def labelled(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of their pixels."""
    out = tmp_path_factory.mktemp("labelled") / "store"
    encode(EncodeConfig(data=(str(pictures),), autoencoder=Path("pixels"), out=out, size=(16,)))
    return out


def configuration(store: Path, out: Path, name: str = "accel", kimg: float = 0.04, **changes: Any) -> TrainConfig[Any]:
    model = VARIANTS[name].Config(**{**TINY[name], **changes.pop("model", {})})
    fields = {"batch_size": 8, "snapshot_kimg": 0.016, "precision": "fp32", "conditional": True, **changes}
    return TrainConfig(store=store, out=out, model=model, kimg=kimg, **fields)


def networks(
    name: str, classes: int = 3, shape: tuple[int, int, int] = SHAPE
) -> tuple[ConditionalGenerator, nn.Module]:
    variant, config = configured(name, shape, {**TINY[name], "classes": classes})
    generator = build_generator(variant, shape, config)
    assert isinstance(generator, ConditionalGenerator)
    return generator.eval(), variant.Critic(shape, config).eval()


@pytest.mark.parametrize("make", [lambda n: nn.Linear(5, n), lambda n: nn.Conv2d(5, n, 3, padding=1)])
def test_a_score_is_that_of_the_picture_and_that_of_its_class(make: Callable[[int], nn.Module]) -> None:
    layer = ClassScores(make, 4)
    x = torch.randn(3, 5) if isinstance(layer.psi, nn.Linear) else torch.randn(3, 5, 6, 6)
    classes = torch.tensor([2, 0, 3])
    by_hand = [layer.psi(x[[i]]) + layer.projection(x[[i]])[:, [classes[i]]] for i in range(3)]
    torch.testing.assert_close(layer(x, classes), torch.cat(by_hand))
    torch.testing.assert_close(layer(torch.cat([x, x]), classes), torch.cat(by_hand * 2))  # judged twice in a call


@pytest.mark.parametrize("name", CONDITIONAL)
def test_generator_and_critic_of_every_variant_feel_the_class(name: str) -> None:
    torch.manual_seed(0)
    generator, critic = networks(name)
    noise, classes = torch.randn(3, generator.noise_dim), torch.tensor([0, 1, 2])
    z = generator.of_classes(noise, classes)
    other = generator.of_classes(noise, classes.roll(1))
    assert z.shape == (3, generator.z_dim)
    assert generator.classes_of(z).tolist() == [0, 1, 2]
    with torch.no_grad():
        drawn, changed = _seeded(generator, z), _seeded(generator, other)
        assert drawn.shape == (3, *SHAPE)
        assert (drawn - changed).abs().amax((1, 2, 3)).min() > 0
        same = critic(drawn, classes=classes), critic(drawn, classes=classes)
        assert torch.equal(*same)
        assert (critic(drawn, classes=classes.roll(1)) - same[0]).abs().amax(1).min() > 0


def _seeded(generator: ConditionalGenerator, z: Tensor) -> Tensor:
    torch.manual_seed(7)
    codes: Tensor = generator(z)
    return codes


def test_classes_are_drawn_as_often_as_the_data_has_them() -> None:
    generator, _ = networks("accel")
    generator.set_frequencies(np.array([0.7, 0.1, 0.2]))
    torch.manual_seed(0)
    drawn = generator.classes_of(generator.random_z(4000, torch.device("cpu")))
    np.testing.assert_allclose(drawn.bincount(minlength=3) / 4000, [0.7, 0.1, 0.2], atol=0.03)
    assert generator.frequent(torch.tensor([0.0, 0.999999])).tolist() == [0, 2]


def test_a_walk_goes_from_one_class_into_the_other() -> None:
    generator, _ = networks("accel")
    noise = torch.randn(2, generator.noise_dim)
    start, stop = generator.of_classes(noise, torch.tensor([0, 2])).split(1)
    for share, end in ((0.0, start), (1.0, stop)):
        torch.testing.assert_close(generator.between(start, stop, torch.tensor([share])), generator(end))
    middle = generator.between(start, stop, torch.tensor([0.5]))
    assert all((middle - generator(end)).abs().max() > 1e-4 for end in (start, stop))


def test_samples_of_different_classes_do_not_feel_each_other() -> None:
    """Gradients in a batch of two classes, whose scale is that of the batch, point where those of each class do."""
    torch.manual_seed(0)
    classes, real = torch.tensor([0, 1, 0, 1, 0, 1]), torch.randn(6, 1, 3)
    generated = torch.randn(6, 1, 3, requires_grad=True)
    (before,) = torch.autograd.grad(drift_loss(generated, real, classes), generated)
    moved = generated.detach().clone()
    moved[classes == 1] = moved[classes == 1].flip(0)  # among themselves: no distance within the other class changes
    moved.requires_grad_(True)
    (after,) = torch.autograd.grad(drift_loss(moved, real, classes), moved)
    torch.testing.assert_close(_directions(after)[classes == 0], _directions(before)[classes == 0], rtol=0, atol=0.1)
    (blind,) = torch.autograd.grad(drift_loss(generated, real), generated)
    assert (_directions(blind) - _directions(before))[classes == 0].abs().max() > 0.2


def _directions(vectors: Tensor) -> Tensor:
    return nn.functional.normalize(vectors, dim=-1)


@pytest.mark.usefixtures("single_thread")
def test_each_class_is_drawn_as_it_looks(labelled: Path, tmp_path: Path) -> None:
    config = configuration(
        labelled, tmp_path / "run", kimg=0.8, snapshot_kimg=0.8, model={"lr": 2e-3, "critic_lr": 2e-3}
    )
    train("accel", config)
    pipe = load_generator(tmp_path / "run")
    dark, light = (pipe.drawing(name)(range(8)).mean() for name in ("dark", "light"))
    assert dark < 100 < 150 < light


@pytest.mark.usefixtures("single_thread", "few_draws")
@pytest.mark.parametrize("name", ["projected", "sle"])
def test_a_resumed_run_is_bit_for_bit_an_uninterrupted_one(labelled: Path, tmp_path: Path, name: str) -> None:
    for out, kimg in (("whole", 0.016), ("parts", 0.008), ("parts", 0.016)):
        train(name, configuration(labelled, tmp_path / out, name, kimg=kimg, snapshot_kimg=0.008, balance=True))
    assert_same_bits(tmp_path / "whole", tmp_path / "parts")
    assert read_json(tmp_path / "whole" / "weights" / "config.json")["classes"] == ["dark", "light"]
    generator = load_generator(tmp_path / "whole").generator
    assert isinstance(generator, ConditionalGenerator)
    assert generator.frequencies.tolist() == [0.75, 0.25]


def test_a_class_is_asked_for_by_its_name(labelled: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train("accel", configuration(labelled, run, kimg=0.016))
    sample = ["sample", "--run", str(run), "--num", "3"]
    for name in ("dark", "light"):
        cli.run([*sample, "--out", str(tmp_path / name), "--class", name])
    dark, light = ((tmp_path / name / "000000.png").read_bytes() for name in ("dark", "light"))
    assert dark != light
    cli.run([*sample, "--out", str(tmp_path / "any")])
    assert (tmp_path / "any" / "000000.png").read_bytes() in (dark, light)
    cli.run([*sample, "--out", str(tmp_path / "usual"), "--class", "dark", "--truncation", "0"])
    first, second = ((tmp_path / "usual" / f"00000{number}.png").read_bytes() for number in range(2))
    assert first == second != dark
    with pytest.raises(UsageError, match="grey: is not a class") as raised:
        cli.run([*sample, "--out", str(tmp_path / "grey"), "--class", "grey"])
    assert "dark, light" in raised.value.fix
    assert not (tmp_path / "grey").exists()


def test_a_class_is_scored_against_pictures_of_its_own(labelled: Path, pictures: Path, tmp_path: Path) -> None:
    run, out = tmp_path / "run", tmp_path / "dark.json"
    train("accel", configuration(labelled, run, kimg=0.016))
    score = ["score", "--run", str(run), "--data", str(pictures / "dark"), "--features", "offline", "--num", "8"]
    cli.run([*score, "--class", "dark"])
    assert not (run / "scores.json").exists()  # which would be those of all samples
    cli.run([*score, "--class", "dark", "--truncation", "0.5", "--out", str(out)])
    assert (read_json(out)["class"], read_json(out)["truncation"]) == ("dark", 0.5)
    with pytest.raises(UsageError, match="go with --run"):
        cli.run(["score", "--images", str(pictures), "--data", str(pictures), "--class", "dark"])


def test_what_cannot_be_conditional_is_refused(labelled: Path, store: Path, tmp_path: Path) -> None:
    refused: list[tuple[type[Exception], str, TrainConfig[Any], str]] = [
        (UsageError, "lrm: cannot", configuration(labelled, tmp_path / "run", "lrm"), "lrm"),
        (
            UsageError,
            "--balance: needs",
            configuration(labelled, tmp_path / "run", conditional=False, balance=True),
            "accel",
        ),
        (InputError, "have no classes", configuration(store, tmp_path / "run"), "accel"),
    ]
    for kind, what, config, name in refused:
        with pytest.raises(kind, match=what):
            train(name, config)
    assert not (tmp_path / "run").exists()


def test_a_run_without_classes_knows_none(labelled: Path, tmp_path: Path) -> None:
    train("accel", configuration(labelled, tmp_path / "run", kimg=0.016, conditional=False))
    with pytest.raises(UsageError, match="was trained without classes"):
        cli.run(["sample", "--run", str(tmp_path / "run"), "--out", str(tmp_path / "s"), "--class", "dark"])
    shutil.rmtree(tmp_path / "run")
