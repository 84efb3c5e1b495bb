"""Write the script that builds an engine on another machine, and the list of what it needs there.

A script is a module of this package, its template, with a recipe filled in and the code of `sample_check` in place of
its import: it needs nothing of this package.
"""

import ast
import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from exporter.errors import InternalError
from exporter.targets import sample_check

_RECIPE = "RECIPE: dict[str, Any] = {}\n"
"""Where the recipe goes."""

_SHARED = re.compile(r"^from exporter\.targets\.sample_check import .*\n", re.MULTILINE)
"""Where the shared code goes."""

_NEEDS = re.compile(r"^# dependencies = .*$", re.MULTILINE)


def write_script(folder: Path, template: Path, recipe: Mapping[str, Any], needs: Sequence[str]) -> None:
    """Write `build_<engine>.py` and `requirements_<engine>.txt`.

    Args:
        folder: to write into.
        template: the module `build_<engine>.py`.
        recipe: JSON values.
        needs: what has to be installed, as pip takes it.
    """
    text = template.read_text(encoding="utf-8")
    for place, new in (
        (re.compile(f"^{re.escape(_RECIPE)}", re.MULTILINE), _RECIPE.replace("{}", _literal(recipe))),
        (_SHARED, _code_of(Path(sample_check.__file__), text.splitlines(keepends=True))),
        (_NEEDS, f"# dependencies = {json.dumps(list(needs))}"),
    ):
        parts = place.split(text)
        if len(parts) != 2:
            raise InternalError(f"{template.name} has no place for {new[:20]!r}")
        text = new.join(parts)
    (folder / template.name).write_text(text, encoding="utf-8")
    requirements = template.with_suffix(".txt").name.replace("build", "requirements")
    (folder / requirements).write_text("".join(f"{each}\n" for each in needs), encoding="utf-8")


def dependencies(script: str) -> list[str]:
    """What a script's inline metadata (PEP 723) demands."""
    (block,) = re.findall(r"^# /// script\n((?:# .*\n)+)# ///\n", script, re.MULTILINE)
    found: list[str] = tomllib.loads(re.sub("^# ", "", block, flags=re.MULTILINE))["dependencies"]
    return found


def _code_of(module: Path, there: Sequence[str]) -> str:
    """A module without its docstring, and without imports that are there already."""
    source = module.read_text(encoding="utf-8")
    lines = source.splitlines(keepends=True)[ast.parse(source).body[0].end_lineno :]
    imports = ("import ", "from ")
    return "".join(line for line in lines if not (line.startswith(imports) and line in there)).lstrip()


def _literal(value: Any, indent: str = "") -> str:
    """JSON values as Python writes them."""
    match value:
        case Mapping():
            inner = f"{indent}    "
            entries = [f"{inner}{_literal(key)}: {_literal(each, inner)},\n" for key, each in value.items()]
            return f"{{\n{''.join(entries)}{indent}}}"
        case list():
            return f"[{', '.join(map(_literal, value))}]"
        case str():
            return json.dumps(value, ensure_ascii=False)
        case _:
            return repr(value)
