"""Why a state dict does not fit a model, in one line: which names and shapes differ, and the likely cause."""

from collections.abc import Mapping
from pathlib import Path

import torch

from exporter.errors import WeightsError, first_few, quoted
from exporter.models.checkpoint.claim import read_by_another

MOST_CHARACTERS = 160
"""Of one name with its two shapes."""

# Names that tell which library wrote a state dict: one of them is in it, and what to do with such a file.
_LIBRARIES: tuple[tuple[tuple[str, ...], str], ...] = (
    (
        (
            "embeddings.patch_embeddings.",
            "vision_model.",
            "text_model.",
            "encoder.layer.0.",
            "embeddings.cls_token",
        ),
        "the names are those of transformers: give the checkpoint's folder as hf:FOLDER",
    ),
    (
        ("visual.", "transformer.resblocks."),
        "the names are those of open_clip (or CLIP): give the model as open_clip:NAME",
    ),
    (
        ("conv_proj.", "encoder.layers.encoder_layer_0."),
        "the names are those of torchvision: give the model as torchvision:NAME",
    ),
    (
        ("patch_embed.proj.", "blocks.0.attn.qkv."),
        "the names are those of timm: give the model as timm:NAME",
    ),
)

_HEADS = (
    "head.",
    "head_dist.",
    "heads.",
    "classifier.",
    "fc.",
    "cls_classifier.",
    "distillation_classifier.",
)
_TABLES = (
    "pos_embed",
    "pos_embedding",
    "position_embeddings",
    "position_embedding.weight",
    "positional_embedding",
)

SAME_MODEL = "give the state dict of the same architecture and image size"


def check_state_dict(
    expected: Mapping[str, torch.Tensor], found: Mapping[str, torch.Tensor], where: Path | str
) -> None:
    """Compare a state dict's names and shapes with a module's.

    Raises:
        WeightsError: They differ; the message lists what is missing, unexpected and mis-shaped.
    """
    misshaped = [
        f"{quoted(name)} (expected {tuple(expected[name].shape)}, got {tuple(tensor.shape)})"
        for name, tensor in sorted(found.items())
        if name in expected and expected[name].shape != tensor.shape
    ]
    misshaped += [
        f"{quoted(name)} (expected floating point, got {str(tensor.dtype).removeprefix('torch.')})"
        for name, tensor in sorted(found.items())
        if name in expected and expected[name].is_floating_point() and not tensor.is_floating_point()
    ]
    report_wrong_keys(
        sorted(expected.keys() - found.keys()), sorted(found.keys() - expected.keys()), misshaped, where
    )


def report_wrong_keys(
    missing: list[str], unexpected: list[str], misshaped: list[str], where: Path | str
) -> None:
    """Say which names of a state dict do not fit the model, and what that is a sign of.

    Raises:
        WeightsError: Any of the three lists has an entry.
    """
    groups = (("missing", missing), ("unexpected", unexpected), ("mis-shaped", misshaped))
    wrong = [f"{len(keys)} {kind}: {first_few(keys, MOST_CHARACTERS)}" for kind, keys in groups if keys]
    if wrong:
        raise WeightsError(
            f'weights in "{where}" do not belong to this model: {"; ".join(wrong)}; '
            f"{_advice(missing, unexpected, misshaped)}"
        )


def _advice(missing: list[str], unexpected: list[str], misshaped: list[str]) -> str:
    for marks, advice in _LIBRARIES:
        if _has(unexpected, marks) and not _has(missing, marks):
            return advice
    if not missing and not misshaped and (other := read_by_another(unexpected)):
        return other
    if prefix := _one_prefix(missing, unexpected):
        return f'every name begins with "{quoted(prefix)}": save the state dict of that part alone'
    wrong = missing + unexpected + misshaped
    if all(name.startswith(_HEADS) or any(f".{head}" in name for head in _HEADS) for name in wrong):
        return "only the head differs: it has another number of outputs, or another form, than this model's"
    if not missing and not unexpected:
        if all(name.split(" ")[0].endswith(_TABLES) for name in misshaped):
            return "only the table of positions differs: give --image-size of the weights"
        if any("(expected floating point" in name for name in misshaped):
            return "save them in fp32, fp16 or bf16"
        return "names agree and shapes do not: they are of a model of another width, patch size or image size"
    if any(".lora_" in name for name in unexpected):
        return "they hold an adapter: merge it first"
    if not misshaped and (_only_blocks(missing, unexpected) or _only_blocks(unexpected, missing)):
        return "the number of blocks differs: they are of a deeper or a shallower model"
    return SAME_MODEL


def _has(names: list[str], marks: tuple[str, ...]) -> bool:
    return any(name.startswith(mark) or f".{mark}" in name for name in names for mark in marks)


def _one_prefix(missing: list[str], unexpected: list[str]) -> str:
    """The first part that all unexpected names share, if the missing ones are found after it."""
    prefixes = {name.partition(".")[0] + "." for name in unexpected}
    if len(prefixes) != 1:
        return ""
    prefix = prefixes.pop()
    return prefix if {name.removeprefix(prefix) for name in unexpected} & set(missing) else ""


def _only_blocks(names: list[str], others: list[str]) -> bool:
    return (
        bool(names) and not others and all(any(part.isdigit() for part in name.split(".")) for name in names)
    )
