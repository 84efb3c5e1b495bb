"""The gate: what is advised fits the cause."""

import numpy as np
import pytest
import torch

from exporter.capture import EXAMPLE_BATCH
from exporter.errors import ParityError
from exporter.forms import Precision
from exporter.rewrite import RewrittenProgram
from exporter.schedule import ScheduleRequest
from exporter.targets import Array
from exporter.validation import (
    TOLERANCES,
    ParityResult,
    compare,
    require,
    require_finite,
    run_eager,
)
from tests.support.compiled import capture_model, captured_family
from tests.support.families import family

RIGHT = np.array([[3.0, -12.3, 0.5]], np.float32)


def result(
    got: Array, expected: Array = RIGHT, *, precision: Precision = "fp32", regret: float = 0.0
) -> ParityResult:
    return ParityResult(
        comparisons={"photo/logits": compare(got, expected)},
        tolerances=TOLERANCES[precision],
        tie_regret=regret,
    )


def not_finite(value: float) -> Array:
    changed = RIGHT.copy()
    changed[0, 1] = value
    return changed


@pytest.mark.parametrize(
    ("found", "precision", "cause", "advice"),
    [
        pytest.param(
            result(not_finite(np.nan), precision="fp16"),
            "fp16",
            "photo/logits: not finite, where eager PyTorch gives values of up to 12.3",
            "fp16 overflows above 65504: use --precision bf16 or fp32",
            id="overflow in fp16",
        ),
        pytest.param(
            result(not_finite(np.inf)),
            "bf16",
            "not finite, where",
            "use --precision fp32",
            id="overflow in bf16",
        ),
        pytest.param(
            result(not_finite(-np.inf)),
            "fp32",
            "not finite, where",
            "use another target",
            id="overflow in fp32",
        ),
        pytest.param(
            result(RIGHT, not_finite(np.nan)),
            "fp16",
            "eager PyTorch itself gives values that are not finite",
            "no tolerance makes up for this: export again",
            id="what is expected is not finite",
        ),
        pytest.param(
            result(RIGHT[:, :2]),
            "fp32",
            "another shape than eager PyTorch gives",
            "no tolerance makes up for this: export again",
            id="another shape",
        ),
        pytest.param(
            result(RIGHT, regret=0.1),
            "fp32",
            "matches: regret 0.1 above 1e-05",
            "set parity.tie in the recipe",
            id="matches alone",
        ),
        pytest.param(
            result(RIGHT + 1),
            "fp32",
            "max_abs_error 1 above",
            "e; if this much is acceptable, set parity.max_abs_error, mean_abs_error and cosine in the recipe",
            id="numbers",
        ),
        pytest.param(
            result(-RIGHT, precision="bf16"),
            "bf16",
            "cosine -1.000000 below 0.99",
            "use --precision fp32, or if this much is acceptable, set parity.max_abs_error",
            id="numbers in bf16",
        ),
    ],
)
def test_what_would_help_fits_the_cause(
    found: ParityResult, precision: Precision, cause: str, advice: str
) -> None:
    with pytest.raises(ParityError) as raised:
        require(found, "onnx", precision)
    assert str(raised.value).startswith("parity: target onnx does not compute what eager PyTorch computes: ")
    assert cause in str(raised.value)
    assert advice.removeprefix("e; ") in str(raised.value)


def test_zeros_that_became_not_a_number_have_no_other_shape() -> None:
    zeros = np.zeros((1, 3), np.float32)
    assert "not finite, where" in result(zeros * np.float32("nan"), zeros).shortfalls[0]


@pytest.mark.parametrize(
    ("parameter", "place"),
    [
        pytest.param("patch_embed.proj.weight", "the layers before block 0", id="stem"),
        pytest.param("blocks.0.mlp.fc2.weight", "block 0", id="first block"),
        pytest.param("blocks.2.attn.qkv.weight", "block 2", id="third block"),
        pytest.param("head.weight", "its last layers", id="head"),
    ],
)
def test_a_model_that_overflows_itself_is_named_with_the_part_where_it_does(
    parameter: str, place: str
) -> None:
    program = overflowing(parameter)
    references = run_eager(program, {"photo": {"images": family("timm_vit").images(EXAMPLE_BATCH).numpy()}})
    with pytest.raises(
        ParityError, match=f"not finite for photo in eager PyTorch in fp32, first in {place};"
    ):
        require_finite(program, references)


def overflowing(parameter: str) -> RewrittenProgram:
    """The program of a model of which one parameter is near the largest number."""
    model = family("timm_vit").model()
    with torch.no_grad():
        model.get_parameter(parameter).fill_(3e38)
    return capture_model(model).compile(ScheduleRequest(r=4))


def test_a_sound_model_passes() -> None:
    program = captured_family("timm_vit").compile(ScheduleRequest(r=4))
    require_finite(
        program, run_eager(program, {"photo": {"images": family("timm_vit").images(EXAMPLE_BATCH).numpy()}})
    )
