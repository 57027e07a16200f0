"""Mending a latent store: what is damaged is made again from the images, and nothing else is touched."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from data.console import finish, scan_progress
from data.errors import CodeganError, InputError, MismatchError
from data.files.atomic import lock
from data.images import ImageSet, open_images
from data.latents import LatentStore
from data.sources.locations import Location
from data.store.seal import SEAL, SEAL_COPY, find_damage, find_stores, raise_all, write_seal
from data.store.writer import LatentWriter
from stage1_autoencoder.encoding import Encoding, fill, keys_and_labels
from stage1_autoencoder.networks import Autoencoder
from stage1_autoencoder.training.processes import on_main, scan_share


@dataclass(frozen=True)
class Sources:
    """Where to find what a store was made of; what is empty is taken from the store's own record."""

    data: Sequence[str]
    autoencoder: Path | None
    allow_hosts: Sequence[str]
    threads: int


def repair(out: Location, sources: Sources, accelerator: Accelerator) -> None:
    """Mend the store at `out`, or the stores inside it.

    Raises `InputError` without a store, `CorruptError` when one is unsealed or both copies of its seal are damaged, and
    `MismatchError` when the images or the autoencoder are not those that one was made of; the others are mended first.
    """
    stores = find_stores(out)
    if not stores:
        raise InputError(f"{out}: there is no latent store here", "make one with `codegan encode`")
    obstacles = [_repair_store(store, sources, accelerator) for store in stores]
    raise_all([obstacle for obstacle in obstacles if obstacle], show=accelerator.is_main_process)
    if accelerator.is_main_process:
        finish(stores, ["codegan", "check", str(out)])


def _repair_store(store: Location, sources: Sources, accelerator: Accelerator) -> CodeganError | None:
    """What keeps `store` from being mended; only what all processes see alike, so that all go on with the next one."""
    with ExitStack() as stack:

        def examine() -> tuple[dict[str, Any], dict[str, str]]:
            stack.enter_context(lock(store))
            return _examine(store)

        try:
            seal, damaged = on_main(accelerator, examine)
        except CodeganError as error:
            return error
        try:
            if damaged:
                _mend(store, seal, damaged, sources, accelerator)
        except MismatchError as error:
            return error
    return None


def _examine(store: Location) -> tuple[dict[str, Any], dict[str, str]]:
    """Find what is damaged; of the seal, one copy mends the other."""
    seal, damaged = find_damage(store)
    print("\n".join(f"{store / name}: {problem}" for name, problem in damaged.items()) or f"{store}: is whole")
    copies = damaged.keys() & {SEAL, SEAL_COPY}
    if copies:
        write_seal(store, seal)
        print(f"{store}: restored the seal from its other copy")
    return seal, {name: problem for name, problem in damaged.items() if name not in copies}


def _mend(
    store: Location, seal: dict[str, Any], damaged: dict[str, str], sources: Sources, accelerator: Accelerator
) -> None:
    """Encode the damaged shards again, write the other damaged files, and seal."""
    main, images = accelerator.is_main_process, None
    if any(not name.endswith(SEAL) for name in damaged):  # else nothing is lost that the seal does not say
        images = _open_images(store, seal, sources, accelerator)
    shards_damaged = any(name.startswith(("latents/c/", "scales/c/")) for name in damaged)
    whole = LatentStore(store, seal)
    autoencoder = Autoencoder.of_store(whole, sources.autoencoder) if shards_damaged else None
    writer = on_main(accelerator, lambda: LatentWriter.reopen(store, seal, damaged))
    if images and autoencoder:
        encoding = Encoding(images, autoencoder, seal["flip"], seal["batch_size"], seal["precision"], sources.threads)
        fill({seal["image_size"]: writer}, encoding, accelerator)
    if not main:
        return
    if writer.seal(*(keys_and_labels(images, seal["flip"]) if images else (whole.keys, whole.labels))) == seal:
        print(f"{store}: repaired, every byte is as it was")
    else:
        print(
            f"{store}: repaired, but what was made again came out different, as it can on other hardware or with other "
            "libraries; runs that were begun on this store will see it as changed"
        )


def _open_images(store: Location, seal: dict[str, Any], sources: Sources, accelerator: Accelerator) -> ImageSet:
    try:
        images = open_images(
            sources.data or seal["data"],
            max_skip=1,  # the fingerprint tells whether these are the same pictures
            on_progress=scan_progress(accelerator.is_main_process),
            allow_hosts=sources.allow_hosts,
            share=scan_share(accelerator),
        )
    except InputError as error:
        if sources.data:
            raise
        what = f"{store}: the data it was made of cannot be opened; {error.what}"
        raise InputError(what, f"give the place of the data with --data, or {error.fix}") from error
    if images.fingerprint != seal["data_fingerprint"]:
        raise MismatchError(
            f"{images.name}: is not the data that {store} was made of",
            "give that with --data, or encode again into another folder",
        )
    return images
