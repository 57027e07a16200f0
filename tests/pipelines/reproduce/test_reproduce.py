"""`codegan reproduce`: the list of tables, tables made at a tiny scale, and what is refused."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from data.errors import CodeganError, DivergedError, InputError, MismatchError, UsageError
from pipelines.cli import run
from pipelines.configs import ReproduceConfig
from pipelines.reproduce.paper import DataSet, Paper, Row, Table, Training
from pipelines.reproduce.papers import PAPERS
from pipelines.reproduce.plan import find_table, make_plan
from pipelines.reproduce.reproduce import reproduce

DCGAN = Training("dcgan", 32, 200, model={"width": 4, "z_dim": 8})
ACCEL = Training("accel", 64, 400, factor=4, model={"width": 8, "z_dim": 8})
TOY = Paper(
    "toy",
    "Toys",
    "Somebody",
    "one abacus",
    (DataSet("faces", "Faces", 200, 32), DataSet("churches", "Churches", None, 64)),
    (
        Table(
            "1",
            "two networks",
            ("fid", "is", "generator", "minutes"),
            (
                Row("pixels", "Pixels", "faces", {"fid": 12.5, "is": 3.25}, DCGAN),
                Row("codes", "Codes", "churches", {"fid": 7.0}, ACCEL),
                Row("grown", "Grown", "faces", {"fid": 9.0}, reason="nothing here grows"),
            ),
            protocol="giu",
            snapshots=2,
            seeds=2,
            notes=("The length is not published.",),
        ),
    ),
    autoencoder_data="faces",
    autoencoder_kimg=1,
)


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PAPERS, "toy", TOY)


def make(out: Path, *words: str) -> dict[str, Any]:
    """Run the verb at a scale of four scored images; what table.json then holds."""
    run(["reproduce", "toy", "--table", "1", "--out", str(out), "--scale", "0.00008", "--features", "offline", *words])
    table: dict[str, Any] = json.loads((out / "table.json").read_text())
    return table


def by_name(table: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in table["rows"]}


@pytest.mark.usefixtures("toy")
def test_a_table_has_published_and_measured_numbers_and_a_second_call_does_nothing_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--data", "faces=scenes:16@32", "--seeds", "0", "--rows", "pixels")
    table = make(tmp_path, *words)
    rows = by_name(table)
    assert rows["pixels"]["published"] == {"fid": 12.5, "is": 3.25}
    assert rows["pixels"]["measured"].keys() == {"fid", "generator", "minutes"}
    assert rows["grown"]["without_result"] == "nothing here grows"
    assert rows["codes"]["without_result"] == "no data given for Churches"
    assert table["departures"] == [
        "scenes:16@32 in place of Faces",
        "trained for 8e-05 of the length",
        "1 of the paper's 2 trainings of each row",
        "scored at 4 instead of 50,000",
        "scored without is",
        "scored on offline features",
        f"times and memory are those of {table['machine']}; the paper's are of one abacus",
    ]
    page = (tmp_path / "table.md").read_text()
    assert "| Pixels | pixels | 12.5 | " in page
    assert "FID, published | FD on offline features, measured" in page
    assert "- scenes:16@32 in place of Faces" in page
    assert "- The length is not published." in page
    assert f"next: codegan report --run {tmp_path / 'runs' / 'pixels-seed0'}" in capsys.readouterr().out

    def refuse(*_: object) -> None:
        raise AssertionError("trained again")

    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("*")}
    with monkeypatch.context() as patch:
        patch.setattr("pipelines.reproduce.trainings.Trainings.run", refuse)
        assert make(tmp_path, *words) == table
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("*")} == written

    # After a stop between two steps, what was scored is not scored again.
    (tmp_path / "results" / "table-1" / "pixels.json").unlink()
    monkeypatch.setattr("pipelines.reproduce.trainings.compute_scores", refuse)
    assert by_name(make(tmp_path, *words))["pixels"]["measured"]["fid"] == rows["pixels"]["measured"]["fid"]
    with pytest.raises(UsageError, match="choose another --out"):  # the folder belongs to other pictures
        make(tmp_path, "--data", "faces=scenes:17@32", "--seeds", "0", "--rows", "pixels")


@pytest.mark.usefixtures("toy")
def test_the_best_snapshot_and_training_count_and_codes_come_from_an_autoencoder(tmp_path: Path) -> None:
    table = make(tmp_path, "--data", "churches=scenes:8", "--autoencoder", "default", "--rows", "codes")
    row = by_name(table)["codes"]
    assert [training["seed"] for training in row["trainings"]] == [0, 1]
    scores = [snapshot["measured"]["fid"] for training in row["trainings"] for snapshot in training["snapshots"]]
    assert len(scores) == 4
    assert row["measured"]["fid"] == min(scores)
    assert (tmp_path / "stores" / "churches-64-4").is_dir()


@pytest.mark.usefixtures("toy")
def test_a_row_that_diverges_is_named_and_the_others_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def diverge(_: object, row: Row) -> dict[str, Any]:
        if row.name == "pixels":
            raise DivergedError("NaN before image 16", "nothing")
        return {"measured": {"fid": 1.0}, "trainings": []}

    monkeypatch.setattr("pipelines.reproduce.trainings.Trainings.run", diverge)
    data = ("--data", "faces=scenes:16@32", "churches=scenes:8", "--autoencoder", "default")
    rows = by_name(make(tmp_path, *data))
    assert rows["pixels"]["without_result"] == "diverged: NaN before image 16"
    assert rows["codes"]["measured"] == {"fid": 1.0}


@pytest.mark.parametrize("name", PAPERS)
def test_without_a_table_all_are_listed(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    run(["reproduce", name])
    shown = capsys.readouterr().out
    assert all(f"--table {table.name} " in shown for table in PAPERS[name].tables)
    assert all(data.title in shown for data in PAPERS[name].data)


def test_listing_loads_no_torch() -> None:
    script = """import sys
from pipelines.cli import run
run(["reproduce", "gca"])
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)


@pytest.mark.parametrize(
    ("words", "error", "what", "fix"),
    [
        (["stylegan"], UsageError, "stylegan: is not a paper", "choose accel, giu, lrm, fastgan or gca"),
        (["gca", "--table", "7"], UsageError, "--table 7: gca has no such table", "choose 1"),
        (["gca", "--table", "1", "--scale", "0"], UsageError, "--scale 0.0: is out of range", "give"),
        (["gca", "--table", "1", "--scale", "2"], UsageError, "--scale 2.0: is out of range", "give"),
        (["gca", "--table", "1"], InputError, "needs CelebA (202,599 images, 64 px or more)", "--data celeba=FOLDER"),
        (["gca", "--table", "1", "--data", "celebs=x"], UsageError, "has no data set celebs", "name celeba or church"),
        (["gca", "--table", "1", "--data", "missing"], InputError, "missing: no such file", "check the path"),
        (["gca", "--table", "1", "--data", "scenes:9", "celeba=scenes:9"], UsageError, "gives celeba twice", "leave"),
        (["gca", "--table", "1", "--rows", "x", "--data", "scenes:9"], UsageError, "no such row", "celeba-dcgan"),
        (["gca", "--table", "1", "--rows", "church-sagan", "--data", "scenes:9"], InputError, "needs LSUN church", ""),
        (["gca", "--table", "1", "--data", "scenes:9", "--autoencoder", "default"], UsageError, "no row", "leave"),
        (["accel", "--table", "5", "--data", "cat=scenes:9"], InputError, "needs CelebA-HQ", "--autoencoder default"),
        (
            ["accel", "--table", "6", "--data", "scenes:9", "--autoencoder", "default", "--features", "offline"],
            MismatchError,
            "row after-1024-8: is of 16 channels at factor 8",
            "--rows",
        ),
        (
            ["gca", "--table", "1", "--data", "scenes:9", "--size", "48", "--features", "offline"],
            UsageError,
            "row celeba-dcgan-nl: codes of 48 x 48",
            "another --size",
        ),
        (["lrm", "--table", "1", "--data", "scenes:9", "--vgg-weights", "no"], InputError, "no: is not a file", ""),
    ],
)
def test_bad_input_is_two_lines(
    words: list[str], error: type[CodeganError], what: str, fix: str, tmp_path: Path
) -> None:
    with pytest.raises(error) as caught:
        run(["reproduce", *words, "--out", str(tmp_path / "out")])
    assert what in caught.value.what
    assert fix in caught.value.fix
    assert len(str(caught.value).splitlines()) == 2
    assert not (tmp_path / "out" / "runs").exists()


@pytest.mark.usefixtures("toy")
def test_data_that_is_not_the_papers_is_said(tmp_path: Path) -> None:
    from PIL import Image

    for number in range(3):
        Image.new("RGB", (20, 40)).save(tmp_path / f"{number}.png")
    config = ReproduceConfig(paper="toy", table="1", data=(str(tmp_path),))
    plan = make_plan(config, TOY, find_table(TOY, "1"))
    assert [row.name for row in plan.rows] == ["pixels"]
    assert plan.departures == (
        "Faces with 3 images instead of 200",
        "Faces with images of 20 px, enlarged to 32 px",
    )
    assert reproduce(ReproduceConfig(paper="toy")) is None
