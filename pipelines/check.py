"""Verifying every byte of a store or a run."""

from dataclasses import dataclass
from pathlib import Path

import tyro

from data.errors import InputError
from data.runs import read_metrics
from data.seals import damage_error, find_damage, find_stores
from data.storage import MANIFEST, read_json, verify_folder


@dataclass(frozen=True)
class CheckConfig:
    """Verify every byte of a store or a run; exit code 0 when all is well, 5 when something is damaged.

    Example: codegan check runs/photos
    """

    path: tyro.conf.Positional[Path]
    """A store or a run folder, or one that `codegan metadata` made."""


def check(config: CheckConfig) -> None:
    """Raises `CorruptError` naming the first damaged file; of stores, all of them are printed."""
    path = config.path
    if (path / "config.json").is_file() and (path / "metrics.jsonl").is_file():
        print(f"{path}: run is whole, {_check_run(path)} committed folders verified")
    elif stores := find_stores(path):
        _check_stores(stores)
    elif (path / MANIFEST).is_file():
        verify_folder(path)
        print(f"{path}: is whole")
    else:
        raise InputError(f"{path}: is neither a store nor a run", "give the --out folder of encode, train-ae or train")


def _check_stores(stores: list[Path]) -> None:
    damage = {}
    for store in stores:
        seal, damaged = find_damage(store)
        for name, problem in damaged.items():
            print(f"{store / name}: {problem}")
        if damaged:
            damage[store] = damaged
        else:
            print(f"{store}: store is whole, {seal['count']} latents verified")
    for store, damaged in damage.items():
        raise damage_error(store, damaged)


def _check_run(path: Path) -> int:
    read_json(path / "config.json")
    read_metrics(path)
    folders = [manifest.parent for manifest in sorted(path.rglob(MANIFEST))]
    for folder in folders:
        verify_folder(folder)
    return len(folders)
