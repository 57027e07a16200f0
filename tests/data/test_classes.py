"""Classes of a store: their names, which rows they have, and data without any."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from data.classes import Classes
from data.errors import InputError
from data.latents import LatentStore
from data.store.writer import LatentWriter


def store_of(folder: Path, keys: Sequence[str], labels: Sequence[int] | None) -> LatentStore:
    described = {"fingerprint": "0", "autoencoder": {}, "autoencoder_run": "none", "data": ["none"], "image_size": 16}
    writer = LatentWriter(folder / "store", len(keys), (1, 4, 4), "float32", described, shard_rows=len(keys))
    writer.write_shard(0, np.zeros((len(keys), 1, 4, 4), np.float32))
    writer.seal(list(keys), None if labels is None else np.array(labels, np.int64))
    return LatentStore.open(folder / "store")


def test_folders_name_the_classes(tmp_path: Path) -> None:
    keys = ["all/rose/a.jpg", "all/daisy/one/b.jpg", "all/rose/c.jpg", "all/tulip/d.jpg"]
    classes = Classes.of(store_of(tmp_path, keys, [1, 0, 1, 2]))
    assert classes.names == ["daisy", "rose", "tulip"]
    assert classes.of_row.tolist() == [1, 0, 1, 2]
    assert classes.frequencies.tolist() == [0.25, 0.5, 0.25]


def test_labels_name_the_classes_where_folders_do_not(tmp_path: Path) -> None:
    classes = Classes.of(store_of(tmp_path, ["a/0.jpg", "a/1.jpg", "b/2.jpg"], [1000, -7, 1000]))
    assert classes.names == ["-7", "1000"]
    assert classes.of_row.tolist() == [1, 0, 1]


@pytest.mark.parametrize(("labels", "what"), [(None, "have no classes"), ([-1, 2], "have no classes"), ([4, 4], "one")])
def test_data_without_classes_is_refused(tmp_path: Path, labels: list[int] | None, what: str) -> None:
    with pytest.raises(InputError, match=what):
        Classes.of(store_of(tmp_path, ["a.jpg", "b.jpg"], labels))
