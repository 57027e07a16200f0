"""`codegan inspect` counts what was put in, names what it left out, and writes the same to files."""

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from data.errors import InputError, UsageError
from data.images import fit, open_images
from pipelines.cli import run
from pipelines.inspect import contact_sheet, summarise
from stage1_autoencoder import default
from stage1_autoencoder.networks import Autoencoder

pytestmark = pytest.mark.usefixtures("single_thread")

SIZES = [(100, 127), (128, 300), (255, 256), (256, 256), (700, 500), (1024, 2000), (1100, 1030)]  # height, width


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for index, (height, width) in enumerate(SIZES):
        path = tmp_path / "data" / ("cat" if index < 3 else "dog") / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (width, height), (30 * index, 0, 0)).save(path)
    (tmp_path / "data/cat/broken.jpg").write_bytes(b"not a picture")
    (tmp_path / "data/dog/empty.png").touch()
    return tmp_path / "data"


def test_inspect_prints_and_writes_what_is_there(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "out"
    run(["inspect", str(folder), "--out", str(out)])
    printed = capsys.readouterr().out
    assert "7 images, 2 skipped" in printed
    assert "cat/broken.jpg: not an image" in printed
    assert "dog/empty.png: empty file" in printed
    assert printed.endswith(f"next: codegan encode --data {folder} --max-skip 0.23 --out stores/data\n")
    for name in ("contact.png", "skipped.jsonl", "summary.json"):
        assert f"wrote {out / name}" in printed
        assert (out / name).is_file()

    summary = json.loads((out / "summary.json").read_text())
    assert (summary["count"], summary["skipped"]) == (7, 2)
    assert summary["labels"] == {"0": 3, "1": 4}
    assert summary["fingerprint"] == open_images(folder, max_skip=1).fingerprint
    assert summary["sides"]["height"] == {"min": 100, "median": 256, "max": 1100}
    assert summary["sides"]["width"] == {"min": 127, "median": 300, "max": 2000}
    expected = {"below 128": 1, "128 to 255": 2, "256 to 511": 2, "512 to 1023": 0, "1024 or more": 2}
    assert summary["shorter_side"] == expected
    skipped = [json.loads(line) for line in (out / "skipped.jsonl").read_text().splitlines()]
    assert [line["key"] for line in skipped] == ["cat/broken.jpg", "dog/empty.png"]


def test_inspect_without_out_writes_nothing(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.chdir(tmp_path)
    run(["inspect", str(folder)])
    assert sorted(tmp_path.rglob("*")) == before


def test_shorter_sides_are_counted_by_the_sizes_asked_for(folder: Path) -> None:
    images = open_images(folder, max_skip=1)
    shorter = [min(size) for size in SIZES]
    counts = list(summarise(images, [255, 256, 1024])["shorter_side"].values())
    bounds = [0, 255, 256, 1024, 10**9]
    assert counts == [sum(a <= side < b for side in shorter) for a, b in pairwise(bounds)]


def test_contact_sheet_shows_few_images_all_and_many_spread() -> None:
    assert contact_sheet(open_images("scenes:3@16")).shape == (3, 2 * 130 - 2, 2 * 130 - 2)
    images = open_images("scenes:100@16")
    sheet = contact_sheet(images)
    assert sheet.shape == (3, 8 * 130 - 2, 8 * 130 - 2)
    corners = [images.pil(index).resize((128, 128), Image.Resampling.LANCZOS) for index in (0, 99)]
    np.testing.assert_array_equal(sheet[:, :128, :128], np.asarray(corners[0]).transpose(2, 0, 1))
    np.testing.assert_array_equal(sheet[:, -128:, -128:], np.asarray(corners[1]).transpose(2, 0, 1))


def test_inspect_refuses_data_without_pictures_and_sizes_without_sense(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError):
        run(["inspect", str(tmp_path / "empty")])
    for arguments in (["inspect"], ["inspect", str(folder), "--size", "0"]):
        with pytest.raises(UsageError):
            run(arguments)


@pytest.fixture
def packaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Autoencoder:
    """The default of the package, tiny, and with it a current folder that is empty."""
    monkeypatch.setattr(default, "WEIGHTS", tmp_path / "weights")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    torch.manual_seed(0)
    autoencoder = Autoencoder(4, 3, 4)
    default.save_default(autoencoder.state_dict(), autoencoder.config)
    return autoencoder


def save_noise(folder: Path, *sides: int) -> str:
    folder.mkdir()
    random = np.random.default_rng(0)
    for side in sides:
        pixels = random.integers(0, 256, (side, side, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{side}.png")
    return str(folder)


def inspected(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[str, str]:
    """What was said of fine-tuning, in one line, and the next command."""
    capsys.readouterr()
    run(["inspect", *words])
    printed = capsys.readouterr().out.splitlines()
    (advice,) = (line for line in printed if "fine-tuning" in line)
    return advice, printed[-1].removeprefix("next: codegan ")


def test_fine_tuning_is_advised_by_the_largest_size_that_half_of_the_pictures_have(
    packaged: Autoencoder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = save_noise(tmp_path / "noise", 96, 256, 257, 512)
    errors = []
    for side in (256, 257, 512):
        with Image.open(tmp_path / "noise" / f"{side}.png") as image:
            x = torch.tensor(np.asarray(fit(image, 256))).permute(2, 0, 1)[None] / 127.5 - 1
        errors.append((Autoencoder.load("default")(x) - x).square().mean().item())
    error = np.mean(errors)
    for times, verdict in ((1.4, "not needed"), (1.6, "worth it")):
        others = dict.fromkeys(("128", "512"), error / times * (0.1 if times < 1.5 else 10))  # misleading
        known = {**others, "256": error / times}
        default.save_default(packaged.state_dict(), packaged.config, held_out_mse=known)
        advice, following = inspected(capsys, data, "--autoencoder", "default")
        assert advice == (
            f"at 256 px the error is {times} times that of default on images held out from its training and "
            f"{error / 1e-3:.1f} times the paper's on faces: fine-tuning is {verdict}"
        )
        assert following.startswith("train-ae " if times > 1.5 else "encode ")


def test_the_commands_printed_work_one_after_the_other(
    packaged: Autoencoder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = save_noise(tmp_path / "noise", 128, 129)
    advice, following = inspected(capsys, data, "--autoencoder", "default")
    assert "times the paper's on faces: fine-tuning is worth it" in advice
    gentle = "--code-noise 0.05 --mirror --lr 3e-4 --lr-decay-kimg 5 --kimg 20 --adversarial-weight 0"
    assert following.endswith(f"--init default --factor 4 --code-channels 3 --width 4 {gentle} --out runs/ae-tuned")
    run(following.replace("--kimg 20", "--kimg 0.016").split())
    measured = Path("runs/ae-tuned/reconstructions.json")
    content = json.loads(measured.read_text())
    content["rows"][0]["mse"] /= 1000
    measured.write_text(json.dumps(content))
    advice, following = inspected(capsys, data, "--autoencoder", "runs/ae-tuned")
    assert "that of runs/ae-tuned on images held out" in advice
    assert "--init runs/ae-tuned " in following
    assert following.endswith(" --out runs/ae-tuned-2")
    run(following.replace("--kimg 20", "--kimg 0.016").split())


@pytest.mark.parametrize(
    ("side", "flags", "said"),
    [
        (96, "--autoencoder default", "it takes a --size of 128, 256, 512, 1024 that half of the images have"),
        (200, "--autoencoder default --size 200", "it takes a --size of 128, 256, 512, 1024"),
        (128, "--autoencoder default:2", "no errors of default:2 on held-out images are known"),
    ],
)
def test_inspect_says_why_it_gives_no_advice(
    packaged: Autoencoder, tmp_path: Path, capsys: pytest.CaptureFixture[str], side: int, flags: str, said: str
) -> None:
    two = Autoencoder(2, 3, 4)
    default.save_default(two.state_dict(), two.config)
    advice, following = inspected(capsys, save_noise(tmp_path / "noise", side), *flags.split())
    assert advice.startswith("no advice on fine-tuning: ")
    assert said in advice
    assert following.startswith("encode ")


def test_inspect_loads_the_autoencoder_before_it_looks_at_data(packaged: Autoencoder) -> None:
    for name, said in (("default:8", "of factor 8"), ("pixels", "nothing to measure")):
        with pytest.raises(UsageError, match=said):
            run(["inspect", "missing", "--autoencoder", name])
