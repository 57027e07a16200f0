"""A generator is given away as a folder, a .zip, an address or a repository, and draws the same everywhere."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from data.errors import CorruptError, UnsafeError, UsageError
from data.files.atomic import verify_folder
from pipelines.cli import run
from pipelines.sample import load_generator
from tests.file_server import host_of, serving


@pytest.fixture(scope="module")
def packed(trained_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packed")
    return Path(shutil.make_archive(str(folder / "photos"), "zip", trained_run.parent, trained_run.name))


@pytest.fixture(scope="module")
def exported(trained_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run with scores, as a folder to share; not to be changed."""
    folder = tmp_path_factory.mktemp("exported")
    scored = folder / "scored run"
    shutil.copytree(trained_run, scored)
    entry = {"value": 1.25, "interval": [1, 2], "autoencoder_floor": 0.5, "real_floor": None, "num_real": 1000}
    scores = {"fid": entry, "nimg": 48, "reference": "/home/me/flowers", "features": "inception"}
    (scored / "scores.json").write_text(json.dumps(scores))
    run(["export", "--run", str(scored), "--hub", str(folder / "hub"), "--license", "cc-by-4.0"])
    return folder / "hub"


@pytest.fixture
def shared(exported: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(exported, tmp_path / "hub"))


def test_a_zip_draws_what_its_run_draws(trained_run: Path, packed: Path) -> None:
    expected = load_generator(trained_run)([3])
    np.testing.assert_array_equal(load_generator(packed)([3]), expected)
    content = packed.read_bytes()
    with serving({"photos.zip": content}) as (address, _):
        url = f"{address}/photos.zip#sha256={hashlib.sha256(content).hexdigest()}"
        with pytest.raises(UnsafeError, match="not allowed"):
            load_generator(url)
        np.testing.assert_array_equal(load_generator(url, allow_hosts=[host_of(address)])([3]), expected)


def test_verbs_take_a_zip_and_write_nothing_beside_it(
    packed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(packed.parent.iterdir())
    few = ["--steps", "1", "--candidates", "2"]
    run(["sample", "--run", str(packed), "--out", str(tmp_path / "drawn"), "--num", "4"])
    run(["walk", "--run", str(packed), "--out", str(tmp_path / "w.gif"), "--frames", "2"])
    run(["project", "--run", str(packed), "--data", str(tmp_path / "drawn"), "--out", str(tmp_path / "found"), *few])
    run(["score", "--run", str(packed), "--data", str(tmp_path / "drawn"), "--features", "offline", "--num", "4"])
    assert "report" not in capsys.readouterr().out
    assert sorted(packed.parent.iterdir()) == before


def test_an_address_goes_through_the_command_line(packed: Path, tmp_path: Path) -> None:
    content = packed.read_bytes()
    with serving({"photos.zip": content}) as (address, asked):
        url = f"{address}/photos.zip#sha256={hashlib.sha256(content).hexdigest()}"
        flags = ["--run", url, "--num", "1", "--out", str(tmp_path / "drawn")]
        with pytest.raises(UnsafeError):
            run(["sample", *flags])
        assert asked == []
        run(["sample", *flags, "--allow-host", host_of(address)])
    assert (tmp_path / "drawn" / "000000.png").is_file()


def test_an_exported_folder_draws_the_same_and_says_nothing_of_the_machine(trained_run: Path, shared: Path) -> None:
    np.testing.assert_array_equal(load_generator(shared)([3]), load_generator(trained_run)([3]))
    assert sorted(path.name for path in shared.iterdir()) == ["README.md", "samples.jpg", "weights"]
    verify_folder(shared / "weights")
    for path in (shared / "README.md", shared / "weights" / "config.json"):
        text = path.read_text()
        assert str(trained_run.parent) not in text
        assert "/home/" not in text


def test_the_card_has_scores_with_floors_a_licence_and_the_command_that_draws(shared: Path) -> None:
    card = (shared / "README.md").read_text()
    header = card.split("---")[1]
    assert "license: cc-by-4.0\n" in header
    assert "pipeline_tag: unconditional-image-generation" in header
    assert "# scored run" in card
    assert "Against flowers, with the features of inception." in card
    assert "| fid | 1.25 | 1 ... 2 | 0.5 | - | - | 1,000 |" in card
    assert "codegan sample --run hf://USER/NAME" in card


def test_a_card_is_kept_and_other_files_are_not_replaced(trained_run: Path, shared: Path) -> None:
    (shared / "README.md").write_text("mine")
    run(["export", "--run", str(trained_run), "--hub", str(shared)])
    assert (shared / "README.md").read_text() == "mine"
    (shared / "thesis.tex").touch()
    with pytest.raises(UsageError, match=r"holds other files \(thesis.tex\)"):
        run(["export", "--run", str(trained_run), "--hub", str(shared)])


def test_scores_of_another_snapshot_are_left_out(trained_run: Path, tmp_path: Path) -> None:
    scored = tmp_path / "run"
    shutil.copytree(trained_run, scored)
    (scored / "scores.json").write_text(json.dumps({"fid": {"value": 1.25}, "nimg": 47}))
    run(["export", "--run", str(scored), "--hub", str(tmp_path / "hub")])
    card = (tmp_path / "hub" / "README.md").read_text()
    assert "These weights were not scored." in card
    assert "license:" not in card


def test_a_folder_is_pushed_with_its_address_in_the_card(
    shared: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pushed = []
    monkeypatch.setattr("pipelines.push.upload", lambda *given: pushed.append(given))
    run(["push", str(shared), "--to", "hf://me/flowers"])
    assert [(str(folder), str(address), public) for folder, address, public in pushed] == [
        (str(shared), "hf://me/flowers", False)
    ]
    assert "hf://me/flowers" in (shared / "README.md").read_text()
    assert "next: codegan sample --run hf://me/flowers" in capsys.readouterr().out
    with pytest.raises(UsageError, match=r"holds no README.md"):
        run(["push", str(shared.parent), "--to", "hf://me/flowers"])
    (shared / "weights" / "generator.safetensors").write_bytes(b"x")
    with pytest.raises(CorruptError):
        run(["push", str(shared), "--to", "hf://me/flowers"])
    assert len(pushed) == 1


@pytest.mark.parametrize("name", ["CC BY", "x\ny: z", "-", "a" * 70])
def test_a_licence_that_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="--license"):
        run(["export", "--run", "r", "--hub", "h", "--license", name])
