"""How sentence-transformers makes one vector of a text: `modules.json`, and the configuration of the pooling in it."""

import re
from dataclasses import dataclass
from typing import Any, Literal

from exporter.errors import ModelUnavailableError, quoted
from exporter.models.hf.place import Place
from exporter.models.json_file import read_json, read_json_list

_POOLS: dict[str, Literal["class_token", "mean"]] = {"cls": "class_token", "mean": "mean"}


@dataclass(frozen=True, kw_only=True)
class Pooling:
    """What is taken of the last hidden state, and whether the result has unit length."""

    head: Literal["class_token", "mean"]
    unit_length: bool


def read_pooling(place: Place) -> Pooling | None:
    """The pooling of a folder of sentence-transformers; None of a checkpoint without `modules.json`.

    Raises:
        ModelUnavailableError: It has other modules than an encoder, a pooling and a normalisation, or pools otherwise
            than by the class token or the mean.
    """
    path = place.file("modules.json")
    if path is None:
        return None
    entries = read_json_list(path, f"modules.json of {place.spelling}")
    kinds = [
        str(entry.get("type", "")).rpartition(".")[2] if isinstance(entry, dict) else "" for entry in entries
    ]
    if kinds not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
        raise ModelUnavailableError(
            f"{place.spelling} has the modules {quoted(', '.join(kinds))} in modules.json: expected Transformer, "
            "Pooling and maybe Normalize"
        )
    folder = str(entries[1].get("path"))
    name = f"{folder}/config.json"
    config = place.file(name) if re.fullmatch(r"\w+", folder) else None
    if config is None:
        raise ModelUnavailableError(
            f"{place.spelling} has no {quoted(name)}, which its modules.json names; fetch it again"
        )
    return Pooling(
        head=_head(read_json(config, f"{quoted(name)} of {place.spelling}"), place),
        unit_length=len(kinds) == 3,
    )


def _head(config: dict[str, Any], place: Place) -> Literal["class_token", "mean"]:
    """Older files have a switch for each way of pooling, newer ones name it."""
    prefix = "pooling_mode_"
    on = [
        key.removeprefix(prefix) for key, value in config.items() if key.startswith(prefix) and value is True
    ]
    switches = {word.removesuffix("_tokens").removesuffix("_token") for word in on}
    named = {config["pooling_mode"]} if isinstance(config.get("pooling_mode"), str) else switches
    if len(named) != 1 or not named <= _POOLS.keys():
        raise ModelUnavailableError(
            f"{place.spelling} pools by {quoted(', '.join(sorted(named)) or 'nothing')}: expected the mean of the "
            "tokens or the class token"
        )
    return _POOLS[named.pop()]
