"""The images that a store was made of, found again."""

from collections.abc import Callable, Collection, Sequence

from data.errors import InputError, MismatchError
from data.images import SINGLE_PROCESS, ImageSet, Share, open_images
from data.latents import LatentStore
from data.sizes import Size


def store_images(
    store: LatentStore,
    fix: str,
    data: Sequence[str] = (),
    size: Size | None = None,
    on_progress: Callable[[int, int], None] | None = None,
    allow_hosts: Collection[str] = (),
    share: Share = SINGLE_PROCESS,
) -> ImageSet:
    """Open exactly the images that `store` was made of, in the order of its rows.

    They are read from the location in its seal or, if they have moved, from `data`. `fix` says what to do where they
    are missing or have changed. Other arguments and errors are those of `open_images`, and `MismatchError` is raised
    where the fingerprint of the images is not that in the seal.
    """
    if not data:
        store.need("data")
    try:
        images = open_images(
            data or store.seal["data"],
            size,
            max_skip=1,  # the fingerprint tells whether images are missing
            on_progress=on_progress,
            allow_hosts=allow_hosts,
            share=share,
        )
    except InputError as error:
        if data:
            raise
        what = f"{store.path}: the data it was made of cannot be opened; {error.what}"
        raise InputError(what, f"{fix}, or {error.fix}") from error
    if images.fingerprint != store.seal.get("data_fingerprint"):
        raise MismatchError(f"{images.name}: is not the data that {store.path} was made of", fix)
    return images
