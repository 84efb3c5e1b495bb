"""Rewrite: graph passes from a captured model to the program that is emitted."""

from exporter.rewrite.fold_input_normalization import InsertInputNormalization
from exporter.rewrite.rewrite import SWITCHES, RewriteOptions, RewrittenProgram, rewrite

__all__ = ["SWITCHES", "InsertInputNormalization", "RewriteOptions", "RewrittenProgram", "rewrite"]
