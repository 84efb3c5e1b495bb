"""Figures and targets from known times; kernels by block and group."""

import json
from dataclasses import replace
from typing import Any

import pytest

from exporter.errors import UsageError
from exporter.forms import Forms
from tests.unit.tools.gpu_check_cases import entry
from tools.gpu.contenders import MERGINGS, MODELS, Contender, contenders
from tools.gpu.drive import Check, Result
from tools.gpu.figures import rows, verdicts
from tools.gpu.kernels import group_of, summed
from tools.gpu.page import page, to_json
from tools.gpu.plan import Plan
from tools.gpu.prepare import forms_of

RIGHT = {"cosine": 0.9999, "max_abs_error": 0.01, "deviation": 0.01, "right": True}


def timed(kind: str, ms: float, *, right: bool = True, macs: int = 200, **known: Any) -> Result:
    facts = {} if kind == "library" else {**RIGHT, "right": right}
    return Result(entry=entry(kind, macs=macs, **known), rounds=((ms,) * 3,) * 2, facts=facts)


LIBRARY = timed("library", 4.0, graph=False)
DENSE = timed("program", 2.0, merge="kernels")
R13 = timed("program", 1.25, merge="kernels", merging="r13", macs=125)


def check(*results: Result) -> Check:
    plan = Plan(torch="2.0", models={}, entries=())
    return Check(machine={"device": "some GPU"}, plan=plan, budget_s=60.0, seconds=30.0, results=results)


def test_ratios_are_over_the_library_and_over_the_dense_contender_of_the_same_kind() -> None:
    other = timed("onnx", 8.0, merge=None)

    library, dense, reduced, _ = rows([LIBRARY, DENSE, R13, other])

    assert (library.over_library, dense.over_library, reduced.over_library) == (None, 2.0, 3.2)
    assert (dense.over_dense, reduced.over_dense) == (None, 1.6)
    assert reduced.macs_ratio == 1.6 and reduced.efficiency == 1.0
    assert reduced.summary.images_per_s == pytest.approx(64 / 1.25e-3)


def test_targets_are_met_missed_or_not_run_by_the_best_that_is_right() -> None:
    slow, wrong = timed("onnx", 3.0, merging="r13"), timed("aoti", 0.1, merging="r13", right=False)

    found = {each.target: each for each in verdicts(rows([LIBRARY, DENSE, R13, slow, wrong]))}

    assert found["ViT-B/16, batch 64: r = 13 over eager fp16 at least 2"].status == "met"
    assert "3.200: vit_b b64 program" in found["ViT-B/16, batch 64: r = 13 over eager fp16 at least 2"].found
    assert found["ViT-B/16, batch 64: efficiency, r = 13 at least 0.92"].status == "met"
    assert found["ViT-B/16, batch 1: r = 13 over own dense at least 1"].status == "not run"
    (missed,) = [each for each in verdicts(rows([LIBRARY, timed("onnx", 3.5)])) if each.status == "missed"]
    assert missed.target == "ViT-B/16, batch 64: dense over eager fp16 at least 1.35"


def test_page_marks_what_is_wrong_and_names_what_was_not_timed() -> None:
    wrong = timed("aoti", 1.0, right=False)
    missing = Result(entry=entry("onnx"), reason="no ONNX Runtime with CUDA")

    text = page(check(LIBRARY, wrong, missing))

    assert "**some GPU**" in text and "2 of 3 contenders timed" in text
    assert "| vit_b b64 aoti dense fp16 graph | 1.000 | 1.000 | 64000 | 4.00 |" in text
    assert text.count("**WRONG** |") == 1
    assert "- vit_b b64 onnx dense fp16 graph: no ONNX Runtime with CUDA" in text


def test_json_holds_every_sample_and_reason() -> None:
    tree = json.loads(to_json(check(R13, Result(entry=entry("onnx"), reason="lost"))))

    assert tree["contenders"][0]["samples_ms"] == [[1.25] * 3] * 2
    assert tree["contenders"][0]["merging"] == "r13"
    assert tree["contenders"][1]["reason"] == "lost" and "summary" not in tree["contenders"][1]


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("sm90_xmma_gemm_f16f16_f16f32_f32_tn_n", "products"),
        ("nvjet_hsh_256x128_64x4_1x2_h_bz_coopA_TNT", "products"),
        ("aten::addmm", "products"),
        ("fmha_cutlassF_f16_aligned_64x64_rf_sm80", "attention"),
        ("void pytorch_flash::flash_fwd_kernel<...>", "attention"),
        ("void at::native::bitonicSortKVInPlace<...>", "merging"),
        ("void at::native::sbtopk::gatherTopK<...>", "merging"),
        ("merge_kernel", "merging"),
        ("best_partner_kernel", "merging"),
        ("add_norm_kernel", "rest"),
        ("void at::native::vectorized_layer_norm_kernel<...>", "rest"),
        ("command buffer", "rest"),
    ],
)
def test_kernels_are_grouped_by_their_names(name: str, group: str) -> None:
    assert group_of(name) == group


def test_kernels_belong_to_the_block_whose_mark_came_before_them() -> None:
    one_call = [("mark", 1.0), ("conv", 3.0), ("mark", 1.0), ("gemm", 6.0), ("sort", 3.0), ("gemm", 6.0)]

    found = summed(one_call * 3, "mark", ["stem", "block_00"] * 3)

    assert [(row["block"], row["group"], row["launches"], row["us"]) for row in found] == [
        ("stem", "products", 1, 3.0),
        ("block_00", "merging", 1, 3.0),
        ("block_00", "products", 2, 12.0),
    ]
    text = page(check(Result(entry=entry(), rounds=((1.0,),), facts={**RIGHT, "kernels": found})))
    assert "| block_00 | 12.0 (2) | 0.0 (0) | 3.0 (1) | 0.0 (0) |" in text
    assert "| all | 15.0 (3) | 0.0 (0) | 3.0 (1) | 0.0 (0) |" in text


def test_full_list_covers_what_the_check_promises_and_begins_with_what_the_targets_are_about() -> None:
    found = contenders()
    names = [each.name for each in found]

    assert len(set(names)) == len(names)
    assert {(each.model, each.batch) for each in found} == {
        (model, batch) for model in MODELS if model != "tiny" for batch in (1, 8, 64, 256)
    }
    assert {each.kind for each in found} == {"library", "program", "onnx", "aoti", "trt"}
    assert {each.merging for each in found} <= set(MERGINGS)
    assert all(
        any(dense.is_dense_form_of(each) for dense in found) for each in found if each.merging != "dense"
    )
    assert (found[0].model, found[0].batch, found[0].is_baseline) == ("vit_b", 64, True)
    assert [each.merging for each in found if each.listed and each.merge == "kernels"] == ["dense", "r13"]


def test_form_or_precision_that_this_version_does_not_know_is_named() -> None:
    known = Contender(model="vit_b", batch=1, kind="program", merge="operators")

    assert forms_of(known) == Forms()
    with pytest.raises(UsageError, match="this version has no precision fp1"):
        forms_of(replace(known, precision="fp1"))
