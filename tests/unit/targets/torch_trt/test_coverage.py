"""The report of what stayed in PyTorch, on graphs made by hand, and the gate on it."""

import pytest
import torch
from torch import fx, nn

from exporter.errors import GateError
from exporter.targets.torch_trt.coverage import Coverage, read_coverage, require
from tests.unit.targets.torch_trt.stand_in import partitioned


def test_one_engine_and_nothing_else_is_full_coverage() -> None:
    assert read_coverage(partitioned(nn.Identity(), 2)) == Coverage(engines=1, fallback={})


def test_operators_of_a_pytorch_part_are_counted_and_named() -> None:
    found = read_coverage(partitioned(nn.Identity(), 2, left_over=True))

    assert found == Coverage(engines=1, fallback={"aten.neg.default": 2})
    assert found.fallen_back == 2


def test_operators_between_the_parts_are_counted() -> None:
    compiled = partitioned(nn.Identity(), 1)
    with compiled.graph.inserting_after(next(iter(compiled.graph.nodes))):
        compiled.graph.call_function(torch.ops.aten.relu.default, (next(iter(compiled.graph.nodes)),))

    assert read_coverage(compiled).fallback == {"aten.relu.default": 1}


def test_part_that_was_never_converted_is_no_engine() -> None:
    inner = fx.Graph()
    inner.output(inner.call_function(torch.ops.aten.relu.default, (inner.placeholder("x"),)))

    found = read_coverage(partitioned(fx.GraphModule({}, inner), 1))

    assert found == Coverage(engines=0, fallback={"aten.relu.default": 1})


@pytest.mark.parametrize(
    ("coverage", "most"),
    [
        pytest.param(Coverage(engines=1, fallback={}), 0, id="all in TensorRT"),
        pytest.param(Coverage(engines=2, fallback={"aten.sort.default": 1}), 1, id="as many as allowed"),
    ],
)
def test_gate_lets_through_what_was_allowed(coverage: Coverage, most: int) -> None:
    require(coverage, most)


@pytest.mark.parametrize(
    ("coverage", "most"),
    [
        pytest.param(Coverage(engines=2, fallback={"aten.sort.default": 1}), 0, id="one too many"),
        pytest.param(Coverage(engines=0, fallback={"aten.sort.default": 1}), 9, id="no engine at all"),
    ],
)
def test_gate_names_the_operators_that_fell_back(coverage: Coverage, most: int) -> None:
    with pytest.raises(GateError, match="aten.sort.default \\(1x\\)"):
        require(coverage, most)
