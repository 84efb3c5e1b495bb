"""Anatomy: read-only facts about a captured graph. No per-model code."""

from exporter.anatomy.examine import Anatomy, Block, Refusal, examine
from exporter.anatomy.layout import Layout, PatchGrid, Scrambled, TokenAxis
from exporter.anatomy.work import executed_macs

__all__ = [
    "Anatomy",
    "Block",
    "Layout",
    "PatchGrid",
    "Refusal",
    "Scrambled",
    "TokenAxis",
    "examine",
    "executed_macs",
]
