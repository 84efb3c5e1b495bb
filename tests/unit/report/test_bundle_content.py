"""What a bundle's report says: the numbers of its files, and what was not run."""

from pathlib import Path

import pytest

from exporter.bundle import GmacsRecord, ParityRecord, ScheduleRecord
from exporter.report import report_bundle
from exporter.report.bundle_content import bundle_content
from exporter.report.report import evidence
from tests.support.report_bundle import BENCH, VALIDATION, Form, alike_groups, make_bundle, noise_image
from tests.unit.report.conftest import Make
from tests.unit.report.reading import Read, read


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Read:
    files = {"validation.json": VALIDATION, "bench.json": BENCH}
    counts = GmacsRecord(dense=1.5, reduced=1.2, ratio=1.25, executed=0.9, blocks=(3e-3, 2e-3, 1.5e-3))
    return read(make_bundle(tmp_path_factory.mktemp("full") / "bundle", files=files, gmacs=counts))


def test_summary_gives_the_figures_to_remember(full: Read) -> None:
    rows = [line.split(" | ") for line in full.sections[""].splitlines() if line.startswith("|")][2:]
    summary = {row[0].strip("| "): (row[1], row[2].strip("| ")) for row in rows}

    assert summary == {
        "Tokens": ("17 to 7", "10 merged in 3 blocks"),
        "GMACs per image": ("1.50 to 1.20", "1.25× fewer; 0.9 executed"),  # noqa: RUF001
        "Speed": ("2.50×", "2.41 to 2.62: r4 onnx / eager dense, batch 1; 1 warning"),  # noqa: RUF001
        "Top-1 against dense": ("-0.44 points", "-1.54 to +0.66, onnx"),
        "Parity with eager PyTorch": ("passed", "largest error 1.5e-06"),
    }


@pytest.mark.parametrize(
    ("label", "interval", "tone"),
    [
        pytest.param("Top-1 against dense", [-1.5, -0.1], "bad", id="surely worse"),
        pytest.param("Top-1 against dense", [-1.5, 0.5], "plain", id="perhaps no worse"),
        pytest.param("Speed", [1.1, 1.4], "good", id="surely faster"),
        pytest.param("Speed", [0.9, 1.4], "plain", id="perhaps no faster"),
        pytest.param("Speed", [0.7, 0.9], "bad", id="surely slower"),
    ],
)
def test_headline_is_marked_where_its_interval_leaves_no_doubt(
    make: Make, label: str, interval: list[float], tone: str
) -> None:
    difference = {"onnx": {"top1": -0.5, "interval": interval, "p_value": None}}
    ratio = {"name": "r4 onnx / eager dense", "batch": 1, "value": 1.0, "interval": interval}
    files = {
        "validation.json": {**VALIDATION, "difference": difference},
        "bench.json": {**BENCH, "ratios": [ratio]},
    }

    headlines = bundle_content(evidence(make(files=files))).headlines

    assert [each.tone for each in headlines if each.label == label] == [tone]


def test_model_method_and_schedule_are_named(full: Read) -> None:
    assert "timm:tiny, random weights, image tower, method tome, schedule constant r=4" in full.sections[""]


def test_blocks_have_their_tokens_arithmetic_and_time(full: Read) -> None:
    rows = full.table("Tokens, arithmetic and time per block", "Tokens in and out of each block")

    assert [list(row.values()) for row in rows] == [
        ["0", "17", "4", "13", "3.00", "0.500"],
        ["1", "13", "4", "9", "2.00", "0.625"],
        ["2", "9", "2", "7", "1.50", "0.750"],
    ]
    assert list(rows[0]) == ["block", "tokens in", "merged", "tokens out", "MMACs", "ms, onnx"]


def test_blocks_have_what_they_drop_where_any_does(make: Make) -> None:
    schedule = ScheduleRecord(requested="pairs", merged=(3, 0, 2), dropped=(1, 4, 0), tokens=(17, 13, 9, 7))

    rows = read(make(schedule=schedule)).table(
        "Tokens, arithmetic and time per block", "Tokens in and out of each block"
    )

    assert [list(row.values())[:5] for row in rows] == [
        ["0", "17", "3", "1", "13"],
        ["1", "13", "0", "4", "9"],
        ["2", "9", "2", "0", "7"],
    ]
    assert list(rows[0])[2:5] == ["merged", "dropped", "tokens out"]


def test_large_and_small_counts_of_arithmetic_are_readable(make: Make) -> None:
    counts = GmacsRecord(dense=20.0, reduced=13.104, ratio=1.5, executed=0.0334, blocks=(5.0, 4.0, 3.5))

    report = read(make(gmacs=counts))

    rows = report.table("Tokens, arithmetic and time per block", "Tokens in and out of each block")
    assert [row["MMACs"] for row in rows] == ["5,000", "4,000", "3,500"]
    assert "| GMACs per image | 20.00 to 13.10 | 1.50× fewer; 0.0334 executed |" in report.text  # noqa: RUF001


def test_parity_has_a_row_per_target_and_the_agreement_per_merging_block(make: Make) -> None:
    form = Form(merged=(4, 0, 2))
    record = ParityRecord(
        max_abs_error=2e-5, mean_abs_error=3e-6, cosine=0.99999, match_agreement=(1.0, 0.5), passed=True
    )

    report = read(make(form=form, parity={"onnx": record}))

    assert report.table("Parity", "Engines against")[0] == {
        "target": "onnx",
        "verdict": "passed",
        "largest error": "2.0e-05",
        "mean error": "3.0e-06",
        "least cosine": "0.999990",
        "equal matches, worst block": "50.00 %",
    }
    agreement = report.table("Parity", "Merges that eager PyTorch makes as well")
    assert [(row["block"], row["onnx"]) for row in agreement] == [("0", "100.00 %"), ("2", "50.00 %")]


def test_merge_that_no_engine_executes_is_said_to_be_that(full: Read) -> None:
    agreement = full.table("Parity", "Merges that eager PyTorch makes as well")

    assert [row["onnx"] for row in agreement] == ["100.00 %", "75.00 %", "not executed"]


def test_failed_and_missing_parity_are_said(make: Make) -> None:
    failed = ParityRecord(max_abs_error=1.0, mean_abs_error=0.5, cosine=0.5, match_agreement=(), passed=False)

    report = read(make(parity={"onnx": failed}))

    assert "| Parity with eager PyTorch | failed | failed: onnx |" in report.sections[""]
    assert "Agreement of the matches: not measured." in report.sections["Parity"]
    assert report.table("Parity", "Engines against")[0]["equal matches, worst block"] == "–"  # noqa: RUF001


def test_what_was_not_measured_is_said(make: Make) -> None:
    report = read(make(parity={}))

    assert "| Parity | not verified |" in report.sections[""]
    assert "Not verified against eager PyTorch." in report.sections["Parity"]
    assert "| Speed | not measured |" in report.sections[""]
    assert "| Top-1 against dense | not measured |" in report.sections[""]
    assert "merges.npz" in report.sections["What was merged"]
    blocks = report.sections["Tokens, arithmetic and time per block"]
    assert "Arithmetic per block: not worked out here." in blocks
    assert "Time per block: not measured." in blocks
    assert "MMACs" not in blocks


def test_accuracy_has_every_contender_and_the_difference_with_its_interval(full: Read) -> None:
    rows = full.table("Accuracy", "Accuracy: classification on held-out scans")
    difference = full.table("Accuracy", "Top-1 gained against dense eager on the same images")

    assert [list(row.values()) for row in rows] == [
        ["dense", "98.24 %", "99.78 %", "454"],
        ["onnx", "97.80 %", "99.56 %", "454"],
    ]
    assert [list(row.values()) for row in difference] == [["onnx", "-0.44", "-1.54 to +0.66", "0.625"]]


def test_unreadable_images_are_counted_and_named(full: Read) -> None:
    section = full.sections["Accuracy"]

    assert "**1 image could not be read and left out:**" in section
    assert "- a/broken.jpg: truncated" in section


def test_long_list_of_unreadable_images_is_cut_and_says_so(make: Make) -> None:
    broken = [{"name": f"{place}.jpg", "reason": "empty"} for place in range(13)]
    tree = {"data": {"name": "scans", "n": 1, "unreadable": broken}}

    section = read(make(files={"validation.json": tree})).sections["Accuracy"]

    assert "13 images could not be read" in section
    assert section.count(".jpg: empty") == 10
    assert "and 3 more, named in validation.json" in section


def test_retrieval_has_recall_both_ways(full: Read) -> None:
    rows = full.table("Retrieval", "Recall among 400 images and 2,000 texts")

    assert list(rows[1].values()) == [
        *("onnx", "60.25 %", "85.50 %", "92.75 %", "71.50 %", "90.25 %", "95.75 %")
    ]
    assert list(rows[0])[1:] == [
        f"{way} R@{k}" for way in ("text to image", "image to text") for k in (1, 5, 10)
    ]


def test_fidelity_has_outputs_and_error_per_block(full: Read) -> None:
    rows = full.table("Fidelity to the dense model", "Outputs against dense eager: held-out scans")
    errors = full.table("Fidelity to the dense model", "Error after each block")

    assert list(rows[0].values()) == [
        *("onnx", "454", "98.02 %", "0.0123", "0.9971", "0.8123", "91.50 %", "454", "3")
    ]
    assert [list(row.values()) for row in errors] == [
        ["0", "13", "0.031"],
        ["1", "9", "0.072"],
        ["2", "7", "0.155"],
    ]


def test_figures_that_do_not_exist_are_dashes(make: Make) -> None:
    tree = {
        "data": {"name": "photos", "n": 5},
        "fidelity": {
            "onnx": {"n": 5, "top1_agreement": None, "kl": None, "cosine_mean": 0.5, "cosine_min": 0.25}
        },
    }

    report = read(make(files={"validation.json": tree}))

    row = report.table("Fidelity to the dense model", "Outputs against dense eager: photos")[0]
    assert [row["same top-1"], row["KL, nats"], row["same neighbours"], row["among"]] == ["–"] * 4  # noqa: RUF001
    assert (
        "Growth of the error over the blocks: not measured." in report.sections["Fidelity to the dense model"]
    )


def test_speed_has_contenders_ratios_and_efficiency(full: Read) -> None:
    contenders = full.table("Speed", "Latency in ms per call")
    ratios = full.table("Speed", "Times faster, paired")
    efficiency = full.table("Speed", "Merge efficiency:")

    assert list(contenders[3].values()) == [
        *("r4 onnx", "1", "3.20", "4.00", "4.80", "0.200", "312", "512", "321", "43.2")
    ]
    assert [(row["ratio"], row["value"], row["interval"]) for row in ratios] == [
        ("eager reduced / eager dense", "0.80×", "0.75 to 0.86"),  # noqa: RUF001
        ("r0 onnx / eager dense", "2.00×", "1.90 to 2.10"),  # noqa: RUF001
        ("r4 onnx / eager dense", "2.50×", "2.41 to 2.62"),  # noqa: RUF001
        ("r4 onnx / r0 onnx", "1.25×", "1.20 to 1.31"),  # noqa: RUF001
    ]
    assert list(efficiency[0].values()) == ["r4 onnx", "1", "0.97", "0.93 to 1.02", "1.29×"]  # noqa: RUF001


def test_warnings_missing_contenders_and_the_machine_are_said(full: Read) -> None:
    section = full.sections["Speed"]

    assert "- other-load: r4 onnx, batch 1: other processes kept 20% of its 2 cores busy" in section
    assert "- torch.compile dense, batch 1: no C++ compiler here" in section
    assert "- cores used: 0, 1" in section
    assert "- packages torch: 2.14.1" in section
    assert "- governor: none" in section


@pytest.mark.parametrize(
    ("section", "command"),
    [
        ("Accuracy", "python -m exporter validate tiny-tome-r4 --data DIR"),
        ("Retrieval", "python -m exporter validate tiny-tome-r4 --pairs CSV"),
        ("Fidelity to the dense model", "python -m exporter validate tiny-tome-r4 --data DIR"),
        ("Speed", "python -m exporter bench tiny-tome-r4"),
    ],
)
def test_what_was_not_run_says_so_with_its_command(make: Make, section: str, command: str) -> None:
    text = read(make()).sections[section]

    assert text.strip().startswith("Not measured.")
    assert command in text


def test_commands_quote_a_name_that_a_shell_would_take_apart(make: Make) -> None:
    section = read(make(name="x; rm -rf ~")).sections["How to reproduce"]

    assert "python -m exporter validate 'x; rm -rf ~'" in section


def test_reproduction_names_weights_tensors_and_versions(full: Read) -> None:
    section = full.sections["How to reproduce"]

    assert "python -m exporter run tiny-tome-r4/recipe.yaml --out tiny-tome-r4-again" in section
    assert f"- weights, sha256: {'ab' * 32}" in section
    assert "- input images: float32 1×3×32×32" in section  # noqa: RUF001
    assert "- version of torch: 2.14.1" in section
    assert "- block 2 merges 2 tokens, not 4" in full.sections["Remarks"]


def test_text_tower_has_no_pictures_and_no_tokens(make: Make) -> None:
    report = read(
        make(
            tower="text",
            preprocess=None,
            parity={},
            schedule=ScheduleRecord(requested="as it is", merged=(), tokens=()),
        )
    )

    assert "A text tower has no image to draw." in report.sections["What was merged"]
    assert "| Tokens | as they are |" in report.sections[""]


def test_same_bundle_gives_the_same_bytes(tmp_path: Path) -> None:
    image = noise_image(32)
    files = {"validation.json": VALIDATION, "bench.json": BENCH}
    reports = [
        report_bundle(make_bundle(tmp_path / name, files=files, merges=alike_groups(image, Form())))
        for name in ("one", "two")
    ]

    assert reports[0] == reports[1]
