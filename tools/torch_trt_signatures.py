"""Read out of Torch-TensorRT's wheels what this package calls, since the library cannot be imported without a GPU.

    pip download torch-tensorrt==2.14.0 --no-deps
    python -m tools.torch_trt_signatures torch_tensorrt-*.whl > tests/unit/targets/torch_trt/signatures.json

Signatures, default values and converters are taken from the source with `ast`; nothing of the wheel is run.
"""

import ast
import json
import sys
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

FUNCTIONS = {
    "dynamo.compile": "torch_tensorrt/dynamo/_compiler.py",
    "save": "torch_tensorrt/_compile.py",
    "load": "torch_tensorrt/_compile.py",
    "runtime.enable_cudagraphs": "torch_tensorrt/runtime/_cudagraphs.py",
}
"""What is called, as its caller spells it, and where it is defined."""

CONVERTERS = (
    "torch_tensorrt/dynamo/conversion/aten_ops_converters.py",
    "torch_tensorrt/dynamo/conversion/ops_evaluators.py",
)
DEFAULTS = "torch_tensorrt/dynamo/_defaults.py"


def read_wheel(wheel: Path) -> dict[str, Any]:
    """Everything that the contract tests compare with, of one version.

    Args:
        wheel: of Torch-TensorRT.
    """
    with zipfile.ZipFile(wheel) as archive:
        trees = {
            name: ast.parse(archive.read(name))
            for name in {*FUNCTIONS.values(), *CONVERTERS, DEFAULTS}
            | {_exporting(each) for each in FUNCTIONS}
        }
    return {
        "functions": {name: _signature(trees[file], name.split(".")[-1]) for name, file in FUNCTIONS.items()},
        "exported": sorted(
            name for name in FUNCTIONS if _exports(trees[_exporting(name)], name.split(".")[-1])
        ),
        "defaults": _constants(trees[DEFAULTS]),
        "converters": _gathered(each for file in CONVERTERS for each in _converted(trees[file])),
    }


def _exporting(name: str) -> str:
    """The module that a caller's spelling goes through."""
    return "/".join(["torch_tensorrt", *name.split(".")[:-1], "__init__.py"])


def _exports(tree: ast.Module, name: str) -> bool:
    imported = [
        alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names
    ]
    return name in imported or "*" in imported


def _signature(tree: ast.Module, name: str) -> dict[str, Any]:
    (function,) = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == name]
    given = function.args
    return {
        "positional": [[each.arg, _annotation(each)] for each in (*given.posonlyargs, *given.args)],
        "keyword": [[each.arg, _annotation(each)] for each in given.kwonlyargs],
    }


def _annotation(argument: ast.arg) -> str:
    return " ".join(ast.unparse(argument.annotation).split()) if argument.annotation else ""


def _constants(tree: ast.Module) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
            found |= {target.id: node.value.value for target in node.targets if isinstance(target, ast.Name)}
    return found


def _converted(tree: ast.Module) -> Iterable[tuple[str, str]]:
    """Operators with a converter, and the function that says on what condition; "" for none."""
    for node in ast.walk(tree):
        for decorator in node.decorator_list if isinstance(node, ast.FunctionDef) else []:
            if isinstance(decorator, ast.Call) and "converter" in ast.unparse(decorator.func):
                named = {each.arg: each.value for each in decorator.keywords}
                condition = named.get("capability_validator")
                yield ast.unparse(decorator.args[0]), ast.unparse(condition) if condition else ""


def _gathered(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    gathered: dict[str, set[str]] = {}
    for operator, condition in pairs:
        gathered.setdefault(operator.removeprefix("torch.ops."), set()).add(condition[:60])
    return {operator: sorted(conditions) for operator, conditions in sorted(gathered.items())}


def main() -> None:
    """Print the contract of the wheels that are named on the command line."""
    contract = {wheel.name.split("-")[1]: read_wheel(wheel) for wheel in map(Path, sys.argv[1:])}
    sys.stdout.write(json.dumps(contract, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
