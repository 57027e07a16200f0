"""A training begins with what it trains and where it stands."""

from pathlib import Path

import pytest
from torch import nn

from data.files.checkpoints import Progress
from stage1_autoencoder.training.config import RunConfig
from stage1_autoencoder.training.processes import make_accelerator
from stage1_autoencoder.training.run import Run


@pytest.mark.parametrize(
    ("nimg", "standing"),
    [
        (0, "a new run of 64 images"),
        (32, "resuming at image 32 of 64"),
        (64, "already complete: all 64 images were shown; a larger --kimg goes on"),
        (96, "already complete: 96 images were shown, more than the 64 of --kimg 0.05"),
    ],
)
def test_a_training_begins_with_where_it_stands(
    nimg: int, standing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("torch.get_num_threads", lambda: 3)
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")
    run = Run(RunConfig(out=tmp_path, kimg=0.05, batch_size=32), make_accelerator(), "train")
    run.progress = Progress(nimg, nimg // 32)
    networks = {
        "generator": nn.Linear(99, 1000),
        "critic": nn.Linear(9, 1),
        "none": nn.Linear(1, 1).requires_grad_(False),
    }
    run.introduce("it on 7 pictures", networks, {"--lr": 0.1, "--kimg": 0.05})
    assert capsys.readouterr().out.splitlines() == [
        "it on 7 pictures, with 3 threads, which wait passively",
        "  generator of 100 k parameters, critic of 10 parameters, none of 0 parameters",
        "  --lr 0.1  --kimg 0.05",
        f"  {standing}",
    ]
