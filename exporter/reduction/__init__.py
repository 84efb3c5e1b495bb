"""Reduction: the maths of each method as plain torch functions. Also the eager reference of what is emitted."""

import importlib
import pkgutil

from exporter.errors import UsageError, nearest
from exporter.reduction import methods
from exporter.reduction.learned import Learned
from exporter.reduction.method import Method, Site


def method_names() -> tuple[str, ...]:
    """Every method there is: one per file in `methods/`."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(methods.__path__)))


def method(name: str) -> Method:
    """The method of that name.

    Raises:
        UsageError: there is none.
    """
    if name not in method_names():
        raise UsageError(
            f"method: expected one of {', '.join(method_names())}, got {name}.{nearest(name, method_names())}"
        )
    found = importlib.import_module(f"{methods.__name__}.{name}").METHOD
    assert isinstance(found, Method)
    return found


__all__ = ["Learned", "Method", "Site", "method", "method_names"]
