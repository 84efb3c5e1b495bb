"""Anatomy: read-only facts about a captured graph. No per-model code."""

from exporter.anatomy.block import Block
from exporter.anatomy.examine import Anatomy, Refusal, examine
from exporter.anatomy.layout import Layout, TokenAxis
from exporter.anatomy.work import executed_macs

__all__ = [
    "Anatomy",
    "Block",
    "Layout",
    "Refusal",
    "TokenAxis",
    "examine",
    "executed_macs",
]
