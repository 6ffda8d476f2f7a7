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


def statements(
    transform: Transform,
    source: Address,
    destination: Address,
    input_factors: bool = False,
    output_factors: bool = False,
) -> list[str]:
    """Loads just before their first use, stores as soon as their value is known. With factors, complex entries from
    the second on are multiplied as they are loaded, or stored, by factors[0] + i factors[1], ..."""
    nodes = transform.graph.nodes
    order = schedule(transform)
    needed = values_needed(transform, order)
    outputs_of: dict[int, list[tuple[int, Term]]] = {}
    for index, term in transform.outputs:
        outputs_of.setdefault(-1 if term is None else term.node, []).append((index, term))
    number_of = {node.entry: number for number, node in enumerate(nodes) if isinstance(node, Input)}
    lines: list[str] = []
    named: set[int] = set()
    stored: set[int] = set()

    def product(entry: int, x: str, y: str, sign: str) -> str:
        """A part of (x + i y) * factor: the real one if sign is "-", and for "+", x and y exchanged, the other."""
        factor = 2 * (entry // 2 - 1)
        return f"{x} * factors[{factor}] {sign} {y} * factors[{factor + 1}]"

    def name_input(number: int, entry: int) -> None:
        named.add(number)
        if not input_factors or entry < 2:
            lines.append(f"const Vec<E> t{number} = load<E>({source(entry)});")
            return
        re, im = entry & ~1, entry | 1
        named.update((number_of[re], number_of[im]))
        lines.append(f"const Vec<E> x{re} = load<E>({source(re)});")
        lines.append(f"const Vec<E> x{im} = load<E>({source(im)});")
        lines.append(f"const Vec<E> t{number_of[re]} = {product(re, f'x{re}', f'x{im}', '-')};")
        lines.append(f"const Vec<E> t{number_of[im]} = {product(im, f'x{im}', f'x{re}', '+')};")

    def name_inputs(*numbers: int) -> None:
        for number in numbers:
            node = nodes[number]
            if isinstance(node, Input) and number not in named:
                name_input(number, node.entry)
                store_outputs(number)

    def store_outputs(number: int) -> None:
        for index, term in outputs_of.pop(number, []):
            value = output_expression(transform, term)
            if not output_factors or index < 2:
                lines.append(f"store<E>({destination(index)}, {value});")
                continue
            lines.append(f"const Vec<E> y{index} = {value};")
            re, im = index & ~1, index | 1
            stored.add(index)
            if {re, im} <= stored:
                lines.append(f"store<E>({destination(re)}, {product(re, f'y{re}', f'y{im}', '-')});")
                lines.append(f"store<E>({destination(im)}, {product(im, f'y{im}', f'y{re}', '+')});")

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


def indented(lines: list[str], depth: int) -> str:
    return "\n".join("    " * depth + line for line in lines)


def codelet(name: str, transform: Transform, complex_in: bool, complex_out: bool, inline: bool) -> str:
    """Definition of `name`, one line's transform, to be inlined or not in the loop over several."""
    source = (complex_address if complex_in else real_address)("in", "is")
    destination = (complex_address if complex_out else real_address)("out", "os")
    head = ["const E* __restrict const in_im = in + in_part;"] if complex_in else []
    head += ["E* __restrict const out_im = out + out_part;"] if complex_out else []
    text = indented(head + statements(transform, source, destination), 1)
    attribute = "TRICONV_INLINE" if inline else "TRICONV_NOINLINE"
    types = ["const E* __restrict", "E* __restrict", *["std::ptrdiff_t"] * 4]
    names = ["in", "out", "is", "os", "in_part" * complex_in, "out_part" * complex_out]
    parameters = ", ".join(f"{kind} {name}".strip() for kind, name in zip(types, names, strict=True))
    return f"template <class E>\n{attribute} void {name}({parameters}) {{\n{text}\n}}\n"


def codelet_run(name: str) -> str:
    """The function that runs a codelet for all lines of a call."""
    return f"run_lines<E, {name}<E>>"


def half_mirrored_address(pointer: str, stride: str, length: int) -> Address:
    """Entries from the middle on lie in reverse order behind another pointer."""
    plain, mirrored = complex_address(pointer, stride), complex_address(f"{pointer}_mirrored", stride)

    def address(i: int) -> str:
        entry, part = divmod(i, 2)
        return plain(i) if 2 * entry < length else mirrored(2 * (length - 1 - entry) + part)

    return address


def step(name: str, transform: Transform, radix: int, inverse: bool, mirrored: bool) -> str:
    """Definition of `name`, a loop of butterflies with twiddle factors: those of the inverse follow the butterfly. If
    `mirrored`, the spectrum (out; inverse: in) is half of a Hermitian one."""

    def address(pointer: str, stride: str, is_spectrum: bool) -> Address:
        if is_spectrum and mirrored:
            return half_mirrored_address(pointer, stride, radix)
        return complex_address(pointer, stride)

    body = statements(transform, address("in", "is", inverse), address("out", "os", not inverse), not inverse, inverse)
    head = [
        "const std::ptrdiff_t is = args.in_stride, in_part = args.in_im, in_step = args.in_step;",
        "const std::ptrdiff_t os = args.out_stride, out_part = args.out_im, out_step = args.out_step;",
        "const E* factors = args.factors;",
        "const E* __restrict in = args.in;",
        "E* __restrict out = args.out;",
    ]
    parts = [
        "const E* __restrict const in_im = in + in_part;",
        "E* __restrict const out_im = out + out_part;",
    ]
    advance = ["in += in_step;", "out += out_step;", f"factors += {2 * (radix - 1)};"]
    if mirrored:
        side, pointer = ("in", "const E* __restrict") if inverse else ("out", "E* __restrict")
        head.append(f"{pointer} {side}_mirrored = {side} + args.mirrored;")
        parts.append(f"{pointer} const {side}_mirrored_im = {side}_mirrored + {side}_part;")
        advance.append(f"{side}_mirrored -= {side}_step;")
    loop = ["for (int count = args.count; count > 0; --count) {"]
    text = "\n".join((indented(head + loop, 1), indented(parts + body + advance, 2), indented(["}"], 1)))
    return f"template <class E>\nvoid {name}(const StepArgs<E>& args) {{\n{text}\n}}\n"
