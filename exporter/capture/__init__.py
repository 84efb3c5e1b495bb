"""Capture: a trained model becomes a graph in canonical form."""

from exporter.capture.program import EXAMPLE_BATCH, Program, capture, export_graph

__all__ = ["EXAMPLE_BATCH", "Program", "capture", "export_graph"]
