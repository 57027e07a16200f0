"""The size of the product's code, package by package, and the work that a help takes.

    uv run python -m benchmarks.house [CHECKOUT]

CHECKOUT is another checkout of this repository, to compare with. Code lines are what remains without blank lines,
comments, imports and docstrings, those of fields included. A function is as long as from its `def` to its last line.
Comments are the lines that have one, also behind code. Rooms are folders of modules, arrows the modules of other
packages that each file imports. A help is timed in CPU seconds, the least of several runs.
"""

import argparse
import ast
import io
import math
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import tokenize
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.machine import describe

PACKAGES = ("data", "stage1_autoencoder", "stage2_codegen", "pipelines")
NETWORKS_AND_LOSSES = (
    *("stage1_autoencoder/networks.py", "stage1_autoencoder/losses.py"),
    *("stage2_codegen/modules", "stage2_codegen/variants", "stage2_codegen/losses.py"),
)
HELPS = ("--help", "train sle --help")
COLUMNS = (
    *("", "files", "lines", "code lines", "median file", "median function", "95 % of functions", "longest"),
    *("comments per 100 lines", "rooms", "arrows", "`Any`"),
)
_LAYOUT = (tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)


class Module(NamedTuple):
    """What is counted of one file."""

    path: Path
    lines: int
    code_lines: int
    comment_lines: int
    functions: list[int]  # the lines of each
    arrows: int
    anys: int  # where `Any` is used, imports apart


def read_module(path: Path, package: str) -> Module:
    """Count what is in a file of `package`."""
    text = path.read_text()
    nodes = list(ast.walk(ast.parse(text)))
    tokens = list(tokenize.generate_tokens(io.StringIO(text).readline))
    lines = text.splitlines()
    blank = {number for number, line in enumerate(lines, 1) if not line.strip()}
    comments = {token.start[0] for token in tokens if token.type == tokenize.COMMENT}
    docstrings = {line for node in nodes if _is_docstring(node) for line in _span(node)}
    imports = {line for node in nodes if isinstance(node, ast.Import | ast.ImportFrom) for line in _span(node)}
    written = (token for token in tokens if token.type not in (*_LAYOUT, tokenize.COMMENT))
    occupied = {line for token in written for line in range(token.start[0], token.end[0] + 1)}
    others = set(PACKAGES) - {package}
    return Module(
        path,
        len(lines),
        len(occupied - blank - docstrings - imports),
        len(comments),
        [len(_span(node)) for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)],
        len({name for node in nodes for name in _imported(node) if name.partition(".")[0] in others}),
        sum(token.string == "Any" and token.start[0] not in imports for token in tokens),
    )


def _span(node: ast.AST) -> range:
    """The numbers of the lines of a statement."""
    assert isinstance(node, ast.stmt)
    return range(node.lineno, (node.end_lineno or node.lineno) + 1)


def _is_docstring(node: ast.AST) -> bool:
    """Whether a statement is nothing but a text."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _imported(node: ast.AST) -> Iterator[str]:
    """The modules that a statement imports."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        yield node.module or ""


def read_modules(checkout: Path, package: str) -> list[Module]:
    return [read_module(path, package) for path in sorted((checkout / package).rglob("*.py"))]


def row(modules: Sequence[Module]) -> list[str]:
    """The cells of `COLUMNS` but the first."""
    lines = sum(module.lines for module in modules)
    functions = sorted(length for module in modules for length in module.functions)
    numbers = [
        len(modules),
        lines,
        sum(module.code_lines for module in modules),
        statistics.median_low(module.lines for module in modules),
        statistics.median_low(functions),
        functions[math.ceil(0.95 * len(functions)) - 1],
        functions[-1],
        100 * sum(module.comment_lines for module in modules) / lines,
        len({module.path.parent for module in modules}),
        sum(module.arrows for module in modules),
        sum(module.anys for module in modules),
    ]
    return [f"{number:.1f}" if isinstance(number, float) else f"{number:,}" for number in numbers]


def cpu_seconds(checkout: Path, arguments: str, runs: int = 3) -> float:
    """CPU time of `codegan ARGUMENTS` there, compiled to bytecode as it is from the second use on."""
    command = [sys.executable, "-m", "pipelines", *arguments.split()]
    taken = []
    with tempfile.TemporaryDirectory() as bytecode:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPYCACHEPREFIX": bytecode}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        for _ in range(1 + runs):  # the first compiles
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            subprocess.run(command, cwd=checkout, env=environment, check=True, capture_output=True)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            taken.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(taken[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", type=Path, nargs="?", default=Path(__file__).parents[1])
    checkout = parser.parse_args().checkout.resolve()
    print(f"{describe()}\n")
    print("|", " | ".join(COLUMNS), "|")
    print("|", " | ".join("---" for _ in COLUMNS), "|")
    packages = {package: read_modules(checkout, package) for package in PACKAGES}
    everything = [module for modules in packages.values() for module in modules]
    networks = tuple(checkout / name for name in NETWORKS_AND_LOSSES)
    parts = {
        **packages,
        "all": everything,
        "networks and losses": [m for m in everything if not {m.path, *m.path.parents}.isdisjoint(networks)],
    }
    for name, modules in parts.items():
        print("|", " | ".join([name, *row(modules)]), "|")
    print()
    for arguments in HELPS:
        print(f"`codegan {arguments}`: {cpu_seconds(checkout, arguments):.2f} CPU seconds")


if __name__ == "__main__":
    main()
