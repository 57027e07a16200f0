"""Two launchers of torch, each as on a machine of its own, make one training."""

import os
import socket
import subprocess
import sys
from pathlib import Path

from tests.tiny_variants import TINY
from tests.training_runs import assert_same_bits, start_command


def _agents(arguments: list[str], machines: int) -> list["subprocess.Popen[str]"]:
    """`torchrun`, once for each machine, which meet at a port of the first."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]  # free now
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nnodes", str(machines), "--nproc-per-node", "1"]
    launcher += ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{port}", "--max-restarts", "1"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [*launcher, "-m", "pipelines", *arguments]
    return [subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) for _ in range(machines)]


def test_two_machines_train_as_two_processes_of_one(tmp_path: Path) -> None:
    store = str(tmp_path / "store")
    encode = start_command(
        ["encode", "--data", "scenes:16@16", "--autoencoder", "pixels", "--size", "16", "--out", store]
    )
    encode.join()
    fields = {f"--model.{name.replace('_', '-')}": str(value) for name, value in TINY["accel"].items()}
    model = [word for flag in fields.items() for word in flag]
    train = ["train", "accel", "--store", store, "--batch-size", "4", "--kimg", "0.016", *model, "--out"]
    one = [sys.executable, "-m", "pipelines", *train, str(tmp_path / "one"), "--processes", "2"]
    subprocess.run(one, check=True, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    for agent in (agents := _agents([*train, str(tmp_path / "two")], 2)):
        _, complaint = agent.communicate(timeout=240)
        assert agent.returncode == 0, complaint[-3000:]
    assert len(agents) == 2
    assert_same_bits(tmp_path / "one", tmp_path / "two")
