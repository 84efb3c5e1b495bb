"""Protocol Buffers' text format, which `config.pbtxt` is written in."""

import json
from collections.abc import Iterator, Mapping

Message = Mapping[str, object]
"""Fields by name: texts, numbers, words, messages, or sequences of one of them."""


class Word(str):
    """The name of a value of an enumeration, which stands without quotes."""


def text_of(message: Message) -> str:
    """A message as text, one field a line; a map is a sequence of messages with `key` and `value`."""
    return "".join(_lines(message, ""))


def _lines(message: Message, indent: str) -> Iterator[str]:
    for name, value in message.items():
        for each in value if isinstance(value, list | tuple) else (value,):
            match each:
                case Mapping():
                    yield f"{indent}{name} {{\n"
                    yield from _lines(each, f"{indent}  ")
                    yield f"{indent}}}\n"
                case Word():
                    yield f"{indent}{name}: {each}\n"
                case bool():
                    yield f"{indent}{name}: {str(each).lower()}\n"
                case str():
                    yield f"{indent}{name}: {_quoted(each)}\n"
                case _:
                    yield f"{indent}{name}: {each}\n"


def _quoted(text: str) -> str:
    """A text in quotes: JSON's escapes are the format's, but for characters beyond ASCII, which stay as they are."""
    return json.dumps(text, ensure_ascii=False)
