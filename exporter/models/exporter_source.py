"""The model that ships in the package: `vit_digits`, with its trained weights and no download."""

import torch

from exporter.errors import UsageError
from exporter.models.digits import DIGITS_PREPROCESS, VIT_DIGITS_WEIGHTS, build_vit_digits
from exporter.models.loaded import ExampleInput, LoadedModel
from exporter.models.request import ResolvedRequest, check_image_tower, safe_name
from exporter.models.weights import build_from_file, build_random, sha256_of


def load_embedded(asked: ResolvedRequest) -> LoadedModel:
    """Load `vit_digits`, by default with the weights in the package.

    Raises:
        UsageError: Another image size, or a text tower.
        WeightsError: A weights file that does not fit.
    """
    check_image_tower(asked)
    height, width = DIGITS_PREPROCESS.image_size
    if asked.image_size not in (None, height):
        raise UsageError(
            f"{asked.spelling} takes {height} pixel images only, got --image-size {asked.image_size}"
        )
    kind = asked.weights_kind
    if kind == "random":
        module = build_random(build_vit_digits, asked.request.seed)
    else:
        path = VIT_DIGITS_WEIGHTS if kind == "pretrained" else asked.weights_path
        module = build_from_file(build_vit_digits, path)
    return LoadedModel(
        module=module,
        source=asked.source,
        id=asked.id,
        alias=asked.alias.name if asked.alias else None,
        name=safe_name(asked.id),
        input_name="images",
        output_names=("logits",),
        example_input=ExampleInput(shape=(3, height, width), dtype=torch.float32),
        preprocess=DIGITS_PREPROCESS,
        weights_kind="embedded" if kind == "pretrained" else kind,
        weights_tag=None,
        weights_sha256=sha256_of(module.state_dict()),
    )
