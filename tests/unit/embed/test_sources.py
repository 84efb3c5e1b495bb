"""Rows of a folder, of tables and of archives: in order, as a stream, and one line for what is none."""

import io
import tarfile
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from exporter.embed.encode import opener
from exporter.embed.plan import shard_size
from exporter.embed.row import Column, Row, Source
from exporter.embed.source import open_source
from exporter.embed.tar_archives import expanded
from exporter.errors import UsageError
from tests.support.image_trees import colour, write


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Images of colour 0 to 3, two of them in a sub-folder."""
    for number, name in enumerate(("b.png", "a.PNG", "sub/d.jpg", "sub/deep/c.png")):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        colour(number).save(tmp_path / name, "PNG")
    return tmp_path


def names(source: Source) -> list[str]:
    """Return the names of all rows."""
    return [row.name for row in source.rows()]


def reds(source: Source) -> list[int]:
    """Return the red of the image of each row."""
    return [np.asarray(opener(row)())[0, 0, 0].item() for row in source.rows()]


def test_folder_is_read_folder_by_folder_and_says_what_it_leaves_out(data: Path) -> None:
    (data / ".hidden").mkdir()
    (data / "sub" / "photo.heic").touch()
    source = open_source(str(data), ())

    assert names(source) == ["a.PNG", "b.png", "sub/d.jpg", "sub/deep/c.png"]
    assert reds(source) == [1, 0, 2, 3]
    assert [note.partition(" left out")[0] for note in source.notes()] == [
        "1 file (1 .heic)",
        "skipped, as no images and no classes: .hidden",
    ]


def test_csv_is_read_as_seen_from_the_file_and_carries_texts(data: Path) -> None:
    table = write(data / "sub", ["id,path,of", "07,d.jpg,x", "", "08,../a.PNG,y", "09,missing.png,z"])

    source = open_source(str(table), ("of", "id"))

    assert names(source) == ["d.jpg", "../a.PNG", "missing.png"]
    assert source.columns == (Column(name="of", kind="string"), Column(name="id", kind="string"))
    rows = list(source.rows())
    assert [row.carried for row in rows] == [("x", "07"), ("y", "08"), ("z", "09")]
    assert [row.stamp is None for row in rows] == [False, False, True]


def test_parquet_keeps_the_types_of_what_it_carries(data: Path) -> None:
    columns = {"image": ["b.png", "a.PNG"], "id": [1, None], "score": [0.5, 2.0], "good": [True, False]}
    pyarrow.parquet.write_table(pyarrow.table(columns), data / "list.parquet")

    source = open_source(str(data / "list.parquet"), ("id", "score", "good"))

    assert [column.kind for column in source.columns] == ["int64", "float64", "bool"]
    assert [(row.name, row.carried) for row in source.rows()] == [
        ("b.png", (1, 0.5, True)),
        ("a.PNG", (None, 2.0, False)),
    ]


def test_archives_are_read_in_place(data: Path) -> None:
    for number, members in ((9, ("b.png", "sub/d.jpg")), (10, ("a.PNG",))):
        with tarfile.open(data / f"part-{number:02}.tar", "w") as archive:
            for member in members:
                text = tarfile.TarInfo(f"{member[:-4]}.txt")
                text.size = len(member)
                archive.add(data / member, member)
                archive.addfile(text, io.BytesIO(member.encode()))

    source = open_source(str(data / "part-{09..10}.tar"), ("txt",))

    assert names(source) == ["part-09.tar/b.png", "part-09.tar/sub/d.jpg", "part-10.tar/a.PNG"]
    assert reds(source) == [0, 2, 1]
    assert [row.carried for row in source.rows()] == [("b.png",), ("sub/d.jpg",), ("a.PNG",)]
    with pytest.raises(UsageError, match=r"no image has a text .json beside it"):
        list(open_source(str(data / "part-09.tar"), ("json",)).rows())


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        pytest.param("a.tar", ["a.tar"], id="none"),
        pytest.param("a-{08..10}.tar", ["a-08.tar", "a-09.tar", "a-10.tar"], id="zeros"),
        pytest.param("{1..2}/{3..4}", ["1/3", "1/4", "2/3", "2/4"], id="two"),
    ],
)
def test_pattern_of_archives(pattern: str, names: list[str]) -> None:
    assert list(expanded(pattern)) == names


@pytest.mark.parametrize(
    ("name", "carry", "words"),
    [
        pytest.param("nothing", (), "there is no .*nothing", id="nothing there"),
        pytest.param("empty", (), "empty: expected images .*, got none", id="empty folder"),
        pytest.param("notes.txt", (), "neither a folder of images nor a .csv", id="another file"),
        pytest.param("x-{0..2}.tar", (), "x-{0..2}.tar: there is no .*x-0.tar and 2 more", id="no archive"),
        pytest.param("bad.tar", (), "bad.tar: not a whole, uncompressed tar archive", id="no tar"),
        pytest.param("x.tar.gz", (), "is compressed", id="compressed"),
        pytest.param("bad.parquet", (), "bad.parquet cannot be read", id="no Parquet"),
        pytest.param(
            "good.csv", ("lable",), 'one column "lable", got image, label. Did you mean "label"', id="carry"
        ),
        pytest.param("good.csv", ("label", "label"), "expected each column once", id="twice"),
        pytest.param("none.csv", (), "expected one column image or path, got file, label", id="no column"),
        pytest.param(
            "both.csv", (), "expected one column image or path, got image and path", id="two columns"
        ),
        pytest.param("short.csv", (), "line 3: expected 2 cells", id="short line"),
        pytest.param("latin.csv", (), "not a CSV file in UTF-8", id="Latin 1"),
    ],
)
def test_what_is_no_corpus_is_one_line(tmp_path: Path, name: str, carry: tuple[str, ...], words: str) -> None:
    (tmp_path / "empty").mkdir()
    for other in ("notes.txt", "bad.tar", "bad.parquet", "x.tar.gz"):
        (tmp_path / other).write_text("nothing of the kind " * 60, encoding="utf-8")
    write(tmp_path, ["image,label", "a.png,1"], "good.csv")
    write(tmp_path, ["file,label", "a.png,1"], "none.csv")
    write(tmp_path, ["image,path", "a.png,1"], "both.csv")
    write(tmp_path, ["image,label", "a.png,1", "b.png"], "short.csv")
    (tmp_path / "latin.csv").write_bytes("image\ncaf\xe9.png\n".encode("latin-1"))

    with pytest.raises(UsageError, match=words):
        list(open_source(str(tmp_path / name), carry).rows())


@pytest.mark.parametrize(
    ("rows", "images", "expected"),
    [
        pytest.param(1, 32, 32, id="one call of the engine at least"),
        pytest.param(2048, 32, 32, id="64 shards"),
        pytest.param(2049, 32, 64, id="more than 64 of one call"),
        pytest.param(10_000, 100, 200, id="whole batches"),
        pytest.param(300_000, 32, 4096, id="at most 4096"),
        pytest.param(300_000, 1000, 4000, id="at most 4096 in whole batches"),
        pytest.param(1, 5000, 5000, id="a larger batch"),
    ],
)
def test_shards_are_a_64th_of_the_images_in_whole_calls_of_the_engine(
    rows: int, images: int, expected: int
) -> None:
    row = Row(name="a", file="a")

    assert shard_size(Source(name="many", rows=lambda: iter([row] * rows)), images) == expected
