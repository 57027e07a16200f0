"""A configuration keeps to the limits of its fields, however it is made."""

from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal

import pytest

from data.errors import UsageError
from data.limits import Count, Decay, Limit, Limited, Natural, Positive, Weight

type Named = Literal["x", "y"] | None


@dataclass(frozen=True)
class Example(Limited):
    flags: ClassVar[str] = "--own."

    rows: Count = 1
    seed: Natural = 0
    lr: Positive = 1e-3
    weight: Weight = 0.0
    beta: Decay = 0.9
    scales: Annotated[int, Limit(least=1, most=4)] = 4
    sides: tuple[Count, ...] | None = None
    kind: Literal["a", "b"] | Literal["none"] = "a"
    named: Named = None
    free: float = 0.0
    name: str = ""


@pytest.mark.parametrize(
    ("field", "value", "fix"),
    [
        ("rows", 0, "1 or more"),
        ("rows", "3", "1 or more"),
        ("rows", True, "1 or more"),
        ("seed", -1, "0 or more"),
        ("lr", 0.0, "more than 0"),
        ("lr", float("nan"), "more than 0"),
        ("weight", float("inf"), "0 or more"),
        ("beta", 1.0, "0 or more and less than 1"),
        ("scales", 5, "1 or more and 4 or less"),
        ("sides", (4, 0), "1 or more"),
        ("sides", [4, 0], "1 or more"),  # as JSON has it
        ("kind", "c", "a or b or none"),
        ("named", "z", "x or y"),
        ("free", float("nan"), "a finite number"),
    ],
)
def test_what_a_field_cannot_hold_is_refused_with_what_it_can(field: str, value: Any, fix: str) -> None:
    change: dict[str, Any] = {field: value}
    for make in (lambda: Example(**change), lambda: replace(Example(), **change)):
        with pytest.raises(UsageError, match=f"^error: --own.{field} ") as refused:
            make()
        assert fix in refused.value.fix


def test_everything_else_is_taken() -> None:
    change: dict[str, Any] = {"rows": 7, "lr": 1, "scales": 1, "sides": (4, 8), "kind": "none", "free": -3, "name": "x"}
    assert vars(Example(**change)) == vars(Example()) | change
    assert Example(sides=None, beta=0).beta == 0
