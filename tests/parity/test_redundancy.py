"""The output that a ladder of vectors chooses engines by, in the compiler and in engines, against its definition."""

from pathlib import Path

import pytest
import torch
from torch import fx

from exporter.forms import Forms
from exporter.reduction.redundancy import pair_similarity
from exporter.rewrite import RewrittenProgram
from exporter.schedule import ScheduleRequest
from exporter.targets import EmitRequest, Signature, TensorSpec, target
from exporter.targets.onnx.options import OnnxOptions
from exporter.targets.openvino.options import OpenVinoOptions
from exporter.validation import TOLERANCES, run_eager, verify
from tests.support.compiled import captured_family, max_abs_error, reference
from tests.support.families import family

EVERY_BLOCK = ScheduleRequest(r_per_layer=(4, 3, 3, 2))
"""Where the mean of the patches is read, four blocks merge; where the class token is, three."""


def program_of(name: str, method: str, forms: Forms) -> RewrittenProgram:
    return captured_family(name).compile(EVERY_BLOCK, method, redundancy=True, forms=forms)


@pytest.mark.parametrize(
    ("name", "method", "metric"),
    [
        pytest.param("open_clip_vit", "tome", "heads", id="tome"),
        pytest.param("open_clip_vit", "tome", "columns", id="metric in columns of the projection"),
        pytest.param("timm_mean_pool", "pitome", "heads", id="pitome"),
    ],
)
def test_redundancy_is_the_mean_similarity_of_what_merges_in_the_first_three_merging_blocks(
    name: str, method: str, metric: str
) -> None:
    program = program_of(name, method, Forms().choose({"metric": metric}))
    run = reference(family(name), captured_family(name).schedule(EVERY_BLOCK, method).removed, method)

    output, redundancy, *records = program(family(name).images())

    assert program.outputs == 2 and len(records) == len(program.merging_blocks)
    for node in program.merging.graph.find_nodes(op="call_function", target=pair_similarity):
        compared, match = node.args
        assert isinstance(match, fx.Node) and compared is match.args[0]  # the mean is computed once
    expected_LB = torch.tensor(run.similarities[:3], dtype=torch.float64)[: len(records)]
    assert max_abs_error(redundancy, expected_LB.mean(dim=0)[:, None]) < 1e-5
    assert max_abs_error(output, run.output) < 1e-5


@pytest.mark.parametrize(
    ("engine", "options"),
    [
        pytest.param("onnx", OnnxOptions(), id="onnx"),
        pytest.param("openvino", OpenVinoOptions(), id="openvino"),
    ],
)
def test_engine_gives_it_as_an_output_of_its_own(engine: str, options: object, tmp_path: Path) -> None:
    if engine == "openvino":
        pytest.importorskip("openvino")
    program, images = program_of("open_clip_vit", "tome", Forms()), family("open_clip_vit").images()
    results = program(images)
    named = zip(("embedding", "redundancy"), results, strict=False)
    signature = Signature(
        inputs=(TensorSpec(name="images", dtype="float32", shape=tuple(images.shape)),),
        outputs=tuple(
            TensorSpec(name=name, dtype="float32", shape=tuple(result.shape)) for name, result in named
        ),
    )
    artifact = target(engine).emit(program, EmitRequest(signature=signature, options=options), tmp_path)

    result = verify(
        program, artifact, run_eager(program, {"images": {"images": images.numpy()}}), TOLERANCES["fp32"]
    )

    assert result.passed and set(result.match_agreement) == {1.0}
    assert list(result.comparisons) == ["images/embedding", "images/redundancy"]
    got = torch.from_numpy(artifact.runner(images.numpy())["redundancy"])
    assert max_abs_error(got, results[1]) < 1e-5
