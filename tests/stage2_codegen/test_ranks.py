"""Two ranks, with or without accumulation, are one process at the same global batch.

Shown in float64: Adam divides each gradient by its own size, so that in fp32 what rounding makes of a vanishing
gradient moves a weight by whole learning rates, as it would between two machines.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import Tensor

from data.checkpoints import load_newest
from pipelines import cli
from pipelines.launch import launch
from tests.tiny_variants import TINY

WORKER = str(Path(__file__).with_name("rank_worker.py"))
STEPS, BATCH = 20, 4
FIELDS = {"batch_size": BATCH, "kimg": STEPS * BATCH / 1000}
FAST = {"lr": 2e-3, "critic_lr": 2e-3, "ema_halflife_kimg": 0.05}  # 20 steps then move weights far beyond the bound
# A gradient penalty and its double backward, three critics with BCE behind batch normalisation, pairs of scores.
ALONE = {name: (name, TINY[name] | FAST, FIELDS) for name in ("accel", "lrm", "r3")}
# Batch normalisation looks at each part, so that lrm has no such counterpart.
IN_PARTS = {f"{name}-in-parts": (*ALONE[name][:2], FIELDS | {"accumulate": 2}) for name in ("accel", "r3")}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`one`: each of `ALONE` by one process; `two`: these and `IN_PARTS` by two ranks."""
    folder = tmp_path_factory.mktemp("ranks")
    store = str(folder / "store")
    cli.run(["encode", "--data", "scenes:100@16", "--autoencoder", "pixels", "--size", "16", "--out", store])
    worker = [sys.executable, WORKER, store]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        subprocess.run([*worker, str(folder / "one"), json.dumps(ALONE)], check=True, capture_output=True)
        launch([*worker, str(folder / "two"), json.dumps(ALONE | IN_PARTS)], 2)
    return folder


def _state(run: Path) -> dict[str, dict[str, Tensor]]:
    checkpoint = load_newest(run / "checkpoints")
    assert checkpoint is not None
    assert checkpoint.state["step"] == STEPS
    return checkpoint.tensors


@pytest.mark.parametrize("run", [*ALONE, *IN_PARTS])
def test_two_ranks_are_one_process_after_20_steps(run: str, runs: Path) -> None:
    rows: list[dict[str, Any]] = [
        json.loads(x) for x in (runs / "two" / run / "metrics.jsonl").read_text().splitlines()
    ]
    assert rows[-1]["ranks"] == 2
    one, two = _state(runs / "one" / run.removesuffix("-in-parts")), _state(runs / "two" / run)
    assert max((one["G"][key] - one["G_ema"][key]).abs().max().item() for key in one["G"]) > 1e-4  # it has moved
    for group in one:
        assert one[group].keys() == two[group].keys()
        for key, expected in one[group].items():
            np.testing.assert_allclose(two[group][key], expected, rtol=0, atol=1e-5, err_msg=f"{group} {key}")
