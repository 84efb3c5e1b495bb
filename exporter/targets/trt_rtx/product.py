"""TensorRT for RTX as a product: its package, and the names of its files."""

from exporter.targets.trt.library import Product

ENGINE = "model_rtx.engine"
ONNX = "model_rtx.onnx"
RECORD = "model_rtx.json"

NOT_RUN = "trt-rtx-onnx"
"""Name of the artifact where an engine was built and did not run: the ONNX, which is what was verified."""

RTX = Product(
    target="trt-rtx",
    title="TensorRT for RTX",
    module="tensorrt_rtx_bindings",
    oldest=(1, 7),
    first_unknown=(2,),
    remedy="another precision, hardware_compatibility or lowering may help",
    onnx=ONNX,
)
