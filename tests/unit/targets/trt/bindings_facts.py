"""Every class, member and signature of a TensorRT's Python package; as a script under real bindings, as JSON."""

import importlib
import inspect
import json
import re
from typing import Any

SIGNATURE = re.compile(r"^(?:\d+\. )?(\w+)\((.*)\) -> (.+)$")


def facts(trt: Any) -> dict[str, dict[str, object]]:
    found: dict[str, dict[str, object]] = {}
    for name, kind in vars(trt).items():
        if inspect.isclass(kind):
            found[name] = members(kind)
            nested = {key: value for key, value in vars(kind).items() if inspect.isclass(value)}
            found.update({f"{name}.{key}": members(value) for key, value in nested.items()})
    return found


def members(kind: type) -> dict[str, object]:
    return {
        name: member(kind, value)
        for name, value in vars(kind).items()
        if not name.startswith("_") or name == "__init__"
    }


def member(kind: type, value: object) -> dict[str, object]:
    if isinstance(value, property):
        return {"kind": "property", "settable": value.fset is not None}
    if isinstance(value, kind):
        return {"kind": "value"}
    matches = [SIGNATURE.match(line) for line in (value.__doc__ or "").splitlines()]
    return {"kind": "method", "signatures": [[match[2], match[3]] for match in matches if match]}


if __name__ == "__main__":
    print(json.dumps(facts(importlib.import_module("tensorrt_bindings"))))
