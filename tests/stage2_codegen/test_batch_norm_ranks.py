"""Batch normalisation over ranks: one process is torch's layer, two ranks are one process at the double batch.

Run as a script with a folder and a rank, this file is one of the two ranks.
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch import distributed as dist

from data.errors import UsageError
from stage2_codegen.modules.batch_norm import BatchNorm1d, BatchNorm2d, batch_moments
from stage2_codegen.modules.representative_batch_norm import RepresentativeBatchNorm2d
from tests.training_runs import run_ranks

# name -> layer, its counterpart on one process, and the shape of the global batch
LAYERS: dict[str, tuple[Callable[[], nn.Module], Callable[[], nn.Module], tuple[int, ...]]] = {
    "2d": (lambda: BatchNorm2d(3), lambda: nn.BatchNorm2d(3), (6, 3, 4, 2)),
    "1d": (lambda: BatchNorm1d(3), lambda: nn.BatchNorm1d(3), (6, 3)),
    "1d-one-sample-each": (lambda: BatchNorm1d(3), lambda: nn.BatchNorm1d(3), (2, 3)),
    "1d-length": (lambda: BatchNorm1d(3), lambda: nn.BatchNorm1d(3), (6, 3, 5)),
    "cumulative": (lambda: BatchNorm2d(3, momentum=None), lambda: nn.BatchNorm2d(3, momentum=None), (6, 3, 4, 2)),
    "no-affine": (lambda: BatchNorm2d(3, affine=False), lambda: nn.BatchNorm2d(3, affine=False), (6, 3, 4, 2)),
    "untracked": (
        lambda: BatchNorm2d(3, track_running_stats=False),
        lambda: nn.BatchNorm2d(3, track_running_stats=False),
        (6, 3, 4, 2),
    ),
    "rbn": (lambda: RepresentativeBatchNorm2d(3), lambda: RepresentativeBatchNorm2d(3), (6, 3, 4, 2)),
}


def training_steps(layer: nn.Module, x: Tensor, weight: Tensor) -> dict[str, Tensor]:
    """Two steps and an evaluation: outputs, gradients, gradients of a gradient penalty, buffers.

    The loss is a sum over samples, so that the sum of the ranks' losses is that of one process.
    """
    for index, parameter in enumerate(layer.parameters()):
        nn.init.constant_(parameter, 0.5 + 0.25 * index)
    seen: dict[str, Tensor] = {}
    for step in range(2):
        leaf = (x * (1 + step) + step).detach().requires_grad_()
        out = layer(leaf)
        (slope,) = torch.autograd.grad((out.square() * weight).sum(), leaf, create_graph=True)
        (penalty,) = torch.autograd.grad(slope.square().sum(), leaf, retain_graph=True)
        (out * weight).sum().backward()
        assert leaf.grad is not None
        seen |= {f"rows/out{step}": out.detach(), f"rows/slope{step}": slope.detach()}
        seen |= {f"rows/penalty{step}": penalty.detach(), f"rows/grad{step}": leaf.grad}
    seen |= {f"sum/{name}": p.grad for name, p in layer.named_parameters() if p.grad is not None}
    seen |= {f"same/{name}": buffer.clone() for name, buffer in layer.named_buffers()}
    seen["rows/evaluated"] = layer.eval()(x).detach() if list(layer.buffers()) else x
    return {name: value.contiguous() for name, value in seen.items()}


def batch_of(name: str) -> tuple[Tensor, Tensor]:
    """The global batch, whose halves have different means, and weights of the loss."""
    generator = torch.Generator().manual_seed(0)
    shape = LAYERS[name][2]
    x = torch.randn(shape, generator=generator, dtype=torch.float64)
    shift = torch.arange(shape[0], dtype=torch.float64).reshape(-1, *[1] * (len(shape) - 1))
    return x + shift, torch.randn(shape, generator=generator, dtype=torch.float64)


def be_one_of_two_ranks(folder: Path, rank: int) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    for name, (make, _, _) in LAYERS.items():
        x, weight = (whole.chunk(2)[rank] for whole in batch_of(name))
        save_file(training_steps(make().double(), x, weight), folder / f"{name}-{rank}.safetensors")
    half = (torch.randn(8, 3, 4, 4, generator=torch.Generator().manual_seed(1)) * 0.01 + 100).chunk(2)[rank]
    mean, variance, count = batch_moments(half, [0, 2, 3])
    layer, images = BatchNorm2d(3), half.bfloat16().contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        out = layer(images)
    assert out.dtype == torch.bfloat16
    assert out.is_contiguous(memory_format=torch.channels_last)
    assert layer.running_mean is not None
    precise = {"mean": mean, "variance": variance, "count": torch.tensor(count), "running": layer.running_mean}
    save_file(precise, folder / f"precise-{rank}.safetensors")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], list[dict[str, Tensor]]]:
    """What both ranks saw of a layer."""
    folder = tmp_path_factory.mktemp("ranks")
    run_ranks(__file__, [str(folder)], 2, folder)
    return lambda name: [load_file(folder / f"{name}-{rank}.safetensors") for rank in (0, 1)]


@pytest.mark.parametrize("name", [name for name in LAYERS if name != "rbn"])  # torch has no such layer
def test_one_process_is_torchs_layer_to_the_bit(name: str) -> None:
    make, reference, _ = LAYERS[name]
    seen, expected = (training_steps(layer().double(), *batch_of(name)) for layer in (make, reference))
    assert seen.keys() == expected.keys()
    assert all(torch.equal(seen[key], expected[key]) for key in seen)


@pytest.mark.parametrize("name", LAYERS)
def test_two_ranks_are_one_process_at_the_double_batch(
    name: str, two_ranks: Callable[[str], list[dict[str, Tensor]]]
) -> None:
    expected = training_steps(LAYERS[name][1]().double(), *batch_of(name))
    first, second = two_ranks(name)
    assert first.keys() == second.keys() == expected.keys()
    for key, value in expected.items():
        if key.startswith("rows/"):
            both = torch.cat([first[key], second[key]])
        elif key.startswith("sum/"):
            both = first[key] + second[key]
        else:
            both = first[key]
            assert torch.equal(first[key], second[key]), key
        difference = (both - value).abs().max().item()
        assert difference < 1e-9 * max(1, value.abs().max().item()), (key, difference)


def test_small_variances_beside_large_means_survive(two_ranks: Callable[[str], list[dict[str, Tensor]]]) -> None:
    """Deviation 0.01 about 100, in fp32: the difference of mean square and squared mean would be noise."""
    x = torch.randn(8, 3, 4, 4, generator=torch.Generator().manual_seed(1)) * 0.01 + 100
    for seen in two_ranks("precise"):
        variance, mean = torch.var_mean(x.double(), (0, 2, 3), correction=0)
        torch.testing.assert_close(seen["mean"].double(), mean, rtol=1e-6, atol=0)
        torch.testing.assert_close(seen["variance"].double(), variance, rtol=1e-2, atol=0)
        assert seen["count"].item() == 8 * 4 * 4
        exact = 0.1 * x.bfloat16().double().mean((0, 2, 3))
        torch.testing.assert_close(seen["running"].double(), exact, rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [(BatchNorm1d(3), (1, 3)), (BatchNorm2d(3), (1, 3, 1, 1)), (RepresentativeBatchNorm2d(3), (1, 3, 1, 1))],
    ids=["1d", "2d", "rbn"],
)
def test_a_single_value_a_channel_is_refused_in_training(layer: nn.Module, shape: tuple[int, ...]) -> None:
    x = torch.randn(shape)
    with pytest.raises(UsageError, match="more than one value") as caught:
        layer.train()(x)
    assert "--batch-size" in caught.value.fix
    assert layer.train()(torch.cat([x, -x])).isfinite().all()
    assert layer.eval()(x).isfinite().all()


if __name__ == "__main__":
    be_one_of_two_ranks(Path(sys.argv[1]), int(os.environ["RANK"]))
