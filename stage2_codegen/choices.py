"""Options with names: what type checkers see as a `Literal`, checked where names come from outside."""

from typing import Any, get_args

from data.errors import UsageError


def check_choice(name: str, value: object, literal: Any) -> None:
    """`UsageError` unless `value` is one of those of a `Literal`."""
    choices = get_args(literal)
    if value not in choices:
        raise UsageError(f"{name} {value}: is not a choice", f"use {' or '.join(map(str, choices))}")
