"""The bank holds VGG-16's relu5_3 of the store's own images, averaged over space, and of no others."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn
from torchvision.models.vgg import cfgs, make_layers
from torchvision.transforms.functional import normalize

from data.errors import CorruptError, InputError, MismatchError, UsageError
from data.images import open_images
from data.latents import LatentStore
from data.store.writer import LatentWriter
from pipelines import metadata as metadata_module
from pipelines.check import check
from pipelines.configs import CheckConfig, MetadataConfig
from pipelines.metadata import VGG_URL, describer, metadata
from stage2_codegen.picture_vectors import bank_rows, load_bank

pytestmark = pytest.mark.usefixtures("single_thread")

DATA, SIZE, COUNT = "scenes:5", 32, 5


def make_store(path: Path, copies: int = 1, data: str = DATA) -> Path:
    images = open_images(data, SIZE)
    description = {"fingerprint": "f" * 32, "image_size": SIZE, "data": [data], "data_fingerprint": images.fingerprint}
    writer = LatentWriter(path, len(images) * copies, (1, 4, 4), "float16", description)
    writer.write_shard(0, np.zeros((len(images) * copies, 1, 4, 4), np.float32))
    writer.seal(list(np.repeat(images.keys, copies)))
    return path


@pytest.fixture(scope="module")
def vgg() -> nn.Sequential:
    """Only the convolutions: the other weights of the published file are not looked at."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers: nn.Sequential = make_layers(cfgs["D"])
    return layers.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def weights(vgg: nn.Sequential, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("vgg") / "vgg16.safetensors"
    safetensors.torch.save_file({f"features.{name}": value for name, value in vgg.state_dict().items()}, path)
    return path


def relu5_3_pooled(vgg: nn.Sequential) -> Tensor:
    """The output of the thirteenth ReLU, one image at a time."""
    vectors = []
    for image in (open_images(DATA, SIZE).image(index) for index in range(COUNT)):
        maps, relus = normalize(torch.from_numpy(image) / 255, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])[None], 0
        for layer in vgg:
            maps = layer(maps)
            relus += isinstance(layer, nn.ReLU)
            if relus == 13:
                break
        vectors.append(maps.flatten(2).mean(2)[0])
    return torch.stack(vectors)


@pytest.mark.parametrize("copies", [1, 2])  # 2: a store made with --flip
def test_vectors_are_relu5_3_averaged_over_space(
    copies: int, vgg: nn.Sequential, weights: Path, tmp_path: Path
) -> None:
    store = make_store(tmp_path / "store", copies)
    done = metadata(MetadataConfig(store=store, weights=weights, batch_size=2))
    vectors, origin = load_bank(tmp_path / "store-metadata")
    expected = relu5_3_pooled(vgg)
    assert vectors.shape == (COUNT, 512)
    torch.testing.assert_close(vectors, expected, rtol=1e-4, atol=1e-6 * expected.abs().max().item())
    assert origin["weights_sha256"] == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert origin["data_fingerprint"] == open_images(DATA, SIZE).fingerprint
    assert isinstance(done.advice, list)
    assert done.advice[-4:-2] == ["--model.metadata", str(tmp_path / "store-metadata")]
    rows = bank_rows(LatentStore.open(store), str(tmp_path / "store-metadata"), COUNT)
    torch.testing.assert_close(rows, vectors)
    torch.testing.assert_close(describer(weights)(open_images(DATA, SIZE).image(2)[None]), vectors[[2]])


def test_a_damaged_bank_is_found(weights: Path, tmp_path: Path, flip_bit: Callable[[Path, int], None]) -> None:
    metadata(MetadataConfig(store=make_store(tmp_path / "store"), weights=weights))
    bank = tmp_path / "store-metadata"
    check(CheckConfig(path=bank))
    flip_bit(bank / "metadata.safetensors", -1)
    with pytest.raises(CorruptError, match=r"metadata\.safetensors"):
        check(CheckConfig(path=bank))


def test_a_second_run_computes_nothing(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = MetadataConfig(store=make_store(tmp_path / "store"), weights=weights, out=tmp_path / "bank")
    metadata(config)
    monkeypatch.setattr(metadata_module, "load_convolutions", lambda *_: pytest.fail("computed again"))
    metadata(config)


def test_vectors_of_another_data_set_are_not_overwritten(weights: Path, tmp_path: Path) -> None:
    metadata(MetadataConfig(store=make_store(tmp_path / "store"), weights=weights, out=tmp_path / "bank"))
    before = {path: path.read_bytes() for path in (tmp_path / "bank").iterdir()}
    other = make_store(tmp_path / "other", data="scenes:6")
    with pytest.raises(MismatchError, match=DATA) as caught:
        metadata(MetadataConfig(store=other, weights=weights, out=tmp_path / "bank"))
    assert caught.value.exit_code == 4
    assert "--out" in caught.value.fix
    assert {path: path.read_bytes() for path in (tmp_path / "bank").iterdir()} == before


def test_other_weights_replace_the_vectors_of_the_same_images(
    vgg: nn.Sequential, weights: Path, tmp_path: Path
) -> None:
    store = make_store(tmp_path / "store")
    metadata(MetadataConfig(store=store, weights=weights))
    doubled = {f"features.{name}": value.clone() for name, value in vgg.state_dict().items()}
    for name in ("weight", "bias"):
        doubled[f"features.28.{name}"] *= 2  # the last convolution; a ReLU follows
    safetensors.torch.save_file(doubled, tmp_path / "doubled.safetensors")
    first, _ = load_bank(tmp_path / "store-metadata")
    metadata(MetadataConfig(store=store, weights=tmp_path / "doubled.safetensors"))
    torch.testing.assert_close(load_bank(tmp_path / "store-metadata")[0], 2 * first)


def test_vectors_do_not_depend_on_a_gpu_s_settings(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = set()

    def layers(*_: object) -> nn.Sequential:
        class Recorder(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                cudnn = torch.backends.cudnn
                seen.add((cudnn.allow_tf32, cudnn.deterministic, cudnn.benchmark))
                return x

        return nn.Sequential(Recorder())

    monkeypatch.setattr(metadata_module, "load_convolutions", layers)
    with torch.backends.cudnn.flags(enabled=True, benchmark=True, deterministic=False, allow_tf32=True):
        metadata(MetadataConfig(store=make_store(tmp_path / "store"), weights=weights))
    assert seen == {(False, True, False)}


def test_images_of_another_data_set_are_refused(weights: Path, tmp_path: Path) -> None:
    with pytest.raises(MismatchError, match="scenes:6") as caught:
        metadata(MetadataConfig(store=make_store(tmp_path / "store"), weights=weights, data=("scenes:6",)))
    assert caught.value.exit_code == 4
    assert not (tmp_path / "store-metadata").exists()


def test_missing_weights_say_where_to_get_them(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone\.pth") as caught:
        metadata(MetadataConfig(store=make_store(tmp_path / "store"), weights=tmp_path / "gone.pth"))
    assert caught.value.exit_code == 3
    assert VGG_URL in caught.value.fix


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    safetensors.torch.save_file({"features.0.weight": torch.zeros(96, 3, 7, 7)}, path)
    with pytest.raises(MismatchError, match="vgg16"):
        metadata(MetadataConfig(store=make_store(tmp_path / "store"), weights=path))


def test_a_folder_of_something_else_is_left_alone(weights: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "precious").write_text("")
    with pytest.raises(UsageError, match="not metadata"):
        metadata(MetadataConfig(store=make_store(tmp_path / "store"), weights=weights, out=tmp_path / "run"))
    assert (tmp_path / "run" / "precious").exists()
