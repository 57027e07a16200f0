"""The health of a training: four numbers at every snapshot, and advice when one of them is bad.

    pairwise_ratio  mean distance between two generated codes, relative to that between two real ones
    channel_shift   the largest difference between generated and real codes in a channel's mean or deviation, in units
                    of the real deviation
    critic_gap      mean score of real codes minus that of generated ones, in deviations of the scores around them
    grid            how unevenly the differences of neighbouring pixels are spread over the patches of decoded codes
                    (see `unevenness`), relative to real codes; pixels have no patches and so no grid

The thresholds are where the numbers leave no doubt, not where quality starts to suffer:

    pairwise_ratio < 0.4   Runs that work have 0.7 to 1 after some thousand samples, blurred ones 0.5. Below 0.4 the
                           samples have under a sixth of the variance of the data.
    channel_shift > 1.5    Runs that work have 0.5 to 0.9 while they settle. A shift of 1.5 is a colour cast or a wrong
                           contrast in every picture, and cannot happen by chance in 64 samples.
    critic_gap > 8         Runs that work have 1 to 5. At 8 the midpoint is four deviations from either mean, and
                           separates the two kinds with one error in 30,000: the critic's answer is always the same, and
                           a generator can learn little from it. Only a gap that has grown since the last snapshot
                           counts, because some objectives drive scores to two fixed values and keep them there.

Every run passes through such states at its start, so a warning appears at the second snapshot in a row, once until the
number recovers. The grid has no threshold, because no advice against it has been tested. Sixteen decoded photographs of
64 px differ from sixteen others by a factor of up to 1.05; samples with a visible grid had 1.6 to 4.5.
"""

import math
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn

from data.console import warn
from stage2_codegen.image_generator import ImageGenerator
from stage2_codegen.losses import Judge
from stage2_codegen.variants.contract import Batch, Judged

SAMPLES = 64
_AT_A_TIME = 16
_DECODED = 4  # one sample in four is decoded: decoders are slow on a CPU, and a picture has many patches
_LEVEL = 2 / 255  # the step between two of 256 levels, for pixels in [-1, 1]
_COLLAPSED, _SHIFTED, _PERFECT = 0.4, 1.5, 8.0


class Health(NamedTuple):
    """The four numbers, which the module's docstring explains."""

    pairwise_ratio: float
    channel_shift: float
    critic_gap: float
    grid: float | None = None  # None without patches, and in rows from before it was measured

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Self | None:
        """Read a row of metrics.jsonl; None for a row of another kind."""
        known = {name: row[f"health/{name}"] for name in cls._fields if f"health/{name}" in row}
        return cls(**known) if known.keys() | cls._field_defaults.keys() == set(cls._fields) else None

    def to_metrics(self) -> dict[str, float]:
        """Return the numbers under their names in metrics.jsonl."""
        return {f"health/{name}": value for name, value in self._asdict().items() if value is not None}


def measure(fake: Tensor, real: Tensor, scores_fake: Tensor, scores_real: Tensor) -> Health:
    """Measure all but the grid, from codes (N, C, H, W) and (M, C, H, W) and their scores (N, k) and (M, k)."""
    ratio = _pairwise_distance(fake) / _pairwise_distance(real).clamp(min=1e-6)
    return Health(ratio.item(), _channel_shift(fake, real).item(), _gap(scores_fake, scores_real).item())


def _pairwise_distance(codes: Tensor) -> Tensor:
    """The mean L2 distance between two of the codes; 0 for fewer than two."""
    distances = torch.pdist(codes.float().flatten(1))
    return distances.sum() / max(1, len(distances))


def _channel_shift(fake: Tensor, real: Tensor) -> Tensor:
    (std_fake, mean_fake), (std_real, mean_real) = (
        torch.std_mean(codes.float(), (0, 2, 3), correction=0) for codes in (fake, real)
    )
    shift = torch.maximum((mean_fake - mean_real).abs(), (std_fake - std_real).abs())
    floor = max(
        1e-6, 0.05 * std_real.max().item()
    )  # a channel that hardly varies may shift by many deviations unnoticed
    return (shift / std_real.clamp(min=floor)).max()


def _gap(scores_fake: Tensor, scores_real: Tensor) -> Tensor:
    """The gap between scores (N, k) and (M, k), where a sample's score is the mean of its columns."""
    fake, real = scores_fake.float().mean(1), scores_real.float().mean(1)
    spread = (fake.var(correction=0) + real.var(correction=0)).div(2).sqrt()
    return (real.mean() - fake.mean()) / spread.clamp(min=1e-6)


def unevenness(images: Iterable[Tensor], factor: int) -> float:
    """Measure the grid in equal batches (n, 3, H, H) in [-1, 1]: 1 where there is none, more the stronger it is.

    The mean squared difference between two neighbouring rows, or columns, of pixels is taken for each of the `factor`
    places that it can have in a patch, and the largest is divided by the smallest.
    """
    # Measures of JPEG's blocks (Wang, Sheikh and Bovik, ICIP 2002) only compare borders with the rest. A decoder of
    # wrong codes may just as well join its patches smoothly and draw an edge through the middle of each. Differences
    # that 8 bits cannot show count as even.
    by_place = torch.stack([_steps(batch, factor) for batch in images]).mean(0) + _LEVEL**2
    return (by_place.max() / by_place.min()).item()


def _steps(images: Tensor, factor: int) -> Tensor:
    """The mean squared difference of neighbours at each place, (factor,), of which the last is across borders."""
    lines = [images.float().diff(dim=dim).square().movedim(dim, 0).flatten(1).mean(1) for dim in (-2, -1)]
    by_place = [torch.stack([line[place::factor].mean() for place in range(factor)]) for line in lines]
    return torch.stack(by_place).mean(0)


class Advisor:
    """Gives advice on the measurements of a run in their order, and remembers what it has said."""

    def __init__(self) -> None:
        self._last_gap = math.inf
        self._bad_in_a_row = {"collapse": 0, "shift": 0, "critic": 0}

    def __call__(self, health: Health) -> list[tuple[str, str]]:
        """Return the advice that is due: pairs of what was seen and what to try."""
        bad = {
            "collapse": health.pairwise_ratio < _COLLAPSED,
            "shift": health.channel_shift > _SHIFTED,
            "critic": health.critic_gap > max(_PERFECT, self._last_gap),
        }
        self._last_gap = health.critic_gap
        for kind, is_bad in bad.items():
            self._bad_in_a_row[kind] = self._bad_in_a_row[kind] + 1 if is_bad else 0
        return [_advice(kind, health) for kind, count in self._bad_in_a_row.items() if count == 2]


class HealthCheck:
    """Measures the averaged generator and the critic, and warns."""

    def __init__(self, previews: ImageGenerator, critic: nn.Module, z: Tensor, real: Batch) -> None:
        """Take `z` (N, z_dim) and M real codes, which stay the same over a run so that its numbers can be compared."""
        self.previews, self.critic, self.z, self.real = previews, critic, z, real
        self.advisor = Advisor()

    def remember(self, rows: Iterable[Mapping[str, float]]) -> None:
        """Take over the rows of metrics.jsonl so far."""
        # A run that is resumed again and again then warns like one that was never stopped.
        self.advisor = Advisor()
        for row in rows:
            if health := Health.of(row):
                self.advisor(health)

    @torch.no_grad()
    def __call__(self) -> Health:
        """Measure, and print warnings to stderr; networks and random numbers stay as they were."""
        was_training = self.critic.training
        self.critic.eval()  # neither its batch statistics nor its singular vectors may move
        device = self.z.device
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(0)  # for generators that draw noise besides z
            judged = [self.previews.generator.judged(z) for z in self.z.split(_AT_A_TIME)]
        fake = torch.cat([codes[-1] if isinstance(codes, tuple) else codes for codes in judged])
        scores_fake = self._scores(judged, self.previews.generator.classes_of(self.z))
        scores_real = self._scores(list(self.real.codes.split(_AT_A_TIME)), self.real.classes)
        health = measure(fake, self.real.codes, scores_fake, scores_real)
        self.critic.train(was_training)
        if self.previews.autoencoder.factor > 1:
            health = health._replace(grid=self._unevenness(fake) / self._real_unevenness)
        for what, fix in self.advisor(health):
            warn(what, fix)
        return health

    def _scores(self, batches: list[Judged], classes: Tensor | None) -> Tensor:
        by_batch = [None] * len(batches) if classes is None else classes.split(_AT_A_TIME)
        pairs = zip(batches, by_batch, strict=True)
        return torch.cat([Judge(self.critic, classes_of_batch)(batch) for batch, classes_of_batch in pairs])

    @cached_property
    def _real_unevenness(self) -> float:
        return self._unevenness(self.real.codes)

    def _unevenness(self, codes: Tensor) -> float:
        """The unevenness of some of the codes."""
        # Decoded one at a time, as previews are, which needs no more memory than they do.
        autoencoder, scale = self.previews.autoencoder, self.previews.scale
        images = (autoencoder.decode(scale.to_latents(code)) for code in codes[::_DECODED].split(1))
        return unevenness(images, autoencoder.factor)


def _advice(kind: str, health: Health) -> tuple[str, str]:
    """Return what was seen, and what to try."""
    return {
        "collapse": (
            f"samples are nearly equal: {health.pairwise_ratio:.0%} of the distance between real ones",
            "another --seed, half of --model.lr and --model.critic-lr, --model.augment translation,cutout, more images",
        ),
        "shift": (
            f"a channel of the samples is {health.channel_shift:.1f} deviations off that of real codes",
            "wait for two more snapshots; if it stays so, half the --model.lr, or --model.standardise",
        ),
        "critic": (
            f"the critic tells all samples from real codes ({health.critic_gap:.0f} deviations apart, and growing)",
            "half the --model.critic-lr, --model.augment translation,cutout, or more images",
        ),
    }[kind]
