"""Quantise a model to int8: its products of activations with weights, and nothing else.

In: an ONNX model in fp32 and inputs to calibrate on. Out: the same model with pairs of QuantizeLinear and
DequantizeLinear in front of the operands of those products, which engines read as their own integer kernels. What
decides which tokens merge, what merges them, attention's products, normalisations and softmax stay as they are, and so
do the patch embedding and the head: they cost less than a hundredth of the work, and quantising them costs accuracy.

Ranges and rounding are ONNX Runtime's: weights per output channel around zero, activations per tensor from the smallest
to the largest value seen. On the shipped models no other range was more accurate, and this one remembers two numbers
per tensor, however many images there are.
"""

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import onnx_ir as ir

from exporter.errors import UsageError
from exporter.signature import Array, Inputs
from exporter.targets.batches import split
from exporter.targets.onnx.save import is_large, save

_READY = "onnx.quant.pre_process"
"""Says to ONNX Runtime's quantiser that a model is simplified and has its shapes, so that it does not advise either."""

_PAIR = ("QuantizeLinear", "DequantizeLinear")

_BATCH_IF_FREE = 8


def quantize(
    model: ir.Model, inputs: Inputs | None, folder: Path, activations: Literal["uint8", "int8"]
) -> ir.Model:
    """A quantised copy of a model.

    Args:
        model: in fp32, its nodes named after their block (`build`).
        inputs: to calibrate on, as the model takes them: (n, ...) by name, or of the only one.
        folder: for files that are gone when this returns.
        activations: `uint8` with a zero point, which x86 multiplies fastest, or `int8` around zero, as TensorRT
            demands.

    Raises:
        UsageError: none.
    """
    inputs = calibration_inputs(model.graph.inputs[0].name or "", inputs)
    names = [str(node.name) for node in model.graph if _is_product_with_weight(node)]
    with tempfile.TemporaryDirectory(dir=folder) as work:
        given, made = Path(work, "given.onnx"), Path(work, "made.onnx")
        model.metadata_props[_READY] = "onnxruntime.quant"
        save(model, given)
        del model.metadata_props[_READY]
        _quantize_file(given, made, _batches(model, inputs), names, activations, large=is_large(model))
        quantised = ir.load(made)
        _into_memory(quantised)
    _describe(quantised, model)
    _complete_pairs(quantised)
    _raise_biases(quantised)
    return quantised


def calibration_inputs(first: str, inputs: Inputs | None) -> dict[str, Array]:
    """The inputs by name, of which there has to be one row.

    Args:
        first: name of the first input.
        inputs: by name, or the first one alone.

    Raises:
        UsageError: there is none.
    """
    by_name = dict(inputs) if isinstance(inputs, Mapping) else {} if inputs is None else {first: inputs}
    if not by_name or len(next(iter(by_name.values()))) == 0:
        raise UsageError(
            "precision int8: expected at least one calibration image, got none; name a folder of images"
        )
    return by_name


def _is_product_with_weight(node: ir.Node) -> bool:
    return (
        node.op_type in ("MatMul", "Gemm")
        and str(node.name).startswith("block_")
        and node.inputs[1] is not None
        and node.inputs[1].is_initializer()
    )


def _quantize_file(
    given: Path,
    made: Path,
    batches: Iterator[dict[str, Array]],
    names: list[str],
    activations: str,
    *,
    large: bool,
) -> None:
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def get_next(self) -> dict[str, Array] | None:
            return next(batches, None)

    around_zero = activations == "int8"
    quantize_static(
        given,
        made,
        Reader(),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=["MatMul", "Gemm"],
        nodes_to_quantize=names,
        per_channel=True,
        activation_type=QuantType.QInt8 if around_zero else QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        use_external_data_format=large,
        extra_options={
            "ActivationSymmetric": around_zero,
            "WeightSymmetric": True,
            "QuantizeBias": not around_zero,  # TensorRT reads no integers of 32 bits
            "OpTypesToExcludeOutputQuantization": ["MatMul", "Gemm"],
        },
    )


def _batches(model: ir.Model, inputs: Mapping[str, Array]) -> Iterator[dict[str, Array]]:
    """The inputs in batches of the model's size; the last one is padded with its last row."""
    given = model.graph.inputs[0]
    size = given.shape[0] if given.shape is not None else None
    batch = size if isinstance(size, int) else _BATCH_IF_FREE
    yield from split(inputs, batch if isinstance(size, int) else 1, batch)


def _into_memory(model: ir.Model) -> None:
    """Read the weights now: their file is about to go."""
    for value in model.graph.initializers.values():
        if isinstance(value.const_value, ir.ExternalTensor):
            value.const_value = ir.tensor(value.const_value.numpy().copy(), name=value.name)


def _describe(quantised: ir.Model, model: ir.Model) -> None:
    """Give a model the name, producer and metadata of another one."""
    quantised.producer_name, quantised.producer_version = model.producer_name, model.producer_version
    quantised.doc_string, quantised.graph.name = model.doc_string, model.graph.name
    quantised.metadata_props.clear()
    quantised.metadata_props.update(model.metadata_props)


def _complete_pairs(model: ir.Model) -> None:
    """Give the quantising nodes the block of their product, in front of their names, and their results types."""
    for node in reversed(list(model.graph)):
        if node.op_type in _PAIR:
            label = str(node.outputs[0].consumers()[0].name).partition("/")[0]
            node.name = f"{label}/{node.name}"
    for node in model.graph:
        if node.op_type in _PAIR:
            given, zero = node.inputs[0], node.inputs[2]
            assert given is not None and zero is not None and zero.dtype is not None
            integer = node.op_type == "QuantizeLinear"
            node.outputs[0].type = ir.TensorType(zero.dtype if integer else ir.DataType.FLOAT)
            node.outputs[0].shape = given.shape


def _raise_biases(model: ir.Model) -> None:
    """Give the bias after a quantised product as many axes as the product.

    ONNX Runtime turns a product and a bias of one axis into one Gemm before it looks for integer products, and then
    finds none: the model would be slower than in fp32.
    """
    for node in list(model.graph):
        if node.op_type != "Add":
            continue
        for place, other in ((0, 1), (1, 0)):
            product, bias = node.inputs[place], node.inputs[other]
            if _is_quantised_product(product) and bias is not None and bias.const_value is not None:
                assert product is not None and product.shape is not None
                node.replace_input_with(other, _raised(model.graph, bias, len(product.shape)))


def _is_quantised_product(value: ir.Value | None) -> bool:
    node = value.producer() if value is not None else None
    return (
        node is not None
        and node.op_type == "MatMul"
        and all(each is not None and _is_dequantised(each) for each in node.inputs)
    )


def _is_dequantised(value: ir.Value) -> bool:
    node = value.producer()
    return node is not None and node.op_type == "DequantizeLinear"


def _raised(graph: ir.Graph, bias: ir.Value, axes: int) -> ir.Value:
    assert bias.const_value is not None
    array: Any = bias.const_value.numpy()
    name = f"{bias.name}_{axes}d"
    if name not in graph.initializers:
        tensor = ir.tensor(array.reshape([1] * (axes - array.ndim) + list(array.shape)), name=name)
        graph.initializers.add(ir.val(name, const_value=tensor))
    return graph.initializers[name]
