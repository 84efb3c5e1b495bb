"""Find the attentions of a graph: as one operator, or as product, softmax, product.

In: `GraphFacts`. Out: one `Attention` per place, with what stands between its products; rules judge that.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from exporter.lint.graph_facts import DEFAULT_DOMAIN, Dim, GraphFacts, Node, Shape, operand

PRODUCTS = ("MatMul", "Einsum")

_MASK_INPUT = {"Attention": 3, "MultiHeadAttention": 5}

_BOUNDARIES = frozenset(
    {
        *PRODUCTS,
        *(
            "Attention",
            "BatchNormalization",
            "Conv",
            "ConvTranspose",
            "Gemm",
            "GroupNormalization",
            "If",
            "Loop",
        ),
        *("InstanceNormalization", "LayerNormalization", "RMSNormalization", "Scan", "Softmax", "TopK"),
    }
)
"""What ends the search from a softmax back to a product, or on to the next; reductions do as well."""

_FARTHEST = 8


@dataclass(frozen=True, kw_only=True)
class Attention:
    """One attention.

    Attributes:
        node: the softmax, or the whole operator.
        query: name of the query.
        key: name of the key; of decomposed attention, as the product takes it: transposed.
        value: name of the value.
        before: between the first product and the softmax, in that order. Empty for an operator.
        after: between the softmax and the second product.
        products: the two of decomposed attention.
        mask: names of what is added to the logits.
    """

    node: Node
    query: str
    key: str
    value: str
    before: tuple[Node, ...] = ()
    after: tuple[Node, ...] = ()
    products: tuple[Node, ...] = ()
    mask: tuple[str, ...] = ()

    @property
    def decomposed(self) -> bool:
        """Whether it is spelled out."""
        return bool(self.products)


def attentions(facts: GraphFacts) -> tuple[Attention, ...]:
    """Every attention, in graph order. The softmax of a classifier is none: it follows a product with weights."""
    return tuple(_attentions(facts))


def logits_shape(facts: GraphFacts, site: Attention) -> Shape | None:
    """(B, H, queries, keys) of decomposed attention, or of an operator over four axes."""
    if site.decomposed:
        return facts.shapes.get(site.products[0].output[0])
    query, key = facts.shapes.get(site.query), facts.shapes.get(site.key)
    if query is None or key is None or len(query) != 4 or len(key) != 4:
        return None
    return (*query[:3], key[2])


def is_narrow(mask: Shape | None, queries: Dim, keys: Dim) -> bool:
    """Whether a mask is known to be broadcast over queries or keys."""
    if mask is None:
        return False
    last = ((1, 1, *mask) if len(mask) < 2 else mask)[-2:]
    pairs = zip(last, (queries, keys), strict=True)
    return any(isinstance(a, int) and isinstance(b, int) and a != b for a, b in pairs)


def head_size(facts: GraphFacts, site: Attention) -> int | None:
    """Channels of one head's query, where they are known."""
    query = facts.shapes.get(site.query)
    if query is None or not query:
        return None
    if not site.decomposed and len(query) == 3:
        return _split_head_size(query, site.node)
    return query[-1] if isinstance(query[-1], int) else None


def _split_head_size(query: Shape, node: Node) -> int | None:
    heads = next((each.i for each in node.attribute if each.name in ("q_num_heads", "num_heads")), 0)
    return query[-1] // heads if isinstance(query[-1], int) and heads else None


def _attentions(facts: GraphFacts) -> Iterator[Attention]:
    for node in facts.nodes:
        if node.op_type == "Softmax" and node.domain in DEFAULT_DOMAIN:
            found = _decomposed(facts, node)
            if found is not None:
                yield found
        elif (node.domain in DEFAULT_DOMAIN and node.op_type == "Attention") or (
            node.domain == "com.microsoft" and node.op_type == "MultiHeadAttention"
        ):
            mask = operand(node, _MASK_INPUT[node.op_type])
            query, key, value = (operand(node, index) for index in range(3))
            yield Attention(node=node, query=query, key=key, value=value, mask=(mask,) if mask else ())


def _decomposed(facts: GraphFacts, softmax: Node) -> Attention | None:
    up, down = _up(facts, softmax), _down(facts, softmax)
    if up is None or down is None:
        return None
    (first, *before), (*after, second) = up, down
    path = {name for node in (first, *before) for name in node.output}
    return Attention(
        node=softmax,
        query=first.input[0],
        key=first.input[1],
        value=second.input[1],
        before=tuple(before),
        after=tuple(after),
        products=(first, second),
        mask=tuple(
            name for node in before if node.op_type == "Add" for name in node.input if name not in path
        ),
    )


def _up(facts: GraphFacts, softmax: Node) -> tuple[Node, ...] | None:
    """The shortest way back to a product, which comes first. Queries may be constant, keys are not: weights are."""
    ways: list[tuple[Node, ...]] = [()]
    for _ in range(_FARTHEST):
        longer = []
        for way in ways:
            for name in (way[0] if way else softmax).input:
                node = facts.producers.get(name)
                if node is None or name in facts.constants:
                    continue
                if node.op_type in PRODUCTS and operand(node, 1) and operand(node, 1) not in facts.constants:
                    return (node, *way)
                if _is_passed(node):
                    longer.append((node, *way))
        ways = longer
    return None


def _down(facts: GraphFacts, softmax: Node) -> tuple[Node, ...] | None:
    """The shortest way on to a product that takes the probabilities first, which comes last."""
    ways: list[tuple[Node, ...]] = [()]
    for _ in range(_FARTHEST):
        longer = []
        for way in ways:
            name = (way[-1] if way else softmax).output[0]
            for node in facts.consumers.get(name, ()):
                if node.op_type in PRODUCTS and node.input[0] == name and len(node.input) > 1:
                    return (*way, node)
                if _is_passed(node):
                    longer.append((*way, node))
        ways = longer
    return None


def _is_passed(node: Node) -> bool:
    return node.op_type not in _BOUNDARIES and not node.op_type.startswith(("Arg", "Reduce"))
