"""Texts become the inputs of a text encoder: ids of tokens, the mask over padding, and types.

In: the file of the library `tokenizers` that a bundle holds. Out: int64 arrays by input. Neither torch nor transformers
is imported.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from exporter.errors import ModelUnavailableError, UsageError

TOKENIZER_FILE = "tokenizer.json"

_SHOWN = 40  # characters of a text in a message


@dataclass(frozen=True)
class TextReader:
    """Reads texts as a model's tokenizer does.

    Attributes:
        tokenizer: content of the file, which says what padding is.
        length: tokens of a text, padding included.
        names: of the inputs: the ids, the mask, and the types if the model takes any.
        truncate: whether longer texts are cut off.
    """

    tokenizer: bytes
    length: int
    names: tuple[str, ...]
    truncate: bool = False

    def __call__(self, texts: Sequence[str]) -> dict[str, npt.NDArray[np.int64]]:
        """Ids, mask and types (n, length).

        Raises:
            UsageError: no texts, one that is empty, or one that is longer than `length` tokens.
            ModelUnavailableError: the library is not installed, or the file is not one of its.
        """
        self._check(texts)
        encodings = self._library.encode_batch(list(texts))
        for text, encoding in zip(texts, encodings, strict=True):
            if (count := sum(encoding.attention_mask)) > self.length:
                raise UsageError(
                    f'text "{_shown(text)}": has {count} tokens, and the engine takes {self.length}; give a shorter '
                    "text, let it be cut off (--truncate), or export with a larger --length"
                )
        columns = ([each.ids for each in encodings], [each.attention_mask for each in encodings])
        types = [each.type_ids for each in encodings]
        return {
            name: np.array(rows, dtype=np.int64)
            for name, rows in zip(self.names, (*columns, types), strict=False)
        }

    @cached_property
    def _library(self) -> Any:
        try:
            from tokenizers import Tokenizer
        except ImportError as error:
            raise ModelUnavailableError("tokenizers is not installed: pip install tokenizers") from error
        try:
            loaded = Tokenizer.from_str(self.tokenizer.decode())
        except Exception as error:  # the library raises nothing more special
            raise ModelUnavailableError(
                f"{TOKENIZER_FILE} is not a file of the library tokenizers: export the bundle again"
            ) from error
        padding = loaded.padding or {}
        ours = {"length": self.length, "direction": "right", "pad_to_multiple_of": None}
        loaded.enable_padding(**{**padding, **ours})
        if self.truncate:
            loaded.enable_truncation(self.length)
        else:
            loaded.no_truncation()  # which a file may ask for by itself
        return loaded

    def _check(self, texts: Sequence[str]) -> None:
        if isinstance(texts, str) or not texts:
            raise UsageError("texts: expected a list of at least one text")
        for place, text in enumerate(texts):
            if not text.strip():
                raise UsageError(f"texts: text {place + 1} of {len(texts)} is empty")


def _shown(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _SHOWN else f"{line[:_SHOWN]}..."
