"""Expression graphs of straight-line linear transforms.

A value is a pair (scale, node) or None for zero. Scales are carried outside the nodes until an addition needs
them, and every addition is one node

    a + k * b

so an addition costs one fused multiply-add whatever its factors are, common scales cancel (the sqrt(1/2) of an
eighth root of unity is multiplied once, or never), and only an output whose scale is not +-1 costs a multiplication.
Equal nodes are shared; nodes that no output reaches vanish because emission starts from the outputs.

Numbers are Fractions (exact) or Decimals (`digits` significant digits; equal after rounding to `digits` - 10 places).
"""

from __future__ import annotations

import math
from decimal import Decimal, getcontext
from fractions import Fraction
from typing import Any, NamedTuple

Number = Any  # Fraction or Decimal; a graph holds numbers of one kind

digits = 50
getcontext().prec = digits


class Value(NamedTuple):
    scale: Number
    node: int


Term = Value | None


class Input(NamedTuple):
    entry: int


class Sum(NamedTuple):
    """left + factor * right"""

    left: int
    factor: Number
    right: int


Node = Input | Sum


class Graph:
    def __init__(self, one: Number) -> None:
        self.one = one
        self.nodes: list[Node] = []
        self._ids: dict[Node, int] = {}

    def input(self, index: int) -> Value:
        return Value(self.one, self._intern(Input(index)))

    def multiply(self, factor: Number, x: Term) -> Term:
        if x is None or self._canonical(factor) == 0:
            return None
        return Value(self._canonical(factor * x.scale), x.node)

    def negate(self, x: Term) -> Term:
        return None if x is None else Value(-x.scale, x.node)

    def add(self, x: Term, y: Term) -> Term:
        if x is None:
            return y
        if y is None:
            return x
        if x.node == y.node:
            return self.multiply(x.scale + y.scale, Value(self.one, x.node))
        if self._rank(x) > self._rank(y):
            x, y = y, x
        return Value(x.scale, self._intern(Sum(x.node, self._canonical(y.scale / x.scale), y.node)))

    def subtract(self, x: Term, y: Term) -> Term:
        return self.add(x, self.negate(y))

    @staticmethod
    def _rank(x: Value) -> tuple[bool, bool, Number, int]:
        """The scale of the lowest-ranked operand passes to the sum: +-1 if there is one, as outputs want it; else a
        power of two, by which the other scale is divided exactly."""
        power_of_two = abs(math.frexp(x.scale)[0]) == 0.5
        return abs(x.scale) != 1, not power_of_two, -abs(x.scale), x.node

    def _intern(self, node: Node) -> int:
        if node not in self._ids:
            self._ids[node] = len(self.nodes)
            self.nodes.append(node)
        return self._ids[node]

    @staticmethod
    def _canonical(number: Number) -> Number:
        if isinstance(number, Fraction):
            return number
        # Adding zero drops trailing digits that came from different ways of computing the same constant.
        return (number.quantize(Decimal(1).scaleb(10 - digits)) + 0).normalize()


class Transform(NamedTuple):
    """A graph with its outputs, in the order they are stored."""

    graph: Graph
    outputs: list[tuple[int, Term]]


def evaluate(transform: Transform, inputs: list[float]) -> dict[int, float]:
    """The outputs for given inputs, in double precision."""
    values: list[float] = []
    for node in transform.graph.nodes:
        if isinstance(node, Input):
            values.append(inputs[node.entry])
        else:
            values.append(values[node.left] + float(node.factor) * values[node.right])
    return {index: 0.0 if term is None else float(term.scale) * values[term.node] for index, term in transform.outputs}


def reachable(transform: Transform) -> list[int]:
    """Nodes that some output needs, in the order they were made."""
    graph = transform.graph
    seen: set[int] = set()
    stack = [term.node for _, term in transform.outputs if term is not None]
    while stack:
        number = stack.pop()
        if number in seen:
            continue
        seen.add(number)
        node = graph.nodes[number]
        if isinstance(node, Sum):
            stack += [node.left, node.right]
    return sorted(seen)


def operation_count(transform: Transform) -> int:
    """Vector operations with fused multiply-add: the sums, and the outputs that still have a scale."""
    sums = sum(isinstance(transform.graph.nodes[number], Sum) for number in reachable(transform))
    scaled = sum(term is not None and abs(term.scale) != 1 for _, term in transform.outputs)
    return int(sums + scaled)
