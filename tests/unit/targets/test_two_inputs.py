"""A model of two named inputs, from its module to an engine that is verified and run by name."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from exporter.capture import EXAMPLE_BATCH, capture
from exporter.errors import TargetUnavailableError, UsageError
from exporter.reduction import method
from exporter.rewrite import RewriteOptions, RewrittenProgram, rewrite
from exporter.schedule import Schedule
from exporter.targets import Artifact, EmitRequest, Signature, TensorSpec, open_runner, target
from exporter.validation import TOLERANCES, run_eager, verify

IDS, MASK, CONTEXT = "input_ids", "attention_mask", 6
DENSE = Schedule(requested="as it is", merged=(), dropped=(), tokens=())
TARGETS = ("onnx", "openvino")


class TwoInputs(nn.Module):
    """Mean of the embeddings that a mask leaves."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(30, 8)
        self.head = nn.Linear(8, 5)

    def forward(self, ids_BN: Tensor, mask_BN: Tensor) -> Tensor:
        kept_BN1 = mask_BN.unsqueeze(-1).to(self.table.weight.dtype)
        pooled_BC: Tensor = (self.table(ids_BN) * kept_BN1).sum(1) / kept_BN1.sum(1)
        return torch.as_tensor(self.head(pooled_BC))


def inputs(rows: int) -> dict[str, Any]:
    generator = np.random.default_rng(0)
    mask = np.ones((rows, CONTEXT), np.int64)
    mask[:, 4:] = 0
    return {IDS: generator.integers(1, 30, (rows, CONTEXT), dtype=np.int64), MASK: mask}


@pytest.fixture(scope="module")
def program() -> RewrittenProgram:
    torch.manual_seed(0)
    examples = [torch.zeros((EXAMPLE_BATCH, CONTEXT), dtype=torch.int64) for _ in range(2)]
    captured = capture(TwoInputs(), *examples)
    return rewrite(captured, DENSE, RewriteOptions(method=method("tome"), dynamic_batch=True))


def emitted(name: str, program: RewrittenProgram, folder: Path) -> Artifact:
    engine = target(name)
    request = EmitRequest(
        signature=Signature(
            inputs=tuple(
                TensorSpec(name=each, dtype="int64", shape=("batch", CONTEXT)) for each in (IDS, MASK)
            ),
            outputs=(TensorSpec(name="embedding", dtype="float32", shape=("batch", 5)),),
        ),
        options=engine.options(),
    )
    return engine.emit(program, request, folder)


@pytest.mark.parametrize("name", TARGETS)
def test_two_inputs_are_verified_and_run_by_name(
    name: str, program: RewrittenProgram, tmp_path: Path
) -> None:
    artifact = emitted(name, program, tmp_path)
    references = run_eager(program, {"noise": inputs(3)})
    given = inputs(5)
    opened = open_runner(name, tmp_path / artifact.file, signature=artifact.runner.signature)

    with opened as runner:
        got = runner({MASK: given[MASK], IDS: given[IDS]})["embedding"]

    assert verify(program, artifact, references, TOLERANCES["fp32"]).passed
    (expected,) = program(*map(torch.from_numpy, given.values()))
    np.testing.assert_allclose(got, expected.numpy(), atol=1e-5)
    swapped = {IDS: given[MASK], MASK: given[IDS]}
    assert np.abs(opened(swapped)["embedding"] - got).max() > 1e-2


def test_a_runner_that_was_closed_loads_its_engine_again(program: RewrittenProgram, tmp_path: Path) -> None:
    runner = emitted("onnx", program, tmp_path).runner
    before = runner(inputs(2))["embedding"]
    engine = runner.engine
    runner.close()

    np.testing.assert_array_equal(runner(inputs(2))["embedding"], before)
    assert runner.engine is not engine
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(runner))(inputs(2))["embedding"], before)


def test_one_array_does_not_do_for_two_inputs(program: RewrittenProgram, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"expected {IDS}, {MASK} by name"):
        emitted("onnx", program, tmp_path).runner(inputs(2)[IDS])


def test_nothing_is_enqueued_on_a_cpu(program: RewrittenProgram, tmp_path: Path) -> None:
    with pytest.raises(TargetUnavailableError, match="where nothing is enqueued"):
        emitted("openvino", program, tmp_path).runner.enqueue(inputs(2), cuda_graph=False)
