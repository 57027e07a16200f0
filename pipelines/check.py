"""Verifying every byte of a store or a run."""

from dataclasses import dataclass
from pathlib import Path

import tyro

from data.errors import InputError
from data.places import Place, PlaceArg
from data.runs import read_metrics
from data.seals import damage_error, find_damage, find_stores
from data.storage import MANIFEST, read_json, verify_folder


@dataclass(frozen=True)
class CheckConfig:
    """Verify every byte of a store or a run; exit code 0 when all is well, 5 when something is damaged.

    Example: codegan check runs/photos
    """

    path: tyro.conf.Positional[PlaceArg]
    """A store or a run folder, or one that `codegan metadata` made."""


def check(config: CheckConfig) -> None:
    """Raises `CorruptError` naming the first damaged file; of stores, all of them are printed."""
    path = config.path
    if stores := find_stores(path):
        _check_stores(stores)
    elif not isinstance(path, Path) or not _check_folder(path):
        raise InputError(f"{path}: is neither a store nor a run", "give the --out folder of encode, train-ae or train")


def _check_stores(stores: list[Place]) -> None:
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


def _check_folder(path: Path) -> bool:
    """Verify a run, or another folder with a manifest; whether it is one."""
    is_run = (path / "config.json").is_file() and (path / "metrics.jsonl").is_file()
    if is_run:
        read_json(path / "config.json")
        read_metrics(path)
    elif not (path / MANIFEST).is_file():
        return False
    folders = [manifest.parent for manifest in sorted(path.rglob(MANIFEST))]
    for folder in folders:
        verify_folder(folder)
    print(f"{path}: {'run ' if is_run else ''}is whole, {len(folders)} committed folders verified")
    return True
