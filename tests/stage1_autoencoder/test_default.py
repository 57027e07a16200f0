"""The autoencoder in the package is found by name, read in full precision, and never silently another one."""

import importlib.metadata
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from data.advice import Action, Advice
from data.errors import CorruptError, MismatchError, UsageError
from data.files.atomic import commit_folder, verify_folder, write_json
from data.files.checkpoints import load_weights, save_weights
from data.images import open_images
from data.latents import LatentStore
from pipelines import cli
from stage1_autoencoder import default
from stage1_autoencoder.evaluate import reconstruction_table
from stage1_autoencoder.networks import Autoencoder
from stage2_codegen.configs.train import TrainConfig
from stage2_codegen.variants import VARIANTS
from tests.training_runs import MODEL, arguments

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
    assert opened.seal["autoencoder_run"] == "default"
    assert opened.fingerprint == Autoencoder.load("default").fingerprint
    impostor = Path("default")  # what the store records is no folder of the place where one works
    other = Autoencoder(4, 3, 4)
    described = {"kind": "autoencoder", "autoencoder": other.config}
    save_weights(impostor / "weights", {"autoencoder": other.state_dict()}, described)
    assert Autoencoder.load("default").fingerprint == other.fingerprint
    assert Autoencoder.of_store(opened).fingerprint == opened.fingerprint
    (shard,) = (path for path in (store / "latents" / "c").rglob("*") if path.is_file())
    shard.write_bytes(shard.read_bytes()[:-1])
    cli.run(["encode", "--repair", "--out", str(store)])
    LatentStore.open(store).verify()


def damage_tensors(folder: Path, flip_bit: Callable[[Path, int], None]) -> None:
    flip_bit(folder / "autoencoder.safetensors", -5)


def lose_manifest(folder: Path, flip_bit: Callable[[Path, int], None]) -> None:
    (folder / "manifest.json").unlink()


def lose_format(folder: Path, flip_bit: Callable[[Path, int], None]) -> None:
    commit(folder, {"kind": "autoencoder"})


def commit(folder: Path, config: dict[str, Any], tensors: bytes = b"") -> None:
    with commit_folder(folder) as partial:
        write_json(partial / "config.json", config)
        (partial / "autoencoder.safetensors").write_bytes(tensors)


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (damage_tensors, "checksum mismatch"),
        (lose_manifest, "manifest.json: is missing"),
        (lose_format, "config.json: has no 'format'"),
    ],
)
def test_the_remedy_for_damage_is_to_install_again(
    packaged: Path, harm: Callable[..., None], said: str, flip_bit: Callable[[Path, int], None]
) -> None:
    harm(packaged / "factor4", flip_bit)
    with pytest.raises(CorruptError, match=said) as refused:
        Autoencoder.load("default")
    assert refused.value.fix == "install codegan again"


def test_weights_of_a_newer_form_are_refused_by_the_version_that_made_them_though_only_that_can_read_them(
    packaged: Path,
) -> None:
    config = json.loads((packaged / "factor4" / "config.json").read_text())
    assert config["codegan"] == importlib.metadata.version("codegan")
    newer = {"format": default.FORMAT + 1, "codegan": "7.8.9"}
    commit(packaged / "factor4", config | newer, b"no safetensors")
    with pytest.raises(MismatchError, match=r"made by codegan 7\.8\.9"):
        Autoencoder.load("default")


def test_what_there_is_no_default_for_is_refused_naming_what_there_is(packaged: Path) -> None:
    shutil.copytree(packaged / "factor4", packaged / "factor4.bak")
    for name in ("default:8", "default:foo", "default:04"):
        with pytest.raises(UsageError, match=f"of factor {name[8:]}") as refused:
            Autoencoder.load(name)
        assert "choose from default:2, default:4, or" in refused.value.fix
    shutil.rmtree(packaged)
    with pytest.raises(UsageError, match="no default autoencoder in this build") as refused:
        Autoencoder.load("default")
    assert refused.value.advice == Advice(Action.TRAIN_AUTOENCODER)


Command = Callable[..., tuple[int, str]]


@pytest.fixture
def codegan(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Types a command; its exit code, and what it said on stderr."""

    def command(*words: object) -> tuple[int, str]:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["codegan", *map(str, words)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        return int(stop.value.code or 0), capsys.readouterr().err

    return command


def test_what_is_wrong_with_a_default_decides_the_exit_code(
    packaged: Path, pictures: Path, tmp_path: Path, flip_bit: Callable[[Path, int], None], codegan: Command
) -> None:
    encode = ("encode", "--data", pictures, "--out", tmp_path / "store", "--size", 32, "--autoencoder")
    flip_bit(packaged / "factor2" / "autoencoder.safetensors", -5)
    config = json.loads((packaged / "factor4" / "config.json").read_text())
    commit(packaged / "factor4", config | {"format": default.FORMAT + 1})
    for name, code in (("default:8", 2), ("default:foo", 2), ("default", 4), ("default:2", 5)):
        given, said = codegan(*encode, name)
        assert given == code
        assert [line[:7] for line in said.splitlines()] == ["error: ", "  fix: "]
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("flags", "code", "said"),
    [
        ("--init pixels", 2, "--init pixels: there is nothing to train"),
        ("--init default --factor 8", 2, "there is no default autoencoder of factor 8"),
        ("--init default --factor 8", 2, "choose from default:2, default:4"),
        ("--init default --factor 2", 4, "give --factor 4 --code-channels 3 --width 4"),
        ("--code-noise nan", 2, "--code-noise nan: is not a number"),
        ("--lr inf", 2, "--lr inf: is not a number"),
        ("--adversarial-weight nan", 2, "--adversarial-weight nan: is not a number"),
    ],
)
def test_training_refuses_what_cannot_be_tuned_before_it_looks_at_data(
    packaged: Path, flags: str, code: int, said: str, codegan: Command
) -> None:
    given, complaint = codegan("train-ae", "--data", "missing", "--out", "run", *flags.split())
    assert given == code
    assert said in complaint
    assert not list(Path().iterdir())


def test_fine_tuning_begins_with_the_default(packaged: Path, pictures: Path, codegan: Command) -> None:
    form = "--factor 4 --code-channels 3 --width 4 --size 32 --adversarial-weight 0 --batch-size 2 --threads 1"
    tuning = "--init default --lr 1e-9 --kimg 0.002 --ema-halflife-kimg 0"
    assert codegan("train-ae", "--data", pictures, "--out", "run", *form.split(), *tuning.split())[0] == 0
    tuned, packed = Autoencoder.load("run").state_dict(), Autoencoder.load("default").state_dict()
    for name, tensor in packed.items():
        torch.testing.assert_close(tuned[name], tensor, rtol=0, atol=1e-7)
    assert "rows_before" in json.loads(Path("run/reconstructions.json").read_text())


def test_a_store_of_the_default_is_trained_on_until_a_version_brings_another(
    packaged: Path, pictures: Path, codegan: Command
) -> None:
    assert codegan("encode", "--data", pictures, "--out", "store", "--size", 64)[0] == 0
    model = VARIANTS["dcgan"].Config(**MODEL["dcgan"])
    config = TrainConfig(store=Path("store"), out=Path("gan"), model=model, kimg=0.008, batch_size=4)
    assert codegan(*arguments(config, "dcgan"))[0] == 0
    assert load_weights(Path("gan/weights")).state["autoencoder_run"] == "default"
    fresh = Autoencoder(4, 3, 4)
    default.save_default(fresh.state_dict(), fresh.config)
    (shard,) = (path for path in Path("store/latents/c").rglob("*") if path.is_file())
    kept = shard.read_bytes()
    again = arguments(replace(config, out=Path("again")), "dcgan")
    assert_refused_as_another_default(codegan(*again))
    shard.write_bytes(kept[:-1])
    assert_refused_as_another_default(codegan("encode", "--repair", "--out", "store"))
    shard.write_bytes(kept)
    given, said = codegan(*again, "--autoencoder", "default:2")
    assert given == 4
    assert "give the right one with --autoencoder" in said


def assert_refused_as_another_default(outcome: tuple[int, str]) -> None:
    given, said = outcome
    assert given == 4
    assert "encoded by default of another version" in said
    assert "encode again into another --out, or use the version of codegan that made the store" in said


def test_a_checkout_leaves_the_bytes_of_the_weights_alone() -> None:
    """Line ends of another system would break the checksums of the JSON files."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        pytest.skip("no checkout")
    asked = ["git", "-C", str(root), "check-attr", "text", "stage1_autoencoder/weights/factor4/manifest.json"]
    assert subprocess.run(asked, capture_output=True, text=True, check=True).stdout.endswith("text: unset\n")


@pytest.mark.skipif(not default.default_factors(), reason="no weights come with this version")
def test_the_weights_that_are_shipped_are_whole_small_and_trained() -> None:
    folder = default.find_default("default")
    verify_folder(folder)
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 8_000_000
    scenes, floor = open_images("scenes:4@64"), 30.0  # dB; the best linear code of 4 x 4 pixels in 16 numbers has 28
    torch.manual_seed(0)
    for autoencoder, trained in ((Autoencoder(), False), (Autoencoder.load("default"), True)):
        (row,) = reconstruction_table(autoencoder, scenes, [64])
        assert (row["psnr"] > floor) == trained
