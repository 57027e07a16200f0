"""Sizes on which no generator can be trained are told before the encoding."""

from pathlib import Path

import pytest

from data.latents import LatentStore
from pipelines.cli import run
from stage2_codegen.configs.registry import SIDES, is_trainable


@pytest.mark.parametrize(
    ("size", "advised"), [("32", ""), ("100", "--size 96"), ("8", "--size 16"), ("64x40", "--size 64x32")]
)
def test_a_size_without_a_generator_is_told_and_encoded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], size: str, advised: str
) -> None:
    command = ["encode", "--data", "scenes:16@128", "--autoencoder", "pixels", "--out", str(tmp_path / "store")]
    run([*command, "--size", size])
    printed, told = capsys.readouterr()
    assert ("next: codegan train --store" in printed) == (not advised)
    assert ("no generator can be trained" in told) == bool(advised)
    assert advised in told
    assert len(LatentStore.open(tmp_path / "store")) == 16


def test_every_usual_side_is_trainable() -> None:
    assert all(is_trainable(side, side) for side in SIDES)
    assert not any(is_trainable(side, 64) for side in (0, 8, 24, 272))
