"""Entries find every damage to a file; two that only another checksum tells apart included."""

from pathlib import Path

import numpy as np
import pytest

from data.files.checksums import Algorithm, checksum_holds, damaged_files, make_entry, read_blocks, with_checksum
from data.store.shards import shard_bytes


def test_entries_are_those_of_earlier_versions() -> None:
    """The check values of both algorithms, whatever the blocks."""
    for blocks in ([b"123456789"], [b"1234", b"", b"56789"]):
        assert make_entry(blocks) == {"bytes": 9, "crc32c": 0xE3069283}
        assert make_entry(blocks, "crc32") == {"bytes": 9, "crc32": 0xCBF43926}
    assert with_checksum({"b": 1, "a": [2]}) == {"b": 1, "a": [2], "crc32c": 1466546684}
    assert checksum_holds({"b": 1, "a": [2], "crc32c": 1466546684})
    assert not checksum_holds({"b": 1, "a": [3], "crc32c": 1466546684})


@pytest.mark.parametrize("algorithm", ["crc32c", "crc32"])
def test_each_damaged_file_is_named_with_its_damage(tmp_path: Path, algorithm: Algorithm) -> None:
    for name in ("whole", "flipped", "cut", "lost"):
        (tmp_path / name).write_bytes(bytes(1000))
    entries = {file.name: {**make_entry(read_blocks(file), algorithm), "sum": 0} for file in tmp_path.iterdir()}
    assert not list(damaged_files(tmp_path, entries))
    (tmp_path / "flipped").write_bytes(bytes(999) + b"\1")
    (tmp_path / "cut").write_bytes(bytes(7))
    (tmp_path / "lost").unlink()
    expected = {"flipped": "checksum mismatch", "cut": "has 7 bytes instead of 1000", "lost": "is missing"}
    assert dict(damaged_files(tmp_path, entries)) == expected


def test_only_zlibs_checksum_tells_shards_of_one_layout_apart() -> None:
    one, other = (shard_bytes(np.full((2, 1, 1, 8), value, np.float32), 2) for value in (1, 2))
    assert one != other
    assert make_entry([one]) == make_entry([other])
    assert make_entry([one], "crc32") != make_entry([other], "crc32")
