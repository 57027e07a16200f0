"""The parts both training loops share do what their names say."""

import copy
import math
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from torch import Tensor, nn

from data.errors import DivergedError, Preempted, Terminated, UsageError, WorkerError
from stage1_autoencoder.training import stopping
from stage1_autoencoder.training.clock import StepClock, crossed
from stage1_autoencoder.training.config import OptimizerName
from stage1_autoencoder.training.processes import any_rank, local_share, make_accelerator
from stage1_autoencoder.training.stopping import STOP_SIGNALS, StopSignal
from stage1_autoencoder.training.updates import FiniteGuard, ema_beta, make_optimizer, set_lr, set_rates, update_ema
from tests.launched import set_group
from tests.training_runs import run_ranks


def test_the_environment_does_not_decide_how_is_computed(tmp_path: Path) -> None:
    code = "from stage1_autoencoder.training.processes import make_accelerator as m; a = m(); "
    code += "print(a.mixed_precision, a.gradient_accumulation_steps)"
    environment = {"ACCELERATE_MIXED_PRECISION": "bf16", "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "4"}
    (tmp_path / "script.py").write_text(code)
    (printed,) = run_ranks(tmp_path / "script.py", [], 1, tmp_path, environment)
    assert printed.split() == ["no", "1"]


def test_ema_of_constant_weights_has_its_closed_form() -> None:
    network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)).double()
    ema = copy.deepcopy(network)
    start = [p.detach().clone() for p in ema.parameters()]
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter))
    network(torch.randn(5, 3, dtype=torch.float64))  # moves the buffers
    for _ in range(7):
        update_ema(ema, network, 0.9)
    for e, p, first in zip(ema.parameters(), network.parameters(), start, strict=True):
        torch.testing.assert_close(e, first * 0.9**7 + p * (1 - 0.9**7), rtol=0, atol=1e-12)
    for mine, theirs in zip(ema.buffers(), network.buffers(), strict=True):
        assert torch.equal(mine, theirs)


def test_half_of_a_half_life_later_is_gone() -> None:
    steps = 2000 // 16
    assert math.isclose(ema_beta(16, 2.0, nimg=10**9) ** steps, 0.5)
    assert math.isclose(ema_beta(16, 2.0, nimg=1600), 0.5 ** (16 / 80))  # early: a twentieth of what was seen
    assert ema_beta(16, 2.0, nimg=0) == 0
    assert ema_beta(16, 0.0, nimg=10**6) == 0


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_from_a_gradient_that_is_not_finite_on_no_weight_moves(bad: float) -> None:
    """Neither in the network that had it nor in the other, and no optimiser counts the steps."""
    networks = [nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1)) for _ in range(2)]
    optimizers = [torch.optim.Adam(network.parameters(), 0.1, fused=True) for network in networks]
    guard = FiniteGuard(optimizers, torch.device("cpu"))

    def update(index: int, bad: float = 0.0) -> list[Tensor]:
        networks[index](torch.ones(1, 2)).sum().backward()
        next(networks[index].parameters()).grad[0, 1] += bad  # type: ignore[index]
        guard.update(optimizers[index])
        assert all(p.grad is None for p in networks[index].parameters())
        moments = [value.clone() for state in optimizers[index].state.values() for value in state.values()]
        return [p.detach().clone() for p in networks[index].parameters()] + moments

    plain = copy.deepcopy(networks[0])
    plain_optimizer = torch.optim.Adam(plain.parameters(), 0.1, fused=True)
    plain(torch.ones(1, 2)).sum().backward()
    plain_optimizer.step()
    before = [update(0), update(1)]
    assert all(torch.equal(a, b) for a, b in zip(before[0], plain.parameters(), strict=False))
    assert not guard.found()
    after = [update(0, bad), update(1), update(0)]
    assert guard.found()
    with pytest.raises(DivergedError, match="before image 30") as refused:
        guard.refuse(30, "lower it")
    assert (refused.value.exit_code, refused.value.fix) == (8, "lower it")
    for now, then in zip((*after[:2], after[2]), (*before, before[0]), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(now, then, strict=True))
    guard.reset()
    guard.refuse(30, "")
    assert any(not torch.equal(a, b) for a, b in zip(update(0), before[0], strict=True))


@pytest.mark.parametrize("name", ["adagrad", "rmsprop"])
def test_optimisers_without_momentum_stand_still_as_well(name: Any) -> None:
    network = nn.Linear(2, 1)
    optimizer = make_optimizer(name, network.parameters(), 0.1)
    guard = FiniteGuard([optimizer], torch.device("cpu"))

    def update(bad: float = 0.0) -> Tensor:
        (bad * network(torch.ones(1, 2)) + network(torch.ones(1, 2))).sum().backward()
        guard.update(optimizer)
        return network.weight.detach().clone()

    before = update()
    assert torch.equal(update(math.nan), before)
    assert torch.equal(update(), before)
    guard.reset()
    assert not torch.equal(update(), before)


def test_each_optimiser_takes_the_rates_that_it_has() -> None:
    parameters = [nn.Parameter(torch.ones(2))]
    adam, adagrad, rmsprop = (make_optimizer(name, parameters, 1.0) for name in get_args(OptimizerName))
    for optimizer in (adam, adagrad, rmsprop):
        set_rates(optimizer, 0.5, 0.25, 0.75)
        assert optimizer.param_groups[0]["lr"] == 0.5
    assert adam.param_groups[0]["betas"] == (0.25, 0.75)
    assert rmsprop.param_groups[0]["alpha"] == 0.75


def test_snapshots_fall_on_the_step_that_reaches_a_multiple() -> None:
    for batch, every in ((4, 10), (4, 4), (7, 3), (3, 12)):
        marks = {n for n in range(batch, 100, batch) if any(n - batch < m <= n for m in range(every, 100, every))}
        assert {n for n in range(batch, 100, batch) if crossed(n, batch, every)} == marks


@pytest.mark.parametrize(
    ("number", "expected"),
    [(number, KeyboardInterrupt if number is signal.SIGINT else Preempted) for number in STOP_SIGNALS],
    ids=str,
)
def test_a_signal_is_remembered_until_the_state_is_saved(number: signal.Signals, expected: type[BaseException]) -> None:
    before = signal.signal(number, signal.SIG_DFL)  # which nohup may have set otherwise
    with StopSignal() as stop:
        untouched = stop.received
        os.kill(os.getpid(), number)
        assert untouched is None
        assert stop.received is number
        with pytest.raises(expected):
            stop.raise_if_early(Path("run"), nimg=10, total=20)
        stop.raise_if_early(Path("run"), nimg=20, total=20)
        if number not in (signal.SIGINT, signal.SIGTERM):
            os.kill(os.getpid(), number)  # by the terminal and then its shell
            os.kill(os.getpid(), signal.SIGTERM)  # after the warning of a batch system
        with pytest.raises(KeyboardInterrupt if number is signal.SIGINT else Terminated):
            os.kill(os.getpid(), number if number is signal.SIGINT else signal.SIGTERM)
    assert signal.signal(number, before) is signal.SIG_DFL


def test_a_hang_up_that_nohup_ignores_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopSignal() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert stop.received is None
    finally:
        signal.signal(signal.SIGHUP, before)


def test_the_first_signal_is_answered_once_and_not_by_the_busy_main_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    told, answered, before = list[tuple[str, bool]](), threading.Event(), signal.set_wakeup_fd(-1)

    def tell(text: str) -> None:
        told.append((text, threading.current_thread() is threading.main_thread()))
        answered.set()

    monkeypatch.setattr(stopping, "tell", tell)
    with StopSignal(answers=True):
        os.kill(os.getpid(), signal.SIGHUP)
        os.kill(os.getpid(), signal.SIGINT)
        assert answered.wait(60)
    assert told == [("saving after this step, then stopping; a second Ctrl-C stops without saving", False)]
    assert signal.set_wakeup_fd(before) == -1


@pytest.mark.parametrize(
    ("number", "expected"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Terminated)], ids=str
)
def test_where_nothing_is_left_to_save_a_signal_acts_at_once(
    number: signal.Signals, expected: type[BaseException]
) -> None:
    with StopSignal() as stop, stop.at_once(), pytest.raises(expected):
        os.kill(os.getpid(), number)
    with StopSignal() as stop:
        os.kill(os.getpid(), number)
        with pytest.raises(expected), stop.at_once():  # as does one that came before
            pytest.fail("went on")


def test_the_clock_reports_per_thousand_images(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    clock = StepClock()

    def batches() -> Iterator[int]:
        for number in range(3):
            now[0] += 1.0  # waiting for data
            yield number

    for number in clock.waiting(batches()):
        now[0] += 3.0  # work
        if number == 0:
            assert clock.read(8) == {}  # nothing to compare with yet
    assert clock.read(24) == {"time/sec_per_kimg": pytest.approx(500.0), "time/data_share": pytest.approx(0.25)}


def test_one_process_takes_the_whole_batch() -> None:
    accelerator = make_accelerator()
    assert local_share(12, accelerator) == slice(0, 12)
    assert [any_rank(accelerator, flag) for flag in (False, True)] == [False, True]
    with pytest.raises(UsageError):
        local_share(0, accelerator)


def test_shares_of_ranks_tile_the_batch() -> None:
    class Rank:
        def __init__(self, index: int, count: int) -> None:
            self.process_index, self.num_processes = index, count

    shares = [local_share(12, Rank(rank, 3)) for rank in range(3)]
    assert [row for share in shares for row in range(12)[share]] == list(range(12))
    with pytest.raises(UsageError, match="is not divisible"):
        local_share(10, Rank(0, 3))
    with pytest.raises(UsageError, match="3 processes times --accumulate 8"):
        local_share(12, Rank(0, 3), parts=8)


def test_ranks_that_do_not_see_each_other_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    make_accelerator()  # the state is made once a process; the check is ours
    set_group(monkeypatch, rank=0, size=2)
    with pytest.raises(WorkerError, match="2 processes"):
        make_accelerator()


def test_learning_rate_is_set_in_every_group() -> None:
    first, second = nn.Linear(1, 1), nn.Linear(1, 1)
    groups: list[dict[str, Any]] = [{"params": first.parameters()}, {"params": second.parameters(), "lr": 3.0}]
    optimizer = torch.optim.SGD(groups, lr=1.0)
    set_lr(optimizer, 0.25)
    assert [group["lr"] for group in optimizer.param_groups] == [0.25, 0.25]
