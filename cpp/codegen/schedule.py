"""The order of the statements of a codelet: few values alive at a time.

Each candidate order is judged by the memory traffic of a register file run over it with Belady's rule (the value
whose next use is farthest leaves first): x86 has 16 vector registers up to AVX2 and 32 in AVX-512. An input that left
is loaded again; any other value is stored once and loaded again.
"""

from __future__ import annotations

from dag import Input, Sum, Transform, reachable

REGISTER_COUNTS = (16, 32)
Order = list[int]


def operands(transform: Transform, number: int) -> tuple[int, ...]:
    node = transform.graph.nodes[number]
    return (node.left, node.right) if isinstance(node, Sum) else ()


def creation_order(transform: Transform) -> Order:
    """As the recursion of the algorithm made them: one sub-transform after the other, then the outer butterflies."""
    return [number for number in reachable(transform) if isinstance(transform.graph.nodes[number], Sum)]


def depth_first_order(transform: Transform) -> Order:
    """Each output in turn with all it still needs, outputs by when their node was made."""
    order: Order = []
    done: set[int] = set()

    def visit(number: int) -> None:
        if number in done:
            return
        done.add(number)
        for operand in operands(transform, number):
            visit(operand)
        if isinstance(transform.graph.nodes[number], Sum):
            order.append(number)

    for node in sorted({term.node for _, term in transform.outputs if term is not None}):
        visit(node)
    return order


def memory_traffic(transform: Transform, order: Order, registers: int) -> int:
    uses: dict[int, list[int]] = {}
    for time, number in enumerate(order):
        for operand in operands(transform, number):
            uses.setdefault(operand, []).append(time)
    resident: set[int] = set()
    stored: set[int] = set()
    traffic = 0

    def next_use(number: int, time: int) -> int:
        return next((use for use in uses.get(number, []) if use > time), len(order))

    def make_room(time: int, keep: tuple[int, ...]) -> int:
        if len(resident) < registers:
            return 0
        victim = max(resident - set(keep), key=lambda number: next_use(number, time))
        resident.remove(victim)
        is_input = isinstance(transform.graph.nodes[victim], Input)
        if is_input or victim in stored or next_use(victim, time) == len(order):
            return 0
        stored.add(victim)
        return 1

    for time, number in enumerate(order):
        needed = operands(transform, number)
        for operand in needed:
            if operand not in resident:
                traffic += 1 + make_room(time, needed)
                resident.add(operand)
        resident -= {operand for operand in needed if next_use(operand, time) == len(order)}
        traffic += make_room(time, needed)
        if next_use(number, time) < len(order):
            resident.add(number)
    return traffic


def schedule(transform: Transform) -> Order:
    candidates = (creation_order(transform), depth_first_order(transform))
    return min(candidates, key=lambda order: sum(memory_traffic(transform, order, count) for count in REGISTER_COUNTS))
