"""The modules of GIU-GANs and the small shared ones, against loops and matrices written from the papers."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from data.errors import UsageError
from stage2_codegen.modules import (
    GIU,
    GLU,
    BatchNorm2d,
    Involution,
    RepresentativeBatchNorm2d,
    SkipLayerExcitation,
    SqueezeExcitation,
)
from stage2_codegen.modules.involution import involve

# name -> a module and the shapes of its inputs, tiny ones
CASES: dict[str, tuple[Callable[[], nn.Module], list[tuple[int, ...]]]] = {
    "squeeze_excitation": (lambda: SqueezeExcitation(4, reduction=2), [(2, 4, 3, 2)]),
    "involution": (lambda: Involution(4, group_channels=2, reduction=2), [(2, 4, 3, 2)]),
    "involution-no-norm": (lambda: Involution(4, group_channels=2, reduction=2, norm=False), [(2, 4, 3, 2)]),
    "giu": (lambda: GIU(4, group_channels=2, reduction=2, se_reduction=2), [(2, 4, 3, 2)]),
    "representative_batch_norm": (lambda: RepresentativeBatchNorm2d(3), [(2, 3, 3, 2)]),
    "batch_norm": (lambda: BatchNorm2d(3), [(2, 3, 3, 2)]),
    "glu": (GLU, [(2, 4, 3, 2)]),
    "skip_layer_excitation": (lambda: SkipLayerExcitation(2, 3), [(2, 2, 4, 4), (2, 3, 2, 3)]),
    "skip_layer_excitation-swish": (lambda: SkipLayerExcitation(2, 3, "swish"), [(2, 2, 4, 4), (2, 3, 2, 3)]),
}
every_module = pytest.mark.parametrize("case", CASES)


def randn(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-10)


def build(case: str, dtype: torch.dtype = torch.float64) -> tuple[nn.Module, list[Tensor]]:
    """A module with random parameters, also where it starts from zeros, and random inputs."""
    torch.manual_seed(0)
    make, shapes = CASES[case]
    module = make().to(dtype)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.5)
    return module, [torch.randn(shape, dtype=dtype) for shape in shapes]


def looped_involution(x: Tensor, kernel: Tensor) -> Tensor:
    """Eq. 3; kernel (N, G K^2, H, W) as the last convolution gives it, x (N, C, H, W)."""
    (samples, channels, height, width), groups = x.shape, 2
    side = math.isqrt(kernel.shape[1] // groups)
    out = torch.zeros_like(x)
    for n in range(samples):
        for c in range(channels):
            group = c // (channels // groups)
            for i in range(height):
                for j in range(width):
                    for a in range(side):
                        for b in range(side):
                            row, column = i + a - side // 2, j + b - side // 2
                            if 0 <= row < height and 0 <= column < width:
                                tap = kernel[n, group * side**2 + a * side + b, i, j]
                                out[n, c, i, j] += tap * x[n, c, row, column]
    return out


@pytest.mark.parametrize("kernel_size", [1, 3, 5])
@pytest.mark.parametrize("norm", [True, False])
def test_involution_is_its_definition(kernel_size: int, norm: bool) -> None:
    module = Involution(4, kernel_size, group_channels=2, reduction=2, norm=norm).double()
    x, source = randn(2, 4, 4, 3), randn(2, 4, 4, 3)
    hidden = torch.einsum("oc,nchw->nohw", module.reduce.weight[:, :, 0, 0], source)
    if norm:
        centred = hidden - hidden.mean((0, 2, 3), keepdim=True)
        hidden = centred / (centred.square().mean((0, 2, 3), keepdim=True) + 1e-5).sqrt()
    else:
        assert module.reduce.bias is not None
        hidden = hidden + module.reduce.bias[:, None, None]
    assert module.expand.bias is not None
    kernel = torch.einsum("oc,nchw->nohw", module.expand.weight[:, :, 0, 0], hidden.clamp(min=0))
    kernel = kernel + module.expand.bias[:, None, None]
    close(module(x, kernel_source=source), looped_involution(x, kernel))
    close(module(x), module(x, kernel_source=x))


@pytest.mark.parametrize("side", [3, 5])
def test_kernel_constant_in_space_is_a_depthwise_convolution(side: int) -> None:
    x, kernel = randn(2, 6, 5, 7), randn(3, side, side)
    everywhere = kernel[None, ..., None, None].expand(2, -1, -1, -1, 5, 7)
    depthwise = kernel.repeat_interleave(2, 0).unsqueeze(1)
    close(involve(x, everywhere), F.conv2d(x, depthwise, padding=side // 2, groups=6))


def constant_kernels(module: Involution, taps: Tensor) -> Involution:
    """`module` with the same (G, K, K) kernels whatever it sees."""
    nn.init.zeros_(module.expand.weight)
    assert module.expand.bias is not None
    with torch.no_grad():
        module.expand.bias.copy_(taps.flatten())
    return module


def centre(groups: int) -> Tensor:
    taps = torch.zeros(groups, 3, 3, dtype=torch.float64)
    taps[:, 1, 1] = 1
    return taps


def test_centre_taps_of_one_are_the_identity_and_equal_taps_the_box_mean() -> None:
    x, module = randn(2, 8, 5, 4), Involution(8, group_channels=4).double()
    close(constant_kernels(module, centre(2))(x), x)
    mean = constant_kernels(module, torch.full((2, 3, 3), 1 / 9, dtype=torch.float64))
    close(mean(x), F.avg_pool2d(x, 3, 1, 1, count_include_pad=True))


def test_kernels_are_laid_out_group_by_group() -> None:
    x, module = randn(2, 8, 5, 4), Involution(8, group_channels=4).double()
    out = constant_kernels(module, centre(2) * torch.tensor([1.0, 2.0]).reshape(2, 1, 1))(x)
    close(out, torch.cat([x[:, :4], 2 * x[:, 4:]], 1))


def test_giu_makes_kernels_from_the_excited_input_and_applies_them_to_the_input() -> None:
    x, module = randn(2, 4, 4, 3), GIU(4, group_channels=2, reduction=2, se_reduction=2).double()
    hidden = x.mean((2, 3)) @ module.excitation.squeeze.weight.T + module.excitation.squeeze.bias
    gate = 1 / (1 + (-hidden.clamp(min=0) @ module.excitation.excite.weight.T - module.excitation.excite.bias).exp())
    excited = x * gate[:, :, None, None]
    maps = module.involution
    close(module(x), looped_involution(x, maps.expand(F.relu(maps.norm(maps.reduce(excited))))))


def test_giu_does_not_scale_its_operand() -> None:
    x, module = randn(2, 8, 5, 4), GIU(8, group_channels=4).double()
    for parameter in module.excitation.parameters():
        nn.init.zeros_(parameter)
    close(module.excitation(x), x / 2)
    constant_kernels(module.involution, centre(2))
    close(module(x), x)


def test_excitation_sees_no_positions() -> None:
    module, x = SqueezeExcitation(8, reduction=2).double(), randn(2, 8, 3, 4)
    shuffled = x.flatten(2)[..., torch.randperm(12)].unflatten(2, (3, 4))
    close(module(shuffled) / shuffled, module(x) / x)
    gate = (module(x) / x).flatten(2)
    close(gate, gate[..., :1].expand_as(gate))


def hand_rbn(module: RepresentativeBatchNorm2d, x: Tensor, moments: tuple[Tensor, Tensor] | None = None) -> Tensor:
    """Eqs. 15 to 19, channel by channel; `moments` (E, Var) of the calibrated x, default those of the batch."""
    out = torch.empty_like(x)
    for c in range(x.shape[1]):
        calibrated = torch.stack([sample + module.center_weight[c] * sample.mean() for sample in x[:, c]])
        mean, variance = calibrated.mean(), (calibrated - calibrated.mean()).square().mean()
        if moments:
            mean, variance = moments[0][c], moments[1][c]
        for n, sample in enumerate((calibrated - mean) / (variance + 1e-5).sqrt()):
            gate = 1 / (1 + torch.exp(-module.scale_weight[c] * sample.mean() - module.scale_bias[c]))
            out[n, c] = module.weight[c] * sample * gate + module.bias[c]
    return out


def random_rbn() -> tuple[RepresentativeBatchNorm2d, Tensor]:
    module, x = RepresentativeBatchNorm2d(3).double(), randn(4, 3, 5, 2) * 2 + 1
    for parameter in module.parameters():
        nn.init.normal_(parameter)
    return module, x


def test_rbn_is_its_equations_and_leaves_its_input_alone() -> None:
    module, x = random_rbn()
    before = x.clone()
    close(module(x), hand_rbn(module, x))
    assert torch.equal(x, before)


def test_rbn_starts_as_batch_norm_times_sigmoid_of_one() -> None:
    x = randn(4, 3, 5, 2)
    close(RepresentativeBatchNorm2d(3).double()(x), 0.7310585786300049 * nn.BatchNorm2d(3).double()(x))


def test_rbn_evaluates_with_running_moments_of_the_calibrated_input() -> None:
    module, x = random_rbn()
    nn.init.ones_(module.center_weight)  # so that the calibrated mean is twice the mean
    calibrated = x + x.mean((2, 3), keepdim=True)
    close(calibrated.mean((0, 2, 3)), 2 * x.mean((0, 2, 3)))
    module(x)
    mean = 0.1 * 2 * x.mean((0, 2, 3))
    variance = 0.9 + 0.1 * calibrated.transpose(0, 1).flatten(1).var(1, correction=1)
    assert module.running_mean is not None
    assert module.running_var is not None
    close(module.running_mean, mean)
    close(module.running_var, variance)
    other = randn(2, 3, 4, 4)
    close(module.eval()(other), hand_rbn(module, other, (mean, variance)))


def test_glu_gates_the_first_half_by_the_second() -> None:
    x = randn(2, 6, 3, 4)
    out = GLU()(x)
    assert out.shape == (2, 3, 3, 4)
    for c in range(3):
        close(out[:, c], x[:, c] / (1 + (-x[:, c + 3]).exp()))


@pytest.mark.parametrize("activation", ["leaky_relu", "swish"])
def test_skip_layer_excitation_is_its_equation(activation: Any) -> None:
    module, low, high = SkipLayerExcitation(3, 2, activation).double(), randn(2, 3, 8, 8), randn(2, 2, 5, 7)
    first, second = module.gate.parameters()
    for n in range(2):
        pooled = low[n].reshape(3, 4, 2, 4, 2).mean((2, 4))
        hidden = (first * pooled).sum((1, 2, 3))
        if activation == "leaky_relu":
            hidden = torch.where(hidden > 0, hidden, 0.1 * hidden)
        else:
            hidden = hidden / (1 + (-hidden).exp())
        gate = (second[:, :, 0, 0] @ hidden).sigmoid()
        close(module(low, high)[n], high[n] * gate[:, None, None])


def test_skip_layer_excitation_halves_when_its_last_convolution_is_zero() -> None:
    module, high = SkipLayerExcitation(3, 2).double(), randn(2, 2, 16, 16)
    assert isinstance(module.gate[-1], nn.Sigmoid)
    nn.init.zeros_(list(module.gate.parameters())[-1])
    close(module(randn(2, 3, 4, 4), high), high / 2)


@every_module
def test_second_derivatives(case: str) -> None:
    module, inputs = build(case)
    inputs = [x.requires_grad_() for x in inputs]
    assert torch.autograd.gradcheck(module, inputs)
    assert torch.autograd.gradgradcheck(module, inputs)


@every_module
def test_channels_last_changes_the_layout_only(case: str) -> None:
    module, inputs = build(case)
    expected = module(*inputs)
    out = module.to(memory_format=torch.channels_last)(
        *(x.contiguous(memory_format=torch.channels_last) for x in inputs)
    )
    close(out, expected)
    assert out.is_contiguous(memory_format=torch.channels_last)


@every_module
def test_bf16_autocast_stays_near_fp32(case: str) -> None:
    module, inputs = build(case, torch.float32)
    expected = module(*inputs)
    low = [x.bfloat16().requires_grad_() for x in inputs]
    with torch.autocast("cpu", torch.bfloat16):
        out = module(*low)
    assert out.dtype == torch.bfloat16
    assert (out - expected).norm() < 0.03 * expected.norm()
    out.square().sum().backward()
    assert all(x.grad is not None and x.grad.isfinite().all() for x in low)


def test_running_moments_under_autocast_are_taken_in_fp32() -> None:
    x = (torch.randn(8, 3, 16, 16) + 50).bfloat16()
    module = RepresentativeBatchNorm2d(3)
    with torch.autocast("cpu", torch.bfloat16):
        module(x)
    assert module.running_mean is not None
    torch.testing.assert_close(module.running_mean, 0.1 * x.float().mean((0, 2, 3)), rtol=1e-5, atol=0)


@pytest.mark.parametrize(("channels", "count"), [(64, 2_248), (128, 8_720), (256, 34_336), (512, 136_256)])
def test_giu_has_the_parameters_behind_the_published_counts(channels: int, count: int) -> None:
    with torch.device("meta"):
        module, bare = GIU(channels), GIU(channels, norm=False)
    groups, hidden, squeezed = channels // 16, channels // 4, channels // 16
    formula = channels * hidden + 2 * hidden + 9 * groups * hidden + 9 * groups
    formula += 2 * channels * squeezed + squeezed + channels
    assert sum(p.numel() for p in module.parameters()) == formula == count
    assert sum(p.numel() for p in bare.parameters()) == count - hidden


def test_parameters_of_the_shared_modules() -> None:
    with torch.device("meta"):
        counts = [(RepresentativeBatchNorm2d(7), 5 * 7), (SkipLayerExcitation(12, 5), 16 * 12 * 5 + 5 * 5), (GLU(), 0)]
    for module, count in counts:
        assert sum(p.numel() for p in module.parameters()) == count


class LargestTensor(TorchDispatchMode):
    """Entries of the largest tensor that any operation gives."""

    numel = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for x in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(x, Tensor):
                self.numel = max(self.numel, x.numel())
        return out


@pytest.mark.parametrize("gradients", [False, True])
def test_involution_never_unfolds(gradients: bool) -> None:
    """Its largest tensor is the padded input, forward and backward; the unfolded one would be 7 times that."""
    module, x = Involution(32), torch.randn(1, 32, 16, 16)
    with torch.set_grad_enabled(gradients), LargestTensor() as largest:
        out = module(x)
        if gradients:
            out.sum().backward()
    assert largest.numel == 32 * 18 * 18


def test_what_autograd_keeps_of_an_involution_is_its_input_and_its_kernels() -> None:
    x, kernel = torch.randn(1, 32, 16, 16, requires_grad=True), torch.randn(1, 2, 3, 3, 16, 16, requires_grad=True)
    kept: dict[int, int] = {}

    def keep(saved: Tensor) -> Tensor:
        kept[saved.untyped_storage().data_ptr()] = saved.untyped_storage().nbytes()
        return saved

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda saved: saved):
        involve(x, kernel)
    assert sum(kept.values()) == 4 * (32 * 18 * 18 + kernel.numel())


def test_senseless_sizes_are_refused_with_a_remedy() -> None:
    with pytest.raises(UsageError, match=r"24 channels in groups of 16[\s\S]*such as 8"):
        GIU(24)
    with pytest.raises(UsageError, match="odd"):
        Involution(16, kernel_size=4)
    for name, value in {"kernel_size": -1, "group_channels": 0, "reduction": 0, "se_reduction": 0}.items():
        sizes: dict[str, Any] = {name: value}
        with pytest.raises(UsageError, match=r"positive|impossible"):
            GIU(16, **sizes)
    with pytest.raises(UsageError, match="leaky_relu or swish"):
        SkipLayerExcitation(4, 4, "relu")  # type: ignore[arg-type]
