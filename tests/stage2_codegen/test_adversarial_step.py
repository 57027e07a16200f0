"""The step gives the same update however it is cut, and leaves out no penalty that it owes."""

import functools
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from data.errors import UsageError
from stage1_autoencoder.training.processes import make_accelerator
from stage2_codegen.frozen.context import Context
from stage2_codegen.step import AdversarialStep
from stage2_codegen.variants import VARIANTS
from stage2_codegen.variants.contract import Batch
from tests.tiny_variants import TINY

SHAPE = (4, 16, 16)


@pytest.fixture
def double() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def make_step(name: str, model: dict[str, Any] | None = None, **settings: Any) -> AdversarialStep:
    config, variant = VARIANTS[name].Config(**{**TINY[name], **(model or {})}), VARIANTS[name]
    context = Context.stand_in(SHAPE, variant.frozen(config))
    return AdversarialStep(variant, config, SHAPE, context, make_accelerator(), seed=3, **settings)


def take(step: AdversarialStep, steps: int, batch: int = 8) -> dict[str, Tensor]:
    """All weights and moments after so many steps on the same real codes."""
    torch.manual_seed(0)
    codes = torch.randn(steps * step.model.n_critic, batch, *SHAPE).clamp(-1, 1)
    classes = torch.arange(batch) % step.model.classes if step.model.classes else None
    reals = (Batch(part, classes) for part in codes.contiguous())
    for number in range(steps):
        step(reals, number * batch)
    found = {f"{n}.{key}": value for n, network in step.networks.items() for key, value in network.state_dict().items()}
    for name, optimizer in step.optimizers.items():
        moments = enumerate(optimizer.state.values())
        found |= {f"{name}.{index}.{key}": value for index, state in moments for key, value in state.items()}
    return {**found, **step.logs}


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("penalty", ["exact", "finite-difference"])
@pytest.mark.parametrize(("name", "own"), [("accel", {"drift": 0.1}), ("r3", {}), ("r3", {"classes": 3})])
def test_a_batch_in_parts_gives_the_update_of_the_whole(name: str, own: dict[str, Any], penalty: str) -> None:
    """In float64, with augmentation, all noise and a lazy penalty, two steps apart by rounding alone.

    (The drift is there because without it a Wasserstein critic's last bias has no gradient but rounding, from which
    Adam makes steps.)
    """
    model = {"penalty": penalty, "penalty_every": 2, "n_critic": 3, "augment": "translation,cutout,jitter", **own}
    whole = take(make_step(name, model), 2)
    for parts in (2, 4):
        found = take(make_step(name, model, accumulate=parts), 2)
        assert found.keys() == whole.keys()
        for key, value in whole.items():
            torch.testing.assert_close(found[key], value, rtol=0, atol=1e-10)


class Recorded:
    """A loss that keeps the factors it was asked for."""

    def __init__(self, inner: Any) -> None:
        self.inner, self.generator_loss, self.factors = inner, inner.generator_loss, list[float]()

    def critic_loss(self, critic: Any, real: Any, fake: Any, penalty_factor: float = 1.0) -> Any:
        self.factors.append(penalty_factor)
        return self.inner.critic_loss(critic, real, fake, penalty_factor)


def test_a_lazy_penalty_counts_critic_updates_from_the_images_seen() -> None:
    """So a run that goes on in the middle applies it where an uninterrupted one does."""

    def factors(start: int, steps: int) -> list[float]:
        step = make_step("wgan-gp", {"n_critic": 2, "penalty_every": 3})
        step.loss = loss = Recorded(step.loss)
        for number in range(start, start + steps):
            step(map(Batch, torch.randn(2, 4, *SHAPE)), number * 4)
        return loss.factors

    whole = factors(0, 6)
    assert whole == [3, 0, 0] * 4
    assert factors(4, 2) == whole[8:]


def test_a_penalty_is_logged_at_its_last_value_and_by_losses_that_have_one() -> None:
    step = make_step("accel", {"penalty_every": 2})
    step(map(Batch, torch.randn(1, 4, *SHAPE)), 0)
    before = step.logs["penalty/gp"]
    step(map(Batch, torch.randn(1, 4, *SHAPE)), 4)
    assert step.logs["penalty/gp"] is before
    other = make_step("dcgan")
    other(map(Batch, torch.randn(1, 4, *SHAPE)), 0)
    assert not [key for key in other.logs if key.startswith("penalty")]


def test_to_restart_is_to_be_new() -> None:
    step = make_step("giu")
    new = take(make_step("giu"), 1)
    take(step, 2)
    step.restart()
    again = take(step, 1)
    assert all(torch.equal(value, again[key]) for key, value in new.items())


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # torch.compile looks, at codes that come from a generator
@pytest.mark.parametrize(("name", "backend"), [("accel", "eager"), ("dcgan", "aot_eager")])
def test_compiled_networks_take_the_same_steps_under_the_same_names(
    name: str, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = take(make_step(name), 2)
    monkeypatch.setattr("torch.compile", functools.partial(torch.compile, backend=backend))
    compiled = take(make_step(name, compiled=True), 2)
    assert compiled.keys() == plain.keys()
    for key, value in plain.items():
        torch.testing.assert_close(compiled[key], value, rtol=1e-4, atol=1e-5)


def test_without_a_compiler_there_is_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(function: Any) -> Any:
        def call(*args: Any) -> None:
            raise RuntimeError("No working C++ compiler found\nand much more")

        return call

    monkeypatch.setattr("torch.compile", broken)
    with pytest.raises(UsageError, match=r"--compile: .*No working C\+\+ compiler found\)\n"):
        make_step("accel", compiled=True)
