"""The autoencoder in the package is found by name, read in full precision, and never silently another one."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from data.checkpoints import save_weights
from data.errors import CorruptError, MismatchError, UsageError
from data.latents import LatentStore
from pipelines import cli
from stage1_autoencoder import default
from stage1_autoencoder.networks import Autoencoder

pytestmark = pytest.mark.usefixtures("single_thread")


@pytest.fixture
def packaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package with defaults of factors 2 and 4; the current folder is empty."""
    monkeypatch.setattr(default, "WEIGHTS", tmp_path / "weights")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for factor in (4, 2):
        torch.manual_seed(factor)
        autoencoder = Autoencoder(factor, 3, 4)
        torch.nn.init.normal_(autoencoder.get_parameter("encoder.patch.weight"), std=0.2)
        default.save_default(autoencoder.state_dict(), autoencoder.config)
    return tmp_path / "weights"


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    (tmp_path / "pictures").mkdir()
    random = np.random.default_rng(0)
    for index in range(4):
        pixels = random.integers(0, 256, (32, 32, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "pictures" / f"{index}.png")
    return tmp_path / "pictures"


@pytest.mark.parametrize(("name", "factor"), [("default", 4), ("default:4", 4), ("default:2", 2)])
def test_a_name_gives_the_packaged_weights_in_full_precision(packaged: Path, name: str, factor: int) -> None:
    autoencoder = Autoencoder.load(name)
    stored = load_file(packaged / f"factor{factor}" / "autoencoder.safetensors")
    assert autoencoder.factor == factor
    for key, tensor in autoencoder.state_dict().items():
        assert (stored[key].dtype, tensor.dtype) == (torch.float16, torch.float32)
        assert torch.equal(tensor, stored[key].float())
    assert not autoencoder.training


def test_encoding_takes_the_default_and_stores_it_by_name(packaged: Path, pictures: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    cli.run(["encode", "--data", str(pictures), "--out", str(store), "--size", "32"])
    opened = LatentStore.open(store)
    assert opened.metadata["autoencoder_run"] == "default"
    assert opened.fingerprint == Autoencoder.load("default").fingerprint
    impostor = Path("default")  # what the store records is no folder of the place where one works
    other = Autoencoder(4, 3, 4)
    described = {"kind": "autoencoder", "autoencoder": other.config}
    save_weights(impostor / "weights", {"autoencoder": other.state_dict()}, described)
    assert Autoencoder.load("default").fingerprint == other.fingerprint
    assert Autoencoder.recorded("default").fingerprint == opened.fingerprint
    (shard,) = (path for path in (store / "latents" / "c").rglob("*") if path.is_file())
    shard.write_bytes(shard.read_bytes()[:-1])
    cli.run(["encode", "--repair", "--out", str(store)])
    LatentStore.open(store).verify()


def test_damaged_and_newer_defaults_are_refused(packaged: Path, flip_bit: Callable[[Path, int], None]) -> None:
    flip_bit(packaged / "factor2" / "autoencoder.safetensors", -5)
    with pytest.raises(CorruptError, match="do not match their checksum"):
        Autoencoder.load("default:2")
    config = json.loads((packaged / "factor4" / "config.json").read_text())
    tensors = load_file(packaged / "factor4" / "autoencoder.safetensors")
    save_weights(packaged / "factor4", {"autoencoder": tensors}, config | {"format": default.FORMAT + 1})
    with pytest.raises(MismatchError, match="made by a newer version"):
        Autoencoder.load("default")


def test_what_there_is_no_default_for_is_refused_naming_what_there_is(packaged: Path) -> None:
    with pytest.raises(UsageError, match="of factor 8") as refused:
        Autoencoder.load("default:8")
    assert "default:2, default:4" in refused.value.fix
    shutil.rmtree(packaged)
    with pytest.raises(UsageError, match="no default autoencoder in this build") as refused:
        Autoencoder.load("default")
    assert "train-ae" in refused.value.fix


def test_inspect_says_when_fine_tuning_is_worth_it(
    packaged: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Noise is lost in the code, mid-grey is not; the commands it ends with are complete."""
    random = np.random.default_rng(0)
    for name, pixels in (
        ("noise", random.integers(0, 256, (128, 128, 3), np.uint8)),
        ("flat", np.full((128, 128, 3), 128)),
    ):
        (tmp_path / name).mkdir()
        Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / name / "0.png")
    torch.manual_seed(0)
    linear = Autoencoder(4, 3, 4)
    default.save_default(linear.state_dict() | {"decoder.layers.7.weight": torch.zeros(12, 4, 3, 3)}, linear.config)
    cli.run(["inspect", str(tmp_path / "noise"), "--autoencoder", "default"])
    printed = capsys.readouterr().out
    assert "worth fine-tuning" in printed
    assert printed.endswith("--init default --factor 4 --code-channels 3 --width 4 --out runs/ae-tuned\n")
    cli.run(["inspect", str(tmp_path / "flat"), "--autoencoder", "default"])
    printed = capsys.readouterr().out
    assert "is not needed" in printed
    assert printed.endswith("--autoencoder default --out stores/latents\n")
