"""The classes of a store's pictures: their names, and which picture is of which."""

from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from data.errors import InputError
from data.latents import LatentStore

NO_LABEL = -1


class Classes(NamedTuple):
    names: list[str]
    of_row: NDArray[np.int64]  # (N,), the class of each row of the store as a position in `names`

    @classmethod
    def of(cls, store: LatentStore) -> Self:
        """Those that the data had, in the order of its labels.

        They are named by the folders that held them, or by the label where it came from a `.cls` member. Raises
        `InputError` for data without labels, or with one class alone.
        """
        labels = store.labels
        if not len(labels) or (labels == NO_LABEL).any():
            raise InputError(
                f"{store.path}: its pictures have no classes",
                "encode a folder with one sub-folder for each class, or tars with .cls members, or leave out "
                "--conditional",
            )
        values, index = np.unique(labels, return_inverse=True)
        if len(values) < 2:
            raise InputError(f"{store.path}: all its pictures are of one class", "leave out --conditional")
        return cls(_folder_names(store.keys, index, len(values)) or [str(value) for value in values], index)

    @property
    def frequencies(self) -> NDArray[np.float64]:
        """The fraction of pictures in each class, (K,)."""
        return np.bincount(self.of_row, minlength=len(self.names)) / len(self.of_row)


def _folder_names(keys: Sequence[str], index: NDArray[np.int64], count: int) -> list[str]:
    """The folders that tell the classes apart, or nothing where folders do not."""
    parents = [PurePosixPath(key).parent.parts for key in keys]
    for names in zip(*parents, strict=False):  # at each depth that all keys have
        pairs = sorted(set(zip(index.tolist(), names, strict=True)))
        if [number for number, _ in pairs] == list(range(count)) and len({name for _, name in pairs}) == count:
            return [name for _, name in pairs]
    return []
