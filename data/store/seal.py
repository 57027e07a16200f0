"""The seal of a latent store: how it was made, and the size and CRC-32 of every file. It is written last, and twice.

zarr's defaults return zeros or wrong numbers for missing, swapped or flipped bytes, all of which the seal reveals. It
is the group's own `zarr.json`, so that any zarr reader opens the store. A copy lies beside the latents, so that damage
to either is repaired from the other.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from data.advice import Action, Advice, Remedy
from data.errors import CodeganError, CorruptError, InputError, MismatchError
from data.files.atomic import read_json, write_bytes
from data.files.checksums import checksum_holds, damaged_files
from data.sources.locations import Location

FORMAT = 2
SEAL = "zarr.json"
SEAL_COPY = "latents/seal.json"  # not beside zarr.json: zarr warns of files it does not know in a group
JOURNAL = "journal"  # finished shards, only while there is no seal or a repair goes on
SETTINGS = f"{JOURNAL}/begun.json"  # what the latents are made of, and how


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


def _document(seal: Mapping[str, Any]) -> bytes:
    group = {"zarr_format": 3, "node_type": "group", "attributes": {"codegan": seal}}
    return (json.dumps(group, indent=1) + "\n").encode()


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
        document = read_json(path)
        seal = document["attributes"]["codegan"]
        intact = checksum_holds(seal) and document == json.loads(_document(seal))
    except CorruptError:
        intact = False
    except (AttributeError, KeyError, TypeError) as error:
        if not (store / SEAL_COPY).is_file():
            raise MismatchError(f"{store}: is not a store of codegan", "make one", Advice(Action.ENCODE)) from error
        intact = False
    if not intact:
        raise CorruptError(f"{path}: checksum mismatch", *repair(store))
    if seal["format"] != FORMAT:
        raise MismatchError(
            f"{store}: has format {seal['format']}, and this version reads {FORMAT}", "encode again into another folder"
        )
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
