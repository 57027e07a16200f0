"""JSON that is damaged or hostile is refused with a reason, in little time and memory, and whatever is not is read."""

import json
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TypedDict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.limits import Limit
from data.strict_json import MAX_BYTES, MAX_DEPTH, BadJSON, misfit, parse
from stage2_codegen.configs.registry import CONFIGS

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(VALUES)
def test_whatever_json_can_hold_is_read(value: Any) -> None:
    assert parse(json.dumps(value).encode(), Any) == value


@given(st.binary(max_size=200))
def test_no_bytes_raise_another_error(content: bytes) -> None:
    for allow_nan in (False, True):
        with suppress(BadJSON):
            parse(content, Any, allow_nan=allow_nan)


BOMBS = {
    "deep lists": b"[" * 100_000 + b"]" * 100_000,
    "deep objects": b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
    "a string that never ends": b'{"a": "' + rb"\"" * 500_000,
    "many strings that never end": b'"' * 1_000_001,
    "brackets that never close": b"[" * 1_000_000,
    "many digits": b'{"a": ' + b"9" * 5000 + b"}",
    "a large exponent": b'{"a": 1e999}',
    "a key twice": b'{"a": 1, "a": 2}',
    "not a number": b'{"a": NaN}',
    "infinity": b'{"a": -Infinity}',
    "UTF-16": '{"a": 1}'.encode("utf-16"),
    "half a character": b'{"a": "\xc3"}',
    "a list": b"[1, 2]",
    "null": b"null",
    "nothing": b"",
    "zeros": bytes(1000),
    "many values": b"[" + b"," * (1 << 23) + b"]",
    "many bytes": b" " * (MAX_BYTES + 1),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_is_refused_in_a_moment(bomb: str) -> None:
    started = time.process_time()
    with pytest.raises(BadJSON):
        parse(BOMBS[bomb])
    assert time.process_time() - started < 2


def test_the_deepest_value_that_is_read_is_not_refused_for_what_its_strings_hold() -> None:
    nested: Any = r'[[[{{{ \" " \\'
    for _ in range(MAX_DEPTH):
        nested = [nested, "]]"]
    assert parse(json.dumps(nested).encode(), list) == nested
    with pytest.raises(BadJSON, match="deep"):
        parse(json.dumps([nested]).encode(), list)


def test_numbers_that_are_none_are_read_where_a_log_has_them() -> None:
    found = parse(b'{"a": NaN, "b": Infinity}', allow_nan=True)
    assert found["a"] != found["a"]
    assert found["b"] == float("inf")


@dataclass(frozen=True)
class Inner:
    side: Annotated[int, Limit(least=1, most=16)]


class Pair(NamedTuple):
    left: int
    right: int = 0


class Row(TypedDict):
    mse: float


@dataclass(frozen=True)
class Outer:
    kind: Literal["a", "b"]
    inner: Inner
    rows: list[Row]
    size: int | tuple[int, int] = 1
    by_name: dict[str, Pair] | None = None
    path: Path = Path()
    on: bool = False


GOOD = {"kind": "a", "inner": {"side": 4}, "rows": [{"mse": 1}, {"mse": 0.5}], "more": [None]}


@pytest.mark.parametrize(
    "changes", [{}, {"size": [1, 2]}, {"by_name": {"x": {"left": 1}}}, {"by_name": None}, {"path": "a/b", "on": True}]
)
def test_a_value_of_the_right_shape_fits(changes: dict[str, Any]) -> None:
    assert misfit(GOOD | changes, Outer) is None


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"kind": "c"}, "kind is none of a, b"),
        ({"kind": ["a"]}, "kind is none of a, b"),
        ({"inner": {}}, "inner has no side"),
        ({"inner": {"side": 0}}, "inner.side is 0, not 1 or more and 16 or less"),
        ({"inner": {"side": 2**20}}, "inner.side is 1048576"),
        ({"inner": {"side": True}}, "inner.side is not an integer"),
        ({"inner": {"side": 4.0}}, "inner.side is not an integer"),
        ({"inner": []}, "inner is not an object"),
        ({"rows": {}}, "rows is not a list"),
        ({"rows": [{"mse": "x"}]}, "rows.mse is not a number"),
        ({"size": [1, 2, 3]}, "size is not"),
        ({"by_name": {"x": {}}}, "by_name has no left"),
        ({"path": 3}, "path is not a text"),
        ({"on": 1}, "on is not true or false"),
    ],
)
def test_what_does_not_fit_is_named(changes: dict[str, Any], problem: str) -> None:
    assert str(misfit(GOOD | changes, Outer)).startswith(problem)
    with pytest.raises(BadJSON, match="does not hold what it should"):
        parse(json.dumps(GOOD | changes).encode(), Outer)


@pytest.mark.parametrize("variant", CONFIGS)
def test_the_configuration_of_every_variant_is_a_shape(variant: str) -> None:
    from data.files.runs import to_json

    stored = json.loads(json.dumps(to_json(CONFIGS[variant]())))
    assert misfit(stored, CONFIGS[variant]) is None
    assert misfit(stored | {"z_dim": "x"}, CONFIGS[variant]) == "z_dim is not an integer"
