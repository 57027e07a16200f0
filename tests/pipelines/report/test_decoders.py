"""What a self-supervised critic reconstructs is a section of its run's report, and of no other's."""

import shutil
from pathlib import Path

import numpy as np
import torch

from data.images import to_uint8
from data.latents import LatentStore
from stage1_autoencoder.configs import EncodeConfig
from stage1_autoencoder.encode import encode
from stage2_codegen.configs.sle import SLEConfig
from stage2_codegen.configs.train import TrainConfig
from stage2_codegen.train import train
from tests.report_pages import make_page


def test_a_critic_that_reconstructs_shows_how(tmp_path: Path) -> None:
    store, run = tmp_path / "store", tmp_path / "run"
    encode(EncodeConfig(data=("scenes:6",), autoencoder=Path("pixels"), out=store, size=(32,)))
    model = SLEConfig(width=4, z_dim=8)
    train("sle", TrainConfig(store=store, out=run, model=model, kimg=0.004, batch_size=4, precision="fp32"))
    page = make_page(run)
    assert page.sections.index("decoders") == page.sections.index("neighbours") - 1
    (number,) = (
        n for n, tag in enumerate(page.all("img")) if tag["alt"].startswith("From top to bottom: real pictures")
    )
    sheet = np.asarray(page.images[number]).astype(int)
    assert sheet.shape == (5 * 130 - 2, 6 * 130 - 2, 3)  # five rows of six pictures
    rows = [sheet[130 * row : 130 * row + 128, :128] for row in range(5)]
    small = to_uint8(torch.from_numpy(LatentStore.open(store).read([0])))[0].numpy().transpose(1, 2, 0)
    assert np.abs(rows[0][2::4, 2::4] - small).mean() < 4
    assert np.abs(rows[2][4::8, 4::8] - small[:16, :16]).mean() < 12  # the quarter, at half the side
    assert len({row.tobytes() for row in rows}) == 5
    shutil.rmtree(run / "checkpoints")
    assert "The critic cannot be loaded" in make_page(run).text
