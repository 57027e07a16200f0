"""Feature networks are what they say they are, tell good images from bad ones, and load no code from a file."""

import dataclasses
import hashlib
import io
import os
import tarfile
import urllib.error
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
import torchvision
from cleanfid import features as cleanfid_features
from cleanfid import fid as cleanfid
from cleanfid.inception_pytorch import InceptionV3 as CleanFidInception
from cleanfid.inception_torchscript import InceptionV3W
from cleanfid.resize import build_resizer
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from torch import Tensor, nn
from torchvision.transforms.functional import normalize

from data.errors import CorruptError, InputError, MismatchError, UnsafeError, UsageError
from pipelines.scoring import networks
from pipelines.scoring.metrics import frechet_distance, kernel_distance
from pipelines.scoring.networks import FeatureNetwork, load_features

pytestmark = pytest.mark.usefixtures("single_thread")

type Images = NDArray[np.uint8]

CPU = torch.device("cpu")
DATA = Path(os.environ.get("CODEGAN_DATA", Path(__file__).parents[3] / "../shared/data"))
PINNED = (-0.0047158, 0.2326286, 0.0529015, -2.2158692, 0.3711035, -2.0113130, -2.1453430)
SQUEEZENET = DATA / "weights/squeezenet1_0_deepcompression_rgb.pth"


def textures(count: int, size: int = 96) -> Images:
    """Coloured 1/f noise: the spectrum of photographs without their content, uint8 (count, 3, size, size)."""
    rng = np.random.default_rng(0)
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.fftfreq(size)[None])
    spectrum = np.fft.fft2(rng.normal(size=(count, 3, size, size))) / np.maximum(frequency, 1 / size)
    fields = np.fft.ifft2(spectrum).real
    fields = fields / fields.std(axis=(2, 3), keepdims=True) + rng.normal(0, 0.5, (count, 3, 1, 1))
    return np.clip(127.5 + 50 * fields, 0, 255).astype(np.uint8)


def blurred(images: Images, radius: float) -> Images:
    pictures = (Image.fromarray(image.transpose(1, 2, 0)).filter(ImageFilter.GaussianBlur(radius)) for image in images)
    return np.stack([np.asarray(picture).transpose(2, 0, 1) for picture in pictures])


def noisy(images: Images, deviation: float) -> Images:
    noise = np.random.default_rng(7).normal(0, deviation, images.shape)
    return np.clip(np.rint(images + noise), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def offline() -> FeatureNetwork:
    return load_features("offline", None, CPU)


def flowers(count: int) -> Images:
    archive = DATA / "flowers256.tar"
    if not archive.is_file():
        pytest.skip(f"{archive} is not there")
    with tarfile.open(archive) as tar:
        members = [member for member in tar if member.name.endswith(".jpg")]
        chosen = np.random.default_rng(0).permutation(len(members))[:count]
        files = (tar.extractfile(members[i]) for i in chosen)
        pictures = [Image.open(file).convert("RGB") for file in files if file is not None]
    return np.stack([np.asarray(picture).transpose(2, 0, 1) for picture in pictures])


@pytest.mark.parametrize("source", [textures, flowers])
def test_offline_distances_grow_with_blur_and_noise_from_far_above_chance(
    source: Callable[[int], Images], offline: FeatureNetwork
) -> None:
    images = source(96)
    real, other = offline(images[::2]), offline(images[1::2])
    for degrade, levels in ((blurred, (1.5, 3, 6)), (noisy, (30, 45, 60))):
        degraded = [offline(degrade(images[1::2], level)) for level in levels]
        for distance in (frechet_distance, kernel_distance):
            values = [distance(vectors, real) for vectors in degraded]
            assert values == sorted(values)
            chance = abs(distance(other, real))
            assert values[0] > 2 * chance
            assert values[-1] > 8 * chance


def test_offline_features_have_not_changed(offline: FeatureNetwork) -> None:
    """Pinned: scores written by one version must be comparable with those of the next."""
    ramp = (np.arange(3 * 40 * 40) * 7 % 256).astype(np.uint8).reshape(1, 3, 40, 40)
    vector = offline(ramp)
    assert vector.shape == (1, offline.dim)
    np.testing.assert_allclose(vector[0, ::43], PINNED, atol=1e-4)


def test_offline_features_of_one_colour_are_finite(offline: FeatureNetwork) -> None:
    assert np.isfinite(offline(np.full((2, 3, 16, 16), 255, np.uint8))).all()


def test_features_do_not_depend_on_the_batch(offline: FeatureNetwork) -> None:
    images = textures(7, size=40)
    parts = np.concatenate([offline(images[:3]), offline(images[3:])])
    np.testing.assert_allclose(parts, offline(images), atol=1e-4)


def test_offline_features_take_no_weights(tmp_path: Path) -> None:
    (tmp_path / "w.pth").write_bytes(b"")
    with pytest.raises(UsageError, match="no weights"):
        load_features("offline", tmp_path / "w.pth", CPU)


class TinyInception(nn.Module):
    """Has the parts of NVIDIA's file that are used: `layers`, with two max-poolings, and `output`, with a bias."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 64, 3, 4), nn.MaxPool2d(3, 2), nn.Conv2d(64, 192, 1), nn.MaxPool2d(3, 2),
            nn.Conv2d(192, 2048, 1, 4), nn.AdaptiveAvgPool2d(1),
        )  # fmt: skip
        self.output = nn.Linear(2048, 1008)

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images)


@pytest.fixture(scope="module")
def inception_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / networks.INCEPTION_FILE
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        torch.jit.script(TinyInception()).save(str(path))
    return path


@pytest.fixture
def trusted(inception_file: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The stand-in file, taken for NVIDIA's."""
    digest = hashlib.sha256(inception_file.read_bytes()).hexdigest()
    monkeypatch.setattr(networks, "INCEPTION_SHA256", digest)
    return inception_file


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CODEGAN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / networks.INCEPTION_FILE


@pytest.mark.filterwarnings("ignore:.torch.jit.load. is deprecated:FutureWarning")  # clean-fid's own call
def test_inception_features_are_those_of_clean_fid(trusted: Path, tmp_path: Path) -> None:
    images = textures(5, size=70)
    for i, image in enumerate(images):
        Image.fromarray(image.transpose(1, 2, 0)).save(tmp_path / f"{i}.png")
    theirs = cleanfid.get_folder_features(
        str(tmp_path), model=InceptionV3W(str(trusted.parent), download=False), num_workers=0, device=CPU,
        batch_size=2, verbose=False,
    )  # fmt: skip
    inception = load_features("inception", trusted, CPU)
    np.testing.assert_allclose(inception(images), theirs, rtol=1e-4, atol=1e-5)
    assert (inception.score_name("fid"), inception.score_name("kid")) == ("fid", "kid")


def test_legacy_resizing_is_clean_fid_s_and_differs_from_clean(offline: FeatureNetwork) -> None:
    images = textures(2, size=300)  # clean-fid makes 299 of them, and only the antialiased one averages
    with warnings.catch_warnings():  # clean-fid switches all warnings off
        theirs = build_resizer("legacy_pytorch")
        expected = np.stack([theirs(image.transpose(1, 2, 0)) for image in images]).transpose(0, 3, 1, 2)
    legacy = dataclasses.replace(offline, side=299, resize="legacy_pytorch")
    np.testing.assert_allclose(legacy.prepare(images), expected, atol=1e-3)
    small = textures(2, size=256)
    legacy = dataclasses.replace(offline, resize="legacy_pytorch")
    assert (legacy.prepare(small) - offline.prepare(small)).abs().max() > 5


def test_legacy_inputs_are_scaled_as_clean_fid_scales_them(monkeypatch: pytest.MonkeyPatch) -> None:
    network = CleanFidInception.__new__(CleanFidInception)  # of which only what its layers would see is left
    nn.Module.__init__(network)
    network.blocks, network.output_blocks, network.last_needed_block = nn.ModuleList([nn.Identity()]), [0], 0
    network.resize_input, network.normalize_input = False, True
    monkeypatch.setattr(cleanfid_features, "InceptionV3", lambda output_blocks, resize_input: network)
    monkeypatch.setattr(networks, "Inception", lambda weights, device: lambda images: images)
    pixels = torch.arange(256.0).view(1, 1, 16, 16).repeat(1, 3, 1, 1)
    theirs = cleanfid_features.build_feature_extractor("legacy_pytorch", CPU, use_dataparallel=False)(pixels)
    ours = load_features("inception", None, CPU, "legacy_pytorch").forward(pixels)
    np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_class_probabilities_are_those_of_the_last_layer_without_its_bias(trusted: Path) -> None:
    inception = load_features("inception", trusted, CPU)
    images = textures(3, size=299)
    rows = inception.extract(inception.prepare(images))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        weight = torch.jit.load(str(trusted)).output.weight.detach()
    logits = torch.from_numpy(rows[:, :2048]) @ weight.T
    expected = (logits - logits.logsumexp(dim=1, keepdim=True)).exp()
    assert rows.shape == (3, 2048 + 1008)
    np.testing.assert_allclose(rows[:, 2048:], expected, rtol=1e-4)


def test_no_torchscript_file_is_loaded_but_the_known_one(
    inception_file: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.jit, "load", lambda *_, **__: pytest.fail("loaded code that was not verified"))
    with pytest.raises(UnsafeError, match=r"inception-2015-12-05\.pt"):
        load_features("inception", inception_file, CPU)
    cache.parent.mkdir()
    cache.write_bytes(inception_file.read_bytes())
    with pytest.raises(CorruptError, match=str(cache)):
        load_features("inception", None, CPU)


def test_inception_is_downloaded_once_into_the_cache(
    trusted: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []

    def urlopen(url: str, timeout: float) -> io.BytesIO:
        opened.append(url)
        return io.BytesIO(trusted.read_bytes())

    monkeypatch.setattr("urllib.request.urlopen", urlopen)
    for _ in range(2):
        assert load_features("inception", None, CPU).dim == 2048
    assert opened == [networks.INCEPTION_URL]
    assert [path.name for path in cache.parent.iterdir()] == [networks.INCEPTION_FILE]


def test_a_wrong_download_leaves_nothing_behind(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("urllib.request.urlopen", lambda url, timeout: io.BytesIO(b"sign in to continue"))
    with pytest.raises(CorruptError, match="SHA-256"):
        load_features("inception", None, CPU)
    assert not cache.parent.exists()


def test_without_a_network_the_error_says_what_to_do(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def urlopen(url: str, timeout: float) -> None:
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr("urllib.request.urlopen", urlopen)
    with pytest.raises(InputError, match=networks.INCEPTION_URL) as raised:
        load_features("inception", None, CPU)
    assert str(cache) in raised.value.what
    assert "--feature-weights" in raised.value.fix
    assert "--features offline" in raised.value.fix


@pytest.fixture(scope="module")
def squeezenet_state() -> dict[str, Tensor]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return torchvision.models.squeezenet1_0(weights=None).state_dict()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_squeezenet_features_are_the_pooled_last_fire_module(
    suffix: str, squeezenet_state: dict[str, Tensor], tmp_path: Path
) -> None:
    path = tmp_path / f"weights{suffix}"
    torch.save(squeezenet_state, path) if suffix == ".pth" else safetensors.torch.save_file(squeezenet_state, path)
    images = textures(2, size=224)  # the network's own size, so that no resizing enters
    before = torch.get_rng_state()
    squeezenet = load_features("squeezenet", path, CPU)
    assert torch.equal(torch.get_rng_state(), before)
    reference = torchvision.models.squeezenet1_0(weights=None).eval()
    reference.load_state_dict(squeezenet_state)
    inputs = normalize(torch.from_numpy(images).float() / 255, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    with torch.no_grad():
        expected = reference.features[:13](inputs).mean(dim=(2, 3))
        probabilities = reference(inputs).softmax(dim=1)
    assert squeezenet.dim == expected.shape[1] == 512
    np.testing.assert_allclose(squeezenet(images), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(squeezenet.extract(squeezenet.prepare(images))[:, 512:], probabilities, rtol=1e-4)


def test_real_squeezenet_weights_tell_photographs_from_their_blur() -> None:
    if not SQUEEZENET.is_file():
        pytest.skip(f"{SQUEEZENET} is not there")
    squeezenet = load_features("squeezenet", SQUEEZENET, CPU)
    images = flowers(40)
    real, other = squeezenet(images[::2]), squeezenet(images[1::2])
    worse = squeezenet(blurred(images[1::2], 4))
    assert (squeezenet.score_name("fid"), squeezenet.score_name("kid")) == ("fd-squeezenet", "kd-squeezenet")
    assert frechet_distance(worse, real) > 1.2 * frechet_distance(other, real)
    assert kernel_distance(worse, real) > 5 * abs(kernel_distance(other, real))


class Bomb:
    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return pytest.fail, ("code in the file ran",)


@pytest.mark.parametrize(
    ("content", "error"),
    [
        ({"features.0.weight": Bomb()}, UnsafeError),
        ({"features.0.weight": torch.ones(2)}, MismatchError),
        ([torch.ones(2)], MismatchError),
        (b"hello", CorruptError),
        (b"", CorruptError),
    ],
)
def test_other_squeezenet_files_are_refused(content: Any, error: type[Exception], tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
    with pytest.raises(error, match=str(path)):
        load_features("squeezenet", path, CPU)


def test_damaged_and_missing_weights_are_named(squeezenet_state: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    safetensors.torch.save_file(squeezenet_state, path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CorruptError, match=str(path)):
        load_features("squeezenet", path, CPU)
    with pytest.raises(InputError, match=r"gone\.pth"):
        load_features("squeezenet", tmp_path / "gone.pth", CPU)
    with pytest.raises(UsageError, match="ImageNet weights"):
        load_features("squeezenet", None, CPU)
