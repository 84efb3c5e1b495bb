"""Graphs between passes, as text on stderr and in files."""

from pathlib import Path

from exporter.rewrite.pipeline import PASSES
from tests.cli.commands import refused, run


def test_graphs_are_printed_on_stderr_and_written_in_order(vit_dir: Path, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "graphs"
    asked = ("--print-after", "insert_token_merge", "--print-after", "convert_precision")

    done = run("inspect", f"hf:{vit_dir}", "--r", "4", "--json", *asked, "--print-ir-after-all", str(folder))

    names = [path.stem.partition("_")[2] for path in sorted(folder.iterdir())]
    assert names == [each.name for each in PASSES if each.name in names]
    assert {"fold_constant_masks", "remove_no_ops", "capture_again"} < set(names)
    (merged,) = folder.glob("*_insert_token_merge.txt")
    assert "graph after insert_token_merge:\n" + merged.read_text("utf-8") in done.err
    assert "--print-after: convert_precision did not run" in done.err
    assert "block_01  attend_with_bias = " in merged.read_text("utf-8")


def test_unknown_pass_is_refused_with_the_nearest_name(vit_dir: Path) -> None:
    line = refused(2, "inspect", f"hf:{vit_dir}", "--print-after", "insert_token_merges")

    assert line.endswith('got insert_token_merges. Did you mean "insert_token_merge"?')


def test_folder_that_holds_something_is_refused(vit_dir: Path) -> None:
    line = refused(2, "inspect", f"hf:{vit_dir}", "--print-ir-after-all", str(vit_dir))

    assert "--print-ir-after-all: expected a new or an empty folder, got" in line


def test_folder_that_cannot_be_made_is_refused(vit_dir: Path) -> None:
    line = refused(2, "inspect", f"hf:{vit_dir}", "--print-ir-after-all", str(vit_dir / "config.json" / "x"))

    assert "cannot be written: Not a directory" in line
