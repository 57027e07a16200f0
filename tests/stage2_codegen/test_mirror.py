"""Mirrored codes on the fly: which positions are mirrored, what their pictures are, and when it is done unasked."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from data.errors import MismatchError
from data.files.atomic import read_json, write_json
from data.files.checksums import read_checked, with_checksum
from data.files.runs import CONFIG, open_run
from data.images import to_float
from data.latents import LatentStore
from data.scenes.factors import Scenes
from data.seeds import coins
from stage1_autoencoder.configs import EncodeConfig
from stage1_autoencoder.encode import encode
from stage1_autoencoder.evaluate import psnr
from stage1_autoencoder.networks import Autoencoder
from stage1_autoencoder.training.clock import StepClock
from stage2_codegen.configs.train import TrainConfig
from stage2_codegen.setup import Setup, _mirrors, codes_between, prepare
from stage2_codegen.train import train
from stage2_codegen.variants import VARIANTS
from tests.training_runs import MODEL, assert_same_bits, make_autoencoder, state

Configure = Callable[..., TrainConfig[Any]]


@pytest.fixture(scope="module")
def pixels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 scenes of 16 x 16, as they are in `plain`, with their mirror images in `flipped`."""
    folder = tmp_path_factory.mktemp("pixels")
    for name, flip in (("plain", False), ("flipped", True)):
        config = EncodeConfig(data=("scenes:40@16",), autoencoder=Path("pixels"), out=folder / name, size=(16,))
        encode(replace(config, flip=flip))
    return folder


def codes(setup: Setup, start: int, stop: int) -> Tensor:
    """All this rank is shown for images `start` to `stop`."""
    return torch.cat([batch.codes for batch in codes_between(start, stop, setup, StepClock())])


def test_mirrored_codes_decode_to_mirrored_pictures(configure: Configure) -> None:
    """The linear path alone, as networks begin, so that it is exact; wgan-gp's critic has two batches an image."""
    config = configure("wgan-gp", "run", mirror=True)
    setup = prepare("wgan-gp", config)
    pictures = decode(setup, codes(setup, 0, 40))
    plain = decode(setup, codes(prepare("wgan-gp", replace(config, mirror=False)), 0, 40))
    heads = torch.from_numpy(coins(config.seed, 0, 80))
    assert 20 < heads.sum() < 60
    torch.testing.assert_close(pictures[heads], plain[heads].flip(-1), rtol=0, atol=1e-5)
    assert torch.equal(pictures[~heads], plain[~heads])
    assert (pictures[heads] - plain[heads]).abs().amax((1, 2, 3)).min() > 0.05  # the mirror image is another


def decode(setup: Setup, shown: Tensor) -> Tensor:
    return setup.context.autoencoder.decode(setup.context.scale.to_latents(shown))


def test_pixels_are_mirrored_unasked_and_exactly(pixels: Path, tmp_path: Path) -> None:
    config = TrainConfig(
        store=pixels / "plain", out=tmp_path, model=VARIANTS["accel"].Config(**MODEL["accel"]), batch_size=8
    )
    setup, plain = prepare("accel", config), prepare("accel", replace(config, mirror=False))
    heads = torch.from_numpy(coins(config.seed, 0, 80)).view(-1, 1, 1, 1)
    unmirrored = codes(plain, 0, 80)
    assert setup.config.mirror is True
    assert torch.equal(codes(setup, 0, 80), torch.where(heads, unmirrored.flip(-1), unmirrored))


def test_the_packaged_autoencoder_mirrors_as_well_as_it_encodes_mirrored_pictures() -> None:
    """As docs/autoencoder.md says of photographs: 35.87 dB either way, and 19.35 dB without the signs."""
    autoencoder, scenes = Autoencoder.load("default"), Scenes(4, size=64)
    images = to_float(torch.from_numpy(np.stack([scenes.image(index) for index in range(4)])))
    mirrored = images.flip(-1)
    with torch.inference_mode():
        latents = autoencoder.encode(images)
        encoded = autoencoder.decode(autoencoder.encode(mirrored))
        found = {
            "mirrored": autoencoder.decode(autoencoder.mirror(latents)),
            "without signs": autoencoder.decode(latents.flip(-1)),
        }
    decibels = {name: psnr((picture - mirrored).square().mean().item()) for name, picture in found.items()}
    best = psnr((encoded - mirrored).square().mean().item())
    assert decibels["mirrored"] > best - 0.3
    assert decibels["without signs"] < best - 5


def test_neither_ranks_nor_batches_nor_a_resume_move_a_coin(configure: Configure) -> None:
    setup = prepare("accel", configure("accel", "run", mirror=True))
    whole = codes(setup, 0, 48)
    ranks = [codes(setup._replace(share=slice(first, first + 4)), 0, 48).view(6, 4, 4, 16, 16) for first in (0, 4)]
    assert torch.equal(torch.cat(ranks, 1).flatten(0, 1), whole)
    larger = setup._replace(config=replace(setup.config, batch_size=24), share=slice(0, 24))
    assert torch.equal(codes(larger, 0, 48), whole)
    assert torch.equal(codes(setup, 24, 48), whole[24:])


def test_a_resumed_mirrored_run_is_bit_for_bit_an_uninterrupted_one(configure: Configure) -> None:
    configs = {out: configure("wgan-gp", out, kimg=0.048, mirror=out != "plain") for out in ("whole", "parts", "plain")}
    train("wgan-gp", replace(configs["parts"], kimg=0.024))
    for config in configs.values():
        train("wgan-gp", config)
    assert_same_bits(configs["whole"].out, configs["parts"].out)
    whole, plain = (state(configs[out].out)["critic"] for out in ("whole", "plain"))
    assert any(not torch.equal(whole[key], plain[key]) for key in whole)
    for out, config in configs.items():
        described = read_json(config.out / "weights" / "config.json")
        assert read_json(config.out / CONFIG)["mirror"] is described["mirror"] is (out != "plain")
    with pytest.raises(MismatchError, match="mirror: True then, False now"):
        train("wgan-gp", replace(configs["whole"], mirror=False))


@pytest.mark.parametrize(
    ("recorded", "flip", "mirrors"),
    [
        ("default", False, True),
        ("default:8", False, True),
        ("pixels", False, True),
        ("default", True, False),
        ("pixels", True, False),
        ("taught", False, True),
        ("taught", True, False),
        ("untaught", False, False),
        ("weights alone", False, False),
    ],
)
def test_unasked_it_is_done_where_the_autoencoder_learnt_it_and_the_store_does_not_hold_it(
    recorded: str, flip: bool, mirrors: bool, store: Path, configure: Configure, tmp_path: Path
) -> None:
    for name in ("taught", "untaught"):
        open_run(tmp_path / name, {"kind": "autoencoder", "mirror": name == "taught"})
    make_autoencoder(tmp_path / "weights alone")
    run = str(tmp_path / recorded) if (tmp_path / recorded).exists() else recorded
    opened = LatentStore.open(store)
    told = LatentStore(store, {**opened.seal, "autoencoder_run": run, "flip": flip})
    config = configure("accel", "run")
    assert config.mirror is None
    assert _mirrors(config, told) is mirrors
    assert _mirrors(replace(config, mirror=not mirrors), told) is not mirrors
    if Path(run).is_absolute():  # where it has moved to counts, not where it was
        gone = LatentStore(store, {**told.seal, "autoencoder_run": str(tmp_path / "gone")})
        assert _mirrors(replace(config, autoencoder=Path(run)), gone) is mirrors


def test_a_run_of_a_version_that_mirrored_none_goes_on_without(pixels: Path, tmp_path: Path) -> None:
    model = VARIANTS["accel"].Config(**MODEL["accel"])
    config = TrainConfig(store=pixels / "plain", out=tmp_path / "run", model=model, kimg=0.032, batch_size=8)
    earlier = replace(config, kimg=0.016, mirror=False)
    train("accel", earlier)
    for name in (CONFIG, f".{CONFIG}"):
        stored = read_checked(earlier.out / name)
        assert stored is not None
        assert stored.pop("mirror") is False
        write_json(earlier.out / name, with_checksum({k: v for k, v in stored.items() if k != "crc32c"}))
    copied = shutil.copytree(earlier.out, tmp_path / "copied")
    train("accel", config)
    train("accel", replace(config, out=tmp_path / "whole", mirror=False))
    assert_same_bits(config.out, tmp_path / "whole")
    assert read_json(config.out / CONFIG)["mirror"] is False
    with pytest.raises(MismatchError, match="mirror: False then, True now"):
        train("accel", replace(config, out=copied, mirror=True))


def test_a_flipped_store_is_mirrored_only_when_asked_which_is_said_to_be_pointless(
    pixels: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = VARIANTS["accel"].Config(**MODEL["accel"])
    config = TrainConfig(store=pixels / "flipped", out=tmp_path / "run", model=model, kimg=0.008, batch_size=8)
    for asked, is_warned in ((None, False), (True, True)):
        train("accel", replace(config, out=tmp_path / str(asked), mirror=asked))
        assert read_json(tmp_path / str(asked) / CONFIG)["mirror"] is is_warned
        assert ("holds the mirrored pictures already" in capsys.readouterr().err) is is_warned
