"""The images that a store was made of, found again."""

from collections.abc import Callable, Collection, Sequence

from data.errors import InputError, MismatchError
from data.images import SINGLE_PROCESS, ImageSet, Share, open_images
from data.latents import LatentStore


def store_images(
    store: LatentStore,
    fix: str,
    data: Sequence[str] = (),
    size: int | None = None,
    on_progress: Callable[[int, int], None] | None = None,
    allow_hosts: Collection[str] = (),
    share: Share = SINGLE_PROCESS,
) -> ImageSet:
    """The very images of `store`, in its order, from where it says they lie or, if they have moved, from `data`.

    `fix` is what to do where they are not found there or are others; the rest is that of `open_images`, and so are the
    errors. Raises `MismatchError` for images that have another fingerprint than the store's.
    """
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
