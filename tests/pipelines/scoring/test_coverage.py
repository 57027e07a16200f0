"""Mode coverage counts what occurs, and the classifier behind it names the factors of scenes that it never saw."""

from collections import Counter

import numpy as np
import pytest
import torch

from data.scenes.factors import Scenes
from data.scenes.rendering import GROUNDS, SKIES
from pipelines.scoring import coverage
from pipelines.scoring.coverage import FACTORS, by_factor, combinations_covered, train_classifier, true_factors


def factors_of(count: int, seed: int = 0) -> np.ndarray:
    return np.array([true_factors(Scenes(count, 16, seed).factors(i)) for i in range(count)], np.float32)


def test_combinations_and_total_variation_equal_counting_by_hand() -> None:
    real, fake = factors_of(120), factors_of(90, seed=5)
    modes = [{(row[0], row[1], row[3]) for row in side.tolist()} for side in (fake, real)]
    assert combinations_covered(fake, real) == len(modes[0] & modes[1]) / len(modes[1])
    for column, name in enumerate(FACTORS):
        a, b = (Counter(side[:, column].tolist()) for side in (fake, real))
        variation = sum(abs(a[v] / 90 - b[v] / 120) for v in {*a, *b}) / 2
        found = by_factor(fake, real)[name]
        assert found["total_variation"] == pytest.approx(variation)
        assert (found["values"], found["values_covered"]) == (len(b), len(a.keys() & b.keys()))


def test_a_collapsed_generator_covers_one_mode() -> None:
    real = factors_of(200)
    collapsed = np.repeat(real[:1], 200, axis=0)
    assert combinations_covered(collapsed, real) == 1 / len({tuple(row) for row in real[:, [0, 1, 3]].tolist()})
    assert by_factor(collapsed, real)["sky"]["values_covered"] == 1
    assert by_factor(collapsed, real)["sky"]["total_variation"] > 0.7
    assert combinations_covered(real, real) == 1
    assert by_factor(real[::-1], real)["objects"]["total_variation"] == 0


def test_true_factors_are_those_of_the_scene() -> None:
    scene = Scenes(3, 16, 1).factors(2)
    sky, ground, _, objects, side = true_factors(scene)
    assert (list(SKIES)[sky], list(GROUNDS)[ground], objects + 1) == (scene.sky, scene.ground, len(scene.objects))
    assert (side == 1) == (scene.sun_azimuth > 0)


def test_the_classifier_names_sky_ground_and_sun_after_few_scenes_at_any_size(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(coverage, "_TRAINING", 240)
    monkeypatch.setattr(coverage, "_HELD_OUT", 32)
    before = torch.get_rng_state()
    classifier = train_classifier()
    assert torch.equal(torch.get_rng_state(), before)
    assert classifier.accuracy.keys() == FACTORS.keys()
    assert classifier.accuracy["sky"] > 0.8
    scenes = Scenes(24, 64, seed=0)
    truth = np.array([true_factors(scenes.factors(i)) for i in range(24)])
    named = classifier.extract(classifier.prepare(np.stack([scenes.image(i) for i in range(24)])))
    right = dict(zip(FACTORS, (named == truth).mean(axis=0), strict=True))
    assert right["sky"] > 0.8
    assert right["ground"] > 0.4  # by chance, one in six
    assert right["sun_side"] > 0.8
