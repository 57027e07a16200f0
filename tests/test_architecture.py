"""The house plan holds: imports go one way, and each concern stays in its one home."""

import ast
import re
from collections.abc import Collection, Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from pipelines.verbs import VERBS

ROOT = Path(__file__).parents[1]
PACKAGES = ("data", "stage1_autoencoder", "stage2_codegen", "pipelines")  # each may import those before it
FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
TREES = {path.relative_to(ROOT).as_posix(): ast.parse(path.read_text()) for path in FILES}
MODULES = {name.removesuffix(".py").removesuffix("/__init__").replace("/", "."): tree for name, tree in TREES.items()}
PAGE = (ROOT / "docs" / "architecture.md").read_text()
MAX_LINES = 350

# dotted name -> files that may use it
HOMES = {
    "pickle": (),
    "torch.save": (),
    "zarr": ("data/drawn.py", "data/store/shards.py"),
    "json.loads": ("data/strict_json.py",),
    "json.load": (),
    "os.rename": (),
    "os.replace": (),
    "os.fsync": ("data/files/atomic.py", "data/files/runs.py"),  # the second appends to a log, which no rename can do
    "Image.open": ("data/sources/decoding.py",),
    "argparse": (),
}

# rooms and modules -> what they import of their own package besides themselves
BENEATH = {
    "data.scenes": ("data.errors", "data.seeds"),
    "data.sources": ("data.errors", "data.prefetch", "data.strict_json"),
    "data.files": ("data.errors", "data.limits", "data.sources.locations", "data.strict_json"),
    "stage1_autoencoder.training": (),
    "stage2_codegen.configs": (),
    "stage2_codegen.modules": ("stage2_codegen.configs", "stage2_codegen.fp32", "stage2_codegen.ranks"),
    "stage2_codegen.frozen": ("stage2_codegen.configs", "stage2_codegen.codes"),
}
# rooms and modules -> what they never import
APART = {
    "data.images": ("data.store", "data.latents"),
    "data.store": ("data.scenes",),
    "stage2_codegen.losses": ("stage2_codegen.variants",),
    "stage2_codegen.variants": tuple(
        f"stage2_codegen.{name}" for name in ("train", "setup", "step", "image_generator")
    ),
    "pipelines.scoring": ("pipelines.report",),
}
WITHOUT_TORCH = ("stage1_autoencoder.configs", "stage2_codegen.configs", "pipelines.configs", "pipelines.cli")
LOAD_TORCH = {"torch", "torchvision", "accelerate", "cleanfid", "webdataset"}


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


def is_in(module: str, rooms: Collection[str]) -> bool:
    return any(module == room or module.startswith(f"{room}.") for room in rooms)


def loaded_with(tree: ast.AST) -> Iterator[str]:
    """What a module imports when it is loaded: not inside functions, nor for the type checker alone."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from (module for module, _ in imported(node))
        elif not isinstance(node, ast.FunctionDef) and not (isinstance(node, ast.If) and "TYPE_CHECKING" in used(node)):
            yield from loaded_with(node)


def module_of(name: str) -> str:
    """The module of ours that an imported name is or lies in, or an empty string."""
    while name not in MODULES and name:
        name = name.rpartition(".")[0]
    return name


def test_no_module_imports_itself_by_way_of_others() -> None:
    graph = {name: set(map(module_of, loaded_with(tree))) for name, tree in MODULES.items()}
    for name, needed in graph.items():
        needed -= {"", *(module for module in needed if is_in(name, [module]))}  # and the packages it lies in
    TopologicalSorter(graph).prepare()  # raises `CycleError`


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_between_the_rooms_of_a_package_go_one_way(package: str) -> None:
    rooms = {f"{package}.{path.name}" for path in (ROOT / package).iterdir() if (path / "__init__.py").is_file()}
    graph: dict[str, set[str]] = {}
    for room in rooms:
        names = {name for module in MODULES if is_in(module, [room]) for name, _ in imported(MODULES[module])}
        graph[room] = {other for other in rooms - {room} if any(is_in(name, [other]) for name in names)}
    TopologicalSorter(graph).prepare()  # raises `CycleError`


@pytest.mark.parametrize("room", BENEATH)
def test_a_room_imports_of_its_package_only_what_lies_beneath(room: str) -> None:
    package = room.split(".")[0]
    for name in (name for name in MODULES if is_in(name, [room])):
        own = {module for module, _ in imported(MODULES[name]) if is_in(module, [package])} & MODULES.keys()
        assert not [module for module in own - {package} if not is_in(module, (room, *BENEATH[room]))], name


@pytest.mark.parametrize("room", APART)
def test_rooms_that_lie_apart_do_not_import_each_other(room: str) -> None:
    for name in (name for name in MODULES if is_in(name, [room])):
        assert not [module for module, _ in imported(MODULES[name]) if is_in(module, APART[room])], name


@pytest.mark.parametrize("room", WITHOUT_TORCH)
def test_flags_are_read_without_loading_torch(room: str) -> None:
    loaded, waiting = {""}, {name for name in MODULES if is_in(name, [room])}
    assert waiting
    while waiting:
        loaded |= waiting
        names = {name for module in waiting for name in loaded_with(MODULES[module])}
        assert not {name.split(".")[0] for name in names} & LOAD_TORCH, waiting
        packages = {name.rpartition(".")[0] for name in names}
        waiting = set(map(module_of, names | packages)) - loaded


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


def definitions(tree: ast.AST, prefix: str = "") -> Iterator[str]:
    """Names that a module or a class defines, `Class.method` included."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield prefix + node.name
            yield from definitions(node, f"{prefix}{node.name}.")
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from (prefix + dotted(target) for target in targets)


def test_the_page_about_the_architecture_names_what_exists() -> None:
    named = re.findall(r"`([\w/]+\.py)(?::([\w.]+))?`", PAGE)
    assert len(named) > 40
    for path, name in named:
        if "NAME" not in path:
            assert (ROOT / path).is_file(), path
            assert not name or name in set(definitions(TREES[path])), f"{path}:{name}"
    for folder in re.findall(r"`([\w/]+/)`", PAGE):
        assert (ROOT / folder.replace("NAME", "")).is_dir(), folder


def test_the_page_about_the_architecture_draws_every_room() -> None:
    drawn, package = set[str](), ""
    for indent, name in re.findall(r"^(  )?(\w+)/ ", PAGE, re.MULTILINE):
        package = package if indent else name
        drawn.add(f"{package}/{name}" if indent else name)
    assert {path.parent.relative_to(ROOT).as_posix() for path in FILES} <= drawn
    assert all((ROOT / room).is_dir() for room in drawn)


def test_only_the_top_package_knows_how_a_verb_is_typed() -> None:
    """Below it, advice names actions. In backticks a verb's name may be that of something the module itself defines."""
    verbs = "|".join(VERBS)
    for name, tree in TREES.items():
        texts = (
            node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)
        )
        found = {verb for text in texts for verb in re.findall(rf"codegan (?:{verbs})\b|`(?:{verbs})`", text)}
        own = {f"`{definition.rpartition('.')[2]}`" for definition in definitions(tree)}
        assert name.startswith("pipelines/") or not found - own, f"{name}: {', '.join(found - own)}"


def test_git_ignores_no_folder_called_data_below_the_root() -> None:
    lines = {line.strip() for line in (ROOT / ".gitignore").read_text().splitlines()}
    assert not lines & {"data", "data/", "/data", "/data/", "**/data", "**/data/", "data/*"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_files_stay_short(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= MAX_LINES
