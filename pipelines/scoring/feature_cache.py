"""Features of real images, kept on disk under everything they depend on.

CACHE/features/DIGEST.safetensors holds one array; its header repeats the whole key and a crc32c of the array. A file
that is damaged, of another version or of another key is never used: it is made again.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from data.console import warn
from data.files.atomic import write_bytes
from data.files.checksums import crc32c

type Rows = NDArray[np.float32]
type Key = Mapping[str, Any]

VERSION = 1  # of the layout, and of all preprocessing between decoded images and features


class FeatureCache:
    """Arrays by key in a folder; without a folder it keeps nothing."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def read(self, key: Key) -> Rows | None:
        """The array that `write` was given for this very key, or None; says so when a file cannot be used."""
        path = self._path(key)
        if path is None or not path.is_file():
            return None
        try:
            with safe_open(path, framework="np") as file:
                header, rows = file.metadata() or {}, file.get_tensor("rows")
            if header.get("key") != _canonical(key):
                problem = "is of another version"
            elif header.get("crc32c") != _checksum(rows):
                problem = "is damaged"
            else:
                return np.asarray(rows)
        except (OSError, SafetensorError, ValueError) as error:
            problem = f"cannot be read ({type(error).__name__})"
        print(f"{path}: {problem}; its features are computed again")
        return None

    def write(self, key: Key, rows: Rows) -> None:
        """Keep an array; a folder that cannot be written to is said, and costs nothing but time."""
        path = self._path(key)
        if path is None:
            return
        header = {"key": _canonical(key), "crc32c": _checksum(rows)}
        try:
            write_bytes(path, save({"rows": rows}, header))
        except OSError as error:
            warn(f"{path}: {error.strerror}; features are not kept", "give another folder with --cache")

    def _path(self, key: Key) -> Path | None:
        if self._folder is None:
            return None
        digest = hashlib.sha256(_canonical(key).encode()).hexdigest()
        return self._folder / "features" / f"{digest[:32]}.safetensors"


def _canonical(key: Key) -> str:
    return json.dumps({"version": VERSION, **key}, sort_keys=True)


def _checksum(rows: Rows) -> str:
    return f"{crc32c(rows.tobytes()):08x}"
