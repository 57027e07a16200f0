"""Two ranks, with or without accumulation, and four are one process at the same global batch.

Shown in float64: Adam divides each gradient by its own size, so that in fp32 what rounding makes of a vanishing
gradient moves a weight by whole learning rates, as it would between two machines.
"""

import json
from pathlib import Path

import numpy as np
import pytest
from torch import Tensor

from data.files.checkpoints import load_newest
from data.files.runs import read_metrics
from pipelines import cli
from tests.tiny_variants import TINY
from tests.training_runs import run_ranks

WORKER = Path(__file__).with_name("rank_worker.py")
STEPS, BATCH = 6, 4
FIELDS = {"batch_size": BATCH, "kimg": STEPS * BATCH / 1000}
FAST = {"lr": 2e-3, "critic_lr": 2e-3, "ema_halflife_kimg": 0.05}  # these steps then move weights far beyond the bound
# A gradient penalty and its double backward, three critics with BCE behind batch normalisation, pairs of scores, and
# the drift of samples towards those of all ranks.
ALONE = {name: (name, TINY[name] | FAST, FIELDS) for name in ("accel", "lrm", "r3", "projected")}
# Batch normalisation looks at each part, so that lrm has no such counterpart.
ON_FOUR = {"lrm": ALONE["lrm"]}  # one sample a rank, its statistics from all
IN_PARTS = {f"{name}-in-parts": (*ALONE[name][:2], FIELDS | {"accumulate": 2}) for name in ("accel", "r3")}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`1`: each of `ALONE` by one process; `2`: these and `IN_PARTS` by two ranks; `4`: `ON_FOUR` by four."""
    folder = tmp_path_factory.mktemp("ranks")
    store = str(folder / "store")
    cli.run(["encode", "--data", "scenes:100@16", "--autoencoder", "pixels", "--size", "16", "--out", store])
    for ranks, trained in ((1, ALONE), (2, ALONE | IN_PARTS), (4, ON_FOUR)):
        run_ranks(WORKER, [store, str(folder / str(ranks)), json.dumps(trained)], ranks, folder)
    return folder


def _state(run: Path) -> dict[str, dict[str, Tensor]]:
    checkpoint = load_newest(run / "checkpoints")
    assert checkpoint is not None
    assert checkpoint.state["step"] == STEPS
    return checkpoint.tensors


@pytest.mark.parametrize(("ranks", "run"), [(2, run) for run in (*ALONE, *IN_PARTS)] + [(4, run) for run in ON_FOUR])
def test_ranks_are_one_process_after_some_steps(ranks: int, run: str, runs: Path) -> None:
    assert read_metrics(runs / str(ranks) / run)[-1]["ranks"] == ranks
    one, several = _state(runs / "1" / run.removesuffix("-in-parts")), _state(runs / str(ranks) / run)
    assert max((one["G"][key] - one["G_ema"][key]).abs().max().item() for key in one["G"]) > 1e-4  # it has moved
    for group in one:
        assert one[group].keys() == several[group].keys()
        for key, expected in one[group].items():
            np.testing.assert_allclose(several[group][key], expected, rtol=0, atol=1e-5, err_msg=f"{group} {key}")
