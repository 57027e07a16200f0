"""What tests of training share: tiny configurations, the state of a run, and runs in processes of their own."""

import errno
import itertools
import json
import multiprocessing
import os
import runpy
import socket
import sys
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from data.files.checkpoints import load_newest, save_weights
from data.files.runs import MetricsLog, read_metrics
from pipelines import cli
from stage1_autoencoder.networks import Autoencoder
from stage2_codegen.configs.train import TrainConfig
from stage2_codegen.variants import VARIANTS
from tests.launched import environment_of
from tests.tiny_variants import TINY

MODEL = {name: {**fields, "ema_halflife_kimg": 0.05} for name, fields in TINY.items()}


def make_autoencoder(folder: Path, seed: int = 0) -> Autoencoder:
    """An untrained one, as the run of it in `folder`."""
    torch.manual_seed(seed)
    autoencoder = Autoencoder(factor=2, code_channels=4, width=4)
    described = {"kind": "autoencoder", "autoencoder": autoencoder.config}
    save_weights(folder / "weights", {"autoencoder": autoencoder.state_dict()}, described)
    return autoencoder


def state(run: Path) -> dict[str, dict[str, Tensor]]:
    checkpoint = load_newest(run / "checkpoints")
    assert checkpoint is not None
    return checkpoint.tensors


def assert_same_bits(one: Path, other: Path) -> None:
    first, second = state(one), state(other)
    assert first.keys() == second.keys()
    for group, tensors in first.items():
        assert tensors.keys() == second[group].keys()
        for key, value in tensors.items():
            assert torch.equal(value, second[group][key]), f"{group} {key}"


def arguments(config: TrainConfig[Any], name: str) -> list[str]:
    """The command line of a configuration of `MODEL`."""
    model = [part for key, value in MODEL[name].items() for part in (f"--model.{key.replace('_', '-')}", str(value))]
    return [
        *("train", name, "--store", str(config.store), "--out", str(config.out), "--kimg", str(config.kimg)),
        *("--batch-size", str(config.batch_size), "--snapshot-kimg", str(config.snapshot_kimg), *model),
    ]


@contextmanager
def poisoned(name: str, updates: Collection[int]) -> Iterator[None]:
    """Inside, these critic updates of a variant, counted from 0 over all runs, have NaN for a loss."""
    variant, count = VARIANTS[name], itertools.count()

    def poisonous(config: Any) -> Any:
        loss: Any = variant.loss(config)
        plain = loss.critic_loss

        def critic_loss(*args: Any) -> Any:
            value, logs = plain(*args)
            return (value * torch.nan if next(count) in updates else value), logs

        loss.critic_loss = critic_loss
        return loss

    VARIANTS[name] = variant._replace(loss=poisonous)
    try:
        yield
    finally:
        VARIANTS[name] = variant


def _with_torch_loaded() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    slow = ["torch._dynamo", "torch.distributed.tensor"]  # what the first optimiser and Accelerate import
    context.set_forkserver_preload(["pipelines.cli", "stage2_codegen.train", *slow])
    return context


def run_ranks(
    script: Path | str, arguments: list[str], ranks: int, folder: Path, environment: Mapping[str, str] | None = None
) -> list[str]:
    """Run a script as every rank of a group, in processes forked from one that has loaded torch; what each printed.

    A single rank is no group. `folder` takes what they print and write to stderr, which is shown where one fails.
    """
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]  # free now
    processes, told = [], [folder / f"rank-{rank}-of-{ranks}" for rank in range(ranks)]
    for rank in range(ranks):
        described = {**(environment or {}), **(environment_of(rank, ranks, port) if ranks > 1 else {})}
        given = (str(script), arguments, described, told[rank])
        processes.append(_with_torch_loaded().Process(target=_be_rank, args=given))
        processes[-1].start()
    for rank, process in enumerate(processes):
        process.join(240)
        process.kill()
        assert process.exitcode == 0, told[rank].with_suffix(".err").read_text()[-3000:]
    return [path.with_suffix(".out").read_text() for path in told]


def _be_rank(script: str, arguments: list[str], environment: dict[str, str], told: Path) -> None:
    for stream, suffix in ((1, ".out"), (2, ".err")):
        os.dup2(os.open(told.with_suffix(suffix), os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
    os.environ.update(environment)
    sys.argv = [script, *arguments]
    runpy.run_path(script, run_name="__main__")


def start_command(arguments: list[str]) -> ForkServerProcess:
    """`codegan ARGUMENTS` in a process of its own, forked from one that has loaded torch, which takes seconds."""
    process = _with_torch_loaded().Process(target=cli.main)
    with mock.patch.object(sys, "argv", ["codegan", *arguments]):  # a child starts with its parent's
        process.start()
    return process


@contextmanager
def full_at(module: ModuleType, names: Collection[str], write: int) -> Iterator[list[str]]:
    """Inside, the disk is full at this call, counted from 0, of the functions of `module` and of the log that write.

    Yields the names of those that were called.
    """
    called: list[str] = []

    def counted(name: str, function: Any) -> Any:
        def call(*args: Any) -> Any:
            called.append(name)
            if len(called) > write:
                raise OSError(errno.ENOSPC, "No space left on device")
            return function(*args)

        return call

    with ExitStack() as stack:
        for owner, name in [(MetricsLog, "append"), *((module, name) for name in names)]:
            stack.enter_context(mock.patch.object(owner, name, counted(name, getattr(owner, name))))
        yield called


def log_of(run: Path) -> list[dict[str, Any]]:
    """The log without what depends on the clock and the machine."""
    unsteady = ("wall_sec", "time/", "memory/")
    return [{k: v for k, v in row.items() if not k.startswith(unsteady)} for row in read_metrics(run)]


def assert_same_files(one: Path, other: Path) -> None:
    """Two runs have equal files, but for the folder in their configuration and the times in their logs."""
    first, second = ({file.relative_to(run): file for file in run.rglob("*") if file.is_file()} for run in (one, other))
    assert first.keys() == second.keys()
    for name, file in first.items():
        if name.name not in ("config.json", ".config.json", "metrics.jsonl", "manifest.json"):
            assert file.read_bytes() == second[name].read_bytes(), name
    assert log_of(one) == log_of(other)
    described = [json.loads((run / "weights" / "config.json").read_text()) for run in (one, other)]
    assert described[0] == described[1]
