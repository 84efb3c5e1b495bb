"""Follow the token axis through every node of a captured graph.

In: a captured graph. Out: a `Layout` for every value that depends on the image. Each operator family has one rule in
`token_rules`; an operator without a rule scrambles the tokens, and is named where they are needed later.
"""

from torch import fx

from exporter.anatomy.layout import Layout, Scrambled, TokenAxis
from exporter.anatomy.token_rules import Layouts, apply_rule
from exporter.graph.nodes import image_dependent, is_tensor, shape_of
from exporter.graph.operators import Trait, aten, has, is_pointwise


def trace_tokens(graph: fx.Graph) -> dict[fx.Node, Layout]:
    """The layout of every image-dependent node. Multi-output nodes (unbind, split) carry that of each element."""
    layouts: dict[fx.Node, Layout] = {}
    dependent = image_dependent(graph)
    for node in graph.nodes:
        if node in dependent and node.op != "output":
            layouts[node] = layout_of(node, layouts)
    return layouts


def token_inputs(node: fx.Node, layouts: Layouts) -> list[fx.Node]:
    """The inputs of a node that carry a token axis."""
    return [source for source in node.all_input_nodes if isinstance(layouts.get(source), TokenAxis)]


def side_inputs(node: fx.Node, layouts: Layouts) -> list[fx.Node]:
    """Inputs that do not depend on the image, yet carry one entry per token of the node's result."""
    layout = layouts.get(node)
    if not isinstance(layout, TokenAxis) or not is_pointwise(node):
        return []
    ndim = len(shape_of(node))
    found = []
    for source in node.all_input_nodes:
        if source in layouts or not is_tensor(source):
            continue
        axis = layout.axis - (ndim - len(shape_of(source)))
        if axis >= 0 and shape_of(source)[axis] != 1:
            found.append(source)
    return found


def layout_of(node: fx.Node, layouts: Layouts) -> Layout:
    """The layout of a value that depends on the image, from those of its operands."""
    if node.op == "placeholder":
        return None
    sources = [layouts[source] for source in node.all_input_nodes if source in layouts]
    for layout in sources:
        if isinstance(layout, Scrambled):
            return layout
    is_birth = has(node, Trait.CONVOLUTION) or node.target is aten.embedding.default
    if all(layout is None for layout in sources) and not is_birth:
        return None
    result = apply_rule(node, layouts)
    return Scrambled(node=node.name, reason=result) if isinstance(result, str) else result
