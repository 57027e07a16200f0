"""Autoencoders of diffusers take the place of ours, from a local folder of safetensors and JSON."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from data.errors import CodeganError, CorruptError, InputError, MismatchError, UsageError
from data.latents import LatentStore
from pipelines.cli import run
from pipelines.sample import load_generator
from stage1_autoencoder import tiles
from stage1_autoencoder.bounds import unbounded
from stage1_autoencoder.configs import TrainAEConfig
from stage1_autoencoder.networks import Autoencoder
from stage1_autoencoder.train import train

diffusers = pytest.importorskip("diffusers", reason="the extra `diffusers` is not installed")

THREE = 3
FORMS: dict[str, dict[str, Any]] = {
    "AutoencoderTiny": {
        "encoder_block_out_channels": (4, 4),
        "decoder_block_out_channels": (4, 4),
        "num_encoder_blocks": (1, 2),
        "num_decoder_blocks": (2, 1),
        "latent_channels": 5,
    },
    "AutoencoderKL": {
        "block_out_channels": (4, 4, 4),
        "down_block_types": ("DownEncoderBlock2D",) * THREE,
        "up_block_types": ("UpDecoderBlock2D",) * THREE,
        "layers_per_block": 1,
        "norm_num_groups": 2,
        "scaling_factor": 0.5,
        "shift_factor": 0.1,
    },
    "AutoencoderDC": {
        "latent_channels": 2,
        "attention_head_dim": 4,
        "encoder_block_out_channels": (4, 4),
        "decoder_block_out_channels": (4, 4),
        "encoder_layers_per_block": (1, 1),
        "decoder_layers_per_block": (1, 1),
        "encoder_qkv_multiscales": ((), ()),
        "decoder_qkv_multiscales": ((), ()),
        "scaling_factor": 0.4,
    },
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    torch.manual_seed(0)
    return {kind: getattr(diffusers, kind)(**form).eval().requires_grad_(False) for kind, form in FORMS.items()}


@pytest.fixture(scope="module")
def folders(models: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("published")
    for kind, model in models.items():
        model.save_pretrained(root / kind)
    return {kind: root / kind for kind in models}


def load(folder: Path) -> Autoencoder:
    return Autoencoder.load(f"diffusers:{folder}")


@pytest.mark.parametrize(("kind", "factor", "channels"), [*zip(FORMS, (2, 4, 2), (5, 4, 2), strict=True)])
def test_latents_are_the_published_codes_in_range(
    models: dict[str, Any], folders: dict[str, Path], kind: str, factor: int, channels: int
) -> None:
    """`unbounded` latents are half the codes as their configuration scales them, so that these have deviation 1."""
    autoencoder, model = load(folders[kind]), models[kind]
    assert (autoencoder.factor, autoencoder.code_channels) == (factor, channels)
    images = torch.rand(2, 3, 32, 48) * 2 - 1
    encoded = model.encode(images)
    codes = encoded.latent_dist.mode() if kind == "AutoencoderKL" else encoded[0]
    scaled = (codes - FORMS[kind].get("shift_factor", 0)) * FORMS[kind].get("scaling_factor", 1)
    latents = autoencoder.encode(images)
    torch.testing.assert_close(unbounded(latents), 0.5 * scaled, rtol=1e-4, atol=1e-5)
    assert latents.abs().max() < 1
    decoded = model.decode(codes).sample
    torch.testing.assert_close(autoencoder.decode(latents), decoded.clamp(-1, 1), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(autoencoder.mirror(latents), latents.flip(-1))


def test_statistics_by_channel_scale_as_well(tmp_path: Path) -> None:
    form = {**FORMS["AutoencoderKL"], "scaling_factor": 1.0, "shift_factor": None}
    mean, std = [0.1, 0.2, 0.3, 0.4], [1.0, 2.0, 3.0, 4.0]
    model = diffusers.AutoencoderKL(**form, latents_mean=mean, latents_std=std)
    model.save_pretrained(tmp_path)
    images = torch.rand(1, 3, 16, 16)
    with torch.no_grad():
        codes = (model.encode(images).latent_dist.mode() - torch.tensor(mean).view(-1, 1, 1)) / torch.tensor(std).view(
            -1, 1, 1
        )
    torch.testing.assert_close(unbounded(load(tmp_path).encode(images)), 0.5 * codes, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", FORMS)
def test_weights_and_their_description_make_the_same_one_again(folders: dict[str, Path], kind: str) -> None:
    autoencoder = load(folders[kind])
    described = json.loads(json.dumps(autoencoder.config))
    again = Autoencoder.from_weights(autoencoder.state_dict(), described, "here")
    assert again.fingerprint == autoencoder.fingerprint == load(folders[kind]).fingerprint
    images = torch.rand(1, 3, 32, 32)
    torch.testing.assert_close(again.encode(images), autoencoder.encode(images), rtol=0, atol=0)


def test_convolutions_alone_are_divided_into_tiles(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiles, "WHOLE", 32)
    monkeypatch.setattr(tiles, "TILE", 16)
    images = torch.rand(1, 3, 64, 64) * 2 - 1
    autoencoder = load(folders["AutoencoderTiny"])
    latents = autoencoder.encode(images)
    torch.testing.assert_close(latents, autoencoder.encoder(images), rtol=0, atol=1e-6)
    torch.testing.assert_close(autoencoder.decode(latents), autoencoder.decoder(latents), rtol=0, atol=1e-6)
    assert load(folders["AutoencoderKL"]).reach is None  # its norms and its attention see the whole picture
    assert load(folders["AutoencoderDC"]).reach is None


@pytest.mark.usefixtures("single_thread")
def test_a_generator_is_trained_sampled_and_scored_on_its_latents(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store, out = tmp_path / "store", tmp_path / "run"
    name = f"diffusers:{folders['AutoencoderTiny']}"
    encode = ["encode", "--data", "scenes:4", "--size", "32", "--autoencoder", name, "--out", str(store)]
    run(encode)
    sealed = LatentStore.open(store)
    assert sealed.code_shape == (5, 16, 16)
    assert sealed.seal["autoencoder_run"] == name
    before = (store / "zarr.json").read_bytes()
    run(encode)  # is complete already
    assert (store / "zarr.json").read_bytes() == before
    small = ["--kimg", "0.004", "--batch-size", "4", "--model.width", "4", "--model.z-dim", "8"]
    run(["train", "r3", "--store", str(store), "--out", str(out), *small])
    for path in folders["AutoencoderTiny"].iterdir():
        path.rename(path.with_suffix(".away"))  # the run alone is enough from here on
    try:
        run(["sample", "--run", str(out), "--out", "samples", "--num", "2"])
        assert load_generator(out)([0, 1]).shape == (2, 3, 32, 32)
        run(["score", "--run", str(out), "--data", "scenes:4", "--features", "offline", "--num", "4"])
    finally:
        for path in folders["AutoencoderTiny"].iterdir():
            path.rename(path.with_name(path.stem + (".json" if path.stem == "config" else ".safetensors")))
    assert np.isfinite(json.loads((out / "scores.json").read_text())["kd-offline"]["value"])


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda folder: (folder / "config.json").unlink(), InputError, "holds no autoencoder"),
        (lambda folder: next(folder.glob("*.safetensors")).unlink(), InputError, "holds no autoencoder"),
        (lambda folder: next(folder.glob("*.safetensors")).write_bytes(b"x"), CorruptError, "cannot be loaded"),
        (lambda folder: (folder / "config.json").write_text('{"_class_name": "UNet"}'), MismatchError, "kind UNet"),
        (lambda folder: edit(folder, latent_channels=3), CorruptError, "cannot be loaded"),
        (lambda folder: edit(folder, quantization_config={"quant_method": "gguf"}), MismatchError, "quantised"),
    ],
)
def test_other_folders_are_refused(
    models: dict[str, Any], tmp_path: Path, change: Any, error: type[CodeganError], message: str
) -> None:
    models["AutoencoderTiny"].save_pretrained(tmp_path)
    change(tmp_path)
    with pytest.raises(error, match=message):
        load(tmp_path)


def edit(folder: Path, **fields: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | fields))


def test_a_pickle_is_not_read(models: dict[str, Any], tmp_path: Path) -> None:
    models["AutoencoderTiny"].save_pretrained(tmp_path, safe_serialization=False)
    with pytest.raises(InputError, match="holds no autoencoder"):
        load(tmp_path)


def test_networks_of_grey_pictures_are_refused(tmp_path: Path) -> None:
    diffusers.AutoencoderTiny(**FORMS["AutoencoderTiny"], in_channels=1, out_channels=1).save_pretrained(tmp_path)
    with pytest.raises(MismatchError, match="colour"):
        load(tmp_path)


def test_one_cannot_be_trained_on(folders: dict[str, Path], tmp_path: Path) -> None:
    init = Path(f"diffusers:{folders['AutoencoderTiny']}")
    with pytest.raises(UsageError, match="can only be used as it is"):
        train(TrainAEConfig(data=("scenes:4",), out=tmp_path / "ae", init=init))


def test_a_missing_package_is_named(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(UsageError, match="needs the package diffusers") as caught:
        load(folders["AutoencoderTiny"])
    assert "codegan[diffusers]" in caught.value.fix
