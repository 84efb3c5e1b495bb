"""One spelling for a value; what others wrote is read within bounds."""

from dataclasses import dataclass, field

import pytest

from exporter.errors import BundleError
from exporter.records import OMIT, canonical_json, parse_json, to_tree


@dataclass(frozen=True, kw_only=True)
class Shelf:
    """A record with every kind of field."""

    books: tuple[str, ...] = ()
    owner: str | None = field(default=None, metadata=OMIT)
    notes: tuple[str, ...] = field(default=(), metadata=OMIT)
    counts: dict[str, int] = field(default_factory=dict, metadata=OMIT)
    kind: str = field(default="wood", metadata={"alias": "class"})
    inner: "Shelf | None" = None


def test_value_has_one_spelling() -> None:
    assert canonical_json({"b": 1, "a": ["é"]}) == b'{\n  "a": [\n    "\\u00e9"\n  ],\n  "b": 1\n}\n'
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json(float("nan"))


def test_field_at_its_default_is_left_out_where_it_may_be() -> None:
    assert to_tree(Shelf()) == {"books": [], "class": "wood", "inner": None}


def test_field_with_a_value_is_written_under_its_key() -> None:
    shelf = Shelf(books=("a",), owner="", counts={"a": 0}, kind="steel", inner=Shelf(notes=("x",)))

    assert to_tree(shelf) == {
        "books": ["a"],
        "owner": "",
        "counts": {"a": 0},
        "class": "steel",
        "inner": {"books": [], "notes": ["x"], "class": "wood", "inner": None},
    }


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "9" * 5000, "\udcff"])
def test_text_that_is_not_sound_json_is_refused(text: str) -> None:
    with pytest.raises(
        BundleError, match="x.json: expected a list, got text that is not sound JSON; mend it"
    ):
        parse_json(text.encode("utf-8", "surrogatepass"), "x.json", "a list", "mend it")


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "1" + "0" * 400, str(2**70)])
def test_number_beyond_64_bits_is_refused_by_its_place(number: str) -> None:
    with pytest.raises(
        BundleError, match=r"x.json: later\[0\].x: expected a number within 64 bits"
    ) as caught:
        parse_json(f'{{"later": [{{"x": {number}}}]}}'.encode(), "x.json", "JSON", "mend it")

    assert len(str(caught.value)) < 200
