"""Rewrite: graph passes from a captured model to the program that is emitted."""

from exporter.rewrite.context import RewriteOptions
from exporter.rewrite.fold_input_normalization import InsertInputNormalization
from exporter.rewrite.pipeline import PASS_NAMES, SWITCHES
from exporter.rewrite.rewrite import RewrittenProgram, rewrite

__all__ = [
    "PASS_NAMES",
    "SWITCHES",
    "InsertInputNormalization",
    "RewriteOptions",
    "RewrittenProgram",
    "rewrite",
]
