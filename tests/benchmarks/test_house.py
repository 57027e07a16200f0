"""What is counted of a file is what one counts by hand."""

from pathlib import Path

import pytest

from benchmarks.house import COLUMNS, read_module, row

SOURCE = '''"""A module's docstring,

in three lines."""

from typing import (
    Any,
)

import data.images
from data.images import fit
from stage2_codegen.codes import CodeScale

# a comment of its own
TEXT = """no docstring,

but code"""


class Kept:
    """A class."""

    field: Any = 1  # a comment behind code
    """What the field means."""


def outer(x: "Any", y: Any) -> None:
    """A function."""

    def inner() -> int:
        return 2

    print(f"""{x}
    {y}""", inner())
'''


@pytest.fixture
def module_file(tmp_path: Path) -> Path:
    path = tmp_path / "stage2_codegen" / "made_up.py"
    path.parent.mkdir()
    path.write_text(SOURCE)
    return path


def test_each_number_is_that_of_the_file(module_file: Path) -> None:
    module = read_module(module_file, "stage2_codegen")
    assert module.lines == 33
    assert module.code_lines == 2 + 2 + 5  # the text, the class, the functions
    assert module.comment_lines == 2
    assert sorted(module.functions) == [2, 8]
    assert module.arrows == 1  # its own package is none, and a module named twice is one
    assert module.anys == 2  # neither the import nor what a text holds


def test_a_row_sums_up_its_modules(module_file: Path) -> None:
    module = read_module(module_file, "stage2_codegen")
    shorter = module._replace(path=module_file.parent / "inner" / "a.py", lines=10, comment_lines=0, functions=[1])
    cells = dict(zip(COLUMNS[1:], row([module, shorter, shorter]), strict=True))
    assert (cells["files"], cells["lines"], cells["median file"], cells["rooms"]) == ("3", "53", "10", "2")
    assert (cells["median function"], cells["95 % of functions"], cells["longest"]) == ("1", "8", "8")
    assert (cells["comments per 100 lines"], cells["arrows"], cells["`Any`"]) == ("3.8", "3", "6")
