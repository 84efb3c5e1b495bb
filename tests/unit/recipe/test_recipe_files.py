"""Recipe files: safe YAML only, read from disk with one-line refusals."""

import os
from pathlib import Path

import pytest

from exporter.errors import RecipeError, quoted
from exporter.recipe import load_recipe
from exporter.recipe.yaml_text import format_yaml, parse_yaml

BOMB = "\n".join(
    ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 10)]
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param(BOMB, "line 1: anchors and aliases are not allowed", id="bomb"),
        pytest.param("model: x\nname: *a", "line 2: anchors and aliases", id="alias"),
        pytest.param("model: &a x", "anchors and aliases", id="anchor"),
        pytest.param("a: &a {model: x}\n<<: *a", "anchors and aliases", id="merge-key"),
        pytest.param("model: !!python/object/apply:os.system [id]", "tags such as", id="python-tag"),
        pytest.param("model: !!str x", "tags such as", id="plain-tag"),
        pytest.param("model: x\nmodel: y", 'line 2: the key "model" is given twice', id="duplicate"),
        pytest.param("1: x", "expected a key that is text", id="number-key"),
        pytest.param("? [a]\n: x", "expected a key that is text", id="list-key"),
        pytest.param("model: [", "line 1", id="unfinished"),
        pytest.param("model: x\n---\nmodel: y", "expected a single document", id="two-documents"),
        pytest.param("[" * 5000, "levels", id="deep"),
        pytest.param("a: [" + "1," * 20_000 + "1]", "values", id="wide"),
        pytest.param("seed: " + "9" * 5000, "too many digits", id="long-number"),
        pytest.param("parity: {cosine: 1e999}", "too large", id="infinite"),
        pytest.param("model: \x07", "not valid YAML", id="control-character"),
    ],
)
def test_hostile_or_broken_yaml_is_refused(text: str, message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        parse_yaml(text, "my.yaml")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        pytest.param("1e-3", 0.001, id="exponent-without-point"),
        pytest.param("-0.5", -0.5, id="negative"),
        pytest.param("no", "no", id="no-is-text"),
        pytest.param("010", "010", id="octal-is-text"),
        pytest.param("1:30", "1:30", id="sexagesimal-is-text"),
        pytest.param("2024-01-01", "2024-01-01", id="date-is-text"),
        pytest.param(".nan", ".nan", id="nan-is-text"),
        pytest.param(".inf", ".inf", id="infinity-is-text"),
        pytest.param("1_000", "1_000", id="underscore-is-text"),
        pytest.param("True", True, id="boolean"),
        pytest.param("~", None, id="null"),
        pytest.param("'8'", "8", id="quoted-number-is-text"),
        pytest.param("12", 12, id="integer"),
    ],
)
def test_scalars_resolve_as_in_yaml_1_2_in_both_directions(text: str, value: object) -> None:
    assert parse_yaml(f"key: {text}", "my.yaml") == {"key": value}
    assert parse_yaml(format_yaml({"key": value}), "my.yaml") == {"key": value}


def written(folder: Path, data: bytes) -> Path:
    path = folder / "my.yaml"
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("data", "message"),
    [
        pytest.param(b"", "got nothing", id="empty"),
        pytest.param(b"model: \xff", "expected UTF-8 text, got byte 0xff at 7", id="not-utf-8"),
        pytest.param(b"#" * (1 << 20) + b"\n", "at most 1048576 bytes", id="too-large"),
        pytest.param(
            b"schedule: {r: .inf}\nmodel: x", 'schedule.r: expected an integer >= 0, got ".inf"', id="inf"
        ),
    ],
)
def test_a_file_that_is_no_recipe_is_refused_by_name(tmp_path: Path, data: bytes, message: str) -> None:
    path = written(tmp_path, data)
    with pytest.raises(RecipeError) as caught:
        load_recipe(path)
    assert str(caught.value).startswith(quoted(f"{path}:"))
    assert message in str(caught.value)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no such recipe file"):
        load_recipe(tmp_path / "none.yaml")
    with pytest.raises(RecipeError, match="not a file"):
        load_recipe(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_refused_rather_than_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    with pytest.raises(RecipeError, match="not a file"):
        load_recipe(tmp_path / "pipe.yaml")


def test_a_byte_order_mark_is_no_harm(tmp_path: Path) -> None:
    assert load_recipe(written(tmp_path, b"\xef\xbb\xbfmodel: vit_b16\n")).model.model == "vit_b16"
