"""`embed` as a user types it."""

import json
from pathlib import Path

import pyarrow.parquet

from tests.cli.commands import run


def test_embed_writes_the_vectors_of_a_folder_and_goes_on(
    vit_bundle: Path, labelled_folder: Path, tmp_path: Path
) -> None:
    words = ("embed", vit_bundle, "--data", labelled_folder, "--out", tmp_path / "out", "--shard", "4")

    outcome = run(*words, "--json")

    assert outcome.status == 0, outcome.err
    said = json.loads(outcome.out)
    assert (said["rows"], said["embedded"], said["errors"], said["shards"]) == (6, 6, 0, 2)
    table = pyarrow.parquet.read_table(tmp_path / "out" / "shard-000000.parquet")
    assert table.column("path").to_pylist() == ["3/0.png", "3/1.jpg", "3/2.bmp", "7/0.png"]

    again = run(*words)
    assert again.status == 0
    assert "6 vectors of 10 float32 numbers (column logits) in 2 shards" in again.out
    assert "2 of 2 shards were there" in again.err


def test_embed_ends_with_the_status_of_what_is_wrong(
    vit_bundle: Path, labelled_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.png").write_bytes(b"no image")
    words = ("embed", vit_bundle, "--out", tmp_path / "out", "--data")

    assert run(*words, tmp_path / "nothing").status == 2
    assert run(*words, labelled_folder, "--target", "trt").status == 2
    assert run(*words, tmp_path / "data").status == 6
    assert run("embed", tmp_path, "--data", labelled_folder, "--out", tmp_path / "out").status == 8
