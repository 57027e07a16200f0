"""Reading JSON that may be damaged or hostile: a parser with limits, and a check of the shape of what it gives.

A shape is a type: a dataclass, `TypedDict` or `NamedTuple` (an object with these fields, those with a default optional,
and any others besides), a basic type, `list[X]`, `tuple[X, Y]`, `tuple[X, ...]`, `dict[str, X]`, a `Literal`, a union,
or a number annotated with a `data.limits.Limit`.
"""

import dataclasses
import json
import math
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import (
    Annotated,
    Any,
    Literal,
    NamedTuple,
    TypeAliasType,
    Union,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

from data.errors import one_line
from data.limits import Limit

MAX_BYTES = 16 << 20  # of a document; what may be larger says so where it is read
MAX_VALUES = 1 << 23  # a value takes up to 72 bytes of memory, and two in a document
MAX_DEPTH = 64
MAX_DIGITS = 40  # of an integer; more take Python quadratic time, and no file of ours has them

_WORDS = {
    int: "an integer",
    float: "a number",
    str: "a text",
    bool: "true or false",
    dict: "an object",
    list: "a list",
    NoneType: "null",
}
_TO_SQUARE = bytes.maketrans(b"{}", b"[]")
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


class BadJSON(ValueError):
    """Says what is wrong with a document, in words that follow its name."""


def parse(content: bytes, shape: Any = dict, max_bytes: int = MAX_BYTES, allow_nan: bool = False) -> Any:
    """Parse a document of UTF-8 and check its shape; raises `BadJSON` and nothing else.

    NaN and infinity, which are not JSON, are refused unless `allow_nan`, as is a key that stands twice in an object.
    """
    if len(content) > max_bytes:
        raise BadJSON(f"takes more than {max_bytes >> 20} MB")
    if content.count(b",") + content.count(b'"') // 2 > MAX_VALUES:
        raise BadJSON(f"holds more than {MAX_VALUES} values")
    if _is_deep(content):
        raise BadJSON(f"is not valid JSON (more than {MAX_DEPTH} levels deep, or brackets that do not match)")
    try:
        value = json.loads(
            content.decode("utf-8-sig"),
            object_pairs_hook=_to_object,
            parse_int=_to_int,
            parse_float=_to_float,
            parse_constant=float if allow_nan else _refuse_constant,
        )
    except BadJSON:
        raise
    except ValueError as error:  # of the parser or of the decoder
        raise BadJSON(f"is not valid JSON ({one_line(error)})") from error
    if problem := misfit(value, shape):
        raise BadJSON(f"does not hold what it should ({problem})")
    return value


def _is_deep(content: bytes) -> bool:
    """Whether brackets are nested deeper than `MAX_DEPTH`, in time that is linear whatever the content is."""
    if content.count(b"[") + content.count(b"{") <= MAX_DEPTH:
        return False
    without_escapes = content.replace(rb"\\", b"").replace(rb"\"", b"")
    outside_strings = b"".join(without_escapes.split(b'"')[::2])
    brackets = outside_strings.translate(_TO_SQUARE, delete=_NO_BRACKETS)
    for _ in range(MAX_DEPTH):
        if not brackets:
            return False
        brackets = brackets.replace(b"[]", b"")
    return bool(brackets)


def _to_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise BadJSON("is not valid JSON (an object has a key twice)")
    return found


def _to_int(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise BadJSON(f"holds a number of more than {MAX_DIGITS} digits")
    return int(digits)


def _to_float(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise BadJSON("holds a number that is too large")
    return value


def _refuse_constant(name: str) -> float:
    raise BadJSON(f"is not valid JSON ({name})")


def misfit(value: Any, shape: Any, name: str = "") -> str | None:
    """What keeps a parsed value, called `name`, from having a shape; None where it has it."""
    if isinstance(shape, TypeAliasType):
        return misfit(value, shape.__value__, name)
    if shape is Path:
        return misfit(value, str, name)
    if shape is Any:
        return None
    fields = _fields(shape)
    if fields is not None:
        return _misfit_of_object(value, fields, name)
    kind, inner = get_origin(shape), get_args(shape)
    if kind in (Union, UnionType):
        problems = [misfit(value, choice, name) for choice in inner]
        return None if None in problems else problems[0]
    if kind is Annotated:
        return misfit(value, inner[0], name) or _out_of_range(value, inner[1:], name)
    if kind is Literal:
        known = any(value == choice and type(value) is type(choice) for choice in inner)
        return None if known else f"{name} is none of {', '.join(map(str, inner))}"
    if kind is dict:
        return _misfit_of_all(value, dict, inner[1], name)
    if kind is list or (kind is tuple and inner[-1] is Ellipsis):
        return _misfit_of_all(value, list, inner[0], name)
    if kind is tuple:
        if not isinstance(value, list) or len(value) != len(inner):
            return f"{name} is not a list of {len(inner)}"
        return _first(misfit(item, part, name) for item, part in zip(value, inner, strict=True))
    return None if _is_basic(value, shape) else f"{name} is not {_WORDS[shape]}".strip()


def _is_basic(value: Any, shape: type) -> bool:
    if shape in (int, float):
        return isinstance(value, (int, shape)) and not isinstance(value, bool)
    return isinstance(value, shape)


class _Field(NamedTuple):
    name: str
    shape: Any
    required: bool


@cache
def _fields(shape: Any) -> tuple[_Field, ...] | None:
    """The fields of a dataclass, a `TypedDict` or a `NamedTuple`, None for other types."""
    if dataclasses.is_dataclass(shape):
        names = [field.name for field in dataclasses.fields(shape)]  # without class variables
        optional = {field.name for field in dataclasses.fields(shape) if field.default is not dataclasses.MISSING}
    elif is_typeddict(shape):
        names, optional = list(shape.__annotations__), set(shape.__optional_keys__)
    elif hasattr(shape, "_field_defaults"):
        names, optional = list(shape._fields), set(shape._field_defaults)
    else:
        return None
    kinds = get_type_hints(shape, include_extras=True)
    return tuple(_Field(name, kinds[name], name not in optional) for name in names)


def _misfit_of_object(value: Any, fields: tuple[_Field, ...], name: str) -> str | None:
    if not isinstance(value, dict):
        return f"{name} is not an object".strip()
    for field in fields:
        if field.name in value:
            if problem := misfit(value[field.name], field.shape, f"{name}.{field.name}".lstrip(".")):
                return problem
        elif field.required:
            return f"{name} has no {field.name}".strip()
    return None


def _misfit_of_all(value: Any, kind: type, shape: Any, name: str) -> str | None:
    if not _is_basic(value, kind):
        return f"{name} is not {_WORDS[kind]}".strip()
    items = value.values() if kind is dict else value
    return _first(misfit(item, shape, name) for item in items)


def _out_of_range(value: Any, limits: tuple[Any, ...], name: str) -> str | None:
    broken = [limit for limit in limits if isinstance(limit, Limit) and not limit.admits(value)]
    return f"{name} is {value}, not {broken[0]}" if broken else None


def _first(problems: Iterable[str | None]) -> str | None:
    return next((problem for problem in problems if problem), None)
