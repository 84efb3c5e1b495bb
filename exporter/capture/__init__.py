"""Capture: a trained model becomes a graph in canonical form."""

from exporter.capture.program import (
    CANONICAL_PASSES,
    EXAMPLE_BATCH,
    Program,
    capture,
    export_graph,
    trace,
    without_stack_traces,
)

__all__ = [
    "CANONICAL_PASSES",
    "EXAMPLE_BATCH",
    "Program",
    "capture",
    "export_graph",
    "trace",
    "without_stack_traces",
]
