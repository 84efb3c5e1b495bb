"""The names that a recipe may use for methods, passes and targets: all that it knows of other rooms.

A new method is a file in `reduction/methods/` and a new pass an entry in `rewrite`; both then appear here.
"""

from exporter.reduction import method_names
from exporter.rewrite import SWITCHES
from exporter.targets import TARGETS

METHODS = method_names()

PASSES = SWITCHES

__all__ = ["METHODS", "PASSES", "TARGETS"]
