"""A small store, and configurations of runs on it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from data.images import to_float
from data.scenes.factors import Scenes
from data.store.writer import LatentWriter
from stage2_codegen import moments
from stage2_codegen.configs.train import TrainConfig
from stage2_codegen.variants import VARIANTS
from tests.training_runs import MODEL, make_autoencoder


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """100 scenes of 32 x 32 as latents of 4 x 16 x 16, and the (untrained) autoencoder they come from."""
    folder = tmp_path_factory.mktemp("store")
    autoencoder = make_autoencoder(folder / "ae")
    scenes = Scenes(100, size=32)
    images = to_float(torch.from_numpy(np.stack([scenes.image(i) for i in range(100)])))
    with torch.no_grad():
        latents = autoencoder.encode(images).numpy()
    metadata = {
        "fingerprint": autoencoder.fingerprint,
        "autoencoder": autoencoder.config,
        "autoencoder_run": str(folder / "ae"),
        "data": ["none"],
        "image_size": 32,
    }
    writer = LatentWriter(folder / "store", 100, (4, 16, 16), "float16", metadata, shard_rows=30)
    for shard in writer.missing_shards():
        writer.write_shard(shard, latents[writer.rows_of(shard).start : writer.rows_of(shard).stop])
    writer.seal([str(i) for i in range(100)])
    return folder / "store"


@pytest.fixture
def few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """Moments of an average are measured on two batches, where how many does not matter."""
    monkeypatch.setattr(moments, "DRAWS", 16)


@pytest.fixture
def configure(store: Path, tmp_path: Path) -> Callable[..., TrainConfig[Any]]:
    def make(name: str, out: str, kimg: float = 0.08, **changes: Any) -> TrainConfig[Any]:
        model = VARIANTS[name].Config(**{**MODEL[name], **changes.pop("model", {})})
        fields = {"batch_size": 8, "snapshot_kimg": 0.032, "precision": "fp32", **changes}
        return TrainConfig(store=store, out=tmp_path / out, model=model, kimg=kimg, **fields)

    return make
