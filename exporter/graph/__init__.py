"""The base of the compiler: the form of a graph pass, the table of operators, and questions about nodes.

Every package that reads or rewrites a captured graph uses it; it imports none of them.
"""

from exporter.graph.graph_pass import GraphPass, PassOutcome, copy_graph, listening, run_passes

__all__ = ["GraphPass", "PassOutcome", "copy_graph", "listening", "run_passes"]
