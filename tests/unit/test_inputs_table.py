"""The tables of accepted inputs say what the package takes, and name tests that exist; their example works."""

import ast
import re
from pathlib import Path

import pytest

from exporter.images import SUFFIXES
from exporter.models.checkpoint.content import PREFIXES, WRAPPERS
from exporter.models.request import SOURCES
from tests.cli.commands import run

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "inputs.md").read_text(encoding="utf-8")
CELLS = 3


def section(title: str) -> str:
    """The text under a heading of the second level."""
    (found,) = re.findall(rf"^## {title}\n(.*?)(?=^## |\Z)", TEXT, re.MULTILINE | re.DOTALL)
    return str(found)


def rows(text: str) -> list[tuple[str, ...]]:
    """The rows of a section's table, without its heading."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in lines[2:]]


ROWS = {title: rows(section(title)) for title in ("Models", "Weights", "Labels", "Images")}


@pytest.mark.parametrize("row", [pytest.param(row, id=row[0]) for table in ROWS.values() for row in table])
def test_every_form_names_a_test_that_exists(row: tuple[str, ...]) -> None:
    assert len(row) == CELLS
    path, _, name = row[2].strip("`").partition("::")
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert any(function.startswith("test_") for function in functions)
    assert not name or name in functions


def test_every_source_of_models_is_listed() -> None:
    listed = " ".join(row[0] for row in ROWS["Models"])
    assert all(f"`{source}:" in listed for source in SOURCES)


def test_every_kind_of_image_file_is_listed_and_no_other() -> None:
    listed = re.findall(r"`(\.\w+)`", " ".join(row[0] for row in ROWS["Images"]))
    assert sorted(listed) == sorted(SUFFIXES)


def test_wrappers_and_prefixes_that_are_named_are_known() -> None:
    words = {
        row[0].split(":")[0].split(" `")[0]: re.findall(r"`(\w+)\.?`", row[0]) for row in ROWS["Weights"]
    }
    assert words["under"] and set(words["under"]) <= set(WRAPPERS)
    assert words["with a prefix"] and set(words["with a prefix"]) <= set(PREFIXES)


@pytest.fixture(scope="module")
def brought(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the page's program makes."""
    (program,) = re.findall(r"```python\n(.*?)```", section("Try it"), re.DOTALL)
    folder = tmp_path_factory.mktemp("brought")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        exec(compile(program, "docs/inputs.md", "exec"), {})
    return folder


COMMANDS = re.findall(r"^python -m exporter (.*)$", section("Try it"), re.MULTILINE)


@pytest.mark.parametrize("command", COMMANDS)
def test_what_the_page_tells_a_newcomer_to_type_is_understood(
    command: str, brought: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(brought)
    outcome = run("inspect", *command.split())

    assert outcome.status == 0, outcome.err
    assert "merged" in outcome.out


def test_what_the_page_tells_a_newcomer_to_type_makes_a_bundle(
    brought: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(brought)
    (command,) = [each for each in COMMANDS if "hf:./" in each]
    outcome = run(*command.split(), "--out", tmp_path / "bundle")

    assert outcome.status == 0, outcome.err
    assert "parity onnx" in outcome.out


def test_the_page_has_one_example_of_each_kind() -> None:
    words = " ".join(COMMANDS)
    assert all(word in words for word in ("timm:", "hf:./", "open_clip:", ".pt2 --preprocess"))
