"""Fixtures that several packages' tests share; torch is imported only by the tests that need it."""

import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from stage1_autoencoder.networks import Autoencoder


if "PYTEST_XDIST_WORKER" in os.environ:  # a core each: threads that wait for a busy core slow all of them down
    os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session", autouse=True)
def cache_of_tests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nothing is kept in the user's own cache folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CODEGAN_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def fake_cuda() -> Iterator[None]:
    """A GPU whose tensors have no numbers."""
    from tests.fake_cuda import faked

    with faked():
        yield


@pytest.fixture
def single_thread() -> Iterator[None]:
    """One torch thread, so that sums are added in one order whatever the machine."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tiny_autoencoder() -> "Autoencoder":
    """Untrained, factor 4, 3 code channels, width 4; not to be changed."""
    import torch

    from stage1_autoencoder.networks import Autoencoder

    torch.manual_seed(0)
    return Autoencoder(factor=4, code_channels=3, width=4).eval().requires_grad_(False)


@pytest.fixture(scope="session")
def object_store() -> Iterator[str]:
    """Address of an object store on this machine that speaks S3's protocol; drivers find it in the environment."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    address = f"http://{host}:{port}"
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        patch.setenv("AWS_ENDPOINT_URL", address)
        patch.setenv("AWS_ACCESS_KEY_ID", "nobody")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "a-secret-that-nobody-may-see")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        yield address
    server.stop()


@pytest.fixture
def bucket(object_store: str) -> str:
    """Address of a new and empty bucket, `s3://...`."""
    import boto3

    name = f"bucket-{uuid.uuid4().hex}"
    boto3.client("s3").create_bucket(Bucket=name)
    return f"s3://{name}"


@pytest.fixture
def flip_bit() -> Callable[[Path, int], None]:
    """Damage a file: flip one bit of the byte at an offset (from the end when negative)."""

    def flip(path: Path, offset: int) -> None:
        content = bytearray(path.read_bytes())
        content[offset] ^= 1 << (offset % 7)
        path.write_bytes(content)

    return flip
