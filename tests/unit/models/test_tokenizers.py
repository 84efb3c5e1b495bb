"""Text towers read texts as their own library does: same ids, same padding, same cut; loaded at the first text."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import tokenizers
import torch
import transformers
from torch import nn

from exporter.errors import ModelUnavailableError
from exporter.models import LoadedModel, ModelRequest, fetch, load

HFModel = Callable[[str], tuple[Any, Path]]

TEXTS = ["a cat", "Dog", "", "a cat and a dog and a bird and another cat and another dog and one more bird"]

_TINY_CLIP: dict[str, Any] = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "head_width": 32, "patch_size": 16},
    "text_cfg": {"context_length": 8, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}


def open_clip_tower(monkeypatch: pytest.MonkeyPatch, **text_config: Any) -> LoadedModel:
    config = _TINY_CLIP | {"text_cfg": _TINY_CLIP["text_cfg"] | text_config}
    monkeypatch.setattr("open_clip.factory._MODEL_CONFIGS", {"tiny": config})
    return load(ModelRequest(model="open_clip:tiny", weights="random", tower="text"))


def ids_of(loaded: LoadedModel, texts: list[str]) -> Any:
    assert loaded.tokenize is not None
    ids = loaded.tokenize(texts)
    assert ids.dtype == np.int64
    assert ids.shape == (len(texts), *loaded.example_input.shape)
    return ids


def save_clip(folder: Path) -> tuple[Any, Any]:
    """A tiny CLIP with the tokenizer that belongs to it: letters, "cat" and "dog"; context 12."""
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    pieces = [*letters, *(f"{letter}</w>" for letter in letters), "ca", "cat</w>", "do", "dog</w>"]
    entries = {piece: place for place, piece in enumerate([*pieces, "<|startoftext|>", "<|endoftext|>"])}
    merges: Any = [("c", "a"), ("ca", "t</w>"), ("d", "o"), ("do", "g</w>")]
    tokenizer = transformers.CLIPTokenizer(vocab=entries, merges=merges)
    size = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    text = {
        "vocab_size": 58,
        "max_position_embeddings": 12,
        "bos_token_id": 56,
        "eos_token_id": 57,
        "pad_token_id": 57,
    }
    vision = {"image_size": 32, "patch_size": 16}
    torch.manual_seed(0)
    model: Any = transformers.CLIPModel(
        transformers.CLIPConfig(text_config=size | text, vision_config=size | vision, projection_dim=16)
    )
    model.eval()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model, tokenizer


def words_tokenizer(words: list[str]) -> Any:
    """A tokenizer of whole words, as a SigLIP checkpoint might carry; `<pad>` is 0, unknown words are 1."""
    entries = {word: place for place, word in enumerate(["<pad>", "<unk>", *words])}
    model = tokenizers.Tokenizer(tokenizers.models.WordLevel(entries, unk_token="<unk>"))
    model.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    fast: Any = transformers.PreTrainedTokenizerFast
    return fast(tokenizer_object=model, pad_token="<pad>", unk_token="<unk>")


def test_clip_reads_a_photo_of_a_cat_as_openai_does(monkeypatch: pytest.MonkeyPatch) -> None:
    ids = ids_of(open_clip_tower(monkeypatch), ["a photo of a cat"])

    assert ids.tolist() == [[49406, 320, 1125, 539, 320, 2368, 49407, 0]]


def test_open_clip_texts_are_padded_and_cut_as_by_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    ids = ids_of(open_clip_tower(monkeypatch), TEXTS)

    np.testing.assert_array_equal(ids, open_clip.SimpleTokenizer(context_length=8)(TEXTS).numpy())
    assert ids[3, -1] == 49407  # a text that is cut still ends


def test_an_open_clip_tokenizer_is_made_once_and_only_when_a_text_comes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[str] = []
    original = open_clip.get_tokenizer

    def counted(name: str) -> Any:
        made.append(name)
        return original(name)

    monkeypatch.setattr(open_clip, "get_tokenizer", counted)

    loaded = open_clip_tower(monkeypatch)
    before = list(made)
    ids_of(loaded, ["a"])
    ids_of(loaded, ["b"])

    assert (before, made) == ([], ["tiny"])


def test_an_open_clip_tokenizer_from_the_hub_is_refused_in_one_line_without_a_network(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(fetch, "_hub_answers", lambda: False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    loaded = open_clip_tower(monkeypatch, hf_tokenizer_name="nobody/nothing")

    with pytest.raises(ModelUnavailableError, match="cannot fetch the tokenizer of open_clip:tiny") as caught:
        ids_of(loaded, ["a cat"])

    assert "\n" not in str(caught.value)
    assert "--weights" not in str(caught.value)


def test_an_hf_folder_reads_texts_as_its_library_does_at_full_length(tmp_path: Path) -> None:
    _, tokenizer = save_clip(tmp_path)

    ids = ids_of(load(ModelRequest(model=f"hf:{tmp_path}", tower="text")), TEXTS)

    expected = tokenizer(TEXTS, padding="max_length", truncation=True, max_length=12)["input_ids"]
    np.testing.assert_array_equal(ids, expected)
    assert (
        ids[0].tolist() == [56, 26, 53] + [57] * 9
    )  # start, a</w>, cat</w>, end and padding, which CLIP shares


def test_padding_to_the_full_context_changes_no_embedding(tmp_path: Path) -> None:
    model, tokenizer = save_clip(tmp_path)
    loaded = load(ModelRequest(model=f"hf:{tmp_path}", tower="text"))
    assert isinstance(loaded.module, nn.Module)
    texts = ["a cat", "Dog", "a dog a cat"]

    with torch.no_grad():
        ours = loaded.module(torch.from_numpy(ids_of(loaded, texts)))
        inputs = tokenizer(texts, padding=True, return_tensors="pt")  # the longest text's length, with a mask
        output: Any = model.text_model(**inputs)
        library = model.text_projection(output.pooler_output)

    torch.testing.assert_close(ours, library, rtol=1e-5, atol=1e-5)


def test_an_hf_checkpoint_may_bring_a_tokenizer_of_another_class(hf_model: HFModel, tmp_path: Path) -> None:
    model, _ = hf_model("SiglipModel")
    model.save_pretrained(tmp_path)
    tokenizer = words_tokenizer(["a", "cat", "dog"])
    tokenizer.save_pretrained(tmp_path)

    ids = ids_of(load(ModelRequest(model=f"hf:{tmp_path}", tower="text")), ["a cat", "a bird"])

    assert ids.tolist() == [[2, 3] + [0] * 14, [2, 1] + [0] * 14]


@pytest.mark.parametrize("family", ["CLIPModel", "SiglipModel"])
def test_an_hf_folder_without_a_tokenizer_loads_and_refuses_texts(family: str, hf_model: HFModel) -> None:
    _, folder = hf_model(family)
    loaded = load(ModelRequest(model=f"hf:{folder}", tower="text"))

    with pytest.raises(ModelUnavailableError, match=r"tokenizer.*save_pretrained") as caught:
        ids_of(loaded, ["a cat"])

    assert "\n" not in str(caught.value)


def test_a_tokenizer_with_ids_beyond_the_vocabulary_is_refused(tmp_path: Path) -> None:
    save_clip(tmp_path)
    words_tokenizer([f"word{number}" for number in range(57)]).save_pretrained(tmp_path)
    loaded = load(ModelRequest(model=f"hf:{tmp_path}", tower="text"))

    with pytest.raises(ModelUnavailableError, match="expected token ids below 58, got 58"):
        ids_of(loaded, ["word1"])


def test_image_towers_and_classifiers_read_no_texts(tmp_path: Path) -> None:
    save_clip(tmp_path)

    assert load(ModelRequest(model=f"hf:{tmp_path}")).tokenize is None
    assert load(ModelRequest(model="clip_digits")).tokenize is None
    assert load(ModelRequest(model="vit_digits")).tokenize is None
