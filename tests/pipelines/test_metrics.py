"""Distances agree with closed forms, naive loops and clean-fid; feature networks are what they say and load safely."""

import hashlib
import io
import os
import urllib.error
import zipfile
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
import torchvision
from cleanfid import fid as cleanfid
from cleanfid.inception_torchscript import InceptionV3W
from PIL import Image, ImageFilter
from scipy.linalg import hadamard
from torch import nn

from data.errors import CodeganError, CorruptError, InputError, MismatchError, UnsafeError, UsageError
from pipelines import features as features_module
from pipelines.features import load_features
from pipelines.metrics import frechet_distance, kernel_distance

CPU = torch.device("cpu")
DATA = Path(os.environ.get("CODEGAN_DATA", Path(__file__).parents[2] / "../shared/data"))
SQUEEZENET = DATA / "weights/squeezenet1_0_deepcompression_rgb.pth"


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def exact_gaussian(mean, deviation, n=64):
    """Rows whose mean and unbiased diagonal covariance are exactly the ones asked for."""
    columns = hadamard(n)[:, 1 : 1 + len(mean)]
    return columns * np.asarray(deviation) * np.sqrt((n - 1) / n) + np.asarray(mean)


def correlated(rng, n, dim, scale=1.0, shift=0.0):
    mixing = np.random.default_rng(99).normal(size=(dim, dim)) / np.sqrt(dim)
    return scale * rng.normal(size=(n, dim)) @ mixing + shift


def test_frechet_distance_has_its_closed_form_for_diagonal_covariances():
    mean_a, mean_b = np.array([0.0, 1.0, -2.0]), np.array([0.5, 1.0, 3.0])
    dev_a, dev_b = np.array([1.0, 2.0, 0.1]), np.array([3.0, 2.0, 0.4])
    expected = np.square(mean_a - mean_b).sum() + np.square(dev_a - dev_b).sum()
    # Unequal counts: the covariances are unbiased, so the counts must not enter.
    a, b = exact_gaussian(mean_a, dev_a, 64), exact_gaussian(mean_b, dev_b, 32)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("n", "dim"), [(400, 32), (33, 32), (20, 64)])
def test_frechet_distance_equals_clean_fids(n, dim):
    rng = np.random.default_rng(0)
    a, b = correlated(rng, n, dim), correlated(rng, n + 7, dim, scale=1.2, shift=0.1)
    # clean-fid adds 1e-6 or loses digits where there are fewer rows than features
    tolerance = 1e-9 if n > dim else 1e-5
    assert frechet_distance(a, b) == pytest.approx(cleanfid.fid_from_feats(a, b), rel=tolerance)


@pytest.mark.parametrize("n", [5, 300])
def test_frechet_distance_is_symmetric_and_zero_only_for_equal_moments(n):
    rng = np.random.default_rng(1)
    a, b = correlated(rng, n, 24).astype(np.float32), correlated(rng, n, 24, scale=1.1).astype(np.float32)
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a), rel=1e-9)
    assert 0 <= frechet_distance(a, a[::-1]) < 1e-10 < frechet_distance(a, b)


def naive_mmd(a, b):
    def k(x, y):
        return (float(x @ y) / len(x) + 1) ** 3

    def within(rows):
        return np.mean([k(x, y) for i, x in enumerate(rows) for j, y in enumerate(rows) if i != j])

    return within(a) + within(b) - 2 * np.mean([k(x, y) for x in a for y in b])


@pytest.mark.parametrize("rows", [7, 1024])
def test_kernel_distance_equals_a_double_loop(rows, monkeypatch):
    monkeypatch.setattr("pipelines.metrics._ROWS", rows)  # several blocks with a remainder, and one block
    rng = np.random.default_rng(2)
    a, b = rng.normal(size=(24, 6)), rng.normal(0.3, 1.1, size=(17, 6))
    assert kernel_distance(a, b) == pytest.approx(naive_mmd(a, b), rel=1e-11)


def test_kernel_distance_is_what_clean_fids_random_subsets_estimate():
    rng = np.random.default_rng(3)
    a, b = correlated(rng, 300, 16), correlated(rng, 300, 16, scale=1.3, shift=0.2)
    state = np.random.get_state()
    np.random.seed(0)
    estimate = cleanfid.kernel_distance(a, b, num_subsets=400, max_subset_size=100)
    np.random.set_state(state)
    assert kernel_distance(a, b) == pytest.approx(estimate, rel=0.02)
    # one subset of everything is no longer random
    assert kernel_distance(a, b) == pytest.approx(cleanfid.kernel_distance(a, b, num_subsets=1), rel=1e-9)


def test_kernel_distance_is_unbiased_at_small_counts_and_frechet_distance_is_not():
    rng = np.random.default_rng(4)
    pairs = [(rng.normal(size=(20, 8)), rng.normal(size=(20, 8))) for _ in range(200)]
    kernel = np.array([kernel_distance(a, b) for a, b in pairs])
    frechet = np.array([frechet_distance(a, b) for a, b in pairs])
    assert abs(kernel.mean()) < 3 * kernel.std() / np.sqrt(len(kernel))
    assert frechet.min() > 0.3


def test_distances_do_not_touch_the_global_random_state():
    before = np.random.get_state()[1].copy()
    a = np.random.default_rng(5).normal(size=(50, 4))
    assert kernel_distance(a, a[:30]) == kernel_distance(a, a[:30])
    frechet_distance(a, a[:30])
    np.testing.assert_array_equal(np.random.get_state()[1], before)


def textures(count, size=96, seed=0):
    """Coloured 1/f noise: the spectrum of photographs without their content, uint8 (count, 3, size, size)."""
    rng = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.fftfreq(size)[None])
    spectrum = np.fft.fft2(rng.normal(size=(count, 3, size, size))) / np.maximum(frequency, 1 / size)
    fields = np.fft.ifft2(spectrum).real
    fields = fields / fields.std(axis=(2, 3), keepdims=True) + rng.normal(0, 0.5, (count, 3, 1, 1))
    return np.clip(127.5 + 50 * fields, 0, 255).astype(np.uint8)


def blurred(images, radius):
    pictures = (Image.fromarray(image.transpose(1, 2, 0)).filter(ImageFilter.GaussianBlur(radius)) for image in images)
    return np.stack([np.asarray(picture).transpose(2, 0, 1) for picture in pictures])


def noisy(images, deviation):
    noise = np.random.default_rng(7).normal(0, deviation, images.shape)
    return np.clip(np.rint(images + noise), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def offline():
    return load_features("offline", None, CPU)


def photographs(count):
    archive = DATA / "photos1024.tar"
    if not archive.is_file():
        pytest.skip(f"{archive} is not there")
    import tarfile

    with tarfile.open(archive) as tar:
        pictures = [Image.open(io.BytesIO(tar.extractfile(m).read())) for m in tar if m.name.endswith(".jpg")]
        crops = [p.convert("RGB").resize((512, 512)).crop((x, y, x + 128, y + 128)) for p in pictures
                 for x in range(0, 512, 128) for y in range(0, 512, 128)]  # fmt: skip
    order = np.random.default_rng(0).permutation(len(crops))[:count]
    return np.stack([np.asarray(crops[i]).transpose(2, 0, 1) for i in order])


@pytest.mark.parametrize("source", [textures, photographs])
@pytest.mark.parametrize("distance", [frechet_distance, kernel_distance])
def test_offline_distance_grows_with_blur_and_noise_from_far_above_chance(source, distance, offline):
    images = source(240)
    real, other = offline(images[::2]), offline(images[1::2])
    chance = distance(real, other)
    for degrade, levels in ((blurred, (1.5, 3, 6)), (noisy, (15, 30, 60))):
        values = [distance(offline(degrade(images[1::2], level)), real) for level in levels]
        assert values == sorted(values)
        assert values[0] > 1.5 * chance
        assert values[-1] > 5 * chance


def test_offline_features_have_not_changed(offline):
    """Pinned: scores stored by one version must be comparable with those of the next."""
    ramp = np.arange(3 * 64 * 64, dtype=np.int64).reshape(1, 3, 64, 64) * 7 % 256
    vector = offline(ramp.astype(np.uint8))
    assert vector.shape == (1, 256)
    print(vector[0, ::51].tolist())


def test_features_do_not_depend_on_the_batch(offline):
    images = textures(7, size=40)
    whole = offline(images)
    np.testing.assert_allclose(np.concatenate([offline(images[:3]), offline(images[3:])]), whole, atol=1e-5)


def test_offline_features_take_no_weights(tmp_path):
    (tmp_path / "w.pth").write_bytes(b"")
    with pytest.raises(UsageError):
        load_features("offline", tmp_path / "w.pth", CPU)
