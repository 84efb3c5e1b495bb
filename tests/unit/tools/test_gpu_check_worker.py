"""The worker itself, on a CPU, with the model that ships; and a parity check that sees a wrong output."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import fx

from tools.gpu import jobs
from tools.gpu.build import parity
from tools.gpu.forms import PICTURES, MadeForms, Reference, without_matches
from tools.gpu.jobs import Contender, Job
from tools.gpu.kernels import MOST_KERNELS, summed
from tools.gpu.worker import Worker

CONTENDERS = (
    Contender(kind="model", precision="fp32"),
    Contender(kind="program", merging="r4", precision="fp32"),
    Contender(kind="trt", merging="r4"),
)
FAILED = 2
BATCH = 3


@pytest.fixture(scope="module")
def forms() -> MadeForms:
    """Shared, since every program is made once in it."""
    return MadeForms(device="cpu")


@pytest.fixture
def worker(forms: MadeForms, monkeypatch: pytest.MonkeyPatch) -> Worker:
    job = Job(name="shipped", model="tiny", batch=BATCH, contenders=CONTENDERS, needs_s=0.0)
    monkeypatch.setitem(jobs.LISTS, "tiny", (job,))
    found = Worker("cpu", forms)
    found.answer({"ask": "open", "list": "tiny", "job": 0})
    return found


def test_worker_builds_checks_and_times_what_runs_here(worker: Worker) -> None:
    built = [worker.answer({"ask": "build", "contender": place}) for place in range(len(CONTENDERS))]
    rounds = worker.answer({"ask": "round", "seed": 0})["rounds"]
    kernels = worker.answer({"ask": "kernels"})["kernels"]

    assert "TensorRT" in built[FAILED]["failed"]["trt r4 fp16"]
    assert sorted(rounds) == sorted(kernels) == ["model dense fp32", "program r4 fp32"]
    for place, name in enumerate(sorted(rounds)):
        facts: dict[str, Any] = built[place]["facts"][name]
        assert facts["parity"]["passed"] and facts["parity"]["max_abs_error"] < 1e-4
        assert rounds[name]["window_ms"] > 0 and len(rounds[name]["latency_ms"]) >= 3
        assert sum(row["share"] for row in kernels[name]) == pytest.approx(1.0, abs=1e-3)
    assert built[1]["facts"]["program r4 fp32"]["matches"]["agreement"] == 1.0
    assert built[1]["executed_macs"] < built[0]["executed_macs"]


def test_matches_are_not_part_of_what_is_timed(forms: MadeForms) -> None:
    program = forms.program("tiny", "r4", "fp32", BATCH)

    assert len(program.merging_blocks) > 0
    assert len(without_matches(program).exported.graph_signature.output_specs) == program.outputs


def test_program_on_a_device_creates_everything_there(forms: MadeForms) -> None:
    """`meta` stands for a GPU: whatever the graph still created on the CPU would name it."""
    program = without_matches(forms.program("tiny", "r4", "fp32", BATCH))

    module = MadeForms(device="meta").module(program.exported)
    assert isinstance(module, fx.GraphModule)

    created = {str(node.kwargs["device"]) for node in module.graph.nodes if "device" in node.kwargs}
    (logits,) = module(torch.zeros((BATCH, 3, 32, 32), device="meta"))
    assert created == {"meta"}
    assert logits.device.type == "meta"
    assert {value.device.type for value in program.exported.state_dict.values()} == {"cpu"}


def test_large_batch_repeats_the_pictures(forms: MadeForms) -> None:
    images = forms.images("tiny", PICTURES + 3)

    np.testing.assert_array_equal(images[PICTURES:], images[:3])
    assert len(np.unique(images[:PICTURES].reshape(PICTURES, -1), axis=0)) == PICTURES


def test_expected_outputs_repeat_like_the_pictures() -> None:
    rows = np.arange(6.0).reshape(2, 3)

    (expected,) = Reference(outputs=(rows,), records=()).expected(3)

    np.testing.assert_array_equal(expected, [[0, 1, 2], [3, 4, 5], [0, 1, 2]])


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
    found = parity((outputs, "ignored")[:1], (np.array([[1.0, 2.0, 3.0]]),), "fp16")

    assert found["passed"] is passed


def test_kernels_beyond_the_longest_are_summed_in_one_row() -> None:
    rows = [(f"kernel {number}", 5, 10.0) for number in range(MOST_KERNELS + 10)]

    found = summed(rows, calls=5)

    assert len(found) == MOST_KERNELS + 1
    assert found[0]["calls"] == 1.0 and found[0]["us"] == 2.0
    assert found[-1]["name"] == "10 others" and found[-1]["us"] == pytest.approx(20.0)
