"""YAML text to plain values and back: a small, safe part of YAML 1.2, the same in both directions.

Only mappings with text keys, sequences and plain scalars pass. Anchors, aliases and tags are refused rather
than expanded, keys may not repeat, and depth and size are bounded, so a hostile file costs milliseconds.
Words resolve as in YAML 1.2's core schema (`no` is text, `1e-3` a number, `010` text), without infinities and
NaN.
"""

import math
import re
from collections.abc import Mapping
from typing import Any

import yaml

from exporter.errors import RecipeError

MAX_DEPTH = 8
MAX_VALUES = 10_000

_NULL, _BOOL, _INT, _FLOAT = (f"tag:yaml.org,2002:{kind}" for kind in ("null", "bool", "int", "float"))
_SEQUENCE = "tag:yaml.org,2002:seq"
_WORDS = {
    _NULL: (r"~|null|Null|NULL|", [*"~nN", ""]),
    _BOOL: (r"true|True|TRUE|false|False|FALSE", [*"tTfF"]),
    _INT: (r"[-+]?(0|[1-9][0-9]*)", [*"-+0123456789"]),
    _FLOAT: (r"[-+]?(\.[0-9]+|[0-9]+\.[0-9]*|[0-9]+(?=[eE]))([eE][-+]?[0-9]+)?", [*"-+.0123456789"]),
}


def parse_yaml(text: str, where: str) -> object:
    """The plain value that a YAML text stands for.

    Args:
        text: one YAML document.
        where: what the text came from, for messages.

    Raises:
        RecipeError: not YAML, several documents, an alias, anchor or tag, a repeated key, a key that is not
            text, or more depth or values than any recipe has.
    """
    try:
        node = yaml.compose(text, Loader=_PlainLoader)
        return None if node is None else _value(node)
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        problem = " ".join(part for part in (error.context, error.problem) if part)
        raise RecipeError(f"{where}: {line}{problem or 'not valid YAML'}") from None
    except yaml.YAMLError as error:
        raise RecipeError(f"{where}: not valid YAML: {error}") from None


def format_yaml(mapping: Mapping[str, Any]) -> str:
    """YAML text of a mapping of plain values, in its own key order, lists of scalars on one line."""
    return yaml.dump(dict(mapping), Dumper=_PlainDumper, sort_keys=False, allow_unicode=True, width=1 << 30)


class _PlainLoader(yaml.SafeLoader):
    """Composes nodes, refusing whatever could expand, run or exhaust."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012
    depth = 0
    values = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event: yaml.Event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise _refusal("anchors and aliases are not allowed in a recipe; write the value out", event)
        if (tag := getattr(event, "tag", None)) is not None:
            raise _refusal(f"tags such as {tag} are not allowed in a recipe; write a plain value", event)
        self.depth, self.values = self.depth + 1, self.values + 1
        if self.depth > MAX_DEPTH or self.values > MAX_VALUES:
            raise _refusal(f"more than {MAX_DEPTH} levels or {MAX_VALUES} values: not a recipe", event)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


class _PlainDumper(yaml.SafeDumper):
    """Writes what `_PlainLoader` reads back as the same value."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012

    def ignore_aliases(self, data: object) -> bool:
        return True

    def represent_list(self, data: Any) -> yaml.SequenceNode:
        return self.represent_sequence(_SEQUENCE, data, flow_style=True)


_PlainDumper.add_representer(list, _PlainDumper.represent_list)
for _kind, (_pattern, _first) in _WORDS.items():
    for _class in (_PlainLoader, _PlainDumper):
        _class.add_implicit_resolver(_kind, re.compile(rf"(?:{_pattern})\Z"), _first)


def _refusal(problem: str, at: yaml.Event | yaml.Node) -> yaml.MarkedYAMLError:
    mark: Any = at.start_mark
    return yaml.MarkedYAMLError(problem=problem, problem_mark=mark)


def _value(node: yaml.Node) -> object:
    if isinstance(node, yaml.MappingNode):
        return _mapping(node)
    if isinstance(node, yaml.SequenceNode):
        return [_value(item) for item in node.value]
    return _scalar(node)


def _mapping(node: yaml.MappingNode) -> dict[str, object]:
    values: dict[str, object] = {}
    for key_node, value_node in node.value:
        key = _value(key_node)
        if not isinstance(key, str):
            raise _refusal(f"expected a key that is text, got {key_node.value!r}", key_node)
        if key in values:
            raise _refusal(f'the key "{key}" is given twice', key_node)
        values[key] = _value(value_node)
    return values


def _scalar(node: yaml.Node) -> object:
    text: str = node.value
    if node.tag == _NULL:
        return None
    if node.tag == _BOOL:
        return text.lower() == "true"
    if node.tag == _INT:
        if len(text) > 19:
            raise _refusal(f"the number {text[:12]}... has too many digits", node)
        return int(text)
    if node.tag == _FLOAT:
        if not math.isfinite(float(text)):
            raise _refusal(f"the number {text[:12]} is too large", node)
        return float(text)
    return text
