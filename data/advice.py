"""What a person may do next, in the program's own terms; only the command line knows how that is typed."""

from enum import Enum, auto
from typing import Any, NamedTuple


class Action(Enum):
    INSPECT_DATA = auto()  # facts: data, hosts
    TRAIN_AUTOENCODER = auto()
    ENCODE = auto()  # facts: data, hosts, autoencoder, size, max_skip, or none of them
    ENCODE_PIXELS = auto()
    REPAIR_STORE = auto()  # facts: store
    CHECK = auto()  # facts: path
    DESCRIBE_IMAGES = auto()  # facts: store, or none
    TRAIN_GENERATOR = auto()  # facts: store, out, or none of them
    SAMPLE = auto()  # facts: run
    REPORT = auto()  # facts: run


class Advice(NamedTuple):
    action: Action
    facts: dict[str, Any] | None = None  # what a command needs, by the names above


Remedy = tuple[str, Advice]  # the last two arguments of an error


class Done(NamedTuple):
    """What a long task wrote, and what comes after it."""

    wrote: list[Any]  # locations
    advice: Advice | list[str] | None = None  # a verb may give the words of its next command themselves
