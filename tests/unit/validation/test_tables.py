"""Text files are read whole or refused with the line."""

import os
from pathlib import Path

import pytest

from exporter.errors import UsageError
from exporter.validation.tables import LARGEST_BYTES, Row, read_lines, read_table, read_templates


def test_a_table_is_read_as_spreadsheets_write_it(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes('\ufeffimage, label\r\n"a, b.png",1\r\n\r\n"c ""d""\nx.png",2\u2028\r\n'.encode())
    assert read_table(path, ("image", "label")) == (
        Row(values=("a, b.png", "1"), line=2),
        Row(values=('c "d"\nx.png', "2"), line=5),
    )


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        pytest.param(b"", "expected the header a,b, got an empty file", id="empty"),
        pytest.param(b"a,b\n", "got none", id="header only"),
        pytest.param(b"b,a\n1,2\n", "expected the header a,b, got b,a", id="order"),
        pytest.param(b"a,b,c\n1,2,3\n", "expected the header a,b, got a,b,c", id="more"),
        pytest.param(b"a,b\n1\n", "line 2: expected 2 cells", id="short"),
        pytest.param(b"a,b\n1,2\n1,2,3\n", "line 3: expected 2 cells", id="long"),
        pytest.param(b"a,b\n ,2\n", "line 2: a is empty", id="empty cell"),
        pytest.param(b'a,b\n"1,2\n', "line 2: not a CSV file", id="open quote"),
        pytest.param(b"a,b\n\xff,2\n", "not UTF-8", id="not UTF-8"),
    ],
)
def test_a_malformed_table_is_refused(data: bytes, expected: str, tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(data)
    with pytest.raises(UsageError, match=expected):
        read_table(path, ("a", "b"))


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="class names: cannot read .*none.txt .No such file"):
        read_lines(tmp_path / "none.txt", "class names")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        pytest.param(
            "/dev/zero", "/dev/zero is not a regular file; save what it gives as a text file", id="device"
        ),
        pytest.param("pipe", "pipe is not a regular file", id="pipe"),
        pytest.param(".", "is not a regular file", id="folder"),
        pytest.param("large.txt", "large.txt is larger than 64 MiB; expected a text file", id="too large"),
    ],
)
def test_what_has_no_end_is_refused(name: str, expected: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with (tmp_path / "large.txt").open("wb") as file:
        file.truncate(LARGEST_BYTES + 1)

    with pytest.raises(UsageError, match=f"class names: .*{expected}"):
        read_lines(tmp_path / name, "class names")
    with pytest.raises(UsageError, match=f"table: .*{expected}"):
        read_table(tmp_path / name, ("a", "b"))


def test_lines_are_items(tmp_path: Path) -> None:
    path = tmp_path / "names.txt"
    path.write_bytes("\ufeffgreat grey owl\r\n caf\u00e9 \nx\x0cy\n\n\n".encode())
    assert read_lines(path, "class names") == ("great grey owl", "caf\u00e9", "x\x0cy")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("\n \n", "is empty: expected one per line", id="nothing"),
        pytest.param("cat\n\ndog\n", "line 2 is empty", id="a gap, which would shift what follows"),
    ],
)
def test_lines_with_gaps_are_refused(text: str, expected: str, tmp_path: Path) -> None:
    path = tmp_path / "names.txt"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=expected):
        read_lines(path, "class names")


def test_templates_have_one_place(tmp_path: Path) -> None:
    path = tmp_path / "templates.txt"
    path.write_text("a photo of a {}.\n{}\n", encoding="utf-8")
    assert read_templates(path) == ("a photo of a {}.", "{}")


@pytest.mark.parametrize("line", ["a photo", "{} and {}", "a {name}", "{0}", "{{}}", "{}}"])
def test_templates_without_one_place_are_refused(line: str, tmp_path: Path) -> None:
    path = tmp_path / "templates.txt"
    path.write_text(f"a {{}}\n{line}\n", encoding="utf-8")
    with pytest.raises(UsageError, match="line 2: expected one {} where the class name goes"):
        read_templates(path)
