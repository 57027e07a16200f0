"""A report is one page that needs nothing else, shows what the run's files say, and never lets their text be markup."""

import base64
import io
import json
import math
import re
import shlex
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import tyro
from PIL import Image

from data.checkpoints import save_weights
from data.errors import CorruptError, InputError
from data.runs import to_json
from pipelines.charts import Line, line_chart, smooth, thin, ticks
from pipelines.report import ReportConfig, report
from pipelines.run_view import reproducing_command
from stage1_autoencoder.networks import Autoencoder
from stage1_autoencoder.train import TrainAEConfig
from stage2_codegen.train import TrainConfig
from stage2_codegen.variants.accel import Config as AccelConfig

HOSTILE = '<script>alert("x")</script>'
VERSIONS = {"python": "3.12.1", "torch": "2.15"}
SCORES = {
    "fid": {
        "value": 12.34567,
        "autoencoder_floor": 4.5,
        "real_floor": None,
        "num_generated": 5000,
        "num_real": 4000,
        "num_half": 2000,
    },
    "num": 5000,
    "features": "inception",
    "reference": "photos.zip",
}
VOID = {"meta", "img", "input", "link", "br"}


class Page(HTMLParser):
    """Tags, their attributes and text of a page; fails on tags that are not closed in order."""

    def __init__(self, run: Path) -> None:
        super().__init__()
        self.bytes = (run / "report.html").read_bytes()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(self.bytes.decode())
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self._open or self._open[-1] not in ("script", "style"):
            self.text += data

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def sections(self) -> list[str]:
        return [attributes["id"] for attributes in self.all("section")]

    @property
    def images(self) -> list[Image.Image]:
        """Every picture, decoded in full."""
        images: list[Image.Image] = []
        for attributes in self.all("img"):
            kind, content = attributes["src"].removeprefix("data:image/").split(";base64,")
            image = Image.open(io.BytesIO(base64.b64decode(content, validate=True)))
            image.load()
            assert image.format == kind.upper()
            images.append(image)
        return images


def make_page(run: Path) -> Page:
    report(ReportConfig(run))
    return Page(run)


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


def test_a_full_run_has_every_section_and_every_picture(full_run: Path) -> None:
    page = make_page(full_run)
    assert page.sections == ["scores", "samples", "reconstructions", "curves", "configuration"]
    assert len(page.images) == 2 + 2 * 3
    assert all(attributes["alt"] for attributes in page.all("img"))
    shown = [attributes["data-label"] for attributes in page.all("img") if "data-label" in attributes]
    assert shown == ["0.5 thousand images", "1 thousand images"]
    hidden = ["hidden" in attributes for attributes in page.all("img") if "data-label" in attributes]
    assert hidden == [True, False]
    assert "missing" not in [attributes.get("class") for attributes in page.all("p")]
    for text in ("1,000 images", "12.35", "4.5", "5,000", "4,000", "inception", "photos.zip", "torch 2.15", "20.0 s"):
        assert text in page.text
    assert "biased upward" not in page.text
    assert [*(full_run.glob(".partial*"))] == []


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
        assert tag not in ("link", "iframe", "object", "base", "form", "a")
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
    assert [len(points) for points in lines] == [7, 7, 7, 7]
    labels = [attributes["aria-label"] for attributes in page.all("svg") if "aria-label" in attributes]
    assert [label.split(":")[0] for label in labels] == ["Critic scores", "Critic loss", "penalty/own"]
    assert "real 7 values, last 7, fake 7 values, last -7" in labels[0]
    points = np.array([[float(number) for number in point.split(",")] for point in lines[0]])  # score/real rises by 1
    np.testing.assert_allclose(np.diff(points, axis=0), np.diff(points, axis=0)[:1].repeat(6, axis=0), atol=0.11)
    assert (np.diff(points, axis=0) * [1, -1] > 0).all()


def test_a_single_value_is_a_dot_and_values_that_are_not_finite_are_counted(empty_run: Path) -> None:
    write_metrics(empty_run, rows(1, critic=0.5))
    page = make_page(empty_run)
    assert (len(page.all("circle")), len(page.all("polyline"))) == (1, 0)
    chart = line_chart("t", "u", [Line("", [(1, math.nan), (2, 1.0), (3, math.inf), (4, 2.0)])], "x")
    assert "2 values are not finite" in chart
    assert "nan" not in line_chart("t", "u", [Line("", [(1, math.nan)])], "x")


def test_smoothing_is_labelled_and_is_a_mean_over_neighbours() -> None:
    points = [(float(x), math.sin(x)) for x in range(200)]
    chart = line_chart("t", "u", [Line("", points)], "x")
    assert chart.count("<polyline") == 2
    assert "mean of 11 neighbours" in chart
    assert "mean of" not in line_chart("t", "u", [Line("", points[:50])], "x")
    values = np.random.default_rng(0).normal(size=50)
    naive = [np.mean(values[max(0, i - 3) : i + 4]) for i in range(50)]
    np.testing.assert_allclose(smooth(values, 7), naive)


def test_spikes_are_left_out_of_the_axis_and_said_to_be() -> None:
    points = [(float(x), 1.0 + x / 100) for x in range(99)] + [(99.0, 1e6)]
    assert "1 of 100 values lie outside the axis" in line_chart("t", "u", [Line("", points)], "x")
    assert "outside" not in line_chart("t", "u", [Line("", points[:-1])], "x")


def test_thinning_keeps_order_and_both_extremes() -> None:
    values = np.random.default_rng(0).normal(size=10_000)
    points = np.column_stack([np.arange(10_000.0), values])
    thinned = thin(points)
    assert len(thinned) <= 800
    assert (np.diff(thinned[:, 0]) > 0).all()
    assert (thinned[:, 1].min(), thinned[:, 1].max()) == (values.min(), values.max())


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-3.2, 7.9), (1e-7, 2e-7), (-1e6, -9e5), (0, 0.3), (99.9, 100.1)])
def test_ticks_are_round_evenly_spaced_and_inside(low: float, high: float) -> None:
    values = ticks(low, high)
    assert 2 <= len(values) <= 6
    step = values[1] - values[0]
    np.testing.assert_allclose(np.diff(values), step, rtol=1e-6)
    assert round(step / 10.0 ** math.floor(math.log10(step) + 1e-6), 6) in (1, 2, 5)
    assert low - 1e-9 * step <= values[0]
    assert values[-1] <= high + 1e-9 * step


def test_what_is_missing_is_named_with_a_command(empty_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = make_page(empty_run)
    assert page.sections == ["scores", "samples", "reconstructions", "curves", "configuration"]
    assert page.images == []
    assert page.text.count("codegan train accel") >= 4
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
    assert len(page.images) == 2
    weights = full_run / "weights" / "autoencoder.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x55")
    text = make_page(full_run).text
    assert "do not match their checksum" in text
    assert f"codegan check {full_run}" in text


def test_an_autoencoder_of_another_version_leaves_the_rest_of_the_page(full_run: Path) -> None:
    state = json.loads((full_run / "weights" / "config.json").read_text())
    save_weights(full_run / "weights", {"autoencoder": {"renamed": torch.zeros(1)}}, state)
    page = make_page(full_run)
    assert "autoencoder cannot be loaded" in page.text
    assert len(page.images) == 2


def test_a_damaged_sample_is_left_out_and_named(full_run: Path) -> None:
    (full_run / "samples" / "000000700.png").write_bytes(b"\x89PNG broken")
    page = make_page(full_run)
    assert len(page.images) == 2 + 2 * 3
    assert "000000700.png is left out" in page.text


def test_an_autoencoder_shows_its_table_and_its_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = TrainAEConfig(data=("photos", "more photos"), out=tmp_path, kimg=0.1)
    (tmp_path / "config.json").write_text(json.dumps({"kind": "autoencoder", **to_json(config), "versions": VERSIONS}))
    page = make_page(tmp_path)
    assert page.sections == ["reconstructions", "samples", "curves", "configuration"]
    assert page.text.count("codegan train-ae --data photos 'more photos'") >= 3
    table = [{"size": 128, "count": 7, "mse": 0.004, "psnr": 30.0}]
    (tmp_path / "reconstructions.json").write_text(json.dumps({"data": "photos", "held_out": 7, "rows": table}))
    write_sample(tmp_path, 100)
    write_metrics(tmp_path, [{"step": 1, "nimg": 100, "wall_sec": 7300.0, "loss/l1": 0.1}])
    save_weights(tmp_path / "weights", {"autoencoder": {"x": torch.zeros(1)}}, {"kind": "autoencoder", "nimg": 100})
    capsys.readouterr()
    page = make_page(tmp_path)
    for text in ("PSNR at 128 px", "30.00 dB", "4.000e-03", "2 h 1 min", "100 images"):
        assert text in page.text
    assert len(page.images) == 1
    assert "next: codegan encode --data photos 'more photos' --autoencoder" in capsys.readouterr().out


def test_the_command_on_the_page_gives_the_same_configuration(tmp_path: Path) -> None:
    train = generator_config(tmp_path / "a b", seed=7, autoencoder=Path("runs/ae"))
    program, verb, variant, *flags = shlex.split(reproducing_command(train))
    assert (program, verb, variant) == ("codegan", "train", "accel")
    parsed = tyro.cli(TrainConfig[AccelConfig], args=flags, config=(tyro.conf.FlagConversionOff,))
    assert to_json(parsed).items() <= train.items()
    autoencoder = TrainAEConfig(data=("a b.tar", "c.tar"), out=tmp_path, factor=8, lr=1e-4, precision="bf16")
    _, _, *flags = shlex.split(reproducing_command({"kind": "autoencoder", **to_json(autoencoder)}))
    assert tyro.cli(TrainAEConfig, args=flags, config=(tyro.conf.FlagConversionOff,)) == autoencoder


def test_many_large_grids_stay_below_ten_megabytes(empty_run: Path) -> None:
    for nimg in range(30):  # noise, the worst there is to compress; small counts of colours keep the test quick
        write_sample(empty_run, nimg, side=320)
    write_sample(empty_run, 30, side=1400)
    page = make_page(empty_run)
    assert len(page.bytes) < 10_000_000
    assert len(page.images) == 24
    assert "24 of 31 snapshots" in page.text
    shown = [attributes["data-label"] for attributes in page.all("img")]
    assert (shown[0], shown[-1]) == ("0 thousand images", "0.03 thousand images")


def test_folders_that_are_no_runs_are_refused(tmp_path: Path) -> None:
    for content in (None, "{}", "[]", '{"kind": "store"}'):
        if content is not None:
            (tmp_path / "config.json").write_text(content)
        with pytest.raises(InputError):
            report(ReportConfig(tmp_path))
    with pytest.raises(InputError):
        report(ReportConfig(tmp_path / "nowhere"))
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(CorruptError):
        report(ReportConfig(tmp_path))
    assert not (tmp_path / "report.html").exists()
