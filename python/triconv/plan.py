"""Plans: the shapes of a convolution fixed once, the algorithm of each pass chosen, the costs known before a run."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np

from . import _core
from .explanation import Candidate, Explanation, PassAlgorithms, PassBytes, PassFlops, readable_bytes

if TYPE_CHECKING:
    from typing import Any, Literal

    from ._typing import AnyArray, ArrayIn, DType, Padding, PaddingMode, PerAxis, Size

__all__ = [
    "Backward",
    "Plan",
    "PreparedWeights",
    "explain",
    "plan_conv1d",
    "plan_conv2d",
    "plan_conv3d",
]


class Backward:
    """The second half of a training step: call it with the gradient with respect to the output.

    `Plan.step` returns it. It holds the arrays x and w of the step, which must not change until it has been called,
    and the transforms that the gradients read again.

    Examples
    --------
    >>> import numpy as np, triconv as tc
    >>> plan = tc.plan_conv1d((1, 1, 4), (1, 1, 2), dtype="float64")
    >>> y, backward = plan.step(np.array([[[1.0, 2, 3, 4]]]), np.array([[[1.0, 1]]]))
    >>> dx, dw = backward(np.ones((1, 1, 3)))
    >>> dx
    array([[[1., 2., 2., 1.]]])
    >>> dw
    array([[[6., 9.]]])
    """

    __slots__ = ("_step",)

    def __init__(self, step: _core.Step) -> None:
        self._step = step

    def __call__(self, dy: ArrayIn, *, needs_dx: bool = True, needs_dw: bool = True) -> tuple[Any, Any]:
        """Return the gradients ``(dx, dw)``; one that is not needed is not computed and is None.

        Parameters
        ----------
        dy
            Gradient with respect to the output, of the output's shape.
        needs_dx, needs_dw
            The first layer of a network does not need dx.

        Raises
        ------
        TypeError, ValueError
            If `dy` has another shape than the output, or a dtype beyond the plan's.
        """
        return self._step.backward(dy, needs_dx, needs_dw)

    @property
    def reuses_transforms(self) -> bool:
        """Whether the gradients read transforms that the forward pass made."""
        return self._step.reuses_transforms


class PreparedWeights:
    """Fixed weights as a pass reads them: transformed, or packed for direct summation. Made by `Plan.prepare`.

    Results are the same bits as those of the plan's own pass. Immutable; any number of threads may use it.

    Examples
    --------
    >>> import numpy as np, triconv as tc
    >>> plan = tc.plan_conv1d((1, 1, 4), (1, 1, 2), dtype="float64")
    >>> prepared = plan.prepare([[[1, 10]]])
    >>> prepared.forward([[[1, 2, 3, 4]]])
    array([[[21., 32., 43.]]])
    """

    __slots__ = ("_weights",)

    def __init__(self, weights: _core.PreparedWeights) -> None:
        self._weights = weights

    def forward(self, x: ArrayIn, bias: ArrayIn | None = None, *, out: AnyArray | None = None) -> AnyArray:
        """Return y, as `Plan.forward` does.

        Parameters
        ----------
        x, bias, out
            As for `Plan.forward`.

        Raises
        ------
        TypeError, ValueError
            As `Plan.forward`; ValueError if the weights are prepared for the other pass.
        """
        return self._weights.forward(x, bias, out)

    def input_grad(self, dy: ArrayIn, *, out: AnyArray | None = None) -> AnyArray:
        """Return dx, as `Plan.input_grad` does.

        Parameters
        ----------
        dy, out
            As for `Plan.input_grad`.

        Raises
        ------
        TypeError, ValueError
            As `Plan.input_grad`; ValueError if the weights are prepared for the other pass.
        """
        return self._weights.input_grad(dy, out)

    @property
    def problem(self) -> str:
        """The problem and the pass in one line."""
        return self._weights.problem

    @property
    def nbytes(self) -> int:
        """Memory held: the weights as the pass reads them, and a copy of them as they were."""
        return self._weights.nbytes

    def __repr__(self) -> str:
        return f"PreparedWeights({self.problem!r})"


class Plan:
    """The three passes of a convolution of fixed shapes and dtype. Made by `plan_conv1d`, `plan_conv2d`, `plan_conv3d`.

    A plan is immutable; any number of threads may use it. Arrays given to it may have any strides and byte order, and
    any dtype that converts to the plan's without loss: a float32 plan refuses float64 and integers of over 16 bits.

    Examples
    --------
    >>> import numpy as np, triconv as tc
    >>> plan = tc.plan_conv2d((8, 3, 32, 32), (16, 3, 5, 5), padding=2)
    >>> plan
    Plan('n8c3k16 i32x32 r5x5 p2 f32')
    >>> plan.output_size
    (8, 16, 32, 32)
    """

    __slots__ = ("_plan",)

    def __init__(self, plan: _core.Plan) -> None:
        self._plan = plan

    def forward(self, x: ArrayIn, w: ArrayIn, bias: ArrayIn | None = None, *, out: AnyArray | None = None) -> AnyArray:
        """Return y, the convolution of `x` with `w` plus `bias` per output channel.

        Parameters
        ----------
        x, w
            Shapes `input_size` and `weight_size`.
        bias
            Shape (K,), or None.
        out
            Where to put the result: a writeable array of its shape and dtype that overlaps no input.

        Raises
        ------
        TypeError, ValueError
            If an array does not have the plan's shape, or a dtype beyond the plan's.

        Examples
        --------
        >>> import numpy as np, triconv as tc
        >>> plan = tc.plan_conv1d((1, 1, 4), (1, 1, 2), dtype="float64")
        >>> plan.forward([[[1, 2, 3, 4]]], [[[1, 1]]])
        array([[[3., 5., 7.]]])
        """
        return self._plan.forward(x, w, bias, out)

    def input_grad(self, w: ArrayIn, dy: ArrayIn, *, out: AnyArray | None = None) -> AnyArray:
        """Return dx, the gradient with respect to the input, from `w` and the gradient `dy` for the output.

        Parameters
        ----------
        w, dy
            Shapes `weight_size` and `output_size`.
        out
            Where to put the result: a writeable array of its shape and dtype that overlaps no input.

        Raises
        ------
        TypeError, ValueError
            If an array does not have the plan's shape, or a dtype beyond the plan's.

        Examples
        --------
        >>> import numpy as np, triconv as tc
        >>> plan = tc.plan_conv1d((1, 1, 4), (1, 1, 2), dtype="float64")
        >>> plan.input_grad([[[1, 10]]], [[[1, 1, 1]]])
        array([[[ 1., 11., 11., 10.]]])
        """
        return self._plan.input_grad(w, dy, out)

    def weight_grad(self, x: ArrayIn, dy: ArrayIn, *, out: AnyArray | None = None) -> AnyArray:
        """Return dw, the gradient with respect to the weight, from `x` and the gradient `dy` for the output.

        Parameters
        ----------
        x, dy
            Shapes `input_size` and `output_size`.
        out
            Where to put the result: a writeable array of its shape and dtype that overlaps no input.

        Raises
        ------
        TypeError, ValueError
            If an array does not have the plan's shape, or a dtype beyond the plan's.

        Examples
        --------
        >>> import numpy as np, triconv as tc
        >>> plan = tc.plan_conv1d((1, 1, 4), (1, 1, 2), dtype="float64")
        >>> plan.weight_grad([[[1, 2, 3, 4]]], [[[1, 1, 1]]])
        array([[[6., 9.]]])
        """
        return self._plan.weight_grad(x, dy, out)

    def step(self, x: ArrayIn, w: ArrayIn, bias: ArrayIn | None = None) -> tuple[AnyArray, Backward]:
        """Return y and the function that takes dy and returns (dx, dw).

        Where it is predicted to be faster than three separate passes, the transforms of x and dy are each made once and
        read by every pass that needs them, the reuse that Mathieu, Henaff and LeCun describe (arXiv:1312.5851). `x` and
        `w` must not change until the function has been called; memory for the transforms is held as long as the
        function is.

        Parameters
        ----------
        x, w, bias
            As for `forward`.

        Raises
        ------
        TypeError, ValueError
            If an array does not have the plan's shape, or a dtype beyond the plan's.

        Examples
        --------
        >>> import numpy as np, triconv as tc
        >>> plan = tc.plan_conv2d((2, 3, 8, 8), (4, 3, 5, 5))
        >>> y, backward = plan.step(np.ones((2, 3, 8, 8), "f"), np.ones((4, 3, 5, 5), "f"))
        >>> dx, dw = backward(np.ones_like(y))
        >>> dx.shape, dw.shape
        ((2, 3, 8, 8), (4, 3, 5, 5))
        """
        y, step = self._plan.step(x, w, bias)
        return y, Backward(step)

    def prepare(self, w: ArrayIn, *, which: Literal["forward", "input_grad"] = "forward") -> PreparedWeights:
        """Return `w` made ready for any number of runs, for inference with fixed weights.

        A pass transforms the kernels at each call; with few or small images that is much of its time.

        Parameters
        ----------
        w
            Shape `weight_size`. It is copied and may change afterwards.
        which
            The pass to prepare for.

        Raises
        ------
        TypeError, ValueError
            If `w` does not have the plan's shape, or a dtype beyond the plan's, or `which` is no such pass.

        Examples
        --------
        >>> import numpy as np, triconv as tc
        >>> plan = tc.plan_conv2d((1, 8, 14, 14), (8, 8, 3, 3), padding=1)
        >>> x, w = np.ones(plan.input_size, "f"), np.ones(plan.weight_size, "f")
        >>> prepared = plan.prepare(w)
        >>> prepared
        PreparedWeights('n1c8k8 i14x14 r3x3 p1 f32 fwd')
        >>> np.array_equal(prepared.forward(x), plan.forward(x, w))
        True
        """
        return PreparedWeights(self._plan.prepare(w, which))

    @property
    def problem(self) -> str:
        """The problem in one line, the form that tests, benchmarks and errors print."""
        return self._plan.problem

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of the results."""
        return self._plan.dtype

    @property
    def input_size(self) -> tuple[int, ...]:
        """The shape of x."""
        return self._plan.input_shape

    @property
    def weight_size(self) -> tuple[int, ...]:
        """The shape of w."""
        return self._plan.weight_shape

    @property
    def output_size(self) -> tuple[int, ...]:
        """The shape of y."""
        return self._plan.output_shape

    @property
    def algorithm(self) -> PassAlgorithms:
        """The algorithm of each pass run by itself, with its tile; a `step` may run forward's for all three."""
        return PassAlgorithms(*self._plan.algorithm)

    @property
    def workspace_bytes(self) -> PassBytes:
        """The memory each pass run by itself takes beside its arrays, with the present number of threads."""
        return PassBytes(*self._plan.workspace_bytes)

    @property
    def flops(self) -> PassFlops:
        """The floating-point operations of each pass run by itself, by its algorithm."""
        return PassFlops(*self._plan.flops)

    def explain(self) -> Explanation:
        """Return every algorithm's costs for every pass, and why the chosen one was."""
        return Explanation(
            self.problem, *(tuple(Candidate(*row) for row in candidates) for candidates in self._plan.candidates)
        )

    def __repr__(self) -> str:
        return f"Plan({self.problem!r})"

    def __str__(self) -> str:
        rows = zip(PassAlgorithms._fields, self.algorithm, self.workspace_bytes, self.flops, strict=True)
        lines = [
            f"  {name:<11}  {algorithm:<14}  workspace {readable_bytes(workspace):>8}  {flops:.3g} flop"
            for name, algorithm, workspace, flops in rows
        ]
        return "\n".join([self.problem, *lines])


def _make_plan(
    layer: tuple[Any, ...], algorithm: str, tolerance: float | None, max_workspace: int | None, tune: object
) -> Plan:
    """The plan of a layer (what `_core.Plan` takes before the options), tuned if asked."""
    options = (algorithm, tolerance, max_workspace)

    def make(pass_algorithms: tuple[str, str, str] | None) -> _core.Plan:
        return _core.Plan(*(*layer, *options, pass_algorithms))

    plan = make(None)
    if tune is False:
        return Plan(plan)
    if tune is True:
        return Plan(make(plan.tune()))
    if not isinstance(tune, (str, os.PathLike)):
        raise TypeError(f"tune is {tune!r}, expected a bool or the path of a file")
    from . import _tuning  # imports what most programs do not need

    path = os.path.realpath(os.fspath(tune))
    key = _tuning.key_of(plan, *options)
    algorithms = _tuning.recall(path, key)
    if algorithms is None:
        _tuning.check_writable(path)
        algorithms = _tuning.remember(path, key, plan.tune())
    try:
        return Plan(make(algorithms))
    except ValueError as error:
        raise _tuning.damaged(path, f"has an answer for {key!r} that cannot be used: {error}") from error


def plan_conv1d(
    input_size: Size,
    weight_size: Size,
    stride: PerAxis = 1,
    padding: Padding = 0,
    dilation: PerAxis = 1,
    groups: int = 1,
    *,
    padding_mode: PaddingMode = "zeros",
    dtype: DType = np.float32,
    algorithm: str = "auto",
    tolerance: float | None = None,
    max_workspace: int | None = None,
    tune: bool | str | os.PathLike[str] = False,
) -> Plan:
    """Plan the three passes of `conv1d` for arrays of fixed shapes.

    Shapes: `input_size` (N, C, L) or (C, L), `weight_size` (K, C / groups, R), output (N, K, Lo) or (K, Lo).
    Parameters and errors as `plan_conv2d`, with one spatial axis.

    Examples
    --------
    >>> import triconv as tc
    >>> plan = tc.plan_conv1d((8, 4, 1000), (4, 4, 101), padding="same")
    >>> plan.problem
    'n8c4k4 i1000 r101 p50 f32'
    >>> tc.plan_conv1d((8, 4, 1000), (4, 4, 101), padding="same", padding_mode="circular").problem
    'n8c4k4 i1000 r101 p50 b=wrap f32'
    """
    layer = (1, input_size, weight_size, stride, padding, dilation, groups, padding_mode, dtype)
    return _make_plan(layer, algorithm, tolerance, max_workspace, tune)


def plan_conv2d(
    input_size: Size,
    weight_size: Size,
    stride: PerAxis = 1,
    padding: Padding = 0,
    dilation: PerAxis = 1,
    groups: int = 1,
    *,
    padding_mode: PaddingMode = "zeros",
    dtype: DType = np.float32,
    algorithm: str = "auto",
    tolerance: float | None = None,
    max_workspace: int | None = None,
    tune: bool | str | os.PathLike[str] = False,
) -> Plan:
    """Plan the three passes of `conv2d` for arrays of fixed shapes.

    Parameters
    ----------
    input_size
        (N, C, H, W), or (C, H, W) for arrays without a batch axis.
    weight_size
        (K, C / groups, R, S).
    stride, padding, dilation, groups, padding_mode, algorithm
        As in `conv2d`.
    dtype
        float32 (also if None) or float64.
    tolerance
        Largest accepted error bound, relative to the largest sum of ``|input * weight|``. With None, a choice
        among several accepts 10,000 machine epsilons (1.2e-3 in float32), an algorithm asked for alone whatever it has.
    max_workspace
        Largest workspace in bytes; None for no limit. The algorithm is chosen as if for one thread, then as many
        threads run as fit.
    tune
        If True, run the best candidates of each pass on random data and take the fastest, instead of what the cost
        model predicts: up to about 2 seconds for each pass. If the path of a file, take the answer from it, or tune and
        add the answer; it is made if it does not exist. Nothing is ever timed otherwise.

    Raises
    ------
    TypeError
        If an argument has the wrong type.
    ValueError
        If the sizes do not fit one another, `algorithm` is unknown or cannot compute this shape, no algorithm meets
        `tolerance`, or every algorithm needs more than `max_workspace`; if the file of `tune` is damaged or another's.
    OSError
        If the file of `tune` cannot be read or written.

    Notes
    -----
    Answers in a file of `tune` hold for the problem, the options, this version of triconv, the instruction set, the CPU
    and its cache sizes; others are left alone, so that machines may share a file. Any number of processes may use one
    at a time. Timings are taken with the present number of threads and differ from run to run: only with a file do
    results have the same bits in every process.

    A choice among several algorithms passes over transforms that need more than 1 GiB of workspace, unless everything
    else is predicted at least 4 times slower; in filters of up to four channels in a group over those that need more,
    with two threads, than three spectra of the padded input (of inputs above 64 MB with small kernels, 5 %; never below
    1 MiB a thread), unless everything else is 1.3 times slower. Naming one algorithm or giving `max_workspace` lifts
    that. The plan's `algorithm`, `flops` and `workspace_bytes` are those of the passes run one by one; where
    `Plan.step` shares transforms, it runs the algorithm and tile of forward for all three.

    Examples
    --------
    >>> import triconv as tc
    >>> plan = tc.plan_conv2d((8, 64, 56, 56), (64, 64, 7, 7), padding="same")
    >>> plan.problem
    'n8c64k64 i56x56 r7x7 p3 f32'
    """
    layer = (2, input_size, weight_size, stride, padding, dilation, groups, padding_mode, dtype)
    return _make_plan(layer, algorithm, tolerance, max_workspace, tune)


def plan_conv3d(
    input_size: Size,
    weight_size: Size,
    stride: PerAxis = 1,
    padding: Padding = 0,
    dilation: PerAxis = 1,
    groups: int = 1,
    *,
    padding_mode: PaddingMode = "zeros",
    dtype: DType = np.float32,
    algorithm: str = "auto",
    tolerance: float | None = None,
    max_workspace: int | None = None,
    tune: bool | str | os.PathLike[str] = False,
) -> Plan:
    """Plan the three passes of `conv3d` for arrays of fixed shapes.

    Shapes: `input_size` (N, C, D, H, W) or (C, D, H, W), `weight_size` (K, C / groups, Q, R, S),
    output (N, K, Do, Ho, Wo) or (K, Do, Ho, Wo).
    Parameters and errors as `plan_conv2d`, with three spatial axes.

    Examples
    --------
    >>> import triconv as tc
    >>> plan = tc.plan_conv3d((2, 8, 16, 16, 16), (8, 8, 3, 3, 3), padding="same")
    >>> plan.problem
    'n2c8k8 i16x16x16 r3x3x3 p1 f32'
    """
    layer = (3, input_size, weight_size, stride, padding, dilation, groups, padding_mode, dtype)
    return _make_plan(layer, algorithm, tolerance, max_workspace, tune)


def explain(
    input_size: Size,
    weight_size: Size,
    stride: PerAxis = 1,
    padding: Padding = 0,
    dilation: PerAxis = 1,
    groups: int = 1,
    *,
    padding_mode: PaddingMode = "zeros",
    dtype: DType = np.float32,
    algorithm: str = "auto",
    tolerance: float | None = None,
    max_workspace: int | None = None,
) -> Explanation:
    """Tell what every algorithm would cost for every pass, which one is chosen, and why not the others.

    The number of dimensions is that of `weight_size`; the arguments are those of `plan_conv1d`, `plan_conv2d` and
    `plan_conv3d`. Nothing is computed or timed: the figures are the cost model's.

    Parameters
    ----------
    input_size
        (N, C, ...), or (C, ...) for arrays without a batch axis.
    weight_size
        (K, C / groups, ...).
    stride, padding, dilation, groups, padding_mode, dtype, algorithm, tolerance, max_workspace
        As in `plan_conv2d`.

    Raises
    ------
    TypeError, ValueError
        As `plan_conv2d` does.

    Examples
    --------
    >>> import triconv as tc
    >>> explanation = tc.explain((8, 64, 56, 56), (64, 64, 7, 7), padding=3)
    >>> print(explanation)  # doctest: +ELLIPSIS
    n8c64k64 i56x56 r7x7 p3 f32
    <BLANKLINE>
    forward
    ...
    """
    rank = len(weight_size) - 2
    if rank not in (1, 2, 3):
        raise ValueError(f"weight_size is {weight_size!r} with {len(weight_size)} entries, expected 3, 4 or 5")
    layer = (rank, input_size, weight_size, stride, padding, dilation, groups, padding_mode, dtype)
    return _make_plan(layer, algorithm, tolerance, max_workspace, tune=False).explain()
