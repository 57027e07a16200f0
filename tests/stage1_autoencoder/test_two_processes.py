"""Encoding on two ranks writes the bytes that one process writes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from data.files.checkpoints import save_weights
from data.latents import LatentStore
from pipelines import cli
from stage1_autoencoder.networks import Autoencoder


@pytest.mark.usefixtures("single_thread")
def test_two_ranks_write_the_same_store(tmp_path: Path) -> None:
    torch.manual_seed(0)
    autoencoder = Autoencoder(factor=2, code_channels=4, width=4)
    described = {"kind": "autoencoder", "autoencoder": autoencoder.config}
    save_weights(tmp_path / "ae" / "weights", {"autoencoder": autoencoder.state_dict()}, described)
    verb = ["encode", "--data", "scenes:20@32", "--autoencoder", str(tmp_path / "ae"), "--size", "32", "--flip"]
    verb += ["--shard-rows", "8", "--out"]
    cli.run([*verb, str(tmp_path / "one")])
    command = [sys.executable, "-m", "pipelines", *verb, str(tmp_path / "two"), "--processes", "2"]
    done = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("wrote ") == 1
    one, two = ({p.relative_to(f): p.read_bytes() for p in f.rglob("*") if p.is_file()} for f in _stores(tmp_path))
    assert one == two
    store = LatentStore.open(tmp_path / "two")
    assert len(store) == 40
    assert sum(name.startswith("latents/c/") for name in store.seal["files"]) == 5  # shards, shared by the ranks


def _stores(folder: Path) -> tuple[Path, Path]:
    return folder / "one", folder / "two"
