"""Which ONNX operators TensorRT's parser takes, and in which types. Data only.

Transcribed from the operator support matrix of onnx-tensorrt for TensorRT 10.15, which speaks of opsets 9 to 24; that
of 11.2 names the same opsets. An operator that is not here is not supported.
"""

from exporter.lint.report import Source

MATRIX = Source(
    title="onnx-tensorrt, Supported ONNX Operators, TensorRT 10.15",
    address="https://github.com/onnx/onnx-tensorrt/blob/main/docs/operators.md",
)

OPSETS = range(9, 25)

_FLOATS = ("fp32", "fp16", "bf16")
_NUMBERS = (*_FLOATS, "int32", "int64")
_VALUES = (*_NUMBERS, "bool")

_BY_TYPES = (
    (
        _FLOATS,
        "Acos Acosh Asin Asinh Atan Atanh AveragePool BatchNormalization Ceil Celu Clip Conv ConvTranspose Cos Cosh "
        "CumSum Dropout Einsum Elu Erf Exp Floor Gemm GlobalAveragePool GlobalLpPool GlobalMaxPool GRU "
        "GroupNormalization HardSigmoid HardSwish Hardmax ImageScaler InstanceNormalization IsInf LayerNormalization "
        "LeakyRelu Log LogSoftmax LRN LSTM LpNormalization LpPool MatMul MaxPool MeanVarianceNormalization "
        "ParametricSoftplus PRelu QuantizeLinear RandomNormal RandomNormalLike RandomUniform RandomUniformLike "
        "Reciprocal Resize RMSNormalization RNN RotaryEmbedding Round ScaledTanh Scan Selu Sigmoid Sin Sinh Softmax "
        "Softplus Softsign Sqrt Tan Tanh ThresholdedRelu Upsample",
    ),
    (
        _NUMBERS,
        "Abs Add ArgMax ArgMin DepthToSpace Div Equal Greater GreaterOrEqual IsNaN Less LessOrEqual Max Min Mod Mul "
        "Neg Pad Pow Range ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd "
        "ReduceSum ReduceSumSquare Relu Scatter ScatterElements ScatterND Shrink Sign SpaceToDepth Sub Sum TopK",
    ),
    (
        _VALUES,
        "Concat Expand EyeLike Flatten Gather GatherElements GatherND Identity If Loop OneHot Reshape "
        "ReverseSequence Shape Size Slice Split Squeeze Tile Transpose Trilu Unsqueeze Where",
    ),
    ((*_VALUES, "fp8", "fp4", "int4"), "Constant ConstantOfShape"),
    ((*_VALUES, "uint8"), "Cast CastLike"),
    ((*_NUMBERS, "int8"), "Gelu"),
    ((*_NUMBERS, "fp8"), "Mean"),
    ((*_FLOATS, "int8", "fp8"), "Attention"),
    ((*_FLOATS, "int32"), "TensorScatter"),
    (("bool",), "And Not Or Xor"),
    (
        ("fp32", "fp16"),
        "BlackmanWindow DeformConv GridSample HammingWindow HannWindow Mish NonMaxSuppression NonZero RoiAlign",
    ),
    (("int8", "fp8", "fp4", "int4"), "DequantizeLinear"),
    (("fp32",), "STFT"),
)

SUPPORTED = {name: types for types, names in _BY_TYPES for name in names.split()}
"""Types by operator."""
