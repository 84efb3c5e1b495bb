"""Capture: a trained model becomes a graph in canonical form."""

from exporter.capture.graph_pass import GraphPass, PassOutcome, copy_graph, run_passes
from exporter.capture.program import EXAMPLE_BATCH, Program, capture, export_graph

__all__ = [
    "EXAMPLE_BATCH",
    "GraphPass",
    "PassOutcome",
    "Program",
    "capture",
    "copy_graph",
    "export_graph",
    "run_passes",
]
