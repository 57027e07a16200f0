"""The GANs on the chain of strided convolutions against what is published of them."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from data.errors import UsageError
from data.files.runs import to_json
from stage2_codegen.configs.chain import SNGANConfig
from stage2_codegen.configs.gca import GCAConfig
from stage2_codegen.configs.train import TrainConfig
from stage2_codegen.losses import BCE, WGANGP, Hinge, LeastSquares
from stage2_codegen.modules import GIU, GraphConvolution, NonLocal, RepresentativeBatchNorm2d, SelfAttention
from stage2_codegen.modules.squeeze_excitation import SqueezeExcitation
from stage2_codegen.train import train
from stage2_codegen.variants import VARIANTS, build_networks
from stage2_codegen.variants.contract import CodeShape
from tests.training_runs import assert_same_bits, state

Overrides = dict[str, Any]
NAMES = ("dcgan", "lsgan", "wgan-gp", "sngan", "sagan", "giu", "gca")
PLUS_2: Overrides = {"generator_convs": (4, 8), "critic_convs": (4, 8)}
PLUS_3: Overrides = {"generator_convs": (4, 8, 16), "critic_convs": (4, 8, 32)}
BN_IN_CRITIC: Overrides = {"critic_giu_norm": True}


def on_meta(name: str, code_shape: CodeShape, overrides: Overrides) -> tuple[nn.Module, nn.Module]:
    """Networks without memory; what costs time there and has no parameters is left out."""
    with torch.device("meta"):
        return build_networks(name, code_shape, **{"spectral_norm": "none", "init_std": 0.0, **overrides})


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def giu_at(generator: tuple[int, ...], critic: tuple[int, ...], **others: Any) -> Overrides:
    """Modules at these sides, normalised as published, and no representative norm (which tables 1 and 4 round away)."""
    return {"generator_giu": generator, "critic_giu": critic, "generator_rbn": (), **BN_IN_CRITIC, **others}


@pytest.mark.parametrize(
    ("name", "code_shape", "overrides", "expected"),
    [
        ("wgan-gp", (3, 32, 32), {}, (1_184_067, 662_977)),  # Tian et al., table 5: 1.85 M
        ("sngan", (3, 32, 32), {}, (1_184_067, 662_977)),
        ("dcgan", (3, 64, 64), {}, (3_577_667, 2_766_529)),  # 28 x 16 x 512 weights fewer in G; batch norm in D
        ("giu", (3, 32, 32), giu_at((), ()), (1_184_067, 662_977)),  # table 7, without the module
        ("giu", (3, 32, 32), giu_at((4,), (4,)), (1_184_067 + 34_336, 662_977 + 34_336)),
        ("giu", (3, 32, 32), BN_IN_CRITIC, (1_184_067 + 34_336 + 960, 662_977 + 34_336)),
        ("wgan-gp", (3, 64, 64), {}, (3_807_043, 2_764_737)),  # table 6: 6.57 M
        ("giu", (16, 16, 16), BN_IN_CRITIC, (419_488, 158_417)),
        ("giu", (16, 32, 32), BN_IN_CRITIC, (1_232_688, 710_625)),
        ("giu", (16, 64, 64), BN_IN_CRITIC, (3_992_688, 2_948_641)),
        ("giu", (16, 128, 128), BN_IN_CRITIC, (8_290_448, 7_245_377)),
        ("giu", (16, 256, 256), BN_IN_CRITIC, (12_486_288, 11_440_193)),
    ],
)
def test_exact_parameter_counts(
    name: str, code_shape: CodeShape, overrides: Overrides, expected: tuple[int, int]
) -> None:
    """Generator and critic, counted by hand from their layers."""
    G, critic = on_meta(name, code_shape, overrides)
    assert (parameters(G), parameters(critic)) == expected


@pytest.mark.parametrize(
    ("name", "side", "overrides", "millions"),
    [
        ("giu", 32, {}, 1.92),  # table 5
        ("giu", 32, giu_at((8,), (8,)), 1.86),  # table 1: middle D and G
        ("giu", 32, giu_at((4, 16), (4, 16)), 1.92),  # its "shallow D and deep G", a count of four modules
        ("giu", 32, giu_at((4, 8, 16), (4, 8, 16)), 1.94),  # all the D and G
        ("giu", 32, giu_at((4,), ()), 1.88),  # only G
        ("giu", 32, giu_at((), (4,)), 1.88),  # only D
        ("giu", 32, giu_at((4,), (4,), kernel_size=5), 1.95),  # table 4
        ("giu", 32, giu_at((4,), (4,), kernel_size=7), 1.99),
        ("giu", 32, giu_at((4,), (4,), group_channels=8), 1.93),
        ("giu", 32, giu_at((4,), (4,), group_channels=32), 1.91),
        ("sagan", 32, {}, 1.98),  # table 5
        ("giu", 64, {}, 6.91),  # table 6
        ("sagan", 64, {}, 7.00),
        ("wgan-gp", 64, PLUS_2, 12.47),
        ("wgan-gp", 64, PLUS_3, 12.66),
    ],
)
def test_published_parameter_counts(name: str, side: int, overrides: Overrides, millions: float) -> None:
    """Tables 1 and 4 to 6 of Tian et al., both networks together."""
    total = sum(map(parameters, on_meta(name, (3, side, side), overrides)))
    assert total / 1e6 == pytest.approx(millions, abs=0.0101)


@torch.no_grad()
def operations(network: nn.Module, *inputs: Tensor) -> int:
    """In the convention that reproduces the paper's column FLOPs, for one sample.

    Multiply-adds of convolutions over their output, one more for a bias; 2 an element of batch norm, 1 of a rectifier;
    1 for each input of a pooling. Products of maps, as in attention and in applying an involution, are not counted.
    """
    total = 0

    def hook(module: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> None:
        nonlocal total
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            kernel_area = module.kernel_size[0] * module.kernel_size[1]
            total += out.numel() * (module.in_channels * kernel_area + (module.bias is not None))
        elif isinstance(module, nn.Linear):
            total += out.numel() * (module.in_features + 1)
        elif isinstance(module, nn.BatchNorm2d):
            total += 2 * out.numel()
        elif isinstance(module, nn.ReLU | nn.LeakyReLU | SqueezeExcitation):  # the last pools its input
            total += out.numel()

    for module in network.modules():
        module.register_forward_hook(hook)
    network.eval()(*inputs)
    return total


@pytest.mark.parametrize(
    ("name", "side", "overrides", "millions"),
    [
        ("wgan-gp", 32, {}, 96.39),
        ("sagan", 32, {}, 101.65),
        ("giu", 32, {}, 97.23),
        ("giu", 32, giu_at((4,), ()), 96.79),
        ("giu", 32, giu_at((8,), (8,)), 97.24),
        ("giu", 32, giu_at((4, 8, 16), (4, 8, 16)), 99.03),
        ("giu", 32, giu_at((4,), (4,), kernel_size=7), 98.56),
        ("giu", 32, giu_at((4,), (4,), group_channels=8), 97.52),
        ("wgan-gp", 64, {}, 536.58),
        ("sagan", 64, {}, 557.58),
        ("giu", 64, {}, 543.28),
        ("wgan-gp", 64, PLUS_2, 687.72),
        ("wgan-gp", 64, PLUS_3, 763.48),  # printed 764.48, one digit off
    ],
)
def test_published_operation_counts(name: str, side: int, overrides: Overrides, millions: float) -> None:
    """The same tables: parameters times the sizes of the maps, so strides and positions are checked too."""
    G, critic = build_networks(name, (3, side, side), **{"spectral_norm": "none", **overrides})
    counted = operations(G, torch.zeros(1, 128)) + operations(critic, torch.zeros(1, 3, side, side))
    assert counted / 1e6 == pytest.approx(millions, rel=6e-4)


@torch.no_grad()
def sides_of(network: nn.Module, kind: type[nn.Module], *inputs: Tensor) -> list[int]:
    """Sides of the maps that modules of this kind make, in order."""
    sides: list[int] = []
    for module in network.modules():
        if isinstance(module, kind):
            module.register_forward_hook(lambda _module, _args, out: sides.append(out.shape[-1]))
    network.eval()(*inputs)
    return sides


def sides_in(
    name: str, side: int, kind: type[nn.Module], overrides: Overrides | None = None
) -> tuple[list[int], list[int]]:
    """The same for the generator and the critic of a variant."""
    G, critic = build_networks(name, (3, side, side), width=16, **overrides or {})
    return sides_of(G, kind, torch.randn(1, G.z_dim)), sides_of(critic, kind, torch.randn(1, 3, side, side))


def test_modules_are_where_the_papers_have_them() -> None:
    assert sides_in("giu", 32, GIU) == ([4], [4])
    assert sides_in("giu", 64, GIU) == ([4, 8], [8, 4])
    assert sides_in("giu", 64, GIU, {"generator_giu": (8,), "critic_giu": ()}) == ([8], [])
    assert sides_in("giu", 64, RepresentativeBatchNorm2d) == ([4, 32], [])
    assert sides_in("sagan", 32, SelfAttention) == ([8, 16], [8, 4])
    assert sides_in("sagan", 64, SelfAttention) == ([16, 32], [8, 4])
    assert sides_in("gca", 64, GraphConvolution) == ([8], [8])
    assert sides_in("gca", 16, GraphConvolution) == ([8], [8])
    assert sides_in("gca", 64, NonLocal, {"relation": "non-local"}) == ([8], [8])


def test_attention_stays_affordable_on_large_codes() -> None:
    assert sides_in("sagan", 256, SelfAttention) == ([16, 32], [8, 4])


def test_no_hidden_map_is_poorer_than_twice_the_codes() -> None:
    G, critic = on_meta("wgan-gp", (64, 256, 256), {"width": 16})
    widths = [layer.out_channels for layer in G.modules() if isinstance(layer, nn.ConvTranspose2d)]
    assert widths == [128, 128, 128, 128, 128, 128, 64]
    assert [layer.in_channels for layer in critic.modules() if isinstance(layer, nn.Conv2d)] == [64] + [128] * 6


@pytest.mark.parametrize(
    ("name", "overrides"),
    [
        ("giu", {"generator_giu": (4, 32)}),
        ("giu", {"critic_giu": (2,)}),
        ("giu", {"generator_rbn": (32,)}),
        ("wgan-gp", {"critic_convs": (5,)}),
        ("sagan", {"generator_attention": (64,)}),
        ("gca", {"side": 32}),
    ],
)
def test_positions_that_do_not_exist_are_refused_naming_those_that_do(name: str, overrides: Overrides) -> None:
    with pytest.raises(UsageError, match=f"--model.{next(iter(overrides)).replace('_', '-')}: no map") as refused:
        build_networks(name, (3, 32, 32), **overrides)
    assert "4, 8, 16" in refused.value.fix


def tiny(name: str, **overrides: Any) -> tuple[nn.Module, nn.Module]:
    """Networks for codes of 3 x 16 x 16 in double precision."""
    torch.manual_seed(0)
    G, critic = build_networks(name, (3, 16, 16), **({"width": 8} | overrides))
    return G.double(), critic.double()


def influence(critic: nn.Module) -> Tensor:
    """How far the first sample's score depends on each of three samples, in training mode."""
    codes = torch.randn(3, 3, 16, 16, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(critic.train()(codes)[0].sum(), codes)
    return gradient.flatten(1).norm(dim=1)


@pytest.mark.parametrize("name", ["wgan-gp", "giu"])
def test_critics_under_a_gradient_penalty_do_not_mix_samples(name: str) -> None:
    extra: Overrides = {"critic_convs": (4, 8)} if name == "wgan-gp" else {"critic_giu": (4, 8), "group_channels": 8}
    own, *others = influence(tiny(name, **extra)[1]).tolist()
    assert own > 0
    assert others == [0, 0]


def test_batch_norm_in_a_critic_does_mix_samples() -> None:
    """The measure above can tell, and the option says so."""
    assert influence(tiny("dcgan")[1]).min() > 0
    assert influence(tiny("giu", critic_giu_norm=True)[1]).min() > 0


@pytest.mark.parametrize("name", ["wgan-gp", "giu"])
def test_the_gradient_of_a_gradient_penalty_is_that_of_finite_differences(name: str) -> None:
    """Double backward through every layer of the critic, along a random direction of its parameters."""
    critic = tiny(name)[1].eval()
    codes = torch.randn(2, 3, 16, 16, dtype=torch.float64, requires_grad=True)

    def penalty() -> Tensor:
        (gradient,) = torch.autograd.grad(critic(codes).sum(), codes, create_graph=True)
        return (gradient.flatten(1).norm(dim=1) - 1).square().mean()

    weights: list[Tensor] = [p for p in critic.parameters() if p.dim() > 1]
    directions = [torch.randn_like(p) for p in weights]
    gradients = torch.autograd.grad(penalty(), weights)
    expected = sum((g * d).sum() for g, d in zip(gradients, directions, strict=True))

    def moved(step: float) -> Tensor:
        with torch.no_grad():
            torch._foreach_add_(weights, directions, alpha=step)
        value = penalty().detach()
        with torch.no_grad():
            torch._foreach_add_(weights, directions, alpha=-step)
        return value

    torch.testing.assert_close((moved(1e-6) - moved(-1e-6)) / 2e-6, expected, rtol=1e-5, atol=1e-9)


Convolution = nn.Conv2d | nn.ConvTranspose2d


def backbone(network: nn.Module) -> list[nn.Conv2d | nn.ConvTranspose2d]:
    """The chain's own convolutions, all 4 x 4, from the input on."""
    return [m for m in network.modules() if isinstance(m, Convolution) and m.kernel_size == (4, 4)]


@pytest.mark.parametrize(
    ("name", "in_generator", "in_critic"),
    [
        ("dcgan", "---", "---"),
        ("wgan-gp", "---", "---"),
        ("sngan", "---", "sss"),
        ("sagan", "sss", "sss"),
        ("giu", "sss", "ss-"),
    ],
)
def test_spectral_normalisation_is_where_published(name: str, in_generator: str, in_critic: str) -> None:
    for network, expected in zip(tiny(name), (in_generator, in_critic), strict=True):
        assert "".join("s" if is_parametrized(layer) else "-" for layer in backbone(network)) == expected


@pytest.mark.parametrize("name", ["sngan", "giu"])
def test_spectrally_normalised_matrices_stretch_by_one(name: str) -> None:
    """Outputs x all inputs, whether the convolution is transposed or not."""
    for network, shape in zip(tiny(name), ((2, 128), (2, 3, 16, 16)), strict=True):
        for _ in range(100):  # one power iteration each
            network.train()(torch.randn(shape, dtype=torch.float64))
        for layer in filter(is_parametrized, backbone(network.eval())):
            weight = layer.weight.transpose(0, 1) if isinstance(layer, nn.ConvTranspose2d) else layer.weight
            assert torch.linalg.matrix_norm(weight.flatten(1), 2).item() == pytest.approx(1, abs=2e-3)


def test_dcgan_starts_from_narrow_normal_weights_and_normalises_all_but_the_ends() -> None:
    torch.manual_seed(0)
    G, critic = build_networks("dcgan", (3, 32, 32))
    for network in (G, critic):
        for layer in backbone(network):
            assert layer.weight.std().item() == pytest.approx(0.02, rel=0.05)
            assert layer.bias is not None
            assert not layer.bias.any()
    kinds = [type(layer).__name__ for layer in critic.layers]  # type: ignore[union-attr]
    level = ["Conv2d", "BatchNorm2d", "LeakyReLU"]
    assert kinds == ["Conv2d", "LeakyReLU", *level, *level, "MapToVector"]


def test_standardised_codes_are_not_squashed() -> None:
    G, _ = build_networks("dcgan", (3, 16, 16), standardise=True, init_std=1.0)
    assert G(torch.randn(4, 100)).abs().max() > 1


def test_objectives_are_the_published_ones() -> None:
    objectives = {"dcgan": BCE, "lsgan": LeastSquares, "wgan-gp": WGANGP, "sngan": Hinge, "sagan": Hinge, "giu": WGANGP}
    for name, objective in objectives.items():
        assert type(VARIANTS[name].loss(VARIANTS[name].Config())) is objective
    sngan, gca = VARIANTS["sngan"], VARIANTS["gca"]
    assert type(sngan.loss(SNGANConfig(objective="bce"))) is BCE
    assert type(gca.loss(GCAConfig())) is BCE
    assert type(gca.loss(GCAConfig(host="sagan"))) is Hinge


@pytest.mark.parametrize("host", ["dcgan", "sagan"])
def test_gca_takes_what_it_is_not_told_from_its_host(host: str) -> None:
    gca, of_host = VARIANTS["gca"].Config(host=host), VARIANTS[host].Config()  # type: ignore[call-arg]
    optimiser = ("z_dim", "lr", "critic_lr", "beta1", "beta2")
    assert [getattr(gca, field) for field in optimiser] == [getattr(of_host, field) for field in optimiser]
    told = VARIANTS["gca"].Config(host=host, lr=1.0, beta1=0.0, z_dim=7)  # type: ignore[call-arg]
    assert (told.lr, told.beta1, told.z_dim, told.beta2) == (1.0, 0.0, 7, of_host.beta2)


@pytest.mark.parametrize("name", NAMES)
def test_configurations_survive_a_run_folder(name: str) -> None:
    """As JSON and back they make the same networks, which is how a generator is loaded."""
    config = VARIANTS[name].Config()
    stored = json.loads(json.dumps(to_json(config)))
    assert to_json(VARIANTS[name].Config(**stored)) == stored
    small, code_shape = {"width": 16}, (3, 16, 16)
    keys = [list(network.state_dict()) for network in build_networks(name, code_shape, **stored | small)]
    assert keys == [list(network.state_dict()) for network in build_networks(name, code_shape, **small)]


@pytest.mark.parametrize("host", ["dcgan", "sagan"])
def test_gca_is_its_host_with_one_module_on_the_8_by_8_map_of_each_network(host: str) -> None:
    """2 C^2 / 8 + C N + 2 C^2 + N^2 + 1 parameters for C channels and N positions; no attention."""
    alone: Overrides = {"generator_attention": (), "critic_attention": ()} if host == "sagan" else {}
    plain = build_networks(host, (3, 32, 32), width=16, **alone)
    C, N = 32, 64
    for network, with_gca in zip(plain, build_networks("gca", (3, 32, 32), width=16, host=host), strict=True):
        assert parameters(with_gca) - parameters(network) == 2 * C * C // 8 + C * N + 2 * C * C + N * N + 1


def test_gca_variations_build() -> None:
    for overrides in ({"adjacency": "binary"}, {"node_features": "diag"}, {"relation": "non-local"}, {"side": 4}):
        G, critic = tiny("gca", **overrides)
        assert critic(G(torch.randn(2, 100, dtype=torch.float64))).shape == (2, 1)


def test_only_the_loss_tells_lsgan_from_dcgan() -> None:
    assert dataclasses.asdict(VARIANTS["lsgan"].Config()) == dataclasses.asdict(VARIANTS["dcgan"].Config())


@pytest.mark.parametrize("optimizer", ["adagrad", "rmsprop"])
def test_a_run_with_another_optimiser_goes_on_bit_for_bit(
    configure: Callable[..., TrainConfig[Any]], tmp_path: Path, optimizer: str
) -> None:
    for out, lengths in (("parts", (0.008, 0.016)), ("whole", (0.016,))):
        for kimg in lengths:
            train("giu", configure("giu", out, kimg, model={"optimizer": optimizer}))
    assert_same_bits(tmp_path / "parts", tmp_path / "whole")
    moments = {name.partition(".")[2] for name in state(tmp_path / "whole")["opt_critic"]}
    assert moments == {"step", {"adagrad": "sum", "rmsprop": "square_avg"}[optimizer]}
