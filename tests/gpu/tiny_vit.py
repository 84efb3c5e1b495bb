"""What engines are asked for here: a timm ViT of the tests, two images at a time."""

from typing import Any

from exporter.targets import EmitRequest, Signature, TensorSpec
from tests.support.families import IMAGE_SIZE


def request_of(options: Any) -> EmitRequest:
    """A request with a target's own options."""
    return EmitRequest(
        signature=Signature(
            inputs=(TensorSpec(name="images", dtype="float32", shape=(2, 3, IMAGE_SIZE, IMAGE_SIZE)),),
            outputs=(TensorSpec(name="logits", dtype="float32", shape=(2, 10)),),
        ),
        options=options,
    )
