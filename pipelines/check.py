"""Verifying every byte of a store or a run."""

from pathlib import Path

from data.errors import CodeganError, CorruptError, InputError
from data.files.atomic import MANIFEST, verify_folder
from data.files.runs import CONFIG, config_error, find_config, read_metrics
from data.sources import png
from data.sources.locations import CONFIG_COPY, Location
from data.store.seal import damage_error, find_damage, find_stores, raise_all
from pipelines.configs import CheckConfig


def check(config: CheckConfig) -> None:
    """Raises `CorruptError` naming the first damaged file; of stores, all of them are printed."""
    path = config.path
    if stores := find_stores(path):
        _check_stores(stores)
    elif not isinstance(path, Path) or not _check_folder(path):
        raise InputError(f"{path}: is neither a store nor a run", "give the --out folder of encode, train-ae or train")


def _check_stores(stores: list[Location]) -> None:
    errors: list[CodeganError] = []
    for store in stores:
        try:
            seal, damaged = find_damage(store)
        except CodeganError as error:  # of a store without a usable seal; the others are looked at all the same
            errors.append(error)
            continue
        for name, problem in damaged.items():
            print(f"{store / name}: {problem}")
        if damaged:
            errors.append(damage_error(store, damaged))
        else:
            print(f"{store}: store is whole, {seal['count']} latents verified")
    raise_all(errors)


def _check_folder(path: Path) -> bool:
    """Verify a run, or another folder with a manifest; whether it is one."""
    is_run = (path / CONFIG_COPY).is_file() or ((path / CONFIG).is_file() and (path / "metrics.jsonl").is_file())
    if is_run:
        _check_config(path)
        _check_log(path)
        _check_samples(path)
    elif not (path / MANIFEST).is_file():
        return False
    committed = [manifest.relative_to(path).parent for manifest in sorted(path.rglob(MANIFEST))]
    folders = [path / folder for folder in committed if not any(part.startswith(".") for part in folder.parts)]
    for folder in folders:  # hidden ones are what a killed writer left unfinished
        verify_folder(folder)
    print(f"{path}: {'run ' if is_run else ''}is whole, {len(folders)} committed folders verified")
    return True


def _check_config(run: Path) -> None:
    config, damaged = find_config(run)
    if damaged:
        raise config_error(config, damaged)
    if config and "crc32c" not in config:
        print(f"{run / CONFIG}: not verified, for earlier versions wrote it without a checksum")


def _check_samples(run: Path) -> None:
    """The grids, whose format carries checksums."""
    for path in sorted((run / "samples").glob("[!.]*.png")):
        if not png.is_whole(path.read_bytes()):
            raise CorruptError(f"{path}: checksum mismatch", "delete it; it is only shown in reports")


def _check_log(run: Path) -> None:
    log = run / "metrics.jsonl"
    if log.is_file() and len(read_metrics(run, tolerate_cut=True)) < len(log.read_bytes().splitlines()):
        print(f"{log}: its last line was cut by a kill; a resume drops it")
