"""The seal of a latent store: how it was made, and the size and CRC-32 of every file. It is written last, and twice.

zarr's defaults return zeros or wrong numbers for missing, swapped or flipped bytes, all of which the seal reveals. It
is the group's own `zarr.json`, so that any zarr reader opens the store. A copy lies beside the latents, so that damage
to either is repaired from the other.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from data.advice import Action, Advice, Remedy
from data.errors import CodeganError, CorruptError, InputError, MismatchError
from data.files.atomic import write_bytes
from data.files.checksums import StoreEntry, checksum_holds, damaged_files, read_most
from data.limits import Count, Limit, Weight
from data.sizes import StoredShape, StoredSize
from data.sources.locations import Location
from data.strict_json import BadJSON, misfit, parse

FORMAT = 2
SEAL = "zarr.json"
SEAL_COPY = "latents/seal.json"  # not beside zarr.json: zarr warns of files it does not know in a group
JOURNAL = "journal"  # finished shards, only while there is no seal or a repair goes on
SETTINGS = f"{JOURNAL}/begun.json"  # what the latents are made of, and how
MAX_SEAL_BYTES = 256 << 20  # a shard of 32 MB takes up to 2 KB of it


@dataclass(frozen=True)
class Skipped:
    """The shape of a file that was left out."""

    key: str
    reason: str


@dataclass(frozen=True)
class Seal:
    """The shape of a seal; encoding adds the fields that are optional here."""

    count: Count
    code_shape: StoredShape
    dtype: Literal["float16", "float32", "int8"]
    rows: Annotated[int, Limit(least=1, most=1 << 25)]
    fingerprint: str
    image_size: StoredSize
    mean: list[float]
    std: list[Weight]
    value_range: tuple[float, float]
    files: dict[str, StoreEntry]
    data: list[str] | None = None
    data_fingerprint: str | None = None
    autoencoder: dict[str, Any] | None = None
    autoencoder_run: str = ""
    batch_size: Count = 1
    precision: str = ""
    flip: bool = False
    skipped: list[Skipped] | None = None


@dataclass(frozen=True)
class _Sealed:
    codegan: dict[str, Any]


@dataclass(frozen=True)
class _Group:
    attributes: _Sealed


def shard_name(array: str, shard: int, ndim: int) -> str:
    """The file of a shard below the store, for an array with `ndim` axes of which only the first is divided."""
    return "/".join([array, "c", str(shard), *["0"] * (ndim - 1)])


def _inconsistency(seal: Mapping[str, Any]) -> str | None:
    """What does not belong together in a seal of the right shape."""
    channels, files = seal["code_shape"][0], seal["files"]
    if len(seal["mean"]) != channels or len(seal["std"]) != channels:
        return "its statistics are not of its channels"
    arrays = {"latents": 4} | ({"scales": 2} if seal["dtype"] == "int8" else {})
    shards = -(-seal["count"] // seal["rows"])
    if shards * len(arrays) > len(files):
        return "its count is not that of its shards"
    names = [shard_name(array, shard, ndim) for array, ndim in arrays.items() for shard in range(shards)]
    missing = [name for name in (*names, "keys/c/0", "labels/c/0") if name not in files]
    return f"it does not list {missing[0]}" if missing else None


def journal_entries(store: Location) -> list[Location]:
    """The journal's files of single shards."""
    return list((store / JOURNAL).glob("[0-9]*.json"))


def is_unfinished(store: Location) -> bool:
    """Whether an encode or a repair of `store` was started and has not ended."""
    return (store / SETTINGS).is_file() or bool(journal_entries(store))


def repair(store: Location) -> Remedy:
    return "encode again what is damaged", Advice(Action.REPAIR_STORE, {"store": store})


def write_seal(store: Location, seal: Mapping[str, Any]) -> None:
    """Commit both copies. The store is sealed when this returns."""
    for name in (SEAL_COPY, SEAL):
        write_bytes(store / name, _document(seal))


def _group(seal: Mapping[str, Any]) -> dict[str, Any]:
    return {"zarr_format": 3, "node_type": "group", "attributes": {"codegan": seal}}


def _document(seal: Mapping[str, Any]) -> bytes:
    return (json.dumps(_group(seal), indent=1) + "\n").encode()


def read_seal(store: Location, name: str = SEAL) -> dict[str, Any]:
    """Read one of the copies that `write_seal` wrote.

    Raises `InputError` without a store, `CorruptError` when it is unsealed or the copy is damaged, `MismatchError` when
    it is of another format.
    """
    path = store / name
    if not path.is_file():
        if is_unfinished(store):
            raise CorruptError(f"{store}: is not sealed; its encoding was interrupted", "run the same encode again")
        if (store / SEAL_COPY).is_file():
            raise CorruptError(f"{path}: is missing", *repair(store))
        raise InputError(f"{store}: there is no latent store here", "make one", Advice(Action.ENCODE))
    try:
        document = parse(read_most(path, MAX_SEAL_BYTES), max_bytes=MAX_SEAL_BYTES)
    except BadJSON as error:
        raise CorruptError(f"{path}: checksum mismatch", *repair(store)) from error
    is_ours = misfit(document, _Group) is None
    if not is_ours and not (store / SEAL_COPY).is_file():
        raise MismatchError(f"{store}: is not a store of codegan", "make one", Advice(Action.ENCODE))
    seal = document["attributes"]["codegan"] if is_ours else {}
    if not checksum_holds(seal) or document != _group(seal):
        raise CorruptError(f"{path}: checksum mismatch", *repair(store))
    if seal.get("format") != FORMAT:
        raise MismatchError(
            f"{store}: has format {seal.get('format')}, and this version reads {FORMAT}",
            "encode again into another folder",
        )
    if problem := misfit(seal, Seal) or _inconsistency(seal):
        raise CorruptError(f"{path}: does not hold what it should ({problem})", *repair(store))
    return dict(seal)


def find_damage(store: Location) -> tuple[dict[str, Any], dict[str, str]]:
    """Read every byte of a store: its seal, and what is wrong with each damaged file by name.

    Raises like `read_seal` when neither copy of the seal can be used.
    """
    try:
        seal = read_seal(store)
    except CorruptError as error:
        try:
            seal = read_seal(store, SEAL_COPY)
        except CodeganError:
            if is_unfinished(store) and not (store / SEAL).is_file():
                raise error from None
            fix = f"restore {SEAL} from a copy, or remove the folder and encode again"
            raise CorruptError(f"{store}: both copies of its seal are damaged", fix) from error
    damaged = {}
    for name in (SEAL, SEAL_COPY):
        if not (store / name).is_file():
            damaged[name] = "is missing"
        elif (store / name).read_bytes() != _document(seal):
            damaged[name] = "checksum mismatch"
    return seal, damaged | dict(damaged_files(store, seal["files"]))


def damage_error(store: Location, damaged: Mapping[str, str]) -> CorruptError:
    """An error that names the first file that `find_damage` found, and says how many there are."""
    name, problem = next(iter(damaged.items()))
    others = f"; {len(damaged)} files of {store} are damaged" if len(damaged) > 1 else ""
    return CorruptError(f"{store / name}: {problem}{others}", *repair(store))


def raise_all(errors: Sequence[CodeganError], show: bool = True) -> None:
    """Raise one of the errors of several stores, preferably one about damage; `show` prints the others."""
    ordered = sorted(errors, key=lambda error: not isinstance(error, CorruptError))
    for error in ordered[1:] if show else []:
        print(error)
    if ordered:
        raise ordered[0]


def find_stores(folder: Location) -> list[Location]:
    """The store that `folder` is, or those of several sizes inside it, unsealed ones included."""
    if _is_store(folder):
        return [folder]
    inside: list[Location] = [*folder.iterdir()] if folder.is_dir() else []
    return sorted(filter(_is_store, inside), key=str)


def _is_store(folder: Location) -> bool:
    sealed = (folder / SEAL).is_file() and (folder / "latents").is_dir()  # every zarr array has a file of that name
    return sealed or (folder / SEAL_COPY).is_file() or is_unfinished(folder)
