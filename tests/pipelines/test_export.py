"""`codegan export` writes files that draw what `codegan sample` draws, or nothing at all."""

import json
import sys
import zipfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from data.errors import InputError, MismatchError, UsageError
from pipelines import export
from pipelines.cli import run
from pipelines.sample import load_generator


def test_exported_files_draw_the_pictures_of_the_run(
    trained_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, program = tmp_path / "new" / "photos.onnx", tmp_path / "photos.pt2"
    run(["export", "--run", str(trained_run), "--onnx", str(model), "--program", str(program)])
    assert capsys.readouterr().out.count("of 255") == 2
    pipe = load_generator(trained_run)
    session = onnxruntime.InferenceSession(model)
    for seeds in ([5], [7, 8, 9, 10]):
        (images,) = session.run(["images"], {"z": pipe.noise(seeds).cpu().numpy()})
        assert images.dtype == np.uint8
        assert np.abs(images.astype(int) - pipe(seeds)).max() <= 1
    written = onnx.load(model)
    onnx.checker.check_model(written, full_check=True)
    described = {entry.key: entry.value for entry in written.metadata_props}
    assert described["variant"] == "accel"
    assert described["nimg"] == "48"
    assert described["image_size"] == "64"
    assert described["opset"] == str(written.opset_import[0].version)
    assert str(Path(export.__file__).parents[1]).encode() not in model.read_bytes()
    with zipfile.ZipFile(program) as archive:
        held = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
    assert json.loads(held["extra/codegan.json"]).items() <= described.items()
    assert (
        held["data/sample_inputs/model.pt"] == b""
    )  # the others are tensors as bytes, unless they are said to be pickles
    tables = [json.loads(content) for name, content in held.items() if name.endswith("_config.json")]
    assert [entry["use_pickle"] for table in tables for entry in table["config"].values()].count(True) == 0
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == ["photos.onnx", "photos.pt2"]


def test_a_file_that_draws_other_pictures_is_not_written(
    trained_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "_difference", lambda *_: 2)
    out = tmp_path / "photos.pt2"
    with pytest.raises(MismatchError, match="by 2 of 255"):
        run(["export", "--run", str(trained_run), "--program", str(out)])
    assert list(tmp_path.iterdir()) == []


def test_a_missing_package_is_named_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(InputError, match="needs the package onnxscript") as error:
        run(["export", "--run", str(tmp_path), "--onnx", str(tmp_path / "photos.onnx")])
    assert "pip install codegan[export]" in error.value.fix


@pytest.mark.parametrize(
    ("flags", "message"),
    [([], "no file"), (["--onnx", "photos.bin"], r"photos\.bin"), (["--program", "photos.pkl"], r"photos\.pkl")],
)
def test_names_of_other_files_are_refused(flags: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        run(["export", "--run", "runs/photos", *flags])


def test_a_generator_that_cannot_be_traced_says_why(
    trained_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(module: object) -> None:
        raise RuntimeError("its sides depend on the data")

    monkeypatch.setattr(export, "traced", refuse)
    with pytest.raises(MismatchError, match=r"accel: .* cannot be exported \(its sides depend on the data\)"):
        run(["export", "--run", str(trained_run), "--program", str(tmp_path / "photos.pt2")])
    assert list(tmp_path.iterdir()) == []
