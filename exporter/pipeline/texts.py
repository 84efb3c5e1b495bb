"""Texts as a two-tower model embeds them: by its eager text tower, or by the text engine of a bundle."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch

from exporter.errors import UsageError
from exporter.models import LoadedModel, ModelRequest, load
from exporter.pipeline.origin import check_weights
from exporter.targets import Array, Runner

Embed = Callable[[Sequence[str]], Array]
"""Takes texts, gives float32 (N, C)."""

_CHUNK = 64


@dataclass(frozen=True)
class TextTower:
    """The text side of a model, loaded when the first text is embedded.

    Attributes:
        request: of the model, whichever tower it names.
        engines: text engines by target.
        weights_sha256: that the text tower's weights must have; None where nothing is known about them.
    """

    request: ModelRequest
    engines: Mapping[str, Runner] = field(default_factory=dict)
    weights_sha256: str | None = None

    def check(self, texts: Sequence[str]) -> None:
        """Raise now what embedding these texts would raise later: a UsageError for a word outside of the vocabulary."""
        if texts:
            self._tokenize(texts)

    def embed_with(self, contender: str) -> Embed:
        """How a contender embeds texts: a target by its own text engine if there is one, else eager PyTorch."""
        runner = self.engines.get(contender)
        if runner is None:
            return self._embed_eagerly
        return lambda texts: next(iter(runner(self._tokenize(texts)).values())).astype(np.float32)

    @cached_property
    def _model(self) -> LoadedModel:
        model = load(replace(self.request, tower="text", image_size=None, preprocess=None))
        check_weights(model, self.weights_sha256)
        return model

    def _tokenize(self, texts: Sequence[str]) -> Array:
        if self._model.tokenize is None:
            raise UsageError(f"{self._model.name}: its source has no tokenizer, so texts cannot be embedded")
        return self._model.tokenize(list(texts))

    def _embed_eagerly(self, texts: Sequence[str]) -> Array:
        module: Any = self._model.module
        ids = torch.from_numpy(self._tokenize(texts))
        with torch.no_grad():
            parts = [module(part) for part in ids.split(_CHUNK)]
        return torch.cat(parts).float().numpy()
