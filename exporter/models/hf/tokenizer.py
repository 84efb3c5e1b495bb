"""The tokenizer that a Hugging Face checkpoint carries, loaded when the first text comes."""

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from exporter.errors import ModelUnavailableError
from exporter.models.fetch import Via, fetching
from exporter.models.hf.module import Unwrapped
from exporter.models.hf.place import Place
from exporter.models.loaded import ExampleInput, Tokenize

_BRING_IT = "add the files of the tokenizer's save_pretrained to the checkpoint"


def lazy_tokenizer(
    spelling: str,
    where: str,
    revision: str | None,
    example: ExampleInput,
    via: Via,
    padding: int | None,
) -> Tokenize:
    """`AutoTokenizer` of a checkpoint, always padded and cut to the context of its text tower.

    Args:
        spelling: The model as messages name it.
        where: Folder or hub repository.
        revision: Revision of the repository.
        example: What the text tower takes: its context and the size of its vocabulary.
        via: How `where` is reached.
        padding: The id that the text tower takes for padding; None where it attends to padding.

    Returns:
        A function that raises a ModelUnavailableError where the tokenizer is missing, or belongs to another model.
    """

    @cache
    def tokenizer() -> Any:
        from transformers import AutoTokenizer

        pinned = {"revision": revision} if revision else {}
        with fetching(f"the tokenizer of {spelling}", via=via, way_out=_BRING_IT if via == "disk" else None):
            loaded = AutoTokenizer.from_pretrained(where, **pinned, trust_remote_code=False)
        _check(loaded, spelling, example.vocabulary)
        return loaded

    def tokenize(texts: Sequence[str]) -> npt.NDArray[np.int64]:
        (context,) = example.shape
        encoded = tokenizer()(
            list(texts), padding="max_length", truncation=True, max_length=context, return_tensors="np"
        )
        ids = np.asarray(encoded["input_ids"], dtype=np.int64)
        if padding is not None and not np.array_equal(
            ids != padding, np.asarray(encoded["attention_mask"]) == 1
        ):
            raise ModelUnavailableError(
                f"the tokenizer of {spelling} is of another model: expected {padding} as the id of padding alone, got "
                f"{tokenizer().pad_token_id}; {_BRING_IT}"
            )
        return ids

    return tokenize


def tokenizer_file(spelling: str, place: Place, vocabulary: int) -> tuple[bytes | None, tuple[str, ...]]:
    """The tokenizer of a text encoder as one file of the library `tokenizers`, and a note where there is none.

    Args:
        spelling: The model, as messages name it.
        place: The checkpoint.
        vocabulary: Entries of the model's table of tokens.

    Returns:
        JSON that says what padding is; and, without it, why.
    """
    try:
        with fetching(f"the tokenizer of {spelling}", via=place.via, way_out=_BRING_IT):
            from transformers import AutoTokenizer

            loaded = AutoTokenizer.from_pretrained(place.where, **place.pinned, trust_remote_code=False)
        _check(loaded, spelling, vocabulary)
    except ModelUnavailableError as error:
        return None, (f"no tokenizer travels with the bundle, which takes ids of tokens: {error}",)
    if not loaded.is_fast:
        return None, (
            f"the tokenizer of {spelling} has no form of the library tokenizers: none travels with the bundle",
        )
    backend = loaded.backend_tokenizer
    backend.no_truncation()
    backend.enable_padding(pad_id=loaded.pad_token_id or 0, pad_token=loaded.pad_token or "[PAD]")
    return str(backend.to_str()).encode(), ()


@torch.no_grad()
def mask_padding(module: nn.Module, config: Any, spelling: str) -> int | None:
    """Let a text tower make the mask over padding of its ids, where it has to be told which tokens are padding.

    It is asked itself: without the mask of a short text it gives something else than with it.

    Args:
        module: The tower, as `Unwrapped`.
        config: Of the tower.
        spelling: The model, as messages name it.

    Returns:
        The id of padding; None where the mask makes no difference.

    Raises:
        ModelUnavailableError: It needs a mask, and its configuration has no id of padding.
    """
    assert isinstance(module, Unwrapped)
    context, last = config.max_position_embeddings, config.vocab_size - 1
    length = max(context // 2, 2)
    mask = (torch.arange(context) < length).long()[None]
    text = torch.arange(context) % max(last, 1)
    end = config.eos_token_id if isinstance(config.eos_token_id, int) else last
    text[length - 1] = end if 0 <= end <= last else last
    padding = config.pad_token_id if isinstance(config.pad_token_id, int) else 0
    ids = torch.where(mask == 1, text, padding if 0 <= padding <= last else 0)
    without = module(ids)
    module.arguments = {"attention_mask": mask}
    with_mask = module(ids)
    module.arguments = {}
    if torch.allclose(without, with_mask, rtol=1e-4, atol=1e-5):
        return None
    if not isinstance(config.pad_token_id, int):
        raise ModelUnavailableError(
            f"the text tower of {spelling} needs an attention mask over padding, and its configuration has no "
            "pad_token_id; its image tower can be exported (--tower image)"
        )
    module.padding = config.pad_token_id
    return module.padding


def _check(tokenizer: Any, spelling: str, vocabulary: int | None) -> None:
    """Refuse the empty tokenizer that transformers makes up for a folder without one, and one of another model."""
    entries = tokenizer.get_vocab()
    if not set(entries) - set(tokenizer.all_special_tokens):
        raise ModelUnavailableError(f"{spelling} carries no tokenizer; {_BRING_IT}")
    largest = max(entries.values())
    if vocabulary is not None and largest >= vocabulary:
        raise ModelUnavailableError(
            f"the tokenizer of {spelling} is of another model: expected token ids below {vocabulary}, got {largest}; "
            + _BRING_IT
        )
