"""Repairing latent stores: damaged files are made again from the images, and nothing else is touched."""

from contextlib import ExitStack
from typing import Any

from accelerate import Accelerator

from data.advice import Action, Advice, Done
from data.console import scan_progress
from data.errors import CodeganError, InputError, MismatchError
from data.files.atomic import lock
from data.latents import LatentStore
from data.sources.locations import Location
from data.store.images import store_images
from data.store.seal import SEAL, SEAL_COPY, find_damage, find_stores, raise_all, write_seal
from data.store.writer import LatentWriter
from stage1_autoencoder.configs import EncodeConfig
from stage1_autoencoder.encoding import Encoding, fill, keys_and_labels
from stage1_autoencoder.networks import Autoencoder
from stage1_autoencoder.training.processes import on_main, scan_share


def repair(config: EncodeConfig, accelerator: Accelerator) -> Done:
    """Repair the store at `config.out`, or the stores inside it.

    Everything that `config` leaves out is taken from the seal of each store. Raises `InputError` without a store,
    `CorruptError` for a store that is not sealed or whose seal is damaged in both copies, and `MismatchError` for one
    that was encoded from other images or by another autoencoder; all other stores are repaired first.
    """
    stores = find_stores(config.out)
    if not stores:
        raise InputError(f"{config.out}: there is no latent store here", "make one", Advice(Action.ENCODE))
    failures = [_repair_store(path, config, accelerator) for path in stores]
    raise_all([failure for failure in failures if failure], show=accelerator.is_main_process)
    return Done(stores, Advice(Action.CHECK, {"path": config.out}))


def _repair_store(path: Location, config: EncodeConfig, accelerator: Accelerator) -> CodeganError | None:
    """Repair a store; return the error that prevents it."""
    # Only errors that all processes meet together are returned: they can then continue with the next store together.
    with ExitStack() as stack:

        def examine() -> tuple[dict[str, Any], dict[str, str]]:
            stack.enter_context(lock(path))
            return _examine(path)

        try:
            seal, damaged = on_main(accelerator, examine)
        except CodeganError as error:
            return error
        try:
            if damaged:
                _encode_again(LatentStore(path, seal), damaged, config, accelerator)
        except MismatchError as error:
            return error
    return None


def _examine(path: Location) -> tuple[dict[str, Any], dict[str, str]]:
    """Find what is damaged, and restore a damaged copy of the seal from the other one."""
    seal, damaged = find_damage(path)
    print("\n".join(f"{path / name}: {problem}" for name, problem in damaged.items()) or f"{path}: is whole")
    copies = damaged.keys() & {SEAL, SEAL_COPY}
    if copies:
        write_seal(path, seal)
        print(f"{path}: restored the seal from its other copy")
    return seal, {name: problem for name, problem in damaged.items() if name not in copies}


def _encode_again(store: LatentStore, damaged: dict[str, str], config: EncodeConfig, accelerator: Accelerator) -> None:
    """Write the damaged files of a store again, and seal it."""
    # The old seal stays until it is replaced, since a repair that is killed needs it to continue.
    store.need("data", "autoencoder_run", "flip", "batch_size", "precision")
    path, seal, images, autoencoder = store.path, store.seal, None, None
    if any(not name.endswith(SEAL) for name in damaged):  # the metadata of arrays follow from the seal alone
        images = store_images(
            store,
            "give the location of the data with --data, or encode again into another folder",
            config.data,
            on_progress=scan_progress(accelerator.is_main_process),
            allow_hosts=config.allow_host,
            share=scan_share(accelerator),
        )
    if any(name.startswith(("latents/c/", "scales/c/")) for name in damaged):
        autoencoder = Autoencoder.of_store(store, config.autoencoder)
    writer = on_main(accelerator, lambda: LatentWriter.reopen(path, seal, damaged))
    if images and autoencoder:
        encoding = Encoding(images, autoencoder, seal["flip"], seal["batch_size"], seal["precision"], config.threads)
        fill({store.image_size: writer}, encoding, accelerator)
    if not accelerator.is_main_process:
        return
    keys, labels = keys_and_labels(images, seal["flip"]) if images else (store.keys, store.labels)
    if writer.seal(keys, labels) == seal:
        print(f"{path}: repaired, every byte is as it was")
    else:
        print(
            f"{path}: repaired, but with other bytes than before, as can happen on other hardware or with other "
            "libraries; runs that were started on this store will see it as changed"
        )
