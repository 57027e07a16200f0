"""Whatever happens to one file of the newest checkpoint, the one before it is loaded and the damage is named."""

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from data.files.atomic import MANIFEST
from data.files.checkpoints import Progress, load_newest, load_state, save_state

FILES = ("network.safetensors", "opt.safetensors", "state.json", MANIFEST)


def flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 8
    path.write_bytes(content)


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [flipped, truncated, emptied, Path.unlink])
@pytest.mark.parametrize("name", FILES)
def test_the_older_checkpoint_wins_and_the_damaged_file_is_named(
    name: str, damage: Callable[[Path], None], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    network = nn.Linear(3, 2)
    optimizer = torch.optim.Adam(network.parameters(), fused=True)
    older = {key: value.clone() for key, value in network.state_dict().items()}
    for nimg in (10, 20):
        newest = save_state(tmp_path, {"network": network}, {"opt": optimizer}, Progress(nimg, nimg))
        network(torch.ones(1, 3)).sum().backward()
        optimizer.step()
    assert sorted(path.name for path in newest.iterdir()) == sorted(FILES)
    damage(newest / name)
    with caplog.at_level(logging.WARNING):
        assert load_state(tmp_path, {"network": network}, {"opt": optimizer}) == Progress(10, 10)
    assert str(newest / name) in caplog.text
    assert all(torch.equal(value, older[key]) for key, value in network.state_dict().items())
    assert load_newest(tmp_path) is not None
