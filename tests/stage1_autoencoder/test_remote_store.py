"""A store in an object store is, byte for byte, the one that would lie here."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data.errors import CorruptError
from data.files.atomic import write_bytes
from data.latents import LatentStore
from data.sources.locations import file_sizes, parse_location
from data.store.reader import LatentReader
from pipelines.check import check
from pipelines.configs import CheckConfig
from stage1_autoencoder.configs import EncodeConfig
from stage1_autoencoder.encode import encode


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_a_store_elsewhere_is_made_resumed_read_checked_and_repaired(
    tmp_path: Path, bucket: str, dtype: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    def make(out: Any) -> None:
        encode(
            EncodeConfig(
                data=("scenes:7@16",), autoencoder=Path("pixels"), out=out, size=(16,), dtype=dtype, shard_rows=2
            )
        )

    here, there = tmp_path / "store", parse_location(f"{bucket}/stores/scenes")
    make(here)
    make(there)
    names = file_sizes(here)
    assert names == file_sizes(there)
    assert all((here / name).read_bytes() == (there / name).read_bytes() for name in names)
    make(there)
    assert "is complete already" in capsys.readouterr().out

    rows = [6, 0, 3]
    assert np.array_equal(LatentStore.open(str(there)).read(rows), LatentStore.open(here).read(rows))
    readers = [
        LatentReader(LatentStore.open(where), 0, mode=mode) for where in (here, there) for mode in ("memory", "stream")
    ]
    batches = [reader.batch(3, 9) for reader in readers]
    assert all(batch.equal(batches[0]) for batch in batches)

    shard = there / "latents" / "c" / "1" / "0" / "0" / "0"
    whole = shard.read_bytes()
    write_bytes(shard, bytes([whole[0] ^ 1]) + whole[1:])
    with pytest.raises(CorruptError, match=r"latents/c/1/0/0/0.*checksum"):
        LatentStore.open(there).read([2])
    with pytest.raises(CorruptError, match="latents/c/1"):
        check(CheckConfig(path=there))
    encode(EncodeConfig(out=there, repair=True))
    check(CheckConfig(path=there))
    assert all((here / name).read_bytes() == (there / name).read_bytes() for name in names)
