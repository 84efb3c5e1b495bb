"""The builder itself, on a CPU, with the model that ships; and a parity check that sees a wrong output."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import fx

from exporter.benchmark import Contender
from exporter.records import message_from
from tools.gpu import jobs
from tools.gpu.build import Builder, parity
from tools.gpu.jobs import Job, Way
from tools.gpu.kernels import MOST_KERNELS, summed
from tools.gpu.programs import PICTURES, Programs, without_matches

WAYS = (
    Way(kind="model", precision="fp32"),
    Way(kind="program", merging="r4", precision="fp32"),
    Way(kind="onnx", merging="r4", precision="fp32"),
    Way(kind="trt", merging="r4"),
)
BATCH = 3


@pytest.fixture(scope="module")
def programs() -> Programs:
    """Shared, since every program is made once in it."""
    return Programs(name="tiny", device="cpu")


def test_builder_builds_and_checks_what_runs_here(
    programs: Programs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = Job(name="shipped", model="tiny", batch=BATCH, ways=WAYS, kernels=True)
    monkeypatch.setitem(jobs.LISTS, "tiny", (job,))
    builder = Builder("cpu", tmp_path)
    monkeypatch.setattr(builder, "_programs", programs)

    model, program, engine, absent = (
        builder.answer({"ask": "build", "list": "tiny", "job": 0, "way": place}) for place in range(len(WAYS))
    )

    assert "TensorRT" in absent["failed"]
    built = [message_from(Contender, each["contender"]) for each in (model, program, engine)]
    assert [each.kind for each in built] == ["module", "program", "engine"]
    assert [each.file is not None and each.file.exists() for each in built] == [False, True, True]
    assert built[1].executed_macs < built[0].executed_macs
    assert all(each["facts"]["parity"]["passed"] for each in (model, program, engine))
    assert max(each["facts"]["parity"]["max_abs_error"] for each in (model, program, engine)) < 1e-4
    assert program["facts"]["along_own_matches"]["passed"]
    assert sum(row["share"] for row in program["facts"]["kernels"]) == pytest.approx(1.0, abs=1e-3)


def test_matches_are_not_part_of_what_is_timed(programs: Programs) -> None:
    program = programs.program("r4", "fp32", BATCH)

    assert len(program.merging_blocks) > 0
    assert len(without_matches(program).exported.graph_signature.output_specs) == program.outputs


def test_program_on_a_device_creates_everything_there(programs: Programs) -> None:
    """`meta` stands for a GPU: whatever the graph still created on the CPU would name it."""
    program = without_matches(programs.program("r4", "fp32", BATCH))

    module = Programs(name="tiny", device="meta").module(program.exported)  # type: ignore[arg-type]
    assert isinstance(module, fx.GraphModule)

    created = {str(node.kwargs["device"]) for node in module.graph.nodes if "device" in node.kwargs}
    (logits,) = module(torch.zeros((BATCH, 3, 32, 32), device="meta"))
    assert created == {"meta"}
    assert logits.device.type == "meta"
    assert {value.device.type for value in program.exported.state_dict.values()} == {"cpu"}


def test_large_batch_repeats_the_pictures_and_their_outputs(programs: Programs) -> None:
    images = programs.images(PICTURES + 3)
    (expected,) = programs.expected("r4", images)

    np.testing.assert_array_equal(images[PICTURES:], images[:3])
    np.testing.assert_array_equal(expected[PICTURES:], expected[:3])
    assert len(np.unique(images[:PICTURES].reshape(PICTURES, -1), axis=0)) == PICTURES


@pytest.mark.parametrize(
    ("outputs", "passed"),
    [
        pytest.param(np.array([[1.0, 2.0, 3.0]]), True, id="the same"),
        pytest.param(np.array([[3.0, 2.0, 1.0]]), False, id="two classes swapped"),
        pytest.param(np.array([[1.0, np.nan, 3.0]]), False, id="not a number"),
        pytest.param(np.array([[1.0, 2.0]]), False, id="another shape"),
    ],
)
def test_parity_sees_a_wrong_output(outputs: np.ndarray[Any, Any], passed: bool) -> None:
    assert parity((outputs,), (np.array([[1.0, 2.0, 3.0]]),), "fp16")["passed"] is passed


def test_kernels_after_the_longest_are_summed_in_one_row() -> None:
    rows = [(f"kernel {number}", 5, 10.0) for number in range(MOST_KERNELS + 10)]

    found = summed(rows, calls=5)

    assert len(found) == MOST_KERNELS + 1
    assert found[0]["calls"] == 1.0 and found[0]["us"] == 2.0
    assert found[-1]["name"] == "10 others" and found[-1]["us"] == pytest.approx(20.0)
