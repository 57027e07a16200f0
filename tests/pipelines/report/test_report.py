"""A report is one page that needs nothing else, shows what the run's files say, and never lets their text be markup."""

import json
import math
import re
import shlex
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import tyro
from PIL import Image
from safetensors.torch import load_file

from data.errors import CorruptError, InputError, UsageError
from data.files.checkpoints import save_weights
from data.files.runs import to_json
from pipelines.configs import ReportConfig
from pipelines.report.commands import reproducing_command
from pipelines.report.missing import Missing
from pipelines.report.report import report
from pipelines.report.run_folder import RunFolder
from stage1_autoencoder.configs import TrainAEConfig
from stage1_autoencoder.networks import Autoencoder
from stage2_codegen.configs.accel import AccelConfig
from stage2_codegen.configs.base import VariantConfig
from stage2_codegen.configs.giu import GIUConfig
from stage2_codegen.configs.train import TrainConfig
from stage2_codegen.variants import VARIANTS
from tests.report_pages import SCORES, Page, make_page

HOSTILE = '<script>alert("x")</script>'
VERSIONS = {"python": "3.12.1", "torch": "2.15"}


def write_metrics(run: Path, rows: list[dict[str, float]]) -> None:
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def rows(count: int, **values: float) -> list[dict[str, float]]:
    names = {"critic": "loss/critic", "real": "score/real", "fake": "score/fake", "own": "penalty/own"}
    return [
        {"step": i, "nimg": 100 * i, "wall_sec": 2.0 * i, **{names[k]: v * i for k, v in values.items()}}
        for i in range(1, count + 1)
    ]


def write_sample(run: Path, nimg: int, side: int = 32) -> None:
    (run / "samples").mkdir(exist_ok=True)
    pixels = np.random.default_rng(nimg).integers(0, 256, (side, side, 3), np.uint8)
    Image.fromarray(pixels).save(run / "samples" / f"{nimg:09d}.png")


def generator_config(run: Path, **changes: Any) -> dict[str, Any]:
    config = TrainConfig(store=Path("stores/a b"), out=run, model=AccelConfig(), kimg=1.0, **changes)
    described = {"kind": "generator", "variant": "accel", "store_checksum": "00"}
    return {**described, **to_json(config), "versions": VERSIONS}


@pytest.fixture
def empty_run(tmp_path: Path) -> Path:
    """A generator's folder the moment training starts."""
    run = tmp_path / "empty"
    run.mkdir()
    (run / "config.json").write_text(json.dumps(generator_config(run)))
    return run


@pytest.fixture
def full_run(tmp_path: Path) -> Path:
    """A generator's folder with everything, on three pictures and a file that is none."""
    data, run = tmp_path / "data", tmp_path / "full"
    data.mkdir()
    run.mkdir()
    for index in range(3):
        pixels = np.random.default_rng(index).integers(0, 256, (20, 24, 3), np.uint8)
        Image.fromarray(pixels).save(data / f"{index}.png")
    (data / "00-broken.png").write_bytes(b"no picture")
    (run / "config.json").write_text(json.dumps(generator_config(run)))
    torch.manual_seed(0)
    autoencoder = Autoencoder(4, 2, 2)
    state = {"autoencoder": autoencoder.config, "image_size": 16, "data": [str(data)], "nimg": 1000}
    save_weights(run / "weights", {"autoencoder": autoencoder.state_dict()}, state)
    write_metrics(run, rows(10, critic=0.5, real=1.0, fake=-1.0))
    (run / "scores.json").write_text(json.dumps(SCORES))
    for nimg in (500, 1000):
        write_sample(run, nimg)
    return run


GENERATOR_SECTIONS = [
    *("scores", "samples", "curves", "reconstructions", "latents"),
    *("interpolation", "neighbours", "data", "configuration"),
]


def test_a_run_that_has_everything_shows_every_section_and_misses_nothing(trained_run: Path) -> None:
    page = make_page(trained_run)
    assert page.sections == GENERATOR_SECTIONS
    assert [attributes["href"] for attributes in page.all("a")] == [f"#{name}" for name in GENERATOR_SECTIONS]
    assert "missing" not in page.classes("p")
    snapshots = len(list((trained_run / "samples").glob("*.png")))
    assert len(page.images) == 1 + snapshots + 3 * 6 + 1 + 1 + 1  # newest, film, triples, strip, neighbours, contact
    assert all(attributes["alt"] for attributes in page.all("img"))
    shown = [attributes for attributes in page.all("img") if "data-label" in attributes]
    assert [attributes["data-label"] for attributes in shown][:: snapshots - 1] == [
        "0.02 thousand images",
        "0.048 thousand images",
    ]
    assert ["hidden" in attributes for attributes in shown] == [True] * (snapshots - 1) + [False]
    for text in (
        "48 images",
        "12.35",
        "autoencoder\N{NO-BREAK SPACE}floor\N{NO-BREAK SPACE}4.5",
        "5,000",
        "4,000",
        "inception",
        "photos.zip",
    ):
        assert text in page.text
    assert "25% of the samples are nearer to a training image" in page.text
    assert "broken.png" in page.text
    assert "biased upward" not in page.text
    assert [*(trained_run.glob(".partial*"))] == []


def test_a_run_that_was_resumed_says_where(trained_run: Path) -> None:
    page = make_page(trained_run)
    charts = page.classes("figure").count("chart")
    assert charts >= 8
    assert page.text.count("At 24 images: resumed, after") == charts + 1  # and once in words
    assert page.classes("li").count("resume") == 1


def test_runs_are_compared_on_the_page_of_the_first(trained_run: Path, empty_run: Path) -> None:
    write_metrics(empty_run, rows(7, critic=0.5, real=1.0, fake=-1.0))
    page = make_page(trained_run, empty_run)
    assert page.sections == GENERATOR_SECTIONS
    assert not (empty_run / "report.html").exists()
    assert "empty has no scores yet" in page.text
    labels = {label.split(":")[0]: label for label in (a.get("aria-label", "") for a in page.all("svg"))}
    assert re.search(r"run \d+ values, last .*, empty 7 values, last 3.5", labels["Critic loss"])
    assert "empty real 7 values, last 7, empty fake 7 values, last -7" in labels["Critic scores"]
    differing = page.bytes.decode().split('<tr class="differs">')[1:]
    fields = [re.match(r'<th scope="row">([^<]*)', line)[1] for line in differing]  # type: ignore[index]
    assert {"store", "out", "kimg"} <= set(fields)
    assert "seed" not in fields
    with pytest.raises(UsageError):
        report(ReportConfig(run=(empty_run,) * 9))
    with pytest.raises(UsageError):
        report(ReportConfig(run=()))


def test_psnr_beside_each_pair_is_that_of_the_fitted_picture(full_run: Path, tmp_path: Path) -> None:
    page = make_page(full_run)
    shown = [float(value) for value in re.findall(r"PSNR (\S+) dB", page.text)]
    torch.manual_seed(0)
    autoencoder = Autoencoder(4, 2, 2).eval()
    expected = []
    for index in range(3):
        square = Image.open(tmp_path / "data" / f"{index}.png").crop((2, 0, 22, 20))
        pixels = np.asarray(square.resize((16, 16), Image.Resampling.LANCZOS), np.float32) / 127.5 - 1
        with torch.inference_mode():
            decoded = (
                autoencoder(torch.from_numpy(pixels.transpose(2, 0, 1).copy())[None])[0].numpy().transpose(1, 2, 0)
            )
        expected.append(20 * math.log10(2 / math.sqrt(float(((decoded - pixels) ** 2).mean()))))
    assert shown == pytest.approx(expected, abs=0.051)


def test_the_page_requests_nothing(full_run: Path) -> None:
    page = make_page(full_run)
    assert re.search(rb"https?:|url\(|@import", page.bytes) is None
    for tag, attributes in page.tags:
        assert tag not in ("link", "iframe", "object", "base", "form")
        assert attributes.get("href", "#").startswith("#")
        assert "srcset" not in attributes
        assert attributes.get("src", "data:").startswith("data:")
    policy = [attributes["content"] for attributes in page.all("meta") if "http-equiv" in attributes]
    assert policy[0].startswith("default-src 'none'")


def test_text_of_a_run_is_never_markup(full_run: Path, tmp_path: Path) -> None:
    run = full_run.rename(tmp_path / "<script>x<&$title")
    config = generator_config(run) | {"variant": HOSTILE, "seed": HOSTILE, HOSTILE: "</table>", "kimg": 1.0}
    config["versions"] = {HOSTILE: HOSTILE}
    (run / "config.json").write_text(json.dumps(config))
    scores = {HOSTILE: SCORES["fid"], "features": HOSTILE, "reference": HOSTILE}
    (run / "scores.json").write_text(json.dumps(scores))
    hostile_rows = [{**row, f'loss/"{HOSTILE}': 1.0, f"score/{HOSTILE}": 2.0} for row in rows(3, critic=1.0, real=1.0)]
    write_metrics(run, hostile_rows)
    Image.new("RGB", (8, 8)).save(run / "samples" / '"onerror="<b>.png')
    page = make_page(run)
    assert len(page.all("script")) == 1
    assert page.bytes.count(b"<script>") == 1
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert page.all("b") == [{} for _ in page.all("b")]
    assert page.text.count(HOSTILE) >= 8
    assert "<script>x<&$title" in page.text


def test_charts_have_one_line_a_value_and_both_scores_share_one(empty_run: Path) -> None:
    write_metrics(empty_run, rows(7, critic=0.5, real=1.0, fake=-1.0, own=3.0))
    page = make_page(empty_run)
    lines = [attributes["points"].split() for attributes in page.all("polyline")]
    assert [len(points) for points in lines] == [7, 7, 7, 7, 7]
    labels = [attributes["aria-label"] for attributes in page.all("svg") if "aria-label" in attributes]
    assert [label.split(":")[0] for label in labels] == ["Critic loss", "Critic gap", "Critic scores", "penalty/own"]
    assert labels[1].endswith("7 values, last 14")  # real - fake
    assert "real 7 values, last 7, fake 7 values, last -7" in labels[2]
    points = np.array([[float(number) for number in point.split(",")] for point in lines[2]])  # score/real rises by 1
    np.testing.assert_allclose(np.diff(points, axis=0), np.diff(points, axis=0)[:1].repeat(6, axis=0), atol=0.11)
    assert (np.diff(points, axis=0) * [1, -1] > 0).all()


def test_what_happened_on_the_way_is_marked_on_every_chart(empty_run: Path) -> None:
    def row(nimg: int, **values: float) -> dict[str, float]:
        return {"step": nimg, "nimg": nimg, "wall_sec": 0.6 * nimg, **values}

    def log(nimg: int, speed: float | None = 2.0, ranks: int = 1) -> dict[str, float]:
        named = {"loss/g": 1.0, "memory/peak_mb": 9.0} | ({"time/sec_per_kimg": speed} if speed else {})
        return row(nimg, ranks=ranks, **named)

    def health(nimg: int, ratio: float) -> dict[str, float]:
        named = {"health/pairwise_ratio": ratio, "health/channel_shift": 0.1, "health/critic_gap": 1.0}
        return row(nimg, **named, **{"eval/kid": 0.5})

    write_metrics(
        empty_run,
        [
            *(log(100, None), log(200), health(200, 0.9)),  # begun
            *(log(300, None, ranks=2), log(400, ranks=2), health(400, 0.1)),  # resumed at 200
            *(row(400, rollbacks=1), log(500, None, ranks=2), log(600, -1.0, ranks=2), health(600, 0.1)),
            *(log(700, ranks=2), health(700, 0.1), health(800, 0.8) | {"health/grid": 2.5}),  # told once, at the second
        ],
    )
    page = make_page(empty_run)
    assert page.classes("li") == ["resume", "rollback", "warning"]
    for text in (
        "At 200 images: resumed, after 2.0 min of training, now in 2 processes",
        "At 400 images: went back to this checkpoint after NaN",
        "At 600 images: samples are nearly equal: 10% of the distance",
    ):
        assert page.text.count(text) == page.classes("figure").count("chart") + 1, text
    labels = {label.split(":")[0]: label for label in (a.get("aria-label", "") for a in page.all("svg"))}
    assert next(iter(label for label in labels if label)) == "kid"
    assert labels["Speed"].endswith("3 values, last 500")  # a negative time is none
    assert labels["Peak memory"].endswith("7 values, last 9")
    assert labels["Grid of the decoder's patches"].endswith("1 values, last 2.5")  # earlier versions have none


def test_what_is_missing_is_named_with_a_command(empty_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = make_page(empty_run)
    assert page.sections == GENERATOR_SECTIONS
    assert page.images == []
    assert page.text.count("codegan train accel") >= 6
    assert page.text.count("codegan encode") == 1
    assert f"codegan score --run {empty_run} --data DATA" in page.text
    assert "Training is not complete" in page.text
    printed = capsys.readouterr().out
    assert f"wrote {empty_run / 'report.html'}\nnext: codegan train accel" in printed
    write_sample(empty_run, 100)
    assert "one snapshot so far" in make_page(empty_run).text


def test_data_that_is_gone_and_weights_that_are_damaged_are_named(full_run: Path, tmp_path: Path) -> None:
    (tmp_path / "data").rename(tmp_path / "moved")
    page = make_page(full_run)
    assert f"{tmp_path / 'data'} can no longer be opened" in page.text
    assert len(page.images) == 1 + 2
    weights = full_run / "weights" / "autoencoder.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x55")
    text = make_page(full_run).text
    assert "checksum mismatch" in text
    assert f"codegan check {full_run}" in text


def test_a_store_that_is_gone_costs_its_own_sections_only(trained_run: Path, tmp_path: Path) -> None:
    run = shutil.copytree(trained_run, tmp_path / "copy")
    state = json.loads((run / "weights" / "config.json").read_text())
    weights = {path.stem: load_file(path) for path in (run / "weights").glob("*.safetensors")}
    save_weights(run / "weights", weights, state | {"store": str(tmp_path / "gone")})
    (run / "neighbours.png").unlink()
    page, whole = make_page(run), make_page(trained_run)
    assert page.sections == GENERATOR_SECTIONS
    assert page.text.count(f"The store {tmp_path / 'gone'} can no longer be read") == 2  # latents, data
    assert f"codegan encode --data {state['data'][0]} --autoencoder {state['autoencoder_run']} --out" in page.text
    assert f"codegan score --run {run} --data {state['data'][0]}" in page.text
    assert len(page.images) == len(whole.images) - 1


def test_an_autoencoder_of_another_version_leaves_the_rest_of_the_page(full_run: Path) -> None:
    state = json.loads((full_run / "weights" / "config.json").read_text())
    save_weights(full_run / "weights", {"autoencoder": {"renamed": torch.zeros(1)}}, state)
    page = make_page(full_run)
    assert page.text.count("This part cannot be shown (") == 3  # reconstructions, latents, interpolation
    assert f"codegan check {full_run}" in page.text
    assert len(page.images) == 1 + 2 + 1  # newest, film, contact sheet


def test_a_header_that_fails_leaves_the_sections(full_run: Path) -> None:
    config = json.loads((full_run / "config.json").read_text()) | {"kimg": "x", "versions": [1]}
    (full_run / "config.json").write_text(json.dumps(config))
    page = make_page(full_run)
    assert "This part cannot be shown (" in page.text.partition("Scores")[0]
    assert page.sections == GENERATOR_SECTIONS
    assert len(page.images) == 2 + 3 * 3 + 1


def test_a_damaged_sample_is_left_out_and_named(full_run: Path) -> None:
    (full_run / "samples" / "000000700.png").write_bytes(b"\x89PNG broken")
    page = make_page(full_run)
    assert len(page.images) == 1 + 2 + 3 * 3 + 1
    assert "000000700.png is left out" in page.text


def test_an_autoencoder_shows_its_table_and_its_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = TrainAEConfig(data=("photos", "more photos"), out=tmp_path, kimg=0.1)
    (tmp_path / "config.json").write_text(json.dumps({"kind": "autoencoder", **to_json(config), "versions": VERSIONS}))
    page = make_page(tmp_path)
    assert page.sections == ["scores", "samples", "curves", "reconstructions", "data", "configuration"]
    assert len(re.findall("codegan train-ae .*--data photos 'more photos'", page.text)) >= 3
    table = [{"size": 128, "count": 7, "mse": 0.004, "psnr": 30.0}]
    (tmp_path / "reconstructions.json").write_text(json.dumps({"data": "photos", "held_out": 7, "rows": table}))
    write_sample(tmp_path, 100)
    write_metrics(tmp_path, [{"step": 1, "nimg": 100, "wall_sec": 7300.0, "loss/l1": 0.1}])
    save_weights(tmp_path / "weights", {"autoencoder": {"x": torch.zeros(1)}}, {"kind": "autoencoder", "nimg": 100})
    capsys.readouterr()
    page = make_page(tmp_path)
    for text in ("PSNR at 128 px", "30.00 dB", "4.000e-03", "2 h 1 min", "100 images"):
        assert text in page.text
    assert len(page.images) == 2
    assert "next: codegan encode --data photos 'more photos' --autoencoder" in capsys.readouterr().out
    for damaged in ("{", "[1]", '{"rows": [1]}', '{"rows": [{"size": 128, "psnr": "x"}]}'):
        (tmp_path / "reconstructions.json").write_text(damaged)
        page = make_page(tmp_path)
        assert f"reconstructions.json of {tmp_path.name} cannot be read" in page.text
        assert len(page.images) == 2


@pytest.mark.parametrize("model", [AccelConfig(), GIUConfig(spectral_norm_last=True), GIUConfig(critic_giu_norm=True)])
def test_the_command_on_the_page_gives_the_same_configuration(model: VariantConfig, tmp_path: Path) -> None:
    config = TrainConfig(
        store=Path("a b"), out=tmp_path / "c d", model=model, compile=True, seed=7, autoencoder=Path("runs/ae")
    )
    (name,) = (name for name, variant in VARIANTS.items() if variant.Config is type(model))
    made = {"store_checksum": 0, "frozen": {"backbone": "0f"}, "versions": VERSIONS}
    stored = {"kind": "generator", "variant": name, **to_json(config), **made}
    program, verb, variant, *flags = shlex.split(reproducing_command(stored))
    assert (program, verb, variant) == ("codegan", "train", name)
    assert parse(TrainConfig[type(model)], flags) == config  # type: ignore[misc]


def test_the_command_on_an_autoencoders_page_gives_the_same_configuration(tmp_path: Path) -> None:
    for mirror in (False, True):
        autoencoder = TrainAEConfig(data=("a b.tar", "c.tar"), out=tmp_path, factor=8, lr=1e-4, mirror=mirror)
        stored = {"kind": "autoencoder", **to_json(autoencoder), "data_fingerprint": "0f", "versions": VERSIONS}
        _, _, *flags = shlex.split(reproducing_command(stored))
        assert parse(TrainAEConfig, flags) == autoencoder


def test_a_copied_run_goes_on_where_it_lies_and_its_lost_config_is_found(trained_run: Path, tmp_path: Path) -> None:
    copied = shutil.copytree(trained_run, tmp_path / "copied")
    (copied / "config.json").unlink()
    run = RunFolder.open(copied)
    assert run.config["out"] == str(copied)
    (copied / ".config.json").write_text("{}")
    with pytest.raises(CorruptError, match="is missing or does not match"):
        RunFolder.open(copied)


def test_another_store_in_the_place_of_the_run_s_is_not_shown(trained_run: Path, tmp_path: Path) -> None:
    run = RunFolder.open(trained_run)
    run = replace(run, named_store=run.config["store"])
    assert run.store.seal["crc32c"] == run.config["store_checksum"]
    other = replace(run, config=run.config | {"store_checksum": 1})
    with pytest.raises(Missing, match="another one than the run was trained on"):
        _ = other.store


def test_the_command_that_measures_again_names_what_it_needs(trained_run: Path) -> None:
    run, few = RunFolder.open(trained_run), {"features": "inception", "num": 16, "metrics": ["kid", "fid"]}
    assert shlex.split(run.score_command(few))[-4:] == ["--metrics", "kid", "fid", "--force-fid"]
    assert "--force-fid" not in run.score_command(few | {"num": 2048})
    weights = {"features": "squeezenet", "num": 16, "metrics": ["kid", "lpips-diversity"]}
    assert shlex.split(run.score_command(weights))[-4:] == ["--vgg-weights", "FILE", "--feature-weights", "FILE"]


def parse(config: Any, flags: list[str]) -> Any:
    """As the command line does it."""
    return tyro.cli(config, args=flags, config=(tyro.conf.FlagCreatePairsOff,))


def test_many_large_grids_stay_below_ten_megabytes(empty_run: Path) -> None:
    for nimg in range(30):  # noise, the worst there is to compress; small counts of colours keep the test quick
        write_sample(empty_run, nimg, side=320)
    write_sample(empty_run, 30, side=1400)
    page = make_page(empty_run)
    assert len(page.bytes) < 10_000_000
    assert len(page.images) == 1 + 24
    assert "24 of 31 snapshots" in page.text
    shown = [attributes["data-label"] for attributes in page.all("img") if "data-label" in attributes]
    assert (shown[0], shown[-1]) == ("0 thousand images", "0.03 thousand images")


def test_folders_that_are_no_runs_are_refused(tmp_path: Path) -> None:
    for content in (None, "{}", '{"kind": "store"}'):
        if content is not None:
            (tmp_path / "config.json").write_text(content)
        with pytest.raises(InputError):
            report(ReportConfig(run=(tmp_path,)))
    with pytest.raises(InputError):
        report(ReportConfig(run=(tmp_path / "nowhere",)))
    for content in ("{", "[]"):
        (tmp_path / "config.json").write_text(content)
        with pytest.raises(CorruptError):
            report(ReportConfig(run=(tmp_path,)))
    assert not (tmp_path / "report.html").exists()


def test_a_run_cannot_have_folders_read_that_the_reader_did_not_name(full_run: Path) -> None:
    """It names the pictures in its configuration, and its samples are links to others."""
    mine = full_run.parent / "data" / "0.png"
    for path in (full_run / "samples").iterdir():
        path.unlink()
        path.symlink_to(mine)
    (full_run / "neighbours.png").symlink_to(mine)
    report(ReportConfig(run=(full_run,)))
    page = Page(full_run)
    assert page.images == []
    assert f"The data set {mine.parent} is read only if it is named" in page.text
    assert f"--data {mine.parent}" in page.text
    report(ReportConfig(run=(full_run,), data=(str(mine.parent),)))
    assert len(Page(full_run).images) > 1
