"""The projected critic: what it sees, what of it learns and what never does, and how its runs go on."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor
from torch.nn import functional as F

from data.errors import InputError, MismatchError, UsageError
from data.files.checkpoints import load_newest, load_weights
from data.latents import LatentStore
from pipelines import cli
from stage1_autoencoder.bounds import BOUND
from stage1_autoencoder.training.processes import make_accelerator
from stage2_codegen.colouring import colouring_kernel
from stage2_codegen.configs.projected import ProjectedConfig
from stage2_codegen.frozen.context import Context
from stage2_codegen.frozen.linear_decoder import LinearDecoder
from stage2_codegen.frozen.projection import CHANNELS, Mixing
from stage2_codegen.losses import RelativisticPairing
from stage2_codegen.step import AdversarialStep
from stage2_codegen.train import train
from stage2_codegen.variants import VARIANTS, build_networks, projected
from stage2_codegen.variants.contract import Batch
from stage2_codegen.variants.projected import BACKBONE, Viewed
from tests.tiny_variants import TINY

SHAPE = (4, 16, 16)
SMALL = ProjectedConfig(**TINY["projected"])


def context_of(config: ProjectedConfig = SMALL, code_shape: tuple[int, int, int] = SHAPE) -> Context:
    torch.manual_seed(0)
    return Context.stand_in(code_shape, projected.frozen(config))


def make_step(**model: Any) -> AdversarialStep:
    config = replace(SMALL, **model)
    return AdversarialStep(VARIANTS["projected"], config, SHAPE, context_of(config), make_accelerator(), seed=1)


def codes(count: int, seed: int = 0) -> Tensor:
    return torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(seed)).clamp(-0.9, 0.9)


def test_frozen_networks_never_change_and_are_no_part_of_what_is_trained_or_saved() -> None:
    step = make_step()
    context = step.view.context  # type: ignore[attr-defined]
    networks = [context.frozen[BACKBONE].network, context.autoencoder, step.view.mixing]  # type: ignore[attr-defined]
    before = [value.clone() for network in networks for value in network.state_dict().values()]
    learning = {name: value.clone() for name, value in step.critic.state_dict().items()}
    for number in range(2):
        step(iter([Batch(codes(4, number))]), 4 * number)
    after = [value for network in networks for value in network.state_dict().values()]
    assert all(torch.equal(old, new) for old, new in zip(before, after, strict=True))
    assert any(not torch.equal(learning[name], value) for name, value in step.critic.state_dict().items())
    trained = {id(p) for optimizer in step.optimizers.values() for g in optimizer.param_groups for p in g["params"]}
    assert not any(id(parameter) in trained for network in networks for parameter in network.parameters())
    assert all(parameter.grad is None for network in networks for parameter in network.parameters())
    heads = {name.split(".")[0] for name in step.critic.state_dict()}
    assert heads == {"heads", "picture_head"}


def test_mixing_is_the_sum_of_projected_scales() -> None:
    """Sauer et al., section 3.2, with each convolution written as a sum over places and channels."""
    torch.manual_seed(0)
    mixing = Mixing([3, 5])
    fine, coarse = torch.randn(2, 3, 8, 8), torch.randn(2, 5, 4, 4)
    across, between = list(mixing.across_channels), mixing.across_scales[0]
    mixed = [torch.einsum("nchw,oc->nohw", x, w[:, :, 0, 0]) for x, w in zip((fine, coarse), across, strict=True)]
    padded, carried = F.pad(mixed[1], (1, 1, 1, 1)), torch.zeros(2, CHANNELS, 4, 4)
    for row in range(3):
        for column in range(3):
            shifted = padded[:, :, row : row + 4, column : column + 4]
            carried += torch.einsum("nchw,oc->nohw", shifted, between[:, :, row, column])
    carried = F.interpolate(carried, (8, 8), mode="bilinear", align_corners=False)
    got = mixing([fine, coarse])
    torch.testing.assert_close(got[1], mixed[1], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(got[0], (mixed[0] + carried) / 2**0.5, rtol=1e-5, atol=1e-5)
    assert 0.8 < got[1].std() / coarse.std() < 1.25  # random weights keep the deviation
    assert all(torch.equal(a, b) for a, b in zip(mixing.parameters(), Mixing([3, 5]).parameters(), strict=True))
    assert not any(parameter.requires_grad for parameter in mixing.parameters())


@pytest.mark.parametrize("decode", ["linear", "full"])
def test_the_critic_sees_decoded_pictures(decode: Any) -> None:
    config = replace(SMALL, decode=decode)
    context, x = context_of(config), codes(3)
    for parameter in context.autoencoder.decoder.parameters():  # at the start of a training, both are the same
        parameter.add_(0.03 * torch.randn_like(parameter))
    seen = Viewed(config, context)
    _, pictures, *maps = seen(x)
    autoencoder = context.autoencoder
    decoder = autoencoder.decode if decode == "full" else LinearDecoder(autoencoder, context.examples)
    torch.testing.assert_close(pictures, decoder(x))
    assert pictures.shape == (3, 3, 64, 64)
    assert [x.shape for x in maps] == [(3, CHANNELS, side, side) for side in (16, 8, 4, 2)]


def test_pixels_are_seen_as_they_are() -> None:
    x = torch.rand(2, 3, 64, 64) * 1.8 - 0.9
    _, pictures, *_ = Viewed(SMALL, context_of(code_shape=(3, 64, 64)))(x)
    torch.testing.assert_close(pictures, x)


def test_a_saturated_cell_still_gets_a_gradient() -> None:
    x = torch.full((1, 4, 16, 16), 0.999).requires_grad_()
    latents = projected.inward(x)
    assert latents.max().item() == pytest.approx(BOUND)
    (gradient,) = torch.autograd.grad(latents.atanh().sum(), x)
    assert gradient.min() > 0


@pytest.mark.parametrize(("shown", "seen"), [(32, 96), (64, 96), (128, 128), (512, 256)])
def test_the_backbone_sees_pictures_of_a_size_it_can_read(shown: int, seen: int) -> None:
    view = Viewed(ProjectedConfig(), context_of(ProjectedConfig()))
    pictures = torch.rand(1, 3, shown, shown)
    resized = view.resized(pictures)
    assert resized.shape[-1] == seen
    torch.testing.assert_close(resized.mean(), pictures.mean(), rtol=0.02, atol=0)
    assert Viewed(replace(SMALL, view_side=32, scales=3), context_of()).resized(pictures).shape[-1] == 32


@pytest.mark.parametrize(("side", "scales"), [(32, 4), (100, 4), (64, 5), (64, 0)])
def test_maps_too_small_to_judge_are_refused(side: int, scales: int) -> None:
    with pytest.raises(UsageError, match=r"--model\.(view-side|scales)"):
        build_networks("projected", SHAPE, **{**TINY["projected"], "view_side": side, "scales": scales})


def test_every_head_counts_alike_and_at_its_place() -> None:
    torch.manual_seed(0)
    _, critic = build_networks("projected", SHAPE, **TINY["projected"])
    critic.eval()
    scores = critic(codes(2)).unflatten(1, (5, -1))
    seen = critic.viewed(codes(2))  # type: ignore[operator]
    own = [critic.picture_head(seen[1]), *(h(x) for h, x in zip(critic.heads, seen[2:], strict=True))]  # type: ignore[operator, arg-type]
    for columns, of_head in zip(scores.unbind(1), own, strict=True):
        assert len(columns.unique()) == of_head.numel()
        torch.testing.assert_close(columns.mean(1), of_head.mean((1, 2, 3)))


def test_heads_can_be_left_out() -> None:
    for model, heads in (({"picture_head": False}, 4), ({"backbone": "none"}, 0), ({"scales": 2}, 2)):
        _, critic = build_networks("projected", SHAPE, **{**TINY["projected"], **model})
        assert len(critic.heads) == heads  # type: ignore[arg-type]
        assert len(critic(codes(2))) == 2
    with pytest.raises(UsageError, match="nothing to judge"):
        build_networks("projected", SHAPE, **TINY["projected"], backbone="none", picture_head=False)


def test_both_updates_learn_from_one_batch() -> None:
    """The losses are those of one drawn, augmented and viewed batch, which is drawn once."""
    step = make_step(lr=0.0, critic_lr=0.0, drift_weight=0.0)
    drawn: list[Tensor] = []
    step.G.register_forward_hook(lambda module, inputs, output: drawn.append(output))
    seen: list[tuple[Tensor, ...]] = []
    viewed = step.view
    step.view = lambda x: seen.append(viewed(x)) or seen[-1]  # type: ignore[func-returns-value, arg-type]
    step(iter([Batch(codes(4))]), 0)
    assert len(drawn) == 1
    assert [len(x) for x in seen] == [6, 6]
    pairing, (real, fake) = RelativisticPairing(SMALL.gamma), seen
    of_critic, logs = pairing.critic_loss(step.critic, real, fake, SMALL.penalty_every)
    of_generator, _ = pairing.generator_loss(step.critic, real, fake)
    assert step.logs["loss/critic"] == pytest.approx(of_critic.item(), rel=1e-5)
    assert step.logs["penalty/r1"] == pytest.approx(logs["penalty/r1"].item(), rel=1e-5)
    assert step.logs["loss/g"] == pytest.approx(of_generator.item(), rel=1e-5)


def test_features_are_in_units_of_their_deviation_over_the_examples() -> None:
    context = context_of()
    _, pictures, *maps = Viewed(SMALL, context)(context.examples)
    raw = context.frozen[BACKBONE].network(Viewed(SMALL, context).resized(pictures))
    mixed = Mixing([x.shape[1] for x in raw])(raw)
    assert len(maps) == 4
    for seen, features in zip(maps, mixed, strict=True):
        torch.testing.assert_close(seen, features / features.std())


def test_a_new_generator_has_the_colours_of_its_data(store: Path) -> None:
    opened = LatentStore.open(store)
    torch.manual_seed(0)
    G, _ = build_networks("projected", opened.code_shape, **TINY["projected"])
    projected.condition(G, opened, SMALL)  # type: ignore[arg-type]
    latents = torch.from_numpy(opened.read(range(len(opened))))
    with torch.no_grad():
        fake = G(torch.randn(32, G.z_dim))
    drawn = latents.clamp(-BOUND, BOUND).atanh()
    spread, center = torch.std_mean(drawn, (0, 2, 3), correction=0)
    torch.testing.assert_close(G.center, center)
    torch.testing.assert_close(G.colouring, colouring_kernel(drawn))
    assert ((fake.atanh().mean((0, 2, 3)) - center).abs() < spread).all()


@pytest.fixture
def squeezenet(tmp_path: Path) -> Callable[[str, int], str]:
    def make(name: str, seed: int) -> str:
        torch.manual_seed(seed)
        torch.save(torchvision.models.squeezenet1_0(weights=None).state_dict(), tmp_path / name)
        return str(tmp_path / name)

    return make


def test_a_resume_takes_a_moved_network_but_no_other(
    configure: Callable[..., Any], squeezenet: Callable[[str, int], str]
) -> None:
    first = squeezenet("first.pth", 0)
    moved = shutil.copy(first, Path(first).with_name("moved.pth"))
    own = {"backbone": "squeezenet", "backbone_weights": first}
    config = configure("projected", "run", kimg=0.008, model=own)
    train("projected", config)
    weights = load_weights(config.out / "weights")
    identity = projected.frozen(config.model)[BACKBONE].sha256
    assert weights.state["frozen"] == {BACKBONE: identity}
    longer = configure("projected", "run", kimg=0.016, model={**own, "backbone_weights": str(moved)})
    train("projected", longer)
    checkpoint = load_newest(config.out / "checkpoints")
    assert checkpoint is not None
    assert checkpoint.state["nimg"] == 16
    with pytest.raises(MismatchError, match=r"frozen\.backbone"):
        train("projected", configure("projected", "run", model={**own, "backbone_weights": squeezenet("b.pth", 1)}))
    with pytest.raises(MismatchError, match=r"frozen\.backbone"):
        train("projected", configure("projected", "run"))
    with pytest.raises(InputError, match="is not a file"):
        train("projected", configure("projected", "new", model={**own, "backbone_weights": "missing.pth"}))


def test_few_pictures_are_warned_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = str(tmp_path / "store")
    cli.run(["encode", "--data", "scenes:12@32", "--autoencoder", "pixels", "--size", "32", "--out", store])
    cli.run(["train", "--store", store, "--out", str(tmp_path / "run"), "--kimg", "0.004", "--batch-size", "4"])
    said = capsys.readouterr()
    assert "12 pictures" in said.err
    assert "projected on 12 pictures of 32 px" in said.out
    assert "--batch-size" in said.out
