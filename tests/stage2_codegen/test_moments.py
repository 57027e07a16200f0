"""An averaged generator is looked at with moments that its own weights have, and training does not notice.

Run as a script with a folder and a rank, this file is one of two ranks.
"""

import copy
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch import distributed as dist

from data.errors import UsageError
from data.files.checkpoints import load_weights
from stage2_codegen.configs.train import TrainConfig
from stage2_codegen.image_generator import ImageGenerator
from stage2_codegen.modules import BatchNorm1d, BatchNorm2d, RepresentativeBatchNorm2d
from stage2_codegen.moments import DRAWS, SettledAverage, measure_moments
from stage2_codegen.snapshots import Scorer
from stage2_codegen.train import train
from stage2_codegen.variants import VARIANTS, build_networks
from stage2_codegen.variants.contract import CodeGenerator
from tests.tiny_variants import TINY
from tests.training_runs import assert_same_bits, run_ranks, state

Configure = Callable[..., TrainConfig[Any]]
SHAPE = (3, 16, 16)
WITHOUT = ("accel", "r3", "consingan")  # pixel norm, and no norm at all
WITH = [name for name in VARIANTS if name not in WITHOUT]
MOMENTS = ("running_mean", "running_var")
every_variant = pytest.mark.parametrize("name", WITH)


def build(name: str) -> CodeGenerator:
    """In fp64, away from its initial weights, of which some switch a branch off, and in evaluation."""
    torch.manual_seed(0)
    generator, _ = build_networks(name, SHAPE, **TINY[name])
    with torch.no_grad():
        for parameter in generator.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return generator.double().eval().requires_grad_(False)


@pytest.fixture(autouse=True)
def double() -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


def norms(generator: nn.Module) -> dict[str, nn.modules.batchnorm._BatchNorm]:
    """Torch's base class, so that a layer that is no drop-in of ours would be missed by none of these tests."""
    return {
        name: layer for name, layer in generator.named_modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)
    }


@contextmanager
def inputs_seen(generator: nn.Module) -> Iterator[dict[str, list[Tensor]]]:
    """What is normalised at every call of each layer, as (values, C); that of a representative one is calibrated."""
    seen: dict[str, list[Tensor]] = {name: [] for name in norms(generator)}

    def remember(name: str, layer: nn.Module, x: Tensor) -> None:
        if isinstance(layer, RepresentativeBatchNorm2d):
            x = x + layer.center_weight[:, None, None] * x.mean((2, 3), keepdim=True)
        seen[name].append(x.movedim(1, -1).flatten(0, -2))

    hooks = [
        layer.register_forward_pre_hook(lambda layer, args, name=name: remember(name, layer, args[0]))
        for name, layer in norms(generator).items()
    ]
    yield seen
    for hook in hooks:
        hook.remove()


class Plain(CodeGenerator):
    """Two dense layers with a norm after each, so that the second's moments depend on how the first normalises."""

    z_dim = 5

    def __init__(self) -> None:
        super().__init__()
        self.one, self.norm_one = nn.Linear(5, 4), BatchNorm1d(4)
        self.two, self.norm_two = nn.Linear(4, 12), BatchNorm2d(3)

    def forward(self, z: Tensor) -> Tensor:
        return self.norm_two(self.two(self.norm_one(self.one(z)).relu()).unflatten(1, (3, 2, 2)))


def test_in_one_batch_moments_are_those_of_all_draws_computed_by_hand() -> None:
    torch.manual_seed(1)
    G = Plain().eval().requires_grad_(False)
    with inputs_seen(G) as seen:
        measure_moments(G, DRAWS)
    first = seen["norm_one"][0].numpy()
    assert first.shape == (DRAWS, 4)
    assert len({tuple(row) for row in first.round(9)}) == DRAWS  # no draw twice
    scaled = (first - first.mean(0)) / (first.var(0) + 1e-5) ** 0.5
    second = scaled.clip(min=0) @ G.two.weight.numpy().T + G.two.bias.numpy()
    second = second.reshape(DRAWS, 3, 4).transpose(0, 2, 1).reshape(-1, 3)
    for layer, values in ((G.norm_one, first), (G.norm_two, second)):
        torch.testing.assert_close(layer.running_mean, torch.from_numpy(values.mean(0)))
        torch.testing.assert_close(layer.running_var, torch.from_numpy(values.var(0, ddof=1)))


@every_variant
@pytest.mark.parametrize("rows", [DRAWS, 32, 48])
def test_moments_are_the_means_over_batches_in_every_layer(name: str, rows: int) -> None:
    G = build(name)
    with inputs_seen(G) as seen:
        measure_moments(G, rows)
    for key, layer in norms(G).items():
        assert len(seen[key]) == -(-DRAWS // rows)
        means, variances = (torch.stack([f(x, 0) for x in seen[key]]).mean(0) for f in (torch.mean, torch.var))
        torch.testing.assert_close(layer.running_mean, means, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(layer.running_var, variances, rtol=1e-9, atol=1e-12)


@every_variant
def test_moments_are_close_to_those_of_many_new_samples(name: str) -> None:
    """As the generator draws them in evaluation; those it had before are not."""

    def furthest(generator: CodeGenerator) -> float:
        """The largest error of a mean in deviations, or relative error of a deviation."""
        torch.manual_seed(7)
        with inputs_seen(generator) as seen:
            generator(torch.randn(512, generator.z_dim))
        errors = []
        for key, layer in norms(generator).items():
            (values,) = seen[key]
            deviation, mean = torch.std_mean(values, 0)
            assert layer.running_mean is not None
            assert layer.running_var is not None
            errors += [(layer.running_mean - mean) / deviation, layer.running_var.sqrt() / deviation - 1]
        return torch.cat(errors).abs().max().item()

    G = build(name)
    before = furthest(G)
    measure_moments(G, 32)
    assert furthest(G) < 0.3 < 0.6 < before


@every_variant
def test_nothing_else_of_the_generator_changes(name: str) -> None:
    """Not the singular vectors of spectral normalisation either; and every time the same comes out."""
    G = build(name)
    names = list(norms(G))
    some = norms(G)[names[0]]
    some.train()
    some.momentum = 0.25
    before = {key: value.clone() for key, value in G.state_dict().items()}
    modes, buffers = {key: layer.training for key, layer in G.named_modules()}, dict(G.named_buffers())
    random = torch.get_rng_state()
    measure_moments(G, 32)
    assert torch.equal(torch.get_rng_state(), random)
    assert {key: layer.training for key, layer in G.named_modules()} == modes
    assert [layer.momentum for layer in norms(G).values()] == [0.25] + [0.1] * (len(names) - 1)
    assert all(value is buffers[key] for key, value in G.named_buffers())
    changed = {key for key, value in G.state_dict().items() if not torch.equal(value, before[key])}
    assert changed == {f"{key}.{moment}" for key in names for moment in MOMENTS}
    first = copy.deepcopy(G.state_dict())
    torch.manual_seed(5)
    measure_moments(G, 32)
    assert all(torch.equal(value, first[key]) for key, value in G.state_dict().items())


def test_a_failure_leaves_modes_as_they_were() -> None:
    G = Plain().eval()
    with pytest.raises(UsageError, match="more than one value"):
        measure_moments(G, 1)
    assert not any(layer.training for layer in G.modules())
    assert {layer.momentum for layer in norms(G).values()} == {0.1}
    assert G.norm_one.num_batches_tracked == G.norm_two.num_batches_tracked == 0


def test_layers_without_running_moments_stay_without() -> None:
    G = Plain().eval()
    G.norm_one = BatchNorm1d(4, track_running_stats=False)
    measure_moments(G, 32)
    assert G.norm_one.running_mean is None
    assert G.norm_one.momentum == 0.1


@pytest.mark.parametrize("name", WITHOUT)
def test_a_generator_without_batch_norm_is_shared_and_not_run(name: str) -> None:
    average = build(name)
    average.register_forward_pre_hook(lambda *_: pytest.fail("drew"))
    settled = SettledAverage(average, 32)
    assert settled.generator is average
    settled.refresh()


def test_a_copy_follows_the_weights_and_leaves_the_average_alone() -> None:
    average = build("dcgan")
    before = copy.deepcopy(average.state_dict())
    settled = SettledAverage(average, 32)
    settled.refresh()
    assert settled.generator is not average
    assert all(torch.equal(value, before[key]) for key, value in average.state_dict().items())
    with torch.no_grad():
        for parameter in average.parameters():
            parameter.mul_(1.1)
    settled.refresh()
    assert not settled.generator.training
    assert not any(parameter.requires_grad for parameter in settled.generator.parameters())
    measure_moments(average, 32)
    assert all(torch.equal(value, average.state_dict()[key]) for key, value in settled.generator.state_dict().items())


# --- ranks ---


def be_one_of_two_ranks(folder: Path, rank: int) -> None:
    torch.set_default_dtype(torch.float64)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    for name in WITH:
        G = build(name)
        measure_moments(G, 32)
        save_file({key: value.contiguous() for key, value in G.state_dict().items()}, folder / f"{name}-{rank}")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the state of every variant's generator, from each rank."""
    folder = tmp_path_factory.mktemp("ranks")
    run_ranks(__file__, [str(folder)], 2, folder)
    return folder


@every_variant
def test_two_ranks_get_the_moments_of_one_process(name: str, two_ranks: Path) -> None:
    G = build(name)
    measure_moments(G, 32)
    first, second = (load_file(two_ranks / f"{name}-{rank}") for rank in (0, 1))
    for key, value in G.state_dict().items():
        assert torch.equal(first[key], second[key]), key
        torch.testing.assert_close(first[key], value, rtol=1e-9, atol=1e-9)


# --- training ---


def moments_of(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: value for key, value in tensors.items() if key.endswith(MOMENTS)}


@pytest.fixture
def single() -> None:
    torch.set_default_dtype(torch.float32)


@pytest.mark.usefixtures("single")
@pytest.mark.parametrize("accumulate", [1, 2])
def test_weights_and_scores_have_measured_moments_and_checkpoints_the_live_ones(
    accumulate: int, configure: Configure
) -> None:
    config = configure("dcgan", "run", kimg=0.032, score_kimg=0.032, accumulate=accumulate)
    scored = []

    def score(previews: ImageGenerator) -> dict[str, float]:
        scored.append(copy.deepcopy(previews.generator.state_dict()))
        return {"kid": 0.0}

    train("dcgan", config, lambda *_: Scorer(score, {}))
    live, average, saved = state(config.out)["G"], state(config.out)["G_ema"], load_weights(config.out / "weights")
    weights = saved.tensors["generator"]
    assert moments_of(live)
    assert all(torch.equal(value, live[key]) for key, value in moments_of(average).items())
    expected, _ = build_networks("dcgan", (4, 16, 16), **TINY["dcgan"])
    expected.load_state_dict(average)
    measure_moments(expected.eval().to(memory_format=torch.channels_last), 8 // accumulate)
    for key, value in expected.state_dict().items():
        torch.testing.assert_close(weights[key], value, rtol=1e-5, atol=1e-6)
        assert torch.equal(weights[key], scored[0][key])
        assert torch.equal(weights[key], average[key]) != key.endswith(MOMENTS)


@pytest.mark.usefixtures("single")
@pytest.mark.parametrize("name", ["sagan", "sle"])  # with spectral normalisation, and with noise besides z
def test_a_resumed_run_saves_the_same_weights_and_pictures(name: str, configure: Configure) -> None:
    """And a run that looks at its average more often trains alike."""
    whole, parts = configure(name, "whole"), configure(name, "parts")
    rare = configure(name, "rare", snapshot_kimg=1)
    train(name, whole)
    train(name, configure(name, "parts", kimg=0.04))
    train(name, parts)
    train(name, rare)
    assert_same_bits(whole.out, parts.out)
    assert_same_bits(whole.out, rare.out)
    one, *others = (load_weights(run.out / "weights") for run in (whole, parts, rare))
    assert one.tensors.keys() == {"generator", "autoencoder"}
    for other in others:
        assert other.state == one.state
        for group, tensors in one.tensors.items():
            assert all(torch.equal(value, other.tensors[group][key]) for key, value in tensors.items())
    pictures = [(run.out / "samples" / "000000080.png").read_bytes() for run in (whole, parts, rare)]
    assert pictures[0] == pictures[1] == pictures[2]


if __name__ == "__main__":
    be_one_of_two_ranks(Path(sys.argv[1]), int(os.environ["RANK"]))
