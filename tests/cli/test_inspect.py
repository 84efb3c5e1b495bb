"""`inspect`: what would be done, without doing it."""

from pathlib import Path

from tests.cli.commands import run


def test_table_shows_every_block(vit_dir: Path, workplace: Path) -> None:
    outcome = run("inspect", f"hf:{vit_dir}", "--r", "4")

    assert outcome.status == 0
    rows = [line.split("│")[1:-1] for line in outcome.out.splitlines() if line.startswith("│")]
    assert [[cell.strip() for cell in row[:4]] for row in rows] == [
        ["0", "37", "4", "33"],
        ["1", "33", "4", "29"],
        ["2", "29", "4", "25"],
        ["3", "25", "4", "21"],
    ]
    for fact in ("GMACs", "merge point", "1 protected prefix tokens", "dense", "reduced"):
        assert fact in " ".join(outcome.out.split())


def test_dropped_tokens_have_a_column_of_their_own(vit_dir: Path, workplace: Path) -> None:
    words = ("--method", "diffrate", "--r-per-layer", "4,0,2,0", "--drop-per-layer", "1,3,0,0")

    outcome = run("inspect", f"hf:{vit_dir}", *words)

    rows = [line.split("│")[1:-1] for line in outcome.out.splitlines() if line.startswith("│")]
    assert [[cell.strip() for cell in row[:5]] for row in rows] == [
        ["0", "37", "4", "1", "32"],
        ["1", "32", "0", "3", "29"],
        ["2", "29", "2", "0", "27"],
        ["3", "27", "0", "0", "27"],
    ]


def test_json_has_what_the_table_has(vit_dir: Path, workplace: Path) -> None:
    outcome = run("inspect", f"hf:{vit_dir}", "--r", "4", "--json")

    assert outcome.err == ""
    document = outcome.document
    assert document.keys() == {"model", "schedule", "tokens_protected", "head", "gmacs", "blocks", "refusals"}
    assert document["tokens_protected"] == 1
    assert document["refusals"] == []
    assert [block["tokens_out"] for block in document["blocks"]] == [33, 29, 25, 21]
    assert all(block["attention"] and block["merge_point"] for block in document["blocks"])


def test_capped_schedule_is_noted(vit_dir: Path, workplace: Path) -> None:
    outcome = run("inspect", f"hf:{vit_dir}", "--r", "40")

    assert "note: schedule capped" in " ".join(outcome.out.split())


def test_refusals_are_listed_and_no_failure(workplace: Path) -> None:
    options = ("--model-option", "depth=2", "--model-option", "global_pool=max")
    words = ("inspect", "timm:vit_tiny_patch16_224", "--weights", "random", *options)

    shown, document = run(*words, "--r", "4"), run(*words, "--r", "4", "--json").document

    assert shown.status == 0
    assert "refused" in shown.out
    assert document["refusals"]
    assert document["refusals"][0].keys() == {"block", "node", "reason", "restorable"}
    assert document["refusals"][0]["node"] in shown.out


def test_text_tower_has_no_blocks(clip_dir: Path, workplace: Path) -> None:
    outcome = run("inspect", f"hf:{clip_dir}", "--tower", "text")

    assert outcome.status == 0
    assert "as it is" in outcome.out


def test_published_gmacs(workplace: Path) -> None:
    """Ti/16 in ToMe's table, at the printed digits."""
    words = ("inspect", "timm:vit_tiny_patch16_224", "--weights", "random", "--r", "8", "--json")

    assert round(run(*words).document["gmacs"]["reduced"], 3) == 0.924
