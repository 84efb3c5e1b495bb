"""What this package passes to Torch-TensorRT exists in the source of the oldest and the newest supported version."""

import importlib.util
import sys
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from exporter.rewrite import RewrittenProgram
from exporter.targets.torch_trt.build import build_settings
from exporter.targets.torch_trt.options import TorchTrtOptions
from exporter.targets.torch_trt.prepare import prepare
from tests.unit.targets.torch_trt.stand_in import CONTRACT, VERSIONS, held_to, real_signature
from tools.torch_trt_signatures import CONVERTERS, DEFAULTS, FUNCTIONS, read_wheel

# What the library's own lowering turns into operators with converters. That it does is known from its dry run of
# version 2.14.0, in which every operator of this program was supported.
LOWERED_BY_THE_LIBRARY = {
    "aten.arange.default",
    "aten.clamp_min.default",
    "aten.layer_norm.default",
    "aten.conv2d.default",
    "aten.view.default",
    "aten.transpose.int",
    "aten.alias.default",
    "aten.unbind.int",
    "aten.__and__.Tensor",
    "aten.__or__.Tensor",
    "aten._assert_tensor_metadata.default",
    "aten.linalg_vector_norm.default",
    "aten.ones_like.default",
    "aten.matmul.default",
}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("cache", [None, "timing.cache"], ids=["no cache", "cache"])
def test_every_setting_is_a_parameter_of_the_real_compile(version: str, cache: str | None) -> None:
    settings = build_settings(TorchTrtOptions(timing_cache=cache), "fp32", "timing.cache")

    assert set(settings) <= set(real_signature(version, "dynamo.compile").parameters)
    held_to(version, "dynamo.compile", lambda *args, **kwargs: None)(None, arg_inputs=[], **settings)


@pytest.mark.parametrize("version", VERSIONS)
def test_every_function_is_where_it_is_called(version: str) -> None:
    assert CONTRACT[version]["exported"] == sorted(FUNCTIONS)


@pytest.mark.parametrize("version", VERSIONS)
def test_bias_has_to_be_declared_not_causal(version: str) -> None:
    """The library's default would replace the log sizes; passing the opposite is no matter of taste."""
    assert CONTRACT[version]["defaults"]["ATTN_BIAS_IS_CAUSAL"] is True
    assert build_settings(TorchTrtOptions(), "fp16", "x")["attn_bias_is_causal"] is False


def test_only_the_older_version_asks_for_explicit_types() -> None:
    asking = [
        version
        for version in VERSIONS
        if "use_explicit_typing" in real_signature(version, "dynamo.compile").parameters
    ]

    assert asking == ["2.11.0"]


@pytest.mark.parametrize("version", VERSIONS)
def test_largest_value_with_its_place_is_spelled_in_what_has_converters(version: str) -> None:
    converters = CONTRACT[version]["converters"]

    assert converters["aten.max.dim"] == ["one_user_validator"]
    assert {"aten.amax.default", "aten.argmax.default"} <= set(converters)


@pytest.mark.parametrize("version", VERSIONS)
def test_every_operator_of_the_program_has_a_converter(version: str, program: RewrittenProgram) -> None:
    prepared = prepare(program.exported, len(program.exported.graph_signature.user_outputs), "cpu")

    operators = Counter(str(node.target) for node in prepared.graph.nodes if node.op == "call_function")
    unknown = set(operators) - set(CONTRACT[version]["converters"]) - LOWERED_BY_THE_LIBRARY

    assert {name for name in unknown if name.startswith("aten.")} == set()


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        pytest.param({"attn_is_causal": False}, "attn_is_causal", id="renamed"),
        pytest.param({"min_block_size": "5"}, "min_block_size", id="another type"),
    ],
)
def test_stand_in_refuses_what_the_library_would_swallow(given: dict[str, Any], complaint: str) -> None:
    with pytest.raises(TypeError, match=complaint):
        held_to(VERSIONS[-1], "dynamo.compile", lambda *args, **kwargs: None)(None, **given)


def test_signatures_are_read_out_of_a_wheel(tmp_path: Path) -> None:
    inits = {"/".join(["torch_tensorrt", *name.split(".")[:-1], "__init__.py"]) for name in FUNCTIONS}
    sources = {
        **dict.fromkeys([*FUNCTIONS.values(), *CONVERTERS], ""),
        **dict.fromkeys(inits, "from torch_tensorrt.x import *"),
        DEFAULTS: "ATTN_BIAS_IS_CAUSAL = True\nDEVICE = None\n",
        CONVERTERS[
            0
        ]: "@dynamo_tensorrt_converter(torch.ops.aten.neg.default, capability_validator=fits)\ndef f(): ...",
        FUNCTIONS[
            "dynamo.compile"
        ]: "def compile(program: P, *, device: Optional[str] = None, **kwargs): ...",
        FUNCTIONS["save"]: "def save(module, file_path: str = ''): ...\ndef load(file_path: str): ...",
        FUNCTIONS["runtime.enable_cudagraphs"]: "def enable_cudagraphs(compiled_module): ...",
    }
    with zipfile.ZipFile(tmp_path / "wheel.whl", "w") as wheel:
        for name, source in sources.items():
            wheel.writestr(name, source)

    said = read_wheel(tmp_path / "wheel.whl")

    assert said["functions"]["dynamo.compile"] == {
        "positional": [["program", "P"]],
        "keyword": [["device", "Optional[str]"]],
    }
    assert said["converters"] == {"aten.neg.default": ["fits"]}
    assert said["defaults"] == {"ATTN_BIAS_IS_CAUSAL": True, "DEVICE": None}
    assert said["exported"] == sorted(FUNCTIONS)


@pytest.mark.skipif(
    importlib.util.find_spec("torch_tensorrt") is None or sys.platform != "linux",
    reason="needs Torch-TensorRT installed: its dependencies are an NVIDIA GPU's",
)
def test_signatures_are_those_of_the_installed_library() -> None:
    spec = importlib.util.find_spec("torch_tensorrt")
    assert spec is not None and spec.origin is not None
    source = (Path(spec.origin).parent / "dynamo" / "_compiler.py").read_text(encoding="utf-8")

    for name in build_settings(TorchTrtOptions(), "fp32", "x"):
        assert f"    {name}:" in source
