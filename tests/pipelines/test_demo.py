"""The demo at its smallest: both stages, samples, scores, report, and safe to repeat."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.check import check
from pipelines.configs import CheckConfig, DemoConfig
from pipelines.demo import demo


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("demo")
    demo(DemoConfig(out=out, minutes=0.01))
    return out


def test_it_leaves_everything_a_user_wants_to_see(made: Path) -> None:
    samples = sorted((made / "samples").glob("0*.png"))
    assert len(samples) == 36
    with Image.open(samples[0]) as image:
        assert image.size == (64, 64)
        assert np.asarray(image).std() > 1
    scores = json.loads((made / "generator" / "scores.json").read_text())
    assert scores["features"] == "offline"
    assert all(np.isfinite(scores[name]["value"]) for name in ("fd-offline", "kd-offline"))
    assert scores["fd-offline"]["value"] > scores["fd-offline"]["real_floor"] > 0
    assert (made / "generator" / "report.html").stat().st_size > 10_000
    for part in ("autoencoder", "latents", "generator"):
        check(CheckConfig(path=made / part))


def test_repeating_it_goes_on_and_trains_nothing_again(made: Path) -> None:
    before = {path: path.read_bytes() for path in made.rglob("*.safetensors")}
    assert before
    demo(DemoConfig(out=made, minutes=0.01))
    assert {path: path.read_bytes() for path in made.rglob("*.safetensors")} == before
