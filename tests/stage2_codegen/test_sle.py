"""FastGAN: published sizes, each ablation, and a critic whose decoders learn from real samples alone."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from data.errors import InputError, MismatchError, UsageError
from stage2_codegen.configs.sle import SLEConfig
from stage2_codegen.losses import Hinge
from stage2_codegen.modules import SkipLayerExcitation
from stage2_codegen.variants import sle, sle_networks
from stage2_codegen.variants.contract import CodeShape
from stage2_codegen.variants.sle_networks import NoiseInjection, UpConv
from stage2_codegen.variants.sle_tasks import aspect_ratio, contrastive, rotation

TINY = SLEConfig(width=4, z_dim=8)
every_side = pytest.mark.parametrize("size", [16, 32, 64, 128, 256])


def networks(size: int = 32, channels: int = 3, **fields: Any) -> tuple[sle.Generator, sle.Critic]:
    torch.manual_seed(0)
    config, code_shape = replace(TINY, **fields), (channels, size, size)
    return sle.Generator(code_shape, config), sle.Critic(code_shape, config)


def parameters(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def original(layer: nn.Module) -> nn.Parameter:
    """The weight before spectral normalisation."""
    return layer.get_parameter("parametrizations.weight.original")


@pytest.mark.parametrize(
    ("code_shape", "in_generator", "in_critic"),
    [
        ((3, 256, 256), 29_127_846, 11_526_160),
        ((16, 16, 16), 29_217_794, 7_640_064),
        ((16, 32, 32), 31_145_988, 10_096_640),
        ((16, 64, 64), 31_980_036, 10_758_144),
        ((16, 128, 128), 29_771_782, 11_359_104),
        ((16, 256, 256), 29_132_422, 11_545_920),
    ],
)
def test_parameter_counts(
    code_shape: CodeShape, in_generator: int, in_critic: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At 3 x 256 x 256 those of the authors' networks, decoders included."""
    monkeypatch.setattr(sle_networks, "spectral_norm", lambda layer: layer)  # slow without numbers, adds no parameters
    with torch.device("meta"):
        G, critic = sle.Generator(code_shape, SLEConfig()), sle.Critic(code_shape, SLEConfig())
    assert (parameters(G), parameters(critic)) == (in_generator, in_critic)


def test_spectral_normalisation_adds_no_parameters(monkeypatch: pytest.MonkeyPatch) -> None:
    with_it = networks()
    monkeypatch.setattr(sle_networks, "spectral_norm", lambda layer: layer)
    assert [parameters(network) for network in networks()] == [parameters(network) for network in with_it]


@every_side
def test_sizes_of_outputs_scores_and_reconstructions(size: int) -> None:
    G, critic = networks(size)
    half, full = G.judged(torch.randn(2, 8))
    assert half.shape == (2, 3, size // 2, size // 2)
    assert full.shape == G(torch.randn(2, 8)).shape == (2, 3, size, size)
    assert max(half.abs().max(), full.abs().max()) <= 1
    scores, pairs = critic(full, quadrant=2)
    assert scores.shape == critic((half, full)).shape == (2, 25 if size == 16 else 50)
    assert len(pairs) == (2 if size == 16 else 3)
    assert all(made.shape == target.shape == (2, 3, size // 2, size // 2) for made, target in pairs)


@pytest.mark.parametrize("channels", [1, 64])
def test_maps_before_an_output_are_twice_as_wide_as_the_code(channels: int) -> None:
    G, critic = networks(32, channels)
    heads = [G.head, G.half_head, *(list(decoder.children())[-2] for decoder in critic.decoders)]
    for head in heads:
        assert isinstance(head, nn.Conv2d)
        assert head.in_channels >= 2 * channels
        assert head.out_channels == channels
    assert critic(G.judged(torch.randn(2, 8))).isfinite().all()


@pytest.mark.parametrize("sides", [(4, 4), (4, 6)])  # at most FEW_POSITIONS, and more
def test_up_convolution_is_nearest_upsampling_then_convolution(sides: tuple[int, int]) -> None:
    layer = UpConv(3, 5).double()
    x = torch.randn(2, 3, *sides, dtype=torch.float64)
    expected = F.conv2d(F.interpolate(x, scale_factor=2), layer.weight, padding=1)
    torch.testing.assert_close(layer(x), expected, rtol=0, atol=1e-10)


def test_every_gate_joins_the_published_maps() -> None:
    """4 -> 64, 8 -> 128 and 16 -> 256 in the generator; 256 -> 32, 128 -> 16 and 64 -> 8 in the critic."""
    G, critic = networks(256)
    assert G.pyramid.source == {64: 4, 128: 8, 256: 16}
    assert critic.pyramid.source == {32: 256, 16: 128, 8: 64}
    assert G.pyramid.gates.keys() == {"64", "128", "256"}


class Halve(nn.Module):
    """A gate of 1/2 that remembers the map it reads."""

    low: Tensor

    def forward(self, low: Tensor, high: Tensor) -> Tensor:
        self.low = low
        return high / 2


def test_gates_read_the_early_map_and_change_what_the_next_block_reads() -> None:
    G, _ = networks(32)
    G.eval()
    to_8, to_16, to_32 = G.pyramid.blocks
    for layer in G.modules():
        if isinstance(layer, NoiseInjection):
            assert layer.weight == 0  # so that blocks are functions of their input
    gates = {side: Halve() for side in ("16", "32")}
    G.pyramid.gates = nn.ModuleDict(gates)
    first = torch.randn(2, 64, 4, 4)
    maps = G.pyramid(first)
    torch.testing.assert_close(maps[8], to_8(first))
    torch.testing.assert_close(maps[16], to_16(maps[8]) / 2)
    torch.testing.assert_close(maps[32], to_32(maps[16]) / 2)
    assert torch.equal(gates["16"].low, first)
    assert torch.equal(gates["32"].low, maps[8])


def test_noise_of_weight_zero_leaves_the_generator_deterministic() -> None:
    G, _ = networks()
    G.eval()
    z = torch.randn(2, 8)
    layers = [layer for layer in G.modules() if isinstance(layer, NoiseInjection)]
    assert len(layers) == 4  # two in each block to 8 and to 32
    assert all(layer.weight == 0 for layer in layers)
    assert torch.equal(G(z), G(z))
    with torch.no_grad():
        layers[0].weight.fill_(1)
    assert not torch.equal(G(z), G(z))


def test_noise_is_one_map_for_all_channels() -> None:
    layer = NoiseInjection()
    nn.init.constant_(layer.weight, 2)
    torch.manual_seed(3)
    added = layer(torch.zeros(2, 5, 4, 6))
    torch.manual_seed(3)
    torch.testing.assert_close(added, 2 * torch.randn(2, 1, 4, 6).expand(2, 5, 4, 6))


def test_mixing_a_sample_with_its_own_style_changes_nothing() -> None:
    G, _ = networks()
    G.eval()
    z, other = torch.randn(2, 8), torch.randn(2, 8)
    torch.testing.assert_close(G.styled(z, G.style(z)), G(z))
    assert not torch.allclose(G.styled(z, G.style(other)), G(z), atol=1e-6)
    without, _ = networks(excitation="none")
    without.eval()
    assert not without.style(other)


@pytest.mark.parametrize(
    ("quadrant", "rows", "columns"),
    [
        (0, slice(0, 16), slice(0, 16)),
        (1, slice(0, 16), slice(16, 32)),
        (2, slice(16, 32), slice(0, 16)),
        (3, slice(16, 32), slice(16, 32)),
    ],
)
def test_targets_are_the_pooled_sample_and_the_quadrant_that_the_decoder_saw(
    quadrant: int, rows: slice, columns: slice
) -> None:
    _, critic = networks(32)
    critic.eval()
    real = torch.randn(2, 3, 32, 32)
    seen: list[Tensor] = []
    critic.decoders[1].register_forward_hook(lambda _module, inputs, _output: seen.append(inputs[0]))
    _, [(_, whole), (_, part), (_, again)] = critic(real, quadrant=quadrant)
    mean = sum(real[:, :, i::2, j::2] for i in range(2) for j in range(2)) / 4
    torch.testing.assert_close(whole, mean)
    assert torch.equal(again, whole)
    assert torch.equal(part, real[:, :, rows, columns])
    f1 = critic.pyramid(critic.stem(real))[16]
    torch.testing.assert_close(
        seen[0], f1[:, :, rows.start // 2 : rows.stop // 2, columns.start // 2 : columns.stop // 2]
    )


def test_real_codes_are_judged_with_every_second_cell_as_the_half_scale() -> None:
    _, critic = networks()
    critic.eval()
    real = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(critic(real), critic((real[:, :, ::2, ::2], real)))


def test_the_second_branch_gives_the_last_25_scores() -> None:
    _, critic = networks()
    critic.eval()
    real, other = torch.randn(2, 3, 32, 32), torch.randn(2, 3, 16, 16)
    scores, changed = critic(real), critic((other, real))
    assert torch.equal(scores[:, :25], changed[:, :25])
    assert not torch.allclose(scores[:, 25:], changed[:, 25:], atol=1e-6)


def test_decoders_learn_from_real_samples_alone() -> None:
    G, critic = networks()
    fake, real = G.judged(torch.randn(2, 8)), torch.randn(2, 3, 32, 32).clamp(-1, 1)
    critic(tuple(codes.detach() for codes in fake)).sum().backward()
    assert all(p.grad is None for p in critic.decoders.parameters())
    loss = sle.loss(TINY)
    loss.critic_loss(critic, real, tuple(codes.detach() for codes in fake))[0].backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in critic.parameters())
    critic.zero_grad()
    loss.generator_loss(critic, real, fake)[0].backward()
    assert all(p.grad is None for p in critic.decoders.parameters())
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in G.parameters())


def test_every_parameter_is_in_the_graph_at_the_smallest_side() -> None:
    """What several processes need, though nothing judges the half scale there."""
    G, critic = networks(16)
    critic(G.judged(torch.randn(2, 8))).sum().backward()
    assert all(p.grad is not None for p in G.parameters())
    grad = original(G.half_head).grad
    assert grad is not None
    assert not grad.any()


@pytest.mark.parametrize(("name", "power"), [("l1", 1), ("mse", 2)])
def test_critic_loss_is_hinge_plus_weighted_reconstructions(name: Literal["l1", "mse"], power: int) -> None:
    _, critic = networks()
    critic.eval()  # moments and power iterations stand still, so that a second call gives the same
    real, fake = torch.randn(2, 3, 32, 32), (torch.randn(2, 3, 16, 16), torch.randn(2, 3, 32, 32))
    config = replace(TINY, reconstruct=name, reconstruct_weight=3.0, soft_margin=(1, 1))
    torch.manual_seed(5)
    total, logs = sle.loss(config).critic_loss(critic, real, fake)
    torch.manual_seed(5)
    scores, pairs = critic(real, quadrant=int(torch.randint(4, ())))
    adversarial = (1 - scores).clamp(min=0).mean() + (1 + critic(fake)).clamp(min=0).mean()
    distance = sum((made - target).abs().pow(power).mean() for made, target in pairs)
    torch.testing.assert_close(total, adversarial + 3 * distance)
    torch.testing.assert_close(logs["loss/reconstruction"], distance)


def test_reconstructions_are_compared_in_full_precision() -> None:
    """Also inside the distance, which may be a network."""
    seen: list[tuple[bool, torch.dtype]] = []

    def distance(made: Tensor, target: Tensor) -> Tensor:
        seen.append((torch.is_autocast_enabled("cpu"), (made @ target.mT).dtype))
        return (made - target).abs().mean()

    _, critic = networks()
    real, fake = torch.randn(2, 3, 32, 32), (torch.randn(2, 3, 16, 16), torch.randn(2, 3, 32, 32))
    with torch.autocast("cpu", torch.bfloat16):
        sle.SelfSupervised(Hinge(), distance, 1.0).critic_loss(critic, real, fake)
    assert seen == [(False, torch.float32)] * 3


def test_margins_are_soft_by_default() -> None:
    """Scores of 0 on both sides cost the two margins: 1.8 on average, never 2."""

    def critic(codes: Tensor, quadrant: int | None = None) -> Any:
        scores = torch.zeros(64, 50)
        return scores if quadrant is None else (scores, [(codes, codes)])

    torch.manual_seed(0)
    total, _ = sle.loss(SLEConfig()).critic_loss(critic, torch.zeros(64, 3, 4, 4), torch.zeros(64, 3, 4, 4))
    assert abs(total - 1.8) < 0.01
    total, _ = sle.loss(SLEConfig(soft_margin=(1, 1))).critic_loss(critic, torch.zeros(1), torch.zeros(1))
    assert total == 2


def test_all_quadrants_are_drawn() -> None:
    drawn: list[int] = []

    def critic(codes: Tensor, quadrant: int | None = None) -> Any:
        drawn.extend([] if quadrant is None else [quadrant])
        return torch.zeros(1, 50) if quadrant is None else (torch.zeros(1, 50), [(codes, codes)])

    torch.manual_seed(0)
    for _ in range(40):
        sle.loss(TINY).critic_loss(critic, torch.zeros(1), torch.zeros(1))
    assert set(drawn) == {0, 1, 2, 3}


def test_ablations() -> None:
    G, critic = networks(64)
    plain_G, plain_critic = networks(64, excitation="none", reconstruct="none")
    in_gates = sum(parameters(m) for m in G.modules() if isinstance(m, SkipLayerExcitation))
    assert parameters(plain_G) == parameters(G) - in_gates
    in_gates = sum(parameters(m) for m in critic.modules() if isinstance(m, SkipLayerExcitation))
    assert parameters(plain_critic) == parameters(critic) - in_gates - parameters(critic.decoders)
    as_in_the_text_G, as_in_the_text_critic = networks(64, excitation="generator")
    assert parameters(as_in_the_text_G) == parameters(G)
    assert parameters(as_in_the_text_critic) == parameters(critic) - in_gates
    assert isinstance(sle.loss(replace(TINY, reconstruct="none")), Hinge)
    swish, _ = networks(64, activation="swish")
    assert any(isinstance(layer, nn.SiLU) for layer in swish.modules())
    assert not any(isinstance(layer, nn.SiLU) for layer in G.modules())


def test_every_convolution_is_spectrally_normalised_and_initialised_first() -> None:
    for network in networks(64, width=16):
        layers = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
        for layer in layers:
            assert layer.bias is None
            rows = layer.weight.transpose(0, 1) if isinstance(layer, nn.ConvTranspose2d) else layer.weight
            # The estimate of the largest singular value is that of 15 power iterations: a little too small.
            assert 0.99 < torch.linalg.matrix_norm(rows.flatten(1), 2) < 1.2
        weights = torch.cat([original(layer).flatten() for layer in layers])
        assert abs(weights.std() - 0.02) < 1e-3


@pytest.mark.parametrize("width", [0, 3])
def test_widths_that_leave_maps_empty_are_refused(width: int) -> None:
    with pytest.raises(UsageError, match="width"):
        sle.Generator((3, 32, 32), replace(TINY, width=width))


def test_bf16_and_channels_last() -> None:
    G, critic = networks()
    for network in (G, critic):
        network.to(memory_format=torch.channels_last)
    real = torch.randn(2, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        loss, _ = sle.loss(TINY).critic_loss(critic, real, G.judged(torch.randn(2, 8)))
    loss.backward()
    assert loss.dtype == torch.float32
    assert all(p.grad.isfinite().all() for p in critic.parameters() if p.grad is not None)


def test_lpips_needs_pixels_weights_and_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = replace(TINY, reconstruct="lpips")
    with pytest.raises(UsageError, match="3 channels"):
        sle.Critic((16, 32, 32), config)
    with pytest.raises(UsageError) as raised:
        sle.frozen(config)
    assert "--model.vgg-weights" in raised.value.fix
    monkeypatch.setitem(sys.modules, "lpips", None)
    with pytest.raises(UsageError, match="not installed"):
        sle.frozen(replace(config, vgg_weights=str(tmp_path / "vgg16.pth")))


@pytest.fixture(scope="module")
def torchvision_vgg16() -> dict[str, Tensor]:
    """Random weights under torchvision's names, those of the classifier left out."""
    pytest.importorskip("lpips")
    from torchvision.models.vgg import cfgs, make_layers

    torch.manual_seed(0)
    return {f"features.{name}": weight for name, weight in make_layers(cfgs["D"]).state_dict().items()}


def test_lpips_is_the_calibrated_distance_of_unit_features(
    tmp_path: Path, torchvision_vgg16: dict[str, Tensor]
) -> None:
    """Zhang et al., eq. 1: sum over relu1_2, ..., relu5_3 of the spatial mean of |w (y / |y| - y' / |y'|)|^2."""
    import lpips
    from torchvision.models.vgg import cfgs, make_layers

    torch.save(torchvision_vgg16, tmp_path / "vgg16.pth")
    loss = sle.loss(replace(TINY, reconstruct="lpips", vgg_weights=str(tmp_path / "vgg16.pth")))
    assert isinstance(loss, sle.SelfSupervised)
    x, y = torch.rand(2, 2, 3, 32, 32) * 2 - 1
    x.requires_grad_(True)
    weights = torch.load(Path(lpips.__file__).parent / "weights/v0.1/vgg.pth", "cpu", weights_only=True)
    layers = make_layers(cfgs["D"])
    layers.load_state_dict({name.removeprefix("features."): value for name, value in torchvision_vgg16.items()})
    shift, scale = torch.tensor([[-0.030, -0.088, -0.188], [0.458, 0.448, 0.450]])[..., None, None]
    maps = [(codes - shift) / scale for codes in (x, y)]
    expected, level = torch.zeros(()), 0
    for index, layer in enumerate(layers):
        maps = [layer(values) for values in maps]
        if index in (3, 8, 15, 22, 29):
            units = [values / values.square().sum(1, keepdim=True).sqrt() for values in maps]
            difference = (units[0] - units[1]).square() * weights[f"lin{level}.model.1.weight"]
            expected, level = expected + difference.sum(1).mean(), level + 1
    torch.testing.assert_close(loss.distance(x, y), expected, rtol=1e-4, atol=1e-6)
    loss.distance(x, y).backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    assert loss.distance(y, y) == 0


def test_lpips_refuses_missing_and_foreign_weights(tmp_path: Path, torchvision_vgg16: dict[str, Tensor]) -> None:
    config = replace(TINY, reconstruct="lpips", vgg_weights=str(tmp_path / "vgg16.pth"))
    with pytest.raises(InputError) as raised:
        sle.frozen(config)
    assert "--model.vgg-weights" in raised.value.fix
    incomplete = {name: weight for name, weight in torchvision_vgg16.items() if name != "features.28.bias"}
    torch.save(incomplete, tmp_path / "vgg16.pth")
    with pytest.raises(MismatchError):
        sle.frozen(config)


# --- further tasks ---


def test_each_task_asks_what_was_done_to_the_sample() -> None:
    torch.manual_seed(0)
    real = torch.rand(6, 3, 16, 16)

    seen: list[Tensor] = []

    def look(codes: Tensor) -> Tensor:
        seen.append(codes)
        return torch.zeros(6, 4)

    rotation(look, real, nn.Identity())
    turns = [
        next(k for k in range(4) if torch.equal(x.rot90(-k, (1, 2)), y)) for x, y in zip(seen[0], real, strict=True)
    ]
    assert len(set(turns)) > 1
    perfect = 100 * F.one_hot(torch.tensor(turns), 4).float()
    torch.manual_seed(0)
    torch.rand(6, 3, 16, 16)
    assert rotation(lambda codes: perfect, real, nn.Identity()) < 1e-6

    ramp = torch.linspace(-1, 1, 16).expand(6, 1, 16, 16)
    both = torch.cat([ramp, ramp.mT], 1)  # across and down

    def shape(codes: Tensor) -> Tensor:
        across, down = (codes[:, i].amax((1, 2)) - codes[:, i].amin((1, 2)) for i in (0, 1))
        return torch.log2(across / down)[:, None]

    assert aspect_ratio(shape, both, nn.Identity()) < 1e-4
    assert aspect_ratio(lambda codes: -shape(codes), both, nn.Identity()) > 0.1


def test_contrast_is_the_cross_entropy_of_the_similarities() -> None:
    torch.manual_seed(0)
    real = torch.randn(3, 2, 4, 4)
    a, b = (F.normalize(x.flatten(1)) for x in (real, real.flip(3)))
    expected = -sum(((b[i] @ a.T) / 0.1).log_softmax(0)[i] for i in range(3)) / 3
    found = contrastive(lambda codes: codes.flatten(1), real, lambda codes: codes.flip(3))
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("reconstruct", ["l1", "none"])
def test_tasks_teach_the_critic_alone_and_are_logged(reconstruct: Any) -> None:
    tasks: Any = ("contrastive", "aspect-ratio", "rotation")
    G, critic = networks(reconstruct=reconstruct, tasks=tasks)
    assert networks(reconstruct=reconstruct)[1].state_dict().keys() == {
        name for name in critic.state_dict() if not name.startswith("tasks.")
    }
    objective = sle.loss(replace(TINY, reconstruct=reconstruct, tasks=tasks, task_weight=2.0))
    real, fake = torch.rand(4, 3, 32, 32), tuple(codes.detach() for codes in G.judged(torch.randn(4, G.z_dim)))
    loss, logs = objective.critic_loss(critic, real, fake)
    loss.backward()
    assert all(parameter.grad is not None for parameter in critic.parameters())
    assert {f"loss/{task}" for task in tasks} <= logs.keys()
    assert objective.generator_loss(critic, real, fake)[1].keys().isdisjoint({f"loss/{task}" for task in tasks})


def test_only_squares_are_turned() -> None:
    config = replace(TINY, tasks=("rotation",))
    with pytest.raises(UsageError, match="needs square codes"):
        sle.Critic((3, 32, 48), config)
