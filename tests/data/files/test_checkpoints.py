"""Training goes on from a checkpoint as if it had never stopped, and only from a whole one."""

import copy
import errno
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from data.errors import CorruptError, InputError
from data.files.atomic import remove_partials, verify_folder
from data.files.checkpoints import (
    Progress,
    fingerprint,
    load_newest,
    load_optimizer_tensors,
    load_state,
    load_weights,
    optimizer_tensors,
    save_state,
    save_weights,
)

pytestmark = pytest.mark.usefixtures("single_thread")


def make_network(memory_format: torch.memory_format = torch.contiguous_format) -> nn.Module:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.Conv2d(6, 4, 3))
    return network.to(memory_format=memory_format)


def make_adam(network: nn.Module, fused: bool = True) -> torch.optim.Adam:
    return torch.optim.Adam(network.parameters(), 1e-2, fused=fused)


def train(network: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        images = torch.randn(2, 3, 7, 7, generator=torch.Generator().manual_seed(step))
        network(images).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()


def assert_same(a: nn.Module, b: nn.Module) -> None:
    for (name, value), other in zip(a.state_dict().items(), b.state_dict().values(), strict=True):
        assert torch.equal(value, other), name


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_training_resumes_bit_for_bit(tmp_path: Path, memory_format: torch.memory_format, fused: bool) -> None:
    straight = make_network(memory_format)
    train(straight, make_adam(straight, fused), range(6))
    first = make_network(memory_format)
    optimizer = make_adam(first, fused)
    train(first, optimizer, range(3))
    save_state(tmp_path, {"network": first}, {"opt": optimizer}, Progress(nimg=6, step=3))
    resumed = make_network(memory_format)
    fresh = make_adam(resumed, fused)
    assert load_state(tmp_path, {"network": resumed}, {"opt": fresh}) == Progress(nimg=6, step=3)
    for name, value in optimizer_tensors(optimizer).items():
        assert torch.equal(optimizer_tensors(fresh)[name], value), name
    train(resumed, fresh, range(3, 6))
    assert_same(resumed, straight)


def test_hyper_parameters_are_those_of_the_new_optimiser() -> None:
    network = make_network()
    optimizer = make_adam(network)
    train(network, optimizer, range(1))
    other = torch.optim.Adam(network.parameters(), 5e-3, fused=True)
    load_optimizer_tensors(other, optimizer_tensors(optimizer))
    assert other.param_groups[0]["lr"] == 5e-3


def test_without_a_checkpoint_training_starts_at_zero(tmp_path: Path) -> None:
    network = make_network()
    before = copy.deepcopy(network)
    assert load_state(tmp_path / "none", {"network": network}, {}) == Progress()
    assert_same(network, before)


@pytest.mark.parametrize(
    ("lasts", "others"),
    [
        (lambda nimg: True, [1000]),
        (lambda nimg: nimg != 1000, [10]),
        (lambda nimg: False, [1000]),
        (lambda nimg: nimg == 20000, []),  # as after a run that was never saved between
    ],
)
def test_the_newest_is_kept_and_before_it_the_newest_that_lasts(
    lasts: Callable[[int], bool], others: list[int], tmp_path: Path
) -> None:
    for nimg in (5, 10, 1000, 20000):
        save_state(tmp_path, {"network": make_network()}, {}, Progress(nimg, nimg // 5, rollbacks=1), lasts)
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{nimg:012d}" for nimg in (*others, 20000)]
    newest = load_newest(tmp_path)
    assert newest is not None
    assert newest.state == {"nimg": 20000, "step": 4000, "rollbacks": 1}


def test_a_kill_while_an_old_one_is_deleted_leaves_only_whole_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die_half_way(folder: Path, **_: Any) -> None:
        if folder.is_dir():
            (folder / "network.safetensors").unlink()
            raise KeyboardInterrupt

    for nimg in (10, 20):
        save_state(tmp_path, {"network": make_network()}, {}, Progress(nimg, nimg))
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", die_half_way)
        with pytest.raises(KeyboardInterrupt):
            save_state(tmp_path, {"network": make_network()}, {}, Progress(30, 30))
    assert len(list(tmp_path.iterdir())) == 3
    for path in tmp_path.glob("[!.]*"):
        verify_folder(path)
    remove_partials(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{20:012d}", f"{30:012d}"]


def test_one_that_cannot_be_read_is_named_and_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    open_file, broken = Path.open, [tmp_path / f"{20:012d}"]

    def fail(path: Path, *args: Any, **options: Any) -> Any:
        if path.parent in broken and path.name == "network.safetensors":
            raise OSError(errno.EIO, "Input/output error")
        return open_file(path, *args, **options)

    for nimg in (10, 20):
        save_state(tmp_path, {"network": make_network()}, {}, Progress(nimg, nimg))
    monkeypatch.setattr(Path, "open", fail)
    checkpoint = load_newest(tmp_path)
    assert checkpoint is not None
    assert checkpoint.state["nimg"] == 10
    assert f"{broken[0]}: cannot be read (Input/output error)" in caplog.text
    broken.append(tmp_path / f"{10:012d}")
    with pytest.raises(CorruptError, match="Input/output error") as refused:
        load_newest(tmp_path)
    assert refused.value.fix.startswith("correct that")


def test_a_damaged_newest_is_named_and_passed_over(
    tmp_path: Path, flip_bit: Callable[[Path, int], None], caplog: pytest.LogCaptureFixture
) -> None:
    paths = [save_state(tmp_path, {"network": make_network()}, {}, Progress(nimg, nimg)) for nimg in (10, 20)]
    (tmp_path / ".partial-000000000030").mkdir()
    flip_bit(paths[1] / "network.safetensors", -5)
    with caplog.at_level(logging.WARNING):
        checkpoint = load_newest(tmp_path)
    assert checkpoint is not None
    assert checkpoint.state["nimg"] == 10
    assert str(paths[1] / "network.safetensors") in caplog.text
    assert (tmp_path / ".partial-000000000030").exists()  # it may be being written
    (paths[0] / "state.json").unlink()
    with pytest.raises(CorruptError, match="no checkpoint is whole"):
        load_newest(tmp_path)


def test_a_fingerprint_moves_with_any_weight_name_or_setting() -> None:
    tensors = make_network().state_dict()
    config = {"width": 6}
    prints = {fingerprint(tensors, config), fingerprint(tensors, {"width": 7})}
    for name, value in tensors.items():
        changed = value.clone()
        changed.view(-1)[-1] += 1
        prints.add(fingerprint({**tensors, name: changed}, config))
    renamed = {f"{name}_": value for name, value in tensors.items()}
    prints.add(fingerprint(renamed, config))
    assert len(prints) == 2 + len(tensors) + 1
    same = {name: value.clone() for name, value in reversed(tensors.items())}
    assert fingerprint(same, config) == fingerprint(tensors, config)
    assert fingerprint(make_network(torch.channels_last).state_dict(), config) == fingerprint(tensors, config)


def test_weights_come_back_and_damage_is_refused(tmp_path: Path, flip_bit: Callable[[Path, int], None]) -> None:
    network, folder = make_network(torch.channels_last), tmp_path / "weights"
    with pytest.raises(InputError):
        load_weights(folder)
    for nimg in (1, 2):  # the second replaces the first
        save_weights(folder, {"net": network.state_dict()}, {"kind": "x", "nimg": nimg})
    weights = load_weights(folder)
    assert weights.state == {"kind": "x", "nimg": 2}
    assert weights.tensors["net"].keys() == network.state_dict().keys()
    for name, value in network.state_dict().items():
        assert torch.equal(weights.tensors["net"][name], value)
    flip_bit(folder / "config.json", 9)
    with pytest.raises(CorruptError, match=r"config\.json"):
        load_weights(folder)
