"""LRM GAN has the published sizes, its stages share their colours, and its metadata are a function of z."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from data.advice import Action, Advice
from data.errors import InputError, MismatchError, UsageError
from data.latents import LatentStore
from data.store.writer import LatentWriter
from stage2_codegen.configs.lrm import LRMConfig
from stage2_codegen.modules import LongRange, SelfAttention
from stage2_codegen.picture_vectors import Standardiser, bank_rows, pooled, save_bank
from stage2_codegen.variants import lrm
from stage2_codegen.variants.contract import CodeShape
from stage2_codegen.variants.lrm import (
    Critic,
    Generator,
    MultiStageLoss,
    Residual,
    colour_consistency,
    condition,
    long_range_side,
)

pytestmark = pytest.mark.usefixtures("single_thread")

TINY: dict[str, Any] = {"width": 2, "critic_width": 2, "z_dim": 8, "metadata_dim": 8, "metadata_rows": 6}
PAPER: CodeShape = (3, 256, 256)
CODES: CodeShape = (4, 32, 32)


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def on_meta(**fields: Any) -> Generator:
    with torch.device("meta"):
        return Generator(PAPER, LRMConfig(**fields))


@pytest.mark.parametrize("code_shape", [(16, 16, 16), (64, 16, 16), (16, 32, 32), (1, 64, 64), (3, 128, 128), PAPER])
def test_three_stages_of_codes_and_three_scores_at_every_side(code_shape: CodeShape) -> None:
    torch.manual_seed(0)
    channels, side, _ = code_shape
    G, critic = Generator(code_shape, LRMConfig(**TINY)), Critic(code_shape, LRMConfig(**TINY))
    stages = G.judged(torch.randn(2, G.z_dim))
    assert [tuple(codes.shape) for codes in stages] == [(2, channels, s, s) for s in (side // 4, side // 2, side)]
    assert all(codes.abs().max() <= 1 for codes in stages)
    assert critic(stages).shape == critic(torch.randn(2, *code_shape)).shape == (2, 3)


def test_sizes_are_the_published_ones() -> None:
    """7.0 M and 7.6 M at 256 x 256 (table 1); exact for the layout that the docstring names.

    The module at 32 x 32 has four 1 x 1 convolutions of 64 x 64 and weights for 1024 positions and 64 channels; to
    join by concatenation triples what the next convolution of 64 -> 64 reads.
    """
    batch_norm = 2 * 64
    plain = 7_072_616 + batch_norm
    assert count(on_meta(long_range="none")) == plain
    assert count(on_meta(merge="sum")) == plain + 4 * 64 * 64 + 1024 + 64
    assert count(on_meta()) == plain + 4 * 64 * 64 + 1024 + 64 + 2 * 9 * 64 * 64
    assert 7.0e6 < count(on_meta()) < 7.2e6
    assert count(on_meta(long_range="residual")) - plain == 110_592  # "a similar number of parameters"
    with torch.device("meta"):
        assert count(Critic(PAPER, LRMConfig())) == 7_592_579


@pytest.mark.parametrize("stages", [1, 2, 4])
def test_the_number_of_stages_can_be_chosen(stages: int) -> None:
    config = LRMConfig(**TINY, stages=stages)
    G, critic = Generator(CODES, config), Critic(CODES, config)
    judged = G.judged(torch.randn(2, G.z_dim))
    assert [codes.shape[-1] for codes in judged] == [32 >> stage for stage in reversed(range(stages))]
    assert critic(judged).shape == critic(torch.randn(2, *CODES)).shape == (2, stages)
    loss, logs = MultiStageLoss(config).generator_loss(critic, torch.randn(2, *CODES), judged)
    assert loss.isfinite()
    assert bool(logs["loss/colour"] > 0) == (stages > 1)


def test_more_stages_than_maps_are_refused() -> None:
    with pytest.raises(UsageError, match="stages 5: codes of 32 x 32 have 4 maps"):
        Generator(CODES, LRMConfig(**TINY, stages=5))


def test_without_metadata_only_what_reads_it_is_gone() -> None:
    embedding, dense = 512 * 128 + 128, 128 * 2 * 512 * 16
    assert count(on_meta()) - count(on_meta(metadata_dim=0)) == embedding + dense
    assert (on_meta().z_dim, on_meta(metadata_dim=0).z_dim) == (101, 100)


def test_heads_of_codes_read_twice_their_channels() -> None:
    with torch.device("meta"):
        G = Generator((16, 256, 256), LRMConfig(long_range="none"))
    reads = [next(layer.in_channels for layer in head.modules() if isinstance(layer, nn.Conv2d)) for head in G.heads]
    assert reads == [32, 32, 32]
    assert [on_meta().heads[stage].get_submodule("0").in_channels for stage in range(3)] == [32, 16, 8]


def test_standardised_codes_are_not_bounded() -> None:
    heads = Generator(CODES, LRMConfig(**TINY, standardise=True)).heads
    assert not any(isinstance(layer, nn.Tanh) for layer in heads.modules())


def test_codes_are_the_last_stage() -> None:
    G = Generator(CODES, LRMConfig(**TINY)).eval()
    z = torch.randn(2, G.z_dim)
    torch.testing.assert_close(G(z), G.judged(z)[-1])


@pytest.mark.parametrize(
    ("name", "kind"), [("lrm", LongRange), ("none", None), ("residual", Residual), ("attention", SelfAttention)]
)
def test_each_ablation_swaps_the_module_alone(name: Any, kind: type[nn.Module] | None) -> None:
    full, ablated = (Generator(CODES, LRMConfig(**TINY, long_range=choice)) for choice in ("lrm", name))
    kinds = [[type(layer) for layer in G.modules()] for G in (full, ablated)]
    for norm in (nn.InstanceNorm2d, nn.BatchNorm2d, nn.BatchNorm1d):
        blocks = [sum(issubclass(k, norm) for k in each) for each in kinds]
        assert blocks[1] - blocks[0] == (2 if (name, norm) == ("residual", nn.InstanceNorm2d) else 0)
    for other in (LongRange, SelfAttention):
        assert kinds[1].count(other) == (other is kind)
    assert kinds[1].count(Residual) == 4 + (kind is Residual)
    assert ablated(torch.randn(2, ablated.z_dim)).shape == (2, *CODES)


@pytest.mark.parametrize("relation", ["matmul", "pairwise"])
@pytest.mark.parametrize("merge", ["concat", "gated", "sum"])
def test_every_form_of_the_module_fits(relation: Any, merge: Any) -> None:
    G = Generator(CODES, LRMConfig(**TINY, relation=relation, merge=merge))
    assert G(torch.randn(2, G.z_dim)).isfinite().all()


@pytest.mark.parametrize(("side", "expected"), [(16, 8), (32, 16), (64, 32), (128, 32), (256, 32)])
def test_the_module_stands_at_32_where_an_up_block_follows(side: int, expected: int) -> None:
    assert long_range_side(side, LRMConfig()) == expected


@pytest.mark.parametrize("size", [4, 8, 32])
def test_the_module_goes_to_the_named_map(size: int) -> None:
    G = Generator(CODES, LRMConfig(**TINY, long_range_size=size))
    seen: list[int] = []
    module = next(layer for layer in G.modules() if isinstance(layer, LongRange))
    module.register_forward_hook(lambda _module, inputs, _output: seen.append(inputs[0].shape[-1]))
    G(torch.randn(2, G.z_dim))
    assert seen == [size]


def effect_of_a_constant(merge: Any) -> float:
    """Mean change of the codes, away from the border, when the spatial branch gives each sample another constant."""
    torch.manual_seed(0)
    G = Generator(CODES, LRMConfig(**TINY, merge=merge))
    spatial = next(layer for layer in G.modules() if isinstance(layer, LongRange)).spatial
    z, before = torch.randn(8, G.z_dim), []
    constants = torch.randn(8, 1, 1, 1)
    for weight in (0, 1):
        handle = spatial.register_forward_hook(lambda _module, _inputs, output, w=weight: output + w * constants)
        before.append(G(z)[:, :, 12:20, 12:20])
        handle.remove()
    return (before[0] - before[1]).abs().mean().item()


@pytest.mark.parametrize("merge", ["concat", "sum"])
def test_codes_depend_on_the_constant_that_the_spatial_branch_adds(merge: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Instance norm after the module would leave next to nothing of it, only what zero padding does at the border."""
    effect = effect_of_a_constant(merge)
    monkeypatch.setattr(lrm, "batch_norm", lrm.instance_norm)
    assert effect > 0.003
    assert effect > 3 * effect_of_a_constant(merge)


def test_codes_depend_on_the_spatial_branch() -> None:
    torch.manual_seed(0)
    G = Generator(CODES, LRMConfig(**TINY))
    spatial, z = next(layer for layer in G.modules() if isinstance(layer, LongRange)).spatial, torch.randn(4, G.z_dim)
    whole = G(z)
    spatial.register_forward_hook(lambda _module, _inputs, output: torch.zeros_like(output))
    assert (G(z) - whole).abs().mean() > 0.02


@pytest.mark.parametrize("stage", [0, 1, 2])
def test_each_score_judges_its_own_stage(stage: int) -> None:
    critic = Critic(CODES, LRMConfig(**TINY)).eval()
    stages = tuple(torch.randn(2, 4, side, side) for side in (8, 16, 32))
    changed = tuple(codes + (index == stage) for index, codes in enumerate(stages))
    assert [bool(moved) for moved in (critic(stages) != critic(changed)).any(0)] == [i == stage for i in range(3)]


def test_the_lower_reals_are_every_second_and_fourth_entry() -> None:
    critic, real = Critic(CODES, LRMConfig(**TINY)).eval(), torch.randn(2, *CODES)
    pick = [[[[row[::step] for row in plane[::step]] for plane in x] for x in real.tolist()] for step in (4, 2, 1)]
    torch.testing.assert_close(critic(real), critic(tuple(map(torch.tensor, pick))))


def naive_colour_consistency(lower: Tensor, upper: Tensor, divide: bool) -> float:
    """Eq. 1 with lambda 1 and 5, pixel by pixel."""
    total = 0.0
    for pair in zip(lower.numpy(), upper.numpy(), strict=True):
        means, covariances = [], []
        for codes in pair:
            pixels = [codes[:, i, j] for i in range(codes.shape[1]) for j in range(codes.shape[2])]
            mean = sum(pixels) / len(pixels)
            means.append(mean)
            covariances.append(sum(np.outer(p - mean, p - mean) for p in pixels) / len(pixels))
        size = len(means[0]) if divide else 1
        total += np.sum((means[0] - means[1]) ** 2) / size
        total += 5 * np.sum((covariances[0] - covariances[1]) ** 2) / size**2
    return total / len(lower)


@pytest.mark.parametrize("reduction", ["mean", "norm"])
def test_colour_consistency_is_eq_1(reduction: Any) -> None:
    torch.manual_seed(0)
    lower, upper = (torch.randn(3, 5, side, side, dtype=torch.float64) for side in (4, 8))
    expected = naive_colour_consistency(lower, upper, divide=reduction == "mean")
    assert colour_consistency(lower, upper, LRMConfig(colour_reduction=reduction)).item() == pytest.approx(
        expected, rel=1e-10
    )


@pytest.mark.parametrize(("reduction", "divisor"), [("norm", 1), ("mean", 6)])
def test_colour_consistency_of_an_enlarged_shifted_or_stretched_copy(reduction: Any, divisor: int) -> None:
    torch.manual_seed(0)
    config = LRMConfig(mean_weight=3, colour_reduction=reduction)
    lower = torch.randn(1, 6, 4, 4, dtype=torch.float64)
    upper = F.interpolate(lower, scale_factor=2)
    assert colour_consistency(lower, upper, config).item() == pytest.approx(0, abs=1e-20)
    shift = torch.randn(6, 1, 1, dtype=torch.float64)
    shifted = colour_consistency(lower, upper + shift, config)
    torch.testing.assert_close(shifted, 3 * shift.square().sum() / divisor)
    centred = lower - lower.mean((2, 3), keepdim=True)
    covariance = torch.cov(centred[0].flatten(1), correction=0)
    stretched = colour_consistency(centred, 1.5 * centred, config)
    torch.testing.assert_close(stretched, 5 * (1.5**2 - 1) ** 2 * covariance.square().sum() / divisor**2)


def test_colour_consistency_moves_the_upper_stage_alone() -> None:
    lower, upper = torch.randn(2, 3, 4, 4, requires_grad=True), torch.randn(2, 3, 8, 8, requires_grad=True)
    colour_consistency(lower, upper, LRMConfig()).backward()
    assert lower.grad is None
    assert upper.grad is not None


def test_losses_are_eqs_4_and_5() -> None:
    """Half of each stage's log-likelihoods, added, and 50 times the consistency of stages 2 and 3."""
    torch.manual_seed(0)
    scores = {"real": torch.randn(5, 3), "fake": torch.randn(5, 3)}
    fake = tuple(torch.randn(5, 4, side, side) for side in (4, 8, 16))

    def critic(judged: Any) -> Tensor:
        return scores["fake" if isinstance(judged, tuple) else "real"]

    objective = MultiStageLoss(LRMConfig())
    critic_loss, logs = objective.critic_loss(critic, torch.randn(5, 4, 16, 16), fake)
    real, generated = scores["real"].sigmoid(), scores["fake"].sigmoid()
    stages = [-0.5 * real[:, k].log().mean() - 0.5 * (1 - generated[:, k]).log().mean() for k in range(3)]
    torch.testing.assert_close(critic_loss, stages[0] + stages[1] + stages[2])
    assert logs.keys() == {"score/real", "score/fake"}
    generator_loss, logs = objective.generator_loss(critic, torch.randn(5, 4, 16, 16), fake)
    colour = torch.stack([colour_consistency(lower, upper, LRMConfig()) for lower, upper in pairwise(fake)]).sum()
    stages = [-0.5 * generated[:, k].log().mean() for k in range(3)]
    torch.testing.assert_close(generator_loss, stages[0] + stages[1] + stages[2] + 50 * colour)
    torch.testing.assert_close(logs["loss/colour"], colour)


def test_bf16_and_training_reach_every_weight() -> None:
    torch.manual_seed(0)
    G, critic = Generator(CODES, LRMConfig(**TINY)), Critic(CODES, LRMConfig(**TINY))
    objective = MultiStageLoss(LRMConfig(**TINY))
    with torch.autocast("cpu", torch.bfloat16):
        fake = G.judged(torch.randn(4, G.z_dim))
        loss, _ = objective.generator_loss(critic, torch.randn(4, *CODES), fake)
    assert loss.dtype == torch.float32
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in [*G.parameters(), *critic.parameters()])


# --- metadata ---


def test_every_row_has_the_same_share_of_the_normal_distribution() -> None:
    G = Generator(CODES, LRMConfig(**TINY))
    middles = torch.special.ndtri((torch.arange(6) + 0.5) / 6)
    assert G.row(middles).tolist() == list(range(6))
    assert G.row(torch.tensor([-9.0, -float("inf"), 9.0, float("inf")])).tolist() == [0, 0, 5, 5]


def test_the_last_entry_of_z_picks_a_row_and_nothing_else() -> None:
    """Two values inside a row's share give the same codes; another row's vector gives others."""
    G = Generator(CODES, LRMConfig(**TINY)).eval()
    z = torch.randn(1, G.z_dim).repeat(3, 1)
    z[:, -1] = torch.special.ndtri(torch.tensor([0.18, 0.32, 0.4]))  # rows 1, 1 and 2 of 6
    codes = G(z)
    torch.testing.assert_close(codes[0], codes[1], rtol=0, atol=0)
    assert (codes[0] - codes[2]).abs().max() > 1e-4
    G.bank[2] = G.bank[1]
    torch.testing.assert_close(G(z[2:]), codes[:1])


def test_a_bare_bank_is_fixed_whatever_the_seed() -> None:
    banks = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        banks.append(Generator(CODES, LRMConfig(**TINY)).bank)
    assert torch.equal(*banks)
    assert len(banks[0].unique(dim=0)) == 6


COUNT = 10
LATENTS = np.random.default_rng(0).uniform(-1, 1, (COUNT, 4, 32, 32)).astype(np.float32)
LATENTS *= np.linspace(0.2, 1, COUNT, dtype=np.float32)[:, None, None, None]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> LatentStore:
    path = tmp_path_factory.mktemp("lrm") / "store"
    metadata = {"fingerprint": "f" * 32, "image_size": 128, "data": ["photos"], "data_fingerprint": "d" * 32}
    writer = LatentWriter(path, COUNT, CODES, "float32", metadata, shard_rows=3)
    for shard in writer.missing_shards():
        writer.write_shard(shard, LATENTS[writer.rows_of(shard)])
    writer.seal([str(row) for row in range(COUNT)])
    return LatentStore.open(path)


@pytest.mark.parametrize(
    ("rows", "images"),
    [(5, [0, 2, 4, 6, 8]), (10, list(range(10))), (15, [0, 0, 1, 2, 2, 3, 4, 4, 5, 6, 6, 7, 8, 8, 9])],
)
def test_without_a_bank_the_stores_own_latents_are_pooled(store: LatentStore, rows: int, images: list[int]) -> None:
    """Mean and deviation of every channel, standardised over the rows, zeros up to the width.

    They have the norm of vectors as long as the width: 11 entries' worth in 8.
    """
    config = LRMConfig(**{**TINY, "metadata_dim": 11, "metadata_rows": rows})
    G = Generator(CODES, config)
    condition(G, store, config)
    chosen = LATENTS[images].astype(np.float64)
    pooled = np.concatenate([chosen.mean((2, 3)), chosen.std((2, 3))], 1)
    expected = np.pad((11 / 8) ** 0.5 * (pooled - pooled.mean(0)) / pooled.std(0), ((0, 0), (0, 3)))
    np.testing.assert_allclose(G.bank, expected, rtol=1e-3, atol=1e-4)
    restored = Generator(CODES, config)
    restored.load_state_dict(G.state_dict())
    assert torch.equal(restored.bank, G.bank)


def test_pooled_latents_reach_the_generator_at_full_strength(store: LatentStore) -> None:
    """8 entries in a width of 128 move what the generator reads as much as 128 entries would."""
    config = LRMConfig(**{**TINY, "metadata_dim": 128, "metadata_rows": COUNT})
    G = Generator(CODES, config)
    condition(G, store, config)
    read = (G.bank @ G.metadata.weight.T).square().mean().sqrt().item()
    assert read == pytest.approx(1, rel=0.1)


def test_a_picture_takes_the_place_of_the_bank(store: LatentStore) -> None:
    config = LRMConfig(**{**TINY, "metadata_dim": 11, "metadata_rows": COUNT})
    G = Generator(CODES, config).eval()
    z = torch.randn(3, G.z_dim)
    with pytest.raises(UsageError, match="does not know how"):
        G.like(torch.zeros(8))
    condition(G, store, config)
    row = 7
    liking = G.like(pooled(torch.from_numpy(LATENTS[[row]]))[0])
    z_of_row = z.clone()
    z_of_row[:, -1] = torch.special.ndtri(torch.tensor((row + 0.5) / COUNT))
    torch.testing.assert_close(liking(z), G(z_of_row), rtol=1e-4, atol=1e-5)  # the picture of that row
    assert liking(z).unique(dim=0).shape[0] == 3  # several samples of one picture
    with pytest.raises(UsageError, match="vectors of 8 entries, and the picture has 7"):
        G.like(torch.zeros(7))
    with pytest.raises(UsageError, match="not given pictures"):
        Generator(CODES, LRMConfig(**{**TINY, "metadata_dim": 0})).like(torch.zeros(8))


def test_weights_of_an_earlier_version_load_without_a_standardiser(store: LatentStore) -> None:
    config = LRMConfig(**TINY)
    G = Generator(CODES, config)
    earlier = {name: value for name, value in G.state_dict().items() if not name.startswith("standardiser.")}
    condition(G, store, LRMConfig(**{**TINY, "metadata_rows": 6}))
    G.load_state_dict(earlier)
    assert torch.equal(G.bank, earlier["bank"])
    assert int(G.standardiser.length) == 0


def test_without_metadata_there_is_nothing_to_fill(store: LatentStore) -> None:
    config = LRMConfig(**{**TINY, "metadata_dim": 0})
    G = Generator(CODES, config)
    condition(G, store, config)
    assert G.z_dim == 8
    assert G(torch.randn(2, 8)).shape == (2, *CODES)


def test_a_bank_of_the_same_images_is_used_and_another_is_refused(store: LatentStore, tmp_path: Path) -> None:
    vectors = torch.randn(COUNT, 7, dtype=torch.float64)
    vectors[:, 3] = 0.25  # tells nothing
    save_bank(tmp_path / "bank", vectors, {"data_fingerprint": "d" * 32})
    rows = bank_rows(store, str(tmp_path / "bank"), 5)
    torch.testing.assert_close(rows, vectors[::2])
    standardiser = Standardiser(8)
    standardiser.fit(rows)
    expected = (8 / 7) ** 0.5 * (vectors[::2] - vectors[::2].mean(0)) / vectors[::2].std(0, correction=0)
    expected[:, 3] = 0
    torch.testing.assert_close(standardiser(rows), F.pad(expected, (0, 1)).float())
    assert standardiser(rows + torch.eye(7)[3])[:, 3].eq(0).all()  # where all pictures agree, another one tells nothing
    save_bank(tmp_path / "other", vectors, {"data_fingerprint": "e" * 32})
    with pytest.raises(MismatchError, match="other images") as caught:
        bank_rows(store, str(tmp_path / "other"), 5)
    assert caught.value.advice == Advice(Action.DESCRIBE_IMAGES, {"store": store.path})
    assert caught.value.exit_code == 4
    with pytest.raises(InputError, match="no vectors"):
        bank_rows(store, str(tmp_path / "missing"), 5)
    with pytest.raises(MismatchError, match="not a bank"):
        bank_rows(store, str(store.path), 5)
    with pytest.raises(UsageError) as refused:
        Standardiser(6).fit(rows)
    assert "--model.metadata-dim 7" in refused.value.fix


@pytest.mark.parametrize("fields", [{"metadata_rows": 0}, {"metadata_dim": 0, "metadata": "bank"}])
def test_senseless_configurations_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        Generator(CODES, LRMConfig(**{**TINY, **fields}))


def test_a_map_that_is_not_there_is_refused_with_those_that_are() -> None:
    with pytest.raises(UsageError) as caught:
        Generator(CODES, LRMConfig(**TINY, long_range_size=64))
    assert "4, 8, 16, 32" in caught.value.fix
