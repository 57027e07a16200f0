"""The house plan holds: imports go one way, and each concern stays in its one home."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("data", "stage1_autoencoder", "stage2_codegen", "pipelines")  # each may import those before it
FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
TREES = {path.relative_to(ROOT).as_posix(): ast.parse(path.read_text()) for path in FILES}
MAX_LINES = 350

# dotted name -> files that may use it
HOMES = {
    "pickle": (),
    "torch.save": (),
    "zarr": ("data/store/shards.py",),
    "os.rename": (),
    "os.replace": (),
    "os.fsync": ("data/files/atomic.py", "data/files/runs.py"),  # the second appends to a log, which no rename can do
    "Image.open": ("data/sources/decoding.py",),
    "argparse": (),
}


def imported(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """(module, level) of every import, also of those inside functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, 0) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or "", node.level
            yield from ((f"{node.module}.{alias.name}", node.level) for alias in node.names)


def dotted(node: ast.AST) -> str:
    """`a.b.c` of a name or attribute, else an empty string."""
    if isinstance(node, ast.Name):
        return node.id
    inner = dotted(node.value) if isinstance(node, ast.Attribute) else ""
    return f"{inner}.{node.attr}" if isinstance(node, ast.Attribute) and inner else ""


def used(tree: ast.AST) -> set[str]:
    """Dotted names that are imported or read, with every prefix of an imported module."""
    names = {dotted(node) for node in ast.walk(tree)}
    for module, _ in imported(tree):
        parts = module.split(".")
        names |= {".".join(parts[: end + 1]) for end in range(len(parts))}
    return names


@pytest.mark.parametrize("name", TREES)
def test_imports_go_one_way_and_are_absolute(name: str) -> None:
    above = PACKAGES[PACKAGES.index(name.split("/")[0]) + 1 :]
    for module, level in imported(TREES[name]):
        assert level == 0, f"relative import of {module}"
        assert module.split(".")[0] not in above, f"imports {module} from above"


@pytest.mark.parametrize("package", PACKAGES)
def test_a_top_package_is_a_docstring_and_nothing_else(package: str) -> None:
    tree = TREES[f"{package}/__init__.py"]
    assert ast.get_docstring(tree)
    assert len(tree.body) == 1


@pytest.mark.parametrize("name", TREES)
def test_each_concern_stays_in_its_home(name: str) -> None:
    names = used(TREES[name])
    assert not [concern for concern, homes in HOMES.items() if concern in names and name not in homes]


@pytest.mark.parametrize("name", TREES)
def test_no_call_runs_a_shell_moves_to_a_device_by_name_or_unpacks_an_archive(name: str) -> None:
    for call in (node for node in ast.walk(TREES[name]) if isinstance(node, ast.Call)):
        method = call.func.attr if isinstance(call.func, ast.Attribute) else ""
        assert method not in ("extractall", "cuda")
        assert not [k for k in call.keywords if k.arg == "shell"]


def test_only_one_module_knows_clean_fid() -> None:
    users = [name for name, tree in TREES.items() if "cleanfid" in used(tree)]
    assert len(users) <= 1
    assert all(name.startswith("pipelines/") for name in users)


def test_torch_load_appears_once_and_loads_weights_only() -> None:
    for name, tree in TREES.items():
        calls = {node for node in ast.walk(tree) if isinstance(node, ast.Call) and dotted(node.func) == "torch.load"}
        functions = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.name == "read_state_dict"]
        allowed = {node for function in functions for node in ast.walk(function)}
        assert not calls or name == "data/files/published.py"
        assert calls <= allowed
        for call in calls:
            options = {keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords if keyword.arg}
            assert options["weights_only"] is True
        assert "torch.load" not in {module for module, _ in imported(tree)}


@pytest.mark.parametrize("name", ["stage2_codegen/train.py", "pipelines/cli.py"])
def test_no_variant_is_named_where_all_are_served(name: str) -> None:
    table = next(
        node.value
        for node in ast.walk(TREES["stage2_codegen/variants/__init__.py"])
        if isinstance(node, ast.AnnAssign | ast.Assign) and isinstance(node.value, ast.Dict)
    )
    variants = {key.value for key in table.keys if isinstance(key, ast.Constant)}
    constants = {node.value for node in ast.walk(TREES[name]) if isinstance(node, ast.Constant)}
    assert variants
    assert not variants & constants


def test_git_ignores_no_folder_called_data_below_the_root() -> None:
    lines = {line.strip() for line in (ROOT / ".gitignore").read_text().splitlines()}
    assert not lines & {"data", "data/", "/data", "/data/", "**/data", "**/data/", "data/*"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_files_stay_short(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= MAX_LINES
