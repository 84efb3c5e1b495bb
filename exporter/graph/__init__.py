"""The ground floor of the compiler: what a graph pass is, what operators are, and small questions about nodes.

Every room that reads or rewrites a captured graph stands on it; it knows none of them.
"""

from exporter.graph.graph_pass import GraphPass, PassOutcome, copy_graph, run_passes

__all__ = ["GraphPass", "PassOutcome", "copy_graph", "run_passes"]
