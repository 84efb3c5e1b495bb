"""Tiny text encoders of transformers with random weights, saved as their users save them, and texts for them."""

import json
from pathlib import Path
from typing import Any

import torch

WORDS = ("good", "bad", "film", "plot", "the", "a", "very", "not", "we", "saw", "it", "never")
LENGTH = 16

_SIZES = {
    "vocab_size": 5 + len(WORDS),
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 40,
}
_DISTILBERT = {
    "vocab_size": 5 + len(WORDS),
    "dim": 32,
    "n_layers": 3,
    "n_heads": 2,
    "hidden_dim": 48,
    "max_position_embeddings": 40,
}


def save_encoder(folder: Path, class_name: str, *, pooling: str | None = None, **config: Any) -> Path:
    """Save a checkpoint with its tokenizer.

    Args:
        folder: an empty one.
        class_name: of transformers.
        pooling: of sentence-transformers, `mean` or `cls`, with unit length; None for a plain checkpoint.
        config: over small sizes.
    """
    import transformers
    from transformers import BertTokenizerFast

    model_class = getattr(transformers, class_name)
    sizes = _DISTILBERT if class_name.startswith("DistilBert") else _SIZES
    torch.manual_seed(0)
    model = model_class(model_class.config_class(**{**sizes, **config}))
    for parameter in model.parameters():  # biases and norms that differ from those of an untrained model
        parameter.data += 0.05 * torch.randn_like(parameter)
    model.save_pretrained(folder)
    vocabulary = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS)
    entries = {word: index for index, word in enumerate(vocabulary)}
    BertTokenizerFast(vocab=entries).save_pretrained(folder)
    if pooling is not None:
        _save_pooling(folder, pooling)
    return folder


def _save_pooling(folder: Path, pooling: str) -> None:
    names = {"0": ("", "Transformer"), "1": ("1_Pooling", "Pooling"), "2": ("2_Normalize", "Normalize")}
    modules = [
        {"idx": int(name), "name": name, "path": path, "type": f"sentence_transformers.models.{kind}"}
        for name, (path, kind) in names.items()
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    modes = {"mean": "pooling_mode_mean_tokens", "cls": "pooling_mode_cls_token"}
    (folder / "1_Pooling").mkdir()
    switches = {key: mode == pooling for mode, key in modes.items()}
    (folder / "1_Pooling/config.json").write_text(json.dumps({"word_embedding_dimension": 32, **switches}))


def ids_and_mask(lengths: list[int], count: int = LENGTH) -> tuple[torch.Tensor, torch.Tensor]:
    """Random ids of words with padding after `lengths` tokens, and the mask over it, int64 (n, count) each."""
    mask = (torch.arange(count) < torch.tensor(lengths)[:, None]).long()
    ids = torch.randint(5, 5 + len(WORDS), mask.shape, generator=torch.Generator().manual_seed(1))
    return ids * mask, mask
