"""The result of `load`: a frozen module, its input and outputs, and where its weights are from."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from exporter.models.preprocessing.preprocess import Preprocess, channel_order
from exporter.models.request import WeightsKind

if TYPE_CHECKING:
    import torch
    from torch import nn

OutputName = Literal["logits", "embedding", "features", "tokens", "maps", "out_sample"]

ClassNames = tuple[tuple[str, ...], ...]
"""For each class index its accepted spellings; the first is the one that is shown."""

Tokenize = Callable[[Sequence[str]], npt.NDArray[np.int64]]
"""Texts to token ids, int64 (n, context), padded and cut as the model's own library does it."""


@dataclass(frozen=True, kw_only=True)
class ExampleInput:
    """One input.

    Attributes:
        shape: of an item, without the batch axis.
        dtype: of its values.
        vocabulary: of token ids and classes, how many there are.
        steps: of a scheduler's step, how many there are, the first one 0.
        is_mask: 1 for the tokens of a text and 0 for the padding after them.
    """

    shape: tuple[int, ...]
    dtype: "torch.dtype"
    vocabulary: int | None = None
    is_mask: bool = False
    steps: int | None = None


@dataclass(frozen=True, kw_only=True)
class LoadedModel:
    """A model with its weights, ready to be captured.

    Attributes:
        module: In eval mode, fp32, nothing requires grad; takes a tensor for every input, returns a tensor or a tuple.
        source: Which library it is from: `timm`, `torchvision`, `hf`, `open_clip`, `pt2` or `exporter`.
        id: Its name there.
        alias: The alias it was asked by, if any.
        name: A file-system safe name for folders and files.
        inputs: What each input looks like, by name (`images`, `input_ids`), in the order of the call.
        output_names: One per output tensor.
        preprocess: How to make the input from a photo; None for texts and for programs that do not say.
        weights_kind: Where the parameters are from.
        weights_tag: The pinned tag or commit of pretrained weights, if there is one.
        weights_sha256: Over names, dtypes, shapes and bytes of the state dict.
        proportional_attention: The default for this family of weights: off for MAE.
        class_names: Of the columns of the logits, where the source knows them; None where it does not.
        notes: What the user should know about how it was loaded: what was inferred, guessed, or warned about by the
            source library. One sentence each, without machine paths.
        tokenize: Makes the input of a text tower. What it needs is loaded, or fetched, at the first call, which
            raises a ModelUnavailableError where that fails. None for everything but text towers.
        protected: Of a text encoder, how many first tokens never merge.
        tokenizer: Of a text encoder, a file of the library `tokenizers`; None where there is none.
        largest_batch: Up to which the module's own code computes the same way; None where it asks for no batch.
        read_by: The class of the checkpoint whose other parts read the tokens that are the output; None where the
            output is not read on, as far as the source knows.
        learned: What the file of weights holds besides the model, for a method that reads it: tensors by name.
    """

    module: "nn.Module | torch.export.ExportedProgram"
    source: str
    id: str
    name: str
    inputs: Mapping[str, ExampleInput]
    output_names: tuple[OutputName, ...]
    weights_kind: WeightsKind
    weights_sha256: str
    alias: str | None = None
    preprocess: Preprocess | None = None
    weights_tag: str | None = None
    proportional_attention: bool = True
    class_names: ClassNames | None = None
    notes: tuple[str, ...] = ()
    tokenize: Tokenize | None = None
    protected: int = 1
    tokenizer: bytes | None = None
    largest_batch: int | None = None
    read_by: str | None = None
    learned: Mapping[str, "torch.Tensor"] = field(default_factory=dict)

    @property
    def example_input(self) -> ExampleInput:
        """The first input: the images, or the token ids."""
        return next(iter(self.inputs.values()))

    @property
    def takes_texts(self) -> bool:
        """Whether the first input is token ids."""
        return self.example_input.vocabulary is not None

    @property
    def steps(self) -> int | None:
        """How many steps the scheduler of a denoiser has; None of any other model."""
        return next((each.steps for each in self.inputs.values() if each.steps is not None), None)

    @property
    def channels_of_no_photo(self) -> int | None:
        """The number of channels of an image input, if no photo can be converted to it."""
        shape = self.example_input.shape
        if self.steps is not None:
            return None
        return shape[0] if len(shape) == 3 and channel_order(shape[0]) is None else None

    @property
    def why_no_photos(self) -> str:
        """Why there is no `preprocess`, in words that follow the model's name."""
        if self.takes_texts:
            return "takes texts, not images"
        if self.steps is not None:
            return "takes latents and no images"
        if len(self.example_input.shape) == 2:
            return "takes spectrograms, not images"
        if (channels := self.channels_of_no_photo) is not None:
            return f"takes inputs of {channels} channels, which no photo has: expected 1 (gray), 3 (RGB) or 4 (RGBA)"
        return "does not say how images become its input; export it with --preprocess FILE.json"
