"""Text encoders of transformers: BERT, DistilBERT, RoBERTa, MPNet, and whatever is trained like them.

In: a checkpoint's configuration, and its weights; out: a `LoadedModel` that takes token ids and the mask over padding.
The rules, in order:

1. An encoder is a class that takes token ids, of a family that also has a `...ForMaskedLM`, and is no decoder.
2. `...ForSequenceClassification` gives its logits.
3. A folder of sentence-transformers gives what its pooling says: the class token, or the mean over the tokens that are
   there, of unit length where that is asked for.
4. Any other encoder gives the class token of its last hidden state.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import nn
from torch.nn import functional

from exporter.errors import ModelUnavailableError, UsageError, library_failures
from exporter.models.class_names import labelled_names
from exporter.models.hf.architectures import PRETRAINING_HEADS
from exporter.models.hf.module import Build, on_meta
from exporter.models.hf.options import apply_options
from exporter.models.hf.place import Place
from exporter.models.hf.pooling import read_pooling
from exporter.models.hf.rules import UNBUILT, class_of, has_untrained_pooler, neighbours, plain
from exporter.models.hf.tokenizer import tokenizer_file
from exporter.models.hf.tower import HFTower
from exporter.models.hf.weights import build_model, find_weights
from exporter.models.loaded import ExampleInput, LoadedModel
from exporter.models.request import ResolvedRequest, safe_name
from exporter.models.weights import freeze, sha256_of

Head = Literal["logits", "class_token", "mean"]

_EXPECTED = "expected a text encoder: ...Model, ...ForMaskedLM or ...ForSequenceClassification"
_LENGTH = 128
_MASKED = "ForMaskedLM"


class TextEncoder(nn.Module):
    """An encoder that takes token ids and returns one vector per text.

    Attributes:
        first_position: Of the first token; None to leave the tokens where they are. Otherwise the last token of a text
            stands after the first one, with the position that it has.
    """

    def __init__(self, model: nn.Module, head: Head, *, unit_length: bool) -> None:
        super().__init__()
        self.model = model
        self.head = head
        self.unit_length = unit_length
        self.first_position: int | None = None

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        token_type_ids: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Ids, mask and types int64 (B, N) each; the mask is 1 for tokens and 0 for padding. Returns (B, K)."""
        given = {"input_ids": input_ids}
        if token_type_ids is not None:
            given["token_type_ids"] = token_type_ids
        if self.first_position is not None:
            order = _end_second(attention_mask)
            given = {name: each.gather(1, order) for name, each in given.items()}
            given["position_ids"] = order + self.first_position
        output = self.model(attention_mask=attention_mask, **given)
        if self.head == "logits":
            logits: torch.Tensor = output.logits
            return logits
        tokens: torch.Tensor = output.last_hidden_state
        pooled = tokens[:, 0] if self.head == "class_token" else _masked_mean(tokens, attention_mask)
        return functional.normalize(pooled, dim=1) if self.unit_length else pooled


def _end_second(mask: torch.Tensor) -> torch.Tensor:
    """Places of the first token of a text, the last one, the others, and padding: int64 (B, N)."""
    count_B1, places_N = mask.sum(dim=1, keepdim=True), torch.arange(mask.shape[1])
    order_BN = torch.where(places_N < count_B1, places_N - 1, places_N)
    order_BN = torch.where((places_N == 1) & (count_B1 > 1), count_B1 - 1, order_BN)
    return torch.where(places_N == 0, 0, order_BN)


def _masked_mean(tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    weights = mask.unsqueeze(2).to(tokens.dtype)
    return (tokens * weights).sum(dim=1) / weights.sum(dim=1).clamp_min(1e-9)


def is_text_encoder(spelling: str, config: Any) -> bool:
    """Whether a checkpoint is a text encoder, by its configuration and class.

    Raises:
        ModelUnavailableError: transformers has no such class.
    """
    if not isinstance(getattr(config, "vocab_size", None), int):
        return False
    if hasattr(config, "vision_config") or hasattr(config, "image_size"):
        return False
    if getattr(config, "is_encoder_decoder", False) or getattr(config, "is_decoder", False):
        return False
    _, model_class, _, _ = class_of(spelling, config)
    takes_ids = model_class.main_input_name == "input_ids"
    return takes_ids and any(each.__name__.endswith(_MASKED) for each in neighbours(model_class))


@dataclass(frozen=True, kw_only=True)
class _Found:
    """An encoder's class, and what is taken of its output."""

    tower: HFTower
    head: Head
    unit_length: bool = False


def load_encoder(asked: ResolvedRequest, place: Place, config: Any) -> LoadedModel:
    """Load a text encoder for texts of a length.

    Raises:
        ModelUnavailableError: Its class has a head that is not covered, or its weights cannot be read.
        UsageError: It has no positions for that length, or something is asked that only images have.
        WeightsError: Weights that do not fit.
    """
    _check_request(asked)
    found = _find(asked, place, config)
    weights = find_weights(asked, place, found.tower)
    model = build_model(weights, found.tower)
    own = found.tower.build.config
    encoder = TextEncoder(model, found.head, unit_length=found.unit_length)
    inputs = _inputs(model, own, _length(asked, model, own))
    if asked.request.protect_end:
        _protect_end(encoder.eval(), inputs, asked.spelling)
    module = freeze(encoder)
    classes = own.num_labels if found.head == "logits" else 0
    class_names, unnamed = labelled_names(own, classes) if classes else (None, ())
    tokenizer, missing = tokenizer_file(asked.spelling, place, own.vocab_size)
    return LoadedModel(
        module=module,
        source=asked.source,
        id=place.name if place.folder else asked.id,
        name=safe_name(place.name),
        output_names=(found.tower.output_name,),
        inputs=inputs,
        weights_kind=asked.weights_kind,
        weights_tag=place.commit if asked.weights_kind == "pretrained" else None,
        weights_sha256=sha256_of(module.state_dict()),
        class_names=class_names,
        notes=(*found.tower.notes, *weights.notes, *unnamed, *missing),
        tokenizer=tokenizer,
        protected=2 if asked.request.protect_end else 1,
    )


def _check_request(asked: ResolvedRequest) -> None:
    request = asked.request
    for option, given in (
        ("--image-size", request.image_size is not None),
        ("--preprocess", request.preprocess is not None),
        (f"--outputs {request.outputs}", request.outputs != "own"),
    ):
        if given:
            raise UsageError(f"{option} says nothing about a text encoder: leave it out for {asked.spelling}")


def _find(asked: ResolvedRequest, place: Place, config: Any) -> _Found:
    name, model_class, own, notes = class_of(asked.spelling, config)
    with library_failures(ModelUnavailableError, f"{asked.spelling} is a {name}, {UNBUILT}", _EXPECTED):
        if name.endswith("ForSequenceClassification"):
            build = Build(model_class=model_class, config=own, pick="logits")
            tower = HFTower(
                architecture=name,
                build=build,
                part=None,
                output_name="logits",
                whole=(model_class, own),
                notes=notes,
            )
            return _Found(tower=apply_options(tower, asked), head="logits")
        built: Any = model_class
        if name.endswith((_MASKED, *PRETRAINING_HEADS)):
            built, own = plain(own)
        elif "For" in name or name.endswith("LMHeadModel"):
            raise ModelUnavailableError(f"{asked.spelling} is a {name}: {_EXPECTED}")
        arguments = {"add_pooling_layer": False} if has_untrained_pooler(on_meta(built, own)) else {}
        pooling = read_pooling(place)
        tower = HFTower(
            architecture=name,
            build=Build(model_class=built, config=own, pick="last_hidden_state", arguments=arguments),
            part=None,
            output_name="embedding" if pooling else "features",
            whole=(model_class, config),
            notes=notes,
        )
    tower = apply_options(tower, asked)
    if pooling is None:
        note = (
            "features are the class token of the last hidden state: the checkpoint says nothing about pooling"
        )
        return _Found(tower=replace(tower, notes=(*tower.notes, note)), head="class_token")
    return _Found(tower=tower, head=pooling.head, unit_length=pooling.unit_length)


def _length(asked: ResolvedRequest, model: nn.Module, config: Any) -> int:
    """Tokens of a text that were asked for, or as many as there are positions, 128 at most."""
    most = count_positions(model, config)
    length = asked.request.longest
    if length is None:
        return min(_LENGTH, most)
    if length > most:
        raise UsageError(
            f"--length {length}: {asked.spelling} has positions for {most} tokens; expected {most} at most"
        )
    return length


@torch.no_grad()
def _protect_end(encoder: TextEncoder, inputs: Mapping[str, ExampleInput], spelling: str) -> None:
    """Let an encoder take the last token as its second one; it is asked itself whether that changes nothing.

    Raises:
        UsageError: Attention depends on the order of the tokens (MPNet), or the class takes no positions.
    """
    refusal = f"--protect-end: {spelling} is no encoder whose tokens can stand in another order; leave it out"
    ids = {name: torch.ones(1, *each.shape, dtype=torch.int64) for name, each in inputs.items()}
    count, vocabulary = inputs["input_ids"].shape[0], inputs["input_ids"].vocabulary or 2
    ids["input_ids"] = (torch.arange(count) % (vocabulary - 1) + 1)[None]
    as_it_is = encoder(*ids.values())
    encoder.first_position = _first_position(encoder.model)
    with library_failures(UsageError, refusal, "or give another checkpoint"):
        moved = encoder(*ids.values())
    if not torch.allclose(as_it_is, moved, rtol=1e-4, atol=1e-5):
        raise UsageError(refusal)


def count_positions(model: nn.Module, config: Any) -> int:
    """How many tokens of a text have a position."""
    table = _position_table(model)
    if table is not None:
        return table.num_embeddings - _first_position(model)
    return int(getattr(config, "max_position_embeddings", None) or _LENGTH)


def _first_position(model: nn.Module) -> int:
    """The position of the first token: a table with a padding index begins after it."""
    table = _position_table(model)
    return 0 if table is None or table.padding_idx is None else table.padding_idx + 1


def _position_table(model: nn.Module) -> nn.Embedding | None:
    tables = (part for name, part in model.named_modules() if name.endswith("position_embeddings"))
    return next((table for table in tables if isinstance(table, nn.Embedding)), None)


def _inputs(model: nn.Module, config: Any, length: int) -> Mapping[str, ExampleInput]:
    def ids(vocabulary: int, *, is_mask: bool = False) -> ExampleInput:
        return ExampleInput(shape=(length,), dtype=torch.int64, vocabulary=vocabulary, is_mask=is_mask)

    inputs = {"input_ids": ids(config.vocab_size), "attention_mask": ids(2, is_mask=True)}
    types = getattr(config, "type_vocab_size", 0)
    if types > 1 and any(name.endswith("token_type_embeddings") for name, _ in model.named_modules()):
        inputs["token_type_ids"] = ids(types)
    return inputs
