"""Whatever is killed, and however many processes there are, the stores end byte for byte the same."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from data.files.atomic import lock
from data.files.checkpoints import save_weights
from stage1_autoencoder.configs import EncodeConfig
from stage1_autoencoder.encode import encode
from stage1_autoencoder.networks import Autoencoder
from tests.training_runs import run_ranks

KILLS = int(os.environ.get("CODEGAN_KILLS", "6"))

# `start` encodes into a folder of argv[1] in `ranks` processes, forked from one that has loaded torch, which is slow.
GROUP = """
import json, os, pathlib, random, signal, socket, sys, time
import torch, torch.distributed.tensor
from stage1_autoencoder.encode import encode
from stage1_autoencoder.configs import EncodeConfig

folder = pathlib.Path(sys.argv[1])

def start(out, ranks):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": ranks, "LOCAL_WORLD_SIZE": ranks, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    children = []
    for rank in range(ranks):
        children.append(os.fork())
        if children[-1] == 0:
            if ranks > 1:
                os.environ |= {name: str(value) for name, value in shared.items()}
                os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            encode_and_exit(out)
    return children

def encode_and_exit(out):
    torch.set_num_threads(1)
    sizes = {"size": (16, 32), "dtype": "int8", "shard_rows": 4, "batch_size": 3, "threads": 1}
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(1, 2)
    encode(EncodeConfig(data=("scenes:40",), autoencoder=folder / "ae", out=out, **sizes))
    os._exit(0)

def wait(children):
    return [os.waitpid(child, 0)[1] for child in children]
"""

EQUAL = """
for ranks in (1, 2, 4):
    assert wait(start(folder / str(ranks), ranks)) == [0] * ranks
"""

# Encodes into argv[1]/straight once, then into argv[1]/killed again and again in argv[2] processes, of which all or one
# are killed at a random instant (argv[3] times, drawn by argv[4]), until they are left to finish. Whoever is not killed
# goes on for a while, as long as whoever started them all may take to end it. Of each attempt it prints the finished
# shards that were written again, how many were written without being journalled, and how many are finished.
KILLER = """
ranks, kills = int(sys.argv[2]), int(sys.argv[3])
random.seed(int(sys.argv[4]))

def look(out):
    '''When each shard was written, and those of them that count as finished.'''
    stamps, finished = {}, set()
    for store in (out / "16", out / "32"):
        entries = {int(entry.stem) for entry in store.glob("journal/[0-9]*.json")}
        for path in store.glob("latents/c/*/0/0/0"):
            stamps[str(path)] = path.stat().st_mtime_ns
            if int(path.parts[-4]) in entries or (store / "zarr.json").exists():
                finished.add(str(path))
    return stamps, finished

began = time.monotonic()
assert wait(start(folder / "straight", ranks)) == [0] * ranks
duration = time.monotonic() - began
out, killed, outcomes, stamps, finished = folder / "killed", 0, [], {}, set()
while killed < kills:
    children = start(out, ranks)
    time.sleep(random.uniform(0.02, duration * 0.7))
    if killed % 2:
        os.kill(random.choice(children), signal.SIGKILL)
        time.sleep(random.uniform(0, duration * 0.2))
    for child in children:
        os.kill(child, signal.SIGKILL)
    ended = any(wait(children))
    if (out / "16/zarr.json").exists() and (out / "32/zarr.json").exists():  # begin anew
        out, stamps, finished = out.with_name(f"killed{killed}"), {}, set()
        killed += ended
        continue
    killed += 1
    before, done = stamps, finished
    stamps, finished = look(out)
    written = {path for path in stamps if stamps[path] != before.get(path)}
    outcomes.append([sorted(written & done), len(written - finished), len(finished)])
for unfinished in [path for path in folder.glob("killed*")]:
    assert wait(start(unfinished, ranks)) == [0] * ranks
print(json.dumps(outcomes))
"""

# One of two ranks: encodes two sizes into argv[1]/two, meets a store that is in use, and repairs what is damaged.
RANK = """
import pathlib, sys
import torch
from data.errors import CodeganError
from stage1_autoencoder.encode import encode
from stage1_autoencoder.configs import EncodeConfig

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


def run(code: str, folder: Path, *arguments: str, ranks: int = 1) -> list[str]:
    """What the script printed, as each rank of a group."""
    script = folder / "script.py"
    script.write_text(code)
    return run_ranks(script, [str(folder), *arguments], ranks, folder)


def test_any_number_of_processes_writes_the_same_stores(folder: Path) -> None:
    run(GROUP + EQUAL, folder)
    alone = contents(folder / "1")
    assert len(alone) == 2 * (10 + 10 + 4 + 2 + 2)  # shards, their scales, arrays' metadata, vectors, seals
    assert contents(folder / "2") == alone
    assert contents(folder / "4") == alone


@pytest.mark.timeout(max(300, 20 * KILLS))
@pytest.mark.parametrize("ranks", [1, 2])
def test_killed_at_any_instant_an_encoding_loses_a_shard_a_process_at_most_and_ends_the_same(
    folder: Path, ranks: int
) -> None:
    (printed,) = run(GROUP + KILLER, folder, str(ranks), str(KILLS), "0")
    outcomes = json.loads(printed)
    assert any(finished for _, _, finished in outcomes)
    for again, lost, _ in outcomes:
        assert again == []
        assert lost <= ranks
    straight = contents(folder / "straight")
    for path in folder.glob("killed*"):
        assert contents(path) == straight


@pytest.mark.usefixtures("single_thread")
def test_two_processes_write_the_same_stores_and_both_stop_at_a_lock(folder: Path) -> None:
    with lock(folder / "held" / "16"):
        printed = run(RANK, folder, ranks=2)
    for told in printed:
        assert f"9 {folder / 'held' / '16'}: is being written by process {os.getpid()} " in told
    assert "every byte is as it was" in printed[0]
    sizes: dict[str, Any] = {"size": (16, 32), "dtype": "int8", "flip": True, "shard_rows": 4, "batch_size": 3}
    encode(EncodeConfig(data=("scenes:21",), autoencoder=folder / "ae", out=folder / "one", threads=1, **sizes))
    assert contents(folder / "one") == contents(folder / "two")
