"""What engines are asked for: the timm ViT of the tests, on images of 24 pixels and with 10 classes."""

from typing import Any

from exporter.targets import EmitRequest, Signature, TensorSpec
from tests.support.families import IMAGE_SIZE


def request_of(options: Any, *, batch: int | str = 2, output: str = "logits", **others: Any) -> EmitRequest:
    """Return a request with a target's own options; `others` are further fields of it."""
    shape = (batch, 3, IMAGE_SIZE, IMAGE_SIZE)
    signature = Signature(
        inputs=(TensorSpec(name="images", dtype="float32", shape=shape),),
        outputs=(TensorSpec(name=output, dtype="float32", shape=(batch, 10)),),
    )
    return EmitRequest(signature=signature, options=options, **others)
