"""Whatever is killed, and however many processes there are, the stores end byte for byte the same."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from data.checkpoints import save_weights
from data.storage import lock
from stage1_autoencoder.encode import EncodeConfig, encode
from stage1_autoencoder.networks import Autoencoder

KILLS = int(os.environ.get("CODEGAN_KILLS", "6"))

# Encodes into argv[1]/straight once, then into argv[1]/killed again and again, each time in a process of its own that
# is killed at a random instant (argv[2] of them, drawn by argv[3]), until one is left to finish. Of each attempt it
# prints the shards that were written without being journalled, and the journalled ones that were written again.
KILLER = """
import json, os, pathlib, random, signal, sys, time
import torch
from stage1_autoencoder.encode import EncodeConfig, encode

folder, kills = pathlib.Path(sys.argv[1]), int(sys.argv[2])
random.seed(int(sys.argv[3]))

def start(out):
    if child := os.fork():
        return child
    torch.set_num_threads(1)
    sizes = {"size": (16, 32), "dtype": "int8", "shard_rows": 4, "batch_size": 3, "threads": 1}
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(1, 2)
    encode(EncodeConfig(data=("scenes:40",), autoencoder=folder / "ae", out=out, **sizes))
    os._exit(0)

def shards(store):
    return {str(path): path.stat().st_mtime_ns for path in store.glob("latents/c/*/0/0/0")}

def journalled(store, present):
    names = {int(entry.stem) for entry in store.glob("journal/[0-9]*.json")}
    return {path: stamp for path, stamp in present.items() if int(pathlib.Path(path).parts[-4]) in names}

began = time.monotonic()
assert os.waitpid(start(folder / "straight"), 0)[1] == 0
duration = time.monotonic() - began
out, known, killed, outcomes = folder / "killed", {}, 0, []
while killed < kills:
    child = start(out)
    time.sleep(random.uniform(0.02, duration / 2))
    os.kill(child, signal.SIGKILL)
    ended = os.waitpid(child, 0)[1]
    if (out / "16/zarr.json").exists() and (out / "32/zarr.json").exists():  # begin anew
        out, known = out.with_name(f"killed{killed}"), {}
        killed += ended != 0
        continue
    killed += 1
    for store in (out / "16", out / "32"):
        present, earlier = shards(store), known.get(store, {})
        again = [path for path, stamp in earlier.items() if present[path] != stamp]
        known[store] = present if (store / "zarr.json").exists() else journalled(store, present)
        outcomes.append({"again": again, "finished": len(known[store]), "orphans": len(present) - len(known[store])})
for unfinished in [path for path in folder.glob("killed*")]:
    assert os.waitpid(start(unfinished), 0)[1] == 0
print(json.dumps(outcomes))
"""

# One of two ranks: encodes two sizes into argv[1]/two, meets a store that is in use, and mends what is damaged.
RANK = """
import pathlib, sys
import torch
from data.errors import CodeganError
from stage1_autoencoder.encode import EncodeConfig, encode

torch.set_num_threads(1)
folder = pathlib.Path(sys.argv[1])
config = {"data": ("scenes:21",), "autoencoder": folder / "ae", "size": (16, 32), "dtype": "int8", "flip": True}
config |= {"shard_rows": 4, "batch_size": 3, "threads": 1}
encode(EncodeConfig(out=folder / "two", **config))
try:
    encode(EncodeConfig(out=folder / "held", **config))
except CodeganError as error:
    print(error.exit_code, error.what)
torch.distributed.barrier()
if torch.distributed.get_rank() == 0:
    (folder / "two/32/latents/c/3/0/0/0").write_bytes(b"")
    (folder / "two/32/scales/c/1/0").unlink()
torch.distributed.barrier()
encode(EncodeConfig(out=folder / "two", repair=True, threads=1))
torch.distributed.destroy_process_group()
"""


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture
def folder(tmp_path: Path, tiny_autoencoder: Autoencoder) -> Path:
    described = {"kind": "autoencoder", "autoencoder": tiny_autoencoder.config}
    save_weights(tmp_path / "ae" / "weights", {"autoencoder": tiny_autoencoder.state_dict()}, described)
    return tmp_path


def start(code: str, *arguments: str, **variables: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **variables}
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


@pytest.mark.timeout(max(300, 20 * KILLS))
def test_killed_at_any_instant_an_encoding_loses_a_shard_at_most_and_ends_the_same(folder: Path) -> None:
    process = start(KILLER, str(folder), str(KILLS), "0")
    out, err = process.communicate()
    assert process.returncode == 0, err[-3000:]
    outcomes = json.loads(out)
    assert any(outcome["finished"] for outcome in outcomes)
    assert [outcome["again"] for outcome in outcomes] == [[]] * len(outcomes)  # what was journalled was not made again
    assert max(outcome["orphans"] for outcome in outcomes) <= 1  # of each size
    straight = contents(folder / "straight")
    for path in folder.glob("killed*"):
        assert contents(path) == straight


@pytest.mark.usefixtures("single_thread")
def test_two_processes_write_the_same_stores_and_both_stop_at_a_lock(folder: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    with lock(folder / "held" / "16"):
        ranks = [start(RANK, str(folder), RANK=str(i), LOCAL_RANK=str(i), **shared) for i in range(2)]
        results = [(*process.communicate(), process.returncode) for process in ranks]
    for out, err, code in results:
        assert code == 0, out + err[-3000:]
        assert f"9 {folder / 'held' / '16'}: is being written by process {os.getpid()} " in out
    assert "every byte is as it was" in results[0][0]
    sizes: dict[str, Any] = {"size": (16, 32), "dtype": "int8", "flip": True, "shard_rows": 4, "batch_size": 3}
    encode(EncodeConfig(data=("scenes:21",), autoencoder=folder / "ae", out=folder / "one", threads=1, **sizes))
    assert contents(folder / "one") == contents(folder / "two")
