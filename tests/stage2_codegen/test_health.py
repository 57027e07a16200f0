"""A sick training is told from a well one, once, and looking at it changes nothing."""

import itertools
import math
from statistics import fmean

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stage1_autoencoder.networks import Autoencoder
from stage2_codegen.codes import CodeScale
from stage2_codegen.health import Health, HealthCheck, measure, unevenness
from stage2_codegen.image_generator import ImageGenerator
from stage2_codegen.variants.contract import Batch, CodeGenerator

SHAPE = (3, 4, 4)


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def codes(count: int = 64) -> Tensor:
    return torch.randn(count, *SHAPE)


def scores(mean: float, deviation: float = 1.0) -> Tensor:
    """(64, 2) whose mean over columns has exactly this mean and deviation."""
    spread = torch.linspace(-1, 1, 64, dtype=torch.float64)
    values = mean + deviation * (spread - spread.mean()) / spread.std(correction=0)
    return torch.stack([values + 1, values - 1], 1)


def test_the_numbers_of_a_generator_as_good_as_the_data() -> None:
    health = measure(codes(), codes(), scores(1), scores(1))
    assert health.pairwise_ratio == pytest.approx(1, abs=0.05)
    assert health.channel_shift < 0.2
    assert health.critic_gap == pytest.approx(0, abs=1e-6)


def test_the_ratio_is_that_of_mean_distances_over_pairs() -> None:
    fake, real = codes(5), codes(7)

    def mean_distance(batch: Tensor) -> float:
        rows = batch.flatten(1).double().tolist()
        pairs = [(a, b) for i, a in enumerate(rows) for b in rows[:i]]
        return sum(math.dist(a, b) for a, b in pairs) / len(pairs)

    ratio = measure(fake, real, scores(0), scores(0)).pairwise_ratio
    assert ratio == pytest.approx(mean_distance(fake) / mean_distance(real), rel=1e-5)
    shrunk = measure(fake[:1] + 0.1 * fake, fake, scores(0), scores(0)).pairwise_ratio
    assert shrunk == pytest.approx(0.1, rel=1e-4)


def test_the_shift_is_the_worst_channel_s_in_real_deviations() -> None:
    real = 2 * codes()
    real = (real - real.mean((0, 2, 3), keepdim=True)) / real.std((0, 2, 3), correction=0, keepdim=True)
    moved, widened = real.clone(), real.clone()
    moved[:, 1] += 0.75
    widened[:, 2] *= 3
    assert measure(moved, real, scores(0), scores(0)).channel_shift == pytest.approx(0.75, rel=1e-4)
    assert measure(widened, real, scores(0), scores(0)).channel_shift == pytest.approx(2, rel=1e-4)


@pytest.mark.parametrize("unit", [1.0, 1000.0])
def test_the_gap_is_in_deviations_whatever_the_unit_of_the_scores(unit: float) -> None:
    health = measure(codes(), codes(), unit * scores(-2), unit * scores(3, 7**0.5))
    assert health.critic_gap == pytest.approx(5 / 2, rel=1e-4)  # the mean variance is (1 + 7) / 2


def test_one_sample_and_constant_codes_are_no_division_by_zero() -> None:
    constant = torch.zeros(64, *SHAPE)
    for fake, real in ((codes(1), codes(1)), (constant, constant), (codes(), constant)):
        health = measure(fake, real, scores(0, 0), scores(0, 0))
        assert all(map(math.isfinite, health.to_metrics().values()))


class Given(CodeGenerator):
    """Gives the codes it holds, and draws noise as some generators do."""

    z_dim = 2

    def __init__(self, codes: Tensor) -> None:
        super().__init__()
        self.codes = nn.Parameter(codes, requires_grad=False)

    def forward(self, z: Tensor) -> Tensor:
        return self.codes[z[:, 0].long()] + 0 * torch.randn(len(z), 1, 1, 1)


PIXELS = Autoencoder.built_in("pixels")
AS_STORED = CodeScale((0.0,) * 3, (1.0,) * 3)


def check_of(fake: Tensor | CodeGenerator, critic: nn.Module, real: Tensor) -> HealthCheck:
    generator = Given(fake) if isinstance(fake, Tensor) else fake
    return HealthCheck(ImageGenerator(generator, AS_STORED, PIXELS, 4), critic, rows_of(len(real)), Batch(real))


def rows_of(count: int) -> Tensor:
    """z that asks `Given` for each of its codes."""
    return torch.arange(count).float()[:, None].expand(-1, 2)


def normed_critic() -> nn.Module:
    norm = nn.BatchNorm2d(3)
    return nn.Sequential(norm, nn.Flatten(), nn.utils.parametrizations.spectral_norm(nn.Linear(48, 1)))


def test_looking_moves_neither_networks_nor_random_numbers() -> None:
    critic = normed_critic().train()
    check = check_of(codes(), critic, codes())
    before = {key: value.clone() for key, value in critic.state_dict().items()}
    random = torch.get_rng_state()
    assert check() == check()
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(value, before[key]) for key, value in critic.state_dict().items())
    assert all(module.training for module in critic.modules())


def test_several_scales_are_judged_together_and_the_last_is_measured() -> None:
    real = codes()

    class Coarse(Given):
        def judged(self, z: Tensor) -> tuple[Tensor, ...]:
            return torch.zeros(len(z), 3, 2, 2), self(z)

    class Both(nn.Module):
        def forward(self, judged: Tensor | tuple[Tensor, ...]) -> Tensor:
            last = judged if isinstance(judged, Tensor) else judged[-1]
            return last.flatten(1)[:, :1] + (3.0 if isinstance(judged, tuple) else 0.0)

    health = check_of(Coarse(real), Both(), real)()
    assert (health.pairwise_ratio, health.channel_shift) == (pytest.approx(1), pytest.approx(0, abs=1e-6))
    assert health.critic_gap == pytest.approx(-3 / real.flatten(1)[:, 0].std(correction=0).item(), rel=1e-4)


def test_a_collapse_is_said_at_the_second_snapshot_once_until_it_recovers(capsys: pytest.CaptureFixture[str]) -> None:
    real = codes()
    check = check_of(real[:1] + 0.05 * codes(), normed_critic(), real)

    def said() -> str:
        check()
        return capsys.readouterr().err

    assert said() == ""
    warning, advice = said().splitlines()
    assert warning.startswith("warning: samples are nearly equal: 5%")
    assert advice.startswith("  try: another --seed")
    assert said() == ""
    generator = check.previews.generator
    check.previews.generator = Given(codes())
    assert said() == ""
    check.previews.generator = generator
    assert [bool(said()) for _ in range(3)] == [False, True, False]


def test_a_resumed_run_warns_like_one_that_never_stopped(capsys: pytest.CaptureFixture[str]) -> None:
    real = codes()
    before, resumed = (check_of(real[:1] + 0.05 * codes(), normed_critic(), real) for _ in range(2))
    rows = [{"nimg": 8, "loss/g": 1.0}, {"nimg": 8, **before().to_metrics()}]
    assert capsys.readouterr().err == ""
    resumed.remember(rows)
    resumed()
    assert "samples are nearly equal" in capsys.readouterr().err
    resumed.remember([])  # a rollback to the start
    resumed()
    assert capsys.readouterr().err == ""


def test_a_channel_that_hardly_varies_is_not_what_is_shifted() -> None:
    real = codes()
    real[:, 0] = 0.5
    fake = real.clone()
    fake[:, 0] += 0.001
    fake[:, 1] += 0.75 * real[:, 1].std(correction=0)
    assert measure(fake, real, scores(0), scores(0)).channel_shift == pytest.approx(0.75, rel=1e-4)


def test_shifts_and_a_growing_gap_of_a_perfect_critic_are_said(capsys: pytest.CaptureFixture[str]) -> None:
    class Gain(nn.Module):
        """Scores real codes, which are positive in the first entry, above the others by a gap that grows."""

        gap = 0.0

        def forward(self, x: Tensor) -> Tensor:
            self.gap += 1
            return self.gap * x.flatten(1)[:, :1].sign() + x.flatten(1)[:, 1:2]

    real, fake = codes(), codes() + torch.tensor([0.0, 2.0, 0.0])[:, None, None]
    real[:, 0, 0, 0], fake[:, 0, 0, 0] = 1, -1
    critic = Gain()
    critic.gap = 10
    check = check_of(fake, critic, real)
    first = check()
    assert first.channel_shift > 1.5
    assert first.critic_gap > 8
    check()
    check()
    said = capsys.readouterr().err
    assert said.count("a channel of the samples is 2.") == 1
    assert said.count("the critic tells all samples from real codes") == 1
    assert said.count("  try: ") == 2


def test_a_gap_that_stands_still_is_no_news(capsys: pytest.CaptureFixture[str]) -> None:
    class Fixed(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return 100 * x.flatten(1)[:, :1].sign() + x.flatten(1)[:, 1:2]

    real, fake = codes(), codes()
    real[:, 0, 0, 0], fake[:, 0, 0, 0] = 1, -1
    check = check_of(fake, Fixed(), real)
    assert all(check().critic_gap > 8 for _ in range(4))
    assert capsys.readouterr().err == ""


def test_metrics_carry_the_group_s_name_and_are_read_again_with_or_without_a_grid() -> None:
    three = {"health/pairwise_ratio": 1.0, "health/channel_shift": 2.0, "health/critic_gap": 3.0}
    for row in (three, three | {"health/grid": 4.0}):
        health = Health.of({"nimg": 8, **row})
        assert health is not None
        assert health.grid == row.get("health/grid")
        assert health.to_metrics() == row
    assert Health.of({"nimg": 8, "loss/g": 1.0}) is None
    assert Health.of({"health/grid": 4.0}) is None


def pictures(count: int = 16, side: int = 32) -> Tensor:
    """Blurred noise, which is alike everywhere."""
    return F.avg_pool2d(0.5 * torch.randn(count, 3, side + 4, side + 4), 5, stride=1)


@pytest.mark.parametrize("factor", [2, 4])
def test_unevenness_is_the_largest_mean_squared_step_of_a_place_over_the_smallest(factor: int) -> None:
    batches = [torch.rand(2, 3, 8, 8) * 2 - 1, torch.rand(2, 3, 8, 8) * 2 - 1]
    steps: list[list[float]] = [[] for _ in range(factor)]
    for plane in torch.cat(batches).double().flatten(0, 1).tolist():
        for lines in (plane, list(zip(*plane, strict=True))):
            for line in lines:
                for x, (left, right) in enumerate(itertools.pairwise(line)):
                    steps[x % factor].append((right - left) ** 2)
    means = [fmean(of_place) + (2 / 255) ** 2 for of_place in steps]
    assert unevenness(batches, factor) == pytest.approx(max(means) / min(means), rel=1e-5)


@pytest.mark.parametrize("shift", [0, 1, 2])
def test_a_grid_is_seen_wherever_in_the_patches_its_lines_are(shift: int) -> None:
    images = pictures()
    offsets = F.interpolate(torch.randn(16, 3, 8, 8), scale_factor=4).roll((shift, shift), (-2, -1))
    plain, faint, strong = (unevenness([images + size * offsets], 4) for size in (0.0, 0.03, 0.15))
    assert 1 <= plain < 1.1
    assert 1.25 < faint < 2
    assert strong > 5
    assert unevenness([images + 0.1 * F.interpolate(torch.randn(16, 3, 4, 4), scale_factor=8)], 8) > 5


def test_a_grid_that_8_bits_cannot_show_is_none() -> None:
    flat = torch.zeros(1, 3, 8, 8)
    lines = torch.ones(8).index_fill(0, torch.arange(4), -1.0)
    assert unevenness([flat], 4) == 1
    assert unevenness([flat + 0.1 / 255 * lines], 4) < 1.01
    assert unevenness([flat + 10 / 255 * lines], 4) > 10


def test_the_grid_of_a_run_is_that_of_its_decoded_samples_over_real_ones() -> None:
    autoencoder, scale = Autoencoder(4, 24, 4).eval(), CodeScale((0.1,) * 24, (0.5,) * 24)
    with torch.no_grad():
        real = scale.to_codes(autoencoder.encode(pictures(64)))
    other = real.flatten(2)[:, :, torch.randperm(64)].view_as(real)  # patches of a picture in another order

    def grid_of(fake: Tensor) -> float | None:
        previews = ImageGenerator(Given(fake), scale, autoencoder, 32)
        return HealthCheck(
            previews, nn.Sequential(nn.Flatten(), nn.Linear(24 * 64, 1)), rows_of(64), Batch(real)
        )().grid

    assert grid_of(real) == pytest.approx(1, abs=1e-6)
    shown = [autoencoder.decode((0.5 * codes[::4] + 0.1).clamp(-1, 1)).detach() for codes in (other, real)]
    assert grid_of(other) == pytest.approx(unevenness(shown[:1], 4) / unevenness(shown[1:], 4), rel=1e-4)
    assert unevenness(shown[:1], 4) > 1.5 * unevenness(shown[1:], 4)
    assert check_of(codes(), normed_critic(), codes())().grid is None  # of pixels
