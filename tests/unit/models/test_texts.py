"""Texts become ids as the bundle's tokenizer says, and none is cut off unasked."""

import pytest

from exporter.errors import UsageError
from exporter.models.texts import TextReader


def tokenizer(truncated_to: int, **padding: object) -> bytes:
    """A word is a token; the file itself says that texts are cut off, as MiniLM's does, and how they are padded."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace

    made = Tokenizer(WordLevel({"[PAD]": 0, "good": 1, "film": 2, "[UNK]": 3}, unk_token="[UNK]"))
    made.pre_tokenizer = Whitespace()
    made.enable_truncation(truncated_to)
    made.enable_padding(**({"length": truncated_to} | padding))
    content: str = made.to_str()
    return content.encode()


def test_truncation_in_the_file_does_not_hide_that_a_text_is_too_long() -> None:
    read = TextReader(tokenizer(3), length=4, names=("input_ids", "attention_mask"))

    with pytest.raises(UsageError, match="has 5 tokens, and the engine takes 4"):
        read(["good good good good film"])
    assert read(["good good good film"])["input_ids"].tolist() == [[1, 1, 1, 2]]


def test_texts_are_cut_off_at_the_length_of_the_engine_where_that_is_asked_for() -> None:
    read = TextReader(tokenizer(3), length=4, names=("input_ids", "attention_mask"), truncate=True)

    found = read(["good good good good film", "film"])

    assert found["input_ids"].tolist() == [[1, 1, 1, 1], [2, 0, 0, 0]]
    assert found["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 0, 0, 0]]


def test_padding_comes_last_and_fills_the_engine_whatever_the_file_says() -> None:
    content = tokenizer(3, direction="left", pad_to_multiple_of=8)

    read = TextReader(content, length=6, names=("input_ids", "attention_mask"))(["good film"])

    assert read["input_ids"].tolist() == [[1, 2, 0, 0, 0, 0]]
    assert read["attention_mask"].tolist() == [[1, 1, 0, 0, 0, 0]]
