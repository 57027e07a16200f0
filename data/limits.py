"""Limits of a configuration's fields: written beside the field, checked whenever the configuration is made.

    batch_size: Count = 16
    precision: Literal["fp32", "bf16"] = "fp32"

A base class does the checking, so flags, Python callers and configurations read from JSON meet the same rule.
"""

import dataclasses
import math
from functools import cache
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, TypeAliasType, get_args, get_origin, get_type_hints

from data.errors import UsageError


class Limit(NamedTuple):
    """Numbers from `least` to `most`, and, where they are open, above `above` and below `below`."""

    least: float = -math.inf
    most: float = math.inf
    above: float = -math.inf
    below: float = math.inf

    def admits(self, number: float) -> bool:
        return self.least <= number <= self.most and self.above < number < self.below

    def __str__(self) -> str:
        words = ("{:g} or more", "{:g} or less", "more than {:g}", "less than {:g}")
        bounds = zip(words, self, strict=True)
        return " and ".join(word.format(number) for word, number in bounds if math.isfinite(number))


FEW_IMAGES = 16  # fewer than these a generator memorises

Count = Annotated[int, Limit(least=1)]
Natural = Annotated[int, Limit(least=0)]
Weight = Annotated[float, Limit(least=0)]
Positive = Annotated[float, Limit(above=0)]
Fraction = Annotated[float, Limit(least=0, most=1)]
Decay = Annotated[float, Limit(least=0, below=1)]


class Rule(NamedTuple):
    """What a field may hold, or each number of a tuple; None in a field that allows it always passes."""

    limit: Limit | None
    choices: tuple[object, ...] | None


@dataclasses.dataclass(frozen=True)
class Limited:
    """Base of every configuration: making one raises `UsageError` unless each field keeps to its limits."""

    flags: ClassVar[str] = "--"  # how the flags of these fields begin

    def __post_init__(self) -> None:
        own: type = type(self)
        for name, rule in rules(own).items():
            value = getattr(self, name)
            for item in value if isinstance(value, tuple | list) else (value,):
                _check(f"{self.flags}{name.replace('_', '-')}", item, rule)


def check_choice(name: str, value: object, literal: Any) -> None:
    """`UsageError` unless `value` is one of those of a `Literal`."""
    _check_among(name, value, get_args(literal))


def _check_among(name: str, value: object, choices: tuple[object, ...]) -> None:
    if value not in choices:
        raise UsageError(f"{name} {value}: is not a choice", f"use {' or '.join(map(str, choices))}")


def _check(flag: str, value: Any, rule: Rule) -> None:
    if value is None:
        return
    if rule.choices is not None:
        _check_among(flag, value, rule.choices)
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not number and (rule.limit is not None or isinstance(value, float)):
        raise UsageError(f"{flag} {value}: is not a number", f"give {rule.limit or 'a finite number'}")
    if rule.limit is not None and not rule.limit.admits(value):
        raise UsageError(f"{flag} {value}: is out of range", f"give {rule.limit}")


@cache
def rules(config: type) -> dict[str, Rule]:
    """The rule of each field, by its name."""
    kinds = get_type_hints(config, include_extras=True)
    return {field.name: _rule(kinds[field.name]) for field in dataclasses.fields(config)}


def _rule(kind: Any) -> Rule:
    """The rule that a type holds, or those inside a union, a tuple or an alias."""
    if isinstance(kind, TypeAliasType):
        return _rule(kind.__value__)
    if get_origin(kind) is Literal:
        return Rule(None, get_args(kind))
    found = [item for item in getattr(kind, "__metadata__", ()) if isinstance(item, Limit)]
    if found:
        return Rule(found[0], None)
    inner = [_rule(part) for part in get_args(kind) if part is not Ellipsis]
    choices = [choice for rule in inner for choice in rule.choices or ()]
    limit = next((rule.limit for rule in inner if rule.limit), None)
    return Rule(limit, tuple(choices) or None)
