"""The house rules that a file can be checked for: who imports whom, sizes, names, docstrings."""

import ast
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "exporter"
MOST_LINES = 400

# Which rooms each room imports, edge by edge. An edge that is not here is a decision to make; one that is no longer
# used goes. `__init__` stands for `import exporter` itself.
IMPORTS: dict[str, str] = {
    "version": "",
    "errors": "",
    "forms": "",
    "machine": "",
    "local_path": "",
    "recipe_key": "",
    "arrays": "errors",
    "graph": "errors",
    "lint": "errors",
    "processes": "errors",
    "records": "errors",
    "signature": "errors",
    "streams": "errors",
    "models": "errors recipe_key",
    "images": "errors models",
    "schedule": "errors recipe_key",
    "capture": "errors graph",
    "anatomy": "errors graph schedule",
    "reduction": "errors forms recipe_key schedule",
    "kernels": "errors graph reduction",
    "sweep": "errors machine processes records schedule",
    "rewrite": "anatomy capture errors forms graph kernels reduction schedule",
    "targets": "capture errors forms graph lint local_path machine models rewrite signature",
    "packages": "targets version",
    "recipe": "errors forms local_path models recipe_key reduction rewrite schedule targets",
    "validation": (
        "anatomy arrays capture errors forms graph images machine models processes records reduction "
        "rewrite schedule targets"
    ),
    "benchmark": "arrays errors forms graph ladder machine models packages processes records targets",
    "bundle": "arrays errors models processes recipe records signature targets",
    "ladder": "bundle records signature targets",
    "embed": "bundle errors images ladder machine models processes records signature version",
    "servers": "bundle errors models processes records signature targets",
    "report": "arrays bundle errors models records sweep validation",
    "pipeline": (
        "anatomy benchmark bundle capture errors forms graph images ladder local_path machine models packages "
        "recipe records reduction report rewrite schedule sweep targets validation version"
    ),
    "__init__": "bundle errors models pipeline recipe schedule version",
    "cli": (
        "benchmark bundle embed errors graph lint models packages pipeline recipe records reduction rewrite "
        "schedule servers sweep targets validation version"
    ),
    "__main__": "cli processes streams",
}

# Where an optional library may be imported. Importing the package must not need it.
HOMES: dict[str, tuple[str, ...]] = {
    "transformers": ("models",),
    "diffusers": ("models/diffusers",),
    "open_clip": ("models",),
    "tensorrt": ("targets/trt",),
    "tensorrt_rtx_bindings": ("targets/trt_rtx",),
    "torch_tensorrt": ("targets/torch_trt",),
    "openvino": ("targets/openvino", "servers/triton"),
    "pyarrow": ("embed",),
    "ray": ("embed",),
    "gevent": ("servers",),
    "tritonclient": ("servers",),
}

# Engine libraries that always come along (Triton with PyTorch for CUDA): anywhere in their own room.
ALWAYS_THERE: dict[str, tuple[str, ...]] = {
    "onnx": ("targets/onnx", "lint"),
    "onnx_ir": ("targets/onnx",),
    "onnxscript": ("targets/onnx",),
    "onnxruntime": ("targets/onnx", "servers/triton"),
    "triton": ("kernels",),
}

ANYWHERE = ("anywhere",)

# What the tests on a GPU do without: they run on machines that are rented by the minute.
NOT_ON_A_GPU_BOX = {*HOMES, "hypothesis", "jsonschema", "playwright"}

VAGUE_NAMES = {"utils", "util", "helpers", "helper", "common", "misc"}


@dataclass(frozen=True, kw_only=True)
class Import:
    """One import statement.

    Attributes:
        name: in full: the module, or the module and what is taken from it.
        line: where it stands.
        lazy: whether it is inside a function, or for the type checker only.
    """

    name: str
    line: int
    lazy: bool


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def imports_of(path: Path) -> list[Import]:
    return list(_imports(tree(path), path, lazy=False))


def _imports(node: ast.AST, path: Path, *, lazy: bool) -> Iterator[Import]:
    match node:
        case ast.Import(names=names):
            yield from (Import(name=alias.name, line=node.lineno, lazy=lazy) for alias in names)
        case ast.ImportFrom(module=module, names=names, level=level):
            start = ".".join(path.relative_to(ROOT).parts[:-level]) if level else ""
            name = ".".join(part for part in (start, module) if part)
            yield from (Import(name=f"{name}.{alias.name}", line=node.lineno, lazy=lazy) for alias in names)
        case ast.FunctionDef() | ast.AsyncFunctionDef():
            lazy = True
        case ast.If(test=ast.Name(id="TYPE_CHECKING")):
            lazy = True
    for child in ast.iter_child_nodes(node):
        yield from _imports(child, path, lazy=lazy)


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def rooms_imported(path: Path) -> dict[str, int]:
    """Return the other rooms that a module imports, with the line of one such import."""
    rooms = {}
    for found in imports_of(path):
        package, _, rest = found.name.partition(".")
        if package == "exporter":
            rooms[rest.split(".")[0] or "__init__"] = found.line
    return {room: line for room, line in rooms.items() if room != room_of(path)}


MODULES = sorted(PACKAGE.rglob("*.py"))
OWN_MODULES = [*MODULES, *sorted((ROOT / "tools").rglob("*.py"))]


def offences(paths: list[Path], rule: Callable[[Path], list[str]]) -> list[str]:
    """Return what a rule has against these files."""
    return [f"{path.relative_to(ROOT)}: {offence}" for path in paths for offence in rule(path)]


def test_every_import_between_rooms_is_in_the_table() -> None:
    def rule(path: Path) -> list[str]:
        allowed = IMPORTS.get(room_of(path), "").split()
        return [
            f"line {line}: imports {room}"
            for room, line in rooms_imported(path).items()
            if room not in allowed
        ]

    assert offences(MODULES, rule) == []


def test_every_edge_of_the_table_is_used() -> None:
    used: dict[str, set[str]] = {room_of(path): set() for path in MODULES}
    for path in MODULES:
        used[room_of(path)] |= set(rooms_imported(path))

    assert {room: set(others.split()) for room, others in IMPORTS.items()} == used


def test_rooms_form_no_circle() -> None:
    graph = TopologicalSorter({room: others.split() for room, others in IMPORTS.items()})

    graph.prepare()  # raises a CycleError


def test_schedule_and_errors_are_free_of_torch() -> None:
    paths = [path for path in MODULES if room_of(path) in ("schedule", "errors")]

    assert len(paths) > 2
    assert not [path for path in paths for found in imports_of(path) if found.name.split(".")[0] == "torch"]


def test_optional_libraries_are_imported_in_their_own_room_only() -> None:
    assert offences(OWN_MODULES, lambda path: strays(path, HOMES)) == []


def test_what_needs_an_optional_library_is_imported_inside_functions_only() -> None:
    needing = {module_name(path) for path in MODULES if needs_an_extra(path)}

    def rule(path: Path) -> list[str]:
        return [
            f"line {found.line}: {found.name}"
            for found in imports_of(path)
            if not found.lazy and not needs_an_extra(path)
            if any(f"{found.name}.".startswith(f"{name}.") for name in needing)
        ]

    assert needing
    assert offences(OWN_MODULES, rule) == []


def strays(path: Path, homes: dict[str, tuple[str, ...]]) -> list[str]:
    """Return the imports of these libraries that stand outside of their homes."""
    return [
        f"line {found.line}: {found.name}"
        for found in imports_of(path)
        if not _is_in(path, homes.get(found.name.split(".")[0], ANYWHERE))
    ]


def needs_an_extra(path: Path) -> bool:
    """Return whether importing a module imports an optional library."""
    return any(not found.lazy and found.name.split(".")[0] in HOMES for found in imports_of(path))


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def test_engine_libraries_are_imported_in_their_own_room_only() -> None:
    assert offences(MODULES, lambda path: strays(path, ALWAYS_THERE)) == []


def test_tests_on_a_gpu_need_what_the_package_needs_and_pytest() -> None:
    waiting = [ROOT / "tests/conftest.py", *sorted((ROOT / "tests/gpu").glob("*.py"))]
    seen: set[Path] = set()
    while waiting:
        path = waiting.pop()
        seen.add(path)
        names = [found.name for found in imports_of(path) if not found.lazy]
        own = {
            ROOT.joinpath(*name.split(".")[:depth]).with_suffix(".py")
            for name in names
            for depth in (2, 3, 4)
        }
        waiting += [
            each for each in own if each.exists() and each not in seen and PACKAGE not in each.parents
        ]

    def rule(path: Path) -> list[str]:
        return [
            found.name
            for found in imports_of(path)
            if not found.lazy and found.name.split(".")[0] in NOT_ON_A_GPU_BOX
        ]

    assert ROOT / "tests/support/families.py" in seen
    assert offences(sorted(seen), rule) == []


def _is_in(path: Path, homes: tuple[str, ...]) -> bool:
    return homes == ANYWHERE or any((PACKAGE / home) in path.parents for home in homes)


def test_modules_are_at_most_400_lines() -> None:
    assert [path for path in OWN_MODULES if len(path.read_text("utf-8").splitlines()) > MOST_LINES] == []


def test_names_say_what_is_inside() -> None:
    words = {
        path: {part.removesuffix(".py") for part in path.relative_to(ROOT).parts} for path in OWN_MODULES
    }

    assert [path for path, parts in words.items() if VAGUE_NAMES & parts] == []


def test_modules_and_everything_public_in_them_have_docstrings() -> None:
    def rule(path: Path) -> list[str]:
        module = tree(path)
        missing = [] if ast.get_docstring(module) else ["the module has none"]
        return missing + [
            f"line {node.lineno}: {node.name}" for node in public(module) if not ast.get_docstring(node)
        ]

    assert offences(OWN_MODULES, rule) == []


def public(
    node: ast.Module | ast.ClassDef,
) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef]:
    """Yield public functions and classes, and the public methods of the latter."""
    for child in node.body:
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and child.name[0] != "_":
            yield child
            if isinstance(child, ast.ClassDef):
                yield from public(child)


def test_relative_import_is_read_as_the_module_that_it_names(tmp_path: Path) -> None:
    names = [
        found.name
        for found in _imports(ast.parse("from ..errors import X"), PACKAGE / "cli" / "a.py", lazy=False)
    ]

    assert names == ["exporter.errors.X"]


def test_import_inside_a_function_or_for_types_is_lazy() -> None:
    source = "import a\nif TYPE_CHECKING:\n    import b\ndef f():\n    import c\n"

    found = {item.name: item.lazy for item in _imports(ast.parse(source), PACKAGE / "x.py", lazy=False)}

    assert found == {"a": False, "b": True, "c": True}
