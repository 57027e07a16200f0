"""Mode coverage on `scenes:`: which of the things that a scene can be does a generator draw, and how often?

The factors of generated images are not known, so they are named by a small network, trained in seconds on scenes of
another seed. It errs, on real scenes as on the generated ones that are compared with them; its accuracy on held-out
scenes is reported beside every number.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from data.images import to_float
from data.scenes.factors import MAX_OBJECTS, Scenes
from data.scenes.rendering import GROUNDS, SKIES, Scene
from data.scenes.textures import GROUND_TEXTURES
from data.seeds import CLASSIFIER_BATCH, derive_seed
from pipelines.scoring.metrics import Rows
from pipelines.scoring.sets import Images

FACTORS = {
    "sky": len(SKIES),
    "ground": len(GROUNDS),
    "ground_texture": len(GROUND_TEXTURES),
    "objects": MAX_OBJECTS,
    "sun_side": 2,
}
COMBINED = ("sky", "ground", "objects")  # a mode is a combination of these: 144
_SIDE = 48  # pixels the network sees
_TRAINING, _HELD_OUT = 2000, 400  # scenes
_EPOCHS, _BATCH, _LR = 12, 64, 6e-3
_SEED = 2**31  # of the scenes: none that a data set would have


def true_factors(scene: Scene) -> list[int]:
    """One number a factor, in the order of FACTORS."""
    return [
        list(SKIES).index(scene.sky),
        list(GROUNDS).index(scene.ground),
        GROUND_TEXTURES.index(scene.ground_texture),
        len(scene.objects) - 1,
        int(scene.sun_azimuth > 0),
    ]


class FactorClassifier:
    """Extracts the number of each factor, (n, 5)."""

    name = "scene"

    def __init__(self, network: nn.Module, accuracy: dict[str, float]) -> None:
        self._network = network
        self.accuracy = accuracy  # by factor, of held-out scenes

    def prepare(self, images_u8: Images) -> Tensor:
        return functional.interpolate(to_float(torch.from_numpy(images_u8)), size=(_SIDE, _SIDE), mode="area")

    @torch.inference_mode()
    def extract(self, prepared: Tensor) -> Rows:
        factors: Rows = _answers(self._network, prepared).numpy().astype(np.float32)
        return factors


def train_classifier() -> FactorClassifier:
    """Trains on the CPU, with the same result every time up to rounding."""
    images, factors = _draw(_TRAINING, _SEED)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = _make_network()
        _fit(network, images, factors)
    unseen, truth = _draw(_HELD_OUT, _SEED + 1)
    with torch.inference_mode():
        right = (_answers(network, to_float(unseen)) == truth).float().mean(dim=0)
    return FactorClassifier(network, dict(zip(FACTORS, right.tolist(), strict=True)))


def _draw(count: int, seed: int) -> tuple[Tensor, Tensor]:
    scenes = Scenes(count, _SIDE, seed)
    images = np.stack([scenes.image(index) for index in range(count)])
    factors = [true_factors(scenes.factors(index)) for index in range(count)]
    return torch.from_numpy(images), torch.tensor(factors)


def _make_network(width: int = 16) -> nn.Sequential:
    blocks: list[nn.Module] = []
    channels = 3
    for out, stride in ((width, 2), (2 * width, 2), (4 * width, 2), (4 * width, 1)):
        blocks += [nn.Conv2d(channels, out, 3, stride, 1, bias=False), nn.BatchNorm2d(out), nn.ReLU()]
        channels = out
    side = _SIDE // 16
    return nn.Sequential(*blocks, nn.AvgPool2d(2), nn.Flatten(), nn.Linear(channels * side**2, sum(FACTORS.values())))


def _fit(network: nn.Module, images: Tensor, factors: Tensor) -> None:
    """Trains with noise on the images, as generators also leave some."""
    optimizer = torch.optim.AdamW(network.parameters(), _LR, weight_decay=0.02)
    batch = min(_BATCH, len(images))
    steps = _EPOCHS * (len(images) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _LR, total_steps=steps)
    for step in range(steps):
        examples = torch.Generator().manual_seed(derive_seed(step, CLASSIFIER_BATCH))
        chosen = torch.randint(len(images), (batch,), generator=examples)
        noise = 0.1 * torch.rand(batch, 1, 1, 1) * torch.randn(batch, 3, _SIDE, _SIDE)
        answers = network(to_float(images[chosen]) + noise).split(list(FACTORS.values()), dim=1)
        losses = [functional.cross_entropy(answer, factors[chosen, i]) for i, answer in enumerate(answers)]
        optimizer.zero_grad()
        torch.stack(losses).sum().backward()
        optimizer.step()
        schedule.step()
    network.eval().requires_grad_(False)


def _answers(network: nn.Module, images: Tensor) -> Tensor:
    """(n, 5), one number a factor."""
    parts = network(images).split(list(FACTORS.values()), dim=1)
    return torch.stack([part.argmax(dim=1) for part in parts], dim=1)


def combinations_covered(fake: Rows, real: Rows) -> float:
    """The share of the real images' combinations of COMBINED that occur among the generated; factors (n, 5)."""
    present, wanted = set(_modes(fake).tolist()), set(_modes(real).tolist())
    return len(present & wanted) / len(wanted)


def _modes(factors: Rows) -> NDArray[np.int64]:
    columns = [list(FACTORS).index(name) for name in COMBINED]
    sizes = [FACTORS[name] for name in COMBINED]
    return np.ravel_multi_index(tuple(factors[:, columns].astype(np.int64).T), sizes)


def by_factor(fake: Rows, real: Rows) -> dict[str, dict[str, Any]]:
    """For each factor, how many of the real images' values occur, and the total variation of the frequencies.

    Total variation is half the sum of |difference|: 0 for the same frequencies, 1 for no value in common.
    """
    result = {}
    for column, (name, values) in enumerate(FACTORS.items()):
        counts = [np.bincount(side[:, column].astype(np.int64), minlength=values) for side in (fake, real)]
        shares = [count / count.sum() for count in counts]
        result[name] = {
            "values_covered": int(((counts[0] > 0) & (counts[1] > 0)).sum()),
            "values": int((counts[1] > 0).sum()),
            "total_variation": float(np.abs(shares[0] - shares[1]).sum() / 2),
        }
    return result
