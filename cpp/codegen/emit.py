"""C++ text of a codelet: a line transform (kernel_table.h) as a function template over the element type."""

from __future__ import annotations

from collections.abc import Callable

from dag import Input, Number, Sum, Term, Transform
from schedule import Order, schedule

Address = Callable[[int], str]


def real_address(pointer: str, stride: str) -> Address:
    return lambda i: f"{pointer} + {i} * {stride}"


def complex_address(pointer: str, stride: str) -> Address:
    return lambda i: f"{pointer}{'_im' if i % 2 else ''} + {i // 2} * {stride}"


def constant(number: Number) -> str:
    text = repr(float(number))
    return f"E({text})"


def combination(node: Sum) -> str:
    """left + factor * right"""
    sign = "+" if node.factor > 0 else "-"
    product = "" if abs(node.factor) == 1 else f"{constant(abs(node.factor))} * "
    return f"t{node.left} {sign} {product}t{node.right}"


def negated_combination(node: Sum) -> str:
    """-(left + factor * right) as one fused operation"""
    if node.factor == -1:
        return f"t{node.right} - t{node.left}"
    if node.factor == 1:
        return f"-(t{node.left} + t{node.right})"
    return f"{constant(-node.factor)} * t{node.right} - t{node.left}"


def output_expression(transform: Transform, term: Term) -> str:
    if term is None:
        return "Vec<E>{}"
    node = transform.graph.nodes[term.node]
    if term.scale == 1:
        return f"t{term.node}"
    if term.scale == -1:
        return negated_combination(node) if isinstance(node, Sum) else f"-t{term.node}"
    return f"{constant(term.scale)} * t{term.node}"


def values_needed(transform: Transform, order: Order) -> set[int]:
    """Sums that must have a name: not those that only a negated output would read, which restates the sum."""
    needed = {term.node for _, term in transform.outputs if term is not None and term.scale != -1}
    for number in order:
        node = transform.graph.nodes[number]
        if isinstance(node, Sum):
            needed |= {node.left, node.right}
    return needed


def statements(transform: Transform, source: Address, destination: Address) -> list[str]:
    """Loads just before their first use, stores as soon as their value is known."""
    nodes = transform.graph.nodes
    order = schedule(transform)
    needed = values_needed(transform, order)
    outputs_of: dict[int, list[tuple[int, Term]]] = {}
    for index, term in transform.outputs:
        outputs_of.setdefault(-1 if term is None else term.node, []).append((index, term))
    lines: list[str] = []
    loaded: set[int] = set()

    def name_inputs(*numbers: int) -> None:
        for number in numbers:
            node = nodes[number]
            if isinstance(node, Input) and number not in loaded:
                loaded.add(number)
                lines.append(f"const Vec<E> t{number} = load<E>({source(node.entry)});")
                store_outputs(number)

    def store_outputs(number: int) -> None:
        for index, term in outputs_of.pop(number, []):
            lines.append(f"store<E>({destination(index)}, {output_expression(transform, term)});")

    for number in order:
        node = nodes[number]
        assert isinstance(node, Sum)
        name_inputs(node.left, node.right)
        if number in needed:
            lines.append(f"const Vec<E> t{number} = {combination(node)};")
        store_outputs(number)
    name_inputs(*(number for number in list(outputs_of) if number >= 0))
    store_outputs(-1)
    return lines


def codelet(name: str, transform: Transform, is_complex: bool) -> str:
    """Definition of `name`."""
    address = complex_address if is_complex else real_address
    body = statements(transform, address("in", "is"), address("out", "os"))
    head = [
        "const E* __restrict const in = args.in;",
        "E* __restrict const out = args.out;",
        "const std::ptrdiff_t is = args.in_stride, os = args.out_stride;",
    ]
    if is_complex:
        head[1:1] = ["const E* __restrict const in_im = in + args.in_im;"]
        head[3:3] = ["E* __restrict const out_im = out + args.out_im;"]
    text = "\n".join("    " + line for line in head + body)
    return f"template <class E>\nvoid {name}(const void*, const LineArgs<E>& args) {{\n{text}\n}}\n"
