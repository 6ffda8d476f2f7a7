"""Convolution layers with parameters and their gradients: what a training loop in NumPy needs.

A layer remembers its last forward pass; `backward` then returns the gradient for the input and leaves those for the
parameters in `weight_grad` and `bias_grad`. An optimizer reads `gradients()` and changes the arrays of `parameters()`
in place.
"""

# ruff: noqa: A002 (the argument `input` has the name it has in PyTorch)
from __future__ import annotations

import math
from operator import index
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from . import _core
from .plan import plan_conv1d, plan_conv2d, plan_conv3d

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import ClassVar

    from ._typing import AnyArray, ArrayIn, DType, Padding, PaddingMode, PerAxis
    from .plan import Backward, Plan

__all__ = ["Conv1d", "Conv2d", "Conv3d"]


class _Pending(NamedTuple):
    """A forward pass that waits for its backward."""

    backward: Backward
    output_size: tuple[int, ...]


class _Conv:
    """What the layers have in common; a subclass fixes the number of spatial axes and the plan."""

    _rank: ClassVar[int]
    _plan_conv: ClassVar[Callable[..., Plan]]

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: PerAxis,
        stride: PerAxis = 1,
        padding: Padding = 0,
        dilation: PerAxis = 1,
        groups: int = 1,
        bias: bool = True,
        *,
        padding_mode: PaddingMode = "zeros",
        dtype: DType = np.float32,
        rng: np.random.Generator | int | None = None,
        algorithm: str = "auto",
    ) -> None:
        self.dtype = np.dtype(np.float32 if dtype is None else dtype)
        if self.dtype not in (np.dtype(np.float32), np.dtype(np.float64)):
            raise TypeError(f"dtype is {self.dtype}, expected float32 or float64")
        sizes = (in_channels, out_channels, kernel_size)
        geometry = (stride, padding, dilation, groups, padding_mode)
        weight_shape = _core.check_layer(self._rank, *sizes, *geometry, self.dtype, algorithm)

        self.in_channels, self.out_channels, self.groups = index(in_channels), index(out_channels), index(groups)
        self.kernel_size = weight_shape[2:]
        self.stride = stride
        self.padding = padding
        self.padding_mode = padding_mode
        self.dilation = dilation
        self.algorithm = algorithm
        self.training = True

        generator = np.random.default_rng(rng)
        bound = 1 / math.sqrt(math.prod(weight_shape[1:]))
        self.weight: AnyArray = generator.uniform(-bound, bound, weight_shape).astype(self.dtype)
        self.bias: AnyArray | None = None
        if bias:
            self.bias = generator.uniform(-bound, bound, self.out_channels).astype(self.dtype)
        self.weight_grad: AnyArray | None = None
        self.bias_grad: AnyArray | None = None
        self._pending: _Pending | None = None

    def forward(self, input: ArrayIn) -> AnyArray:
        """Return the convolution of `input` with the weight, plus the bias.

        While `training` is True, `input` and the parameters must not change until `backward` has been called.

        Parameters
        ----------
        input
            Shape (N, C, ...) or (C, ...), of a dtype that converts to the layer's without loss.

        Raises
        ------
        TypeError, ValueError
            If `input` has a wrong dtype, rank or number of channels, or is too small for the kernel.
        """
        x = self._checked(input)
        plan = self._plan_for(x.shape)
        if not self.training:
            return plan.forward(x, self.weight, self.bias)
        y, backward = plan.step(x, self.weight, self.bias)
        self._pending = _Pending(backward, y.shape)
        return y

    __call__ = forward

    def backward(self, grad_output: ArrayIn, *, needs_input_grad: bool = True) -> AnyArray | None:
        """Return the gradient for the input of the last `forward`, and set `weight_grad` and `bias_grad`.

        The gradients replace those of the pass before; they are not added up.

        Parameters
        ----------
        grad_output
            Gradient for the output, of its shape.
        needs_input_grad
            False if the caller does not need the result, as in the first layer of a network: it is then None.

        Raises
        ------
        RuntimeError
            If no `forward` in training mode came before.
        TypeError, ValueError
            If `grad_output` has another shape than the output, or a dtype that does not convert to the layer's.
        """
        if self._pending is None:
            raise RuntimeError("backward needs a forward pass before it, with training = True; it can be called once")
        dy = self._converted("grad_output", grad_output)
        if dy.shape != self._pending.output_size:
            raise ValueError(
                f"grad_output has shape {dy.shape}, expected {self._pending.output_size}, that of the output"
            )
        dx: AnyArray | None
        dx, self.weight_grad = self._pending.backward(dy, needs_dx=needs_input_grad)
        self._pending = None  # frees the transforms
        if self.bias is not None:
            channel = dy.ndim - self._rank - 1
            others = tuple(axis for axis in range(dy.ndim) if axis != channel)
            self.bias_grad = dy.sum(axis=others, dtype=np.float64).astype(self.dtype)
        return dx

    def parameters(self) -> dict[str, AnyArray]:
        """Return the arrays to train: ``"weight"``, and ``"bias"`` if there is one."""
        return {"weight": self.weight} if self.bias is None else {"weight": self.weight, "bias": self.bias}

    def gradients(self) -> dict[str, AnyArray]:
        """Return the gradients of the last `backward` under the names of `parameters`; empty before the first."""
        gradients = {"weight": self.weight_grad, "bias": self.bias_grad}
        return {name: gradient for name, gradient in gradients.items() if gradient is not None}

    def _plan_for(self, input_size: tuple[int, ...]) -> Plan:
        make_plan = type(self)._plan_conv
        geometry = (self.stride, self.padding, self.dilation, self.groups)
        options = {"padding_mode": self.padding_mode, "dtype": self.dtype, "algorithm": self.algorithm}
        return make_plan(input_size, self.weight.shape, *geometry, **options)

    def _converted(self, name: str, value: ArrayIn) -> AnyArray:
        array = _core.read_array(name, value)
        if not np.can_cast(array.dtype, self.dtype):
            raise TypeError(
                f"{name} has dtype {array.dtype}, expected {self.dtype}, the dtype of the layer, or one that converts "
                "to it without loss"
            )
        return array.astype(self.dtype, copy=False)

    def _checked(self, input: ArrayIn) -> AnyArray:
        x = self._converted("input", input)
        ranks = (self._rank + 1, self._rank + 2)
        if x.ndim not in ranks:
            raise ValueError(f"input has {x.ndim} dimensions, shape {x.shape}, expected {ranks[1]} or {ranks[0]}")
        channels = x.shape[-self._rank - 1]
        if channels != self.in_channels:
            raise ValueError(f"input has {channels} channels, shape {x.shape}, expected {self.in_channels}")
        return x

    def __getstate__(self) -> dict[str, object]:
        """What a copy takes over: everything but the forward pass, whose transforms belong to this layer."""
        return {**self.__dict__, "_pending": None}

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, "
            f"stride={self.stride!r}, padding={self.padding!r}, dilation={self.dilation!r}, groups={self.groups}, "
            f"bias={self.bias is not None}, padding_mode={self.padding_mode!r}, dtype={self.dtype}, "
            f"algorithm={self.algorithm!r})"
        )


class Conv1d(_Conv):
    """A convolution layer over signals with a weight and a bias to train.

    Shapes: input (N, in_channels, L) or (in_channels, L), weight (out_channels, in_channels / groups, R),
    bias (out_channels,), output (N, out_channels, Lo) or (out_channels, Lo).
    Parameters, attributes, errors and source as `Conv2d`, with one spatial axis.

    Examples
    --------
    >>> import numpy as np, triconv as tc
    >>> layer = tc.nn.Conv1d(3, 4, 3, rng=0)
    >>> y = layer(np.ones((2, 3, 16), dtype=np.float32))
    >>> y.shape
    (2, 4, 14)
    >>> layer.backward(np.ones_like(y)).shape
    (2, 3, 16)
    >>> layer.weight_grad.shape, layer.bias_grad.shape
    ((4, 3, 3), (4,))
    """

    _rank = 1
    _plan_conv = staticmethod(plan_conv1d)


class Conv2d(_Conv):
    """A convolution layer over images with a weight and a bias to train.

    Parameters
    ----------
    in_channels, out_channels, kernel_size
        They give the weight its shape: (out_channels, in_channels / groups, *kernel_size); `kernel_size` is an int or
        2 ints.
    stride, padding, dilation, groups
        As in `triconv.conv2d`.
    bias
        Whether to add a trained number to every output channel.
    padding_mode
        As in `triconv.conv2d`.
    dtype
        float32 (also if None) or float64, of the parameters and of every result. A float32 layer takes arrays of
        float32 and float16, of integers of at most 16 bits and of booleans, and refuses others; a float64 layer takes
        every real number.
    rng
        A `numpy.random.Generator` or a seed, for the initial parameters: uniform within ``1 / sqrt(fan_in)``, where
        ``fan_in = in_channels / groups * prod(kernel_size)``. That is PyTorch's ``kaiming_uniform_(a=sqrt(5))``, after
        He et al., arXiv:1502.01852.
    algorithm
        As in `triconv.conv2d`.

    Attributes
    ----------
    weight, bias
        The parameters; `bias` is None if there is none.
    weight_grad, bias_grad
        Their gradients after `backward`, None before.
    training
        True: `forward` keeps what `backward` needs. Set it to False to save that memory and time.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type or value, or `algorithm` cannot compute such a layer.

    Notes
    -----
    A copy (`copy.deepcopy`, `pickle`) has the parameters and their gradients, but not the forward pass that waits for
    its `backward`: the copy needs one of its own.

    Examples
    --------
    >>> import numpy as np, triconv as tc
    >>> layer = tc.nn.Conv2d(3, 4, 3, rng=0)
    >>> y = layer(np.ones((2, 3, 8, 8), dtype=np.float32))
    >>> y.shape
    (2, 4, 6, 6)
    >>> layer.backward(np.ones_like(y)).shape
    (2, 3, 8, 8)
    >>> layer.weight_grad.shape, layer.bias_grad.shape
    ((4, 3, 3, 3), (4,))
    """

    _rank = 2
    _plan_conv = staticmethod(plan_conv2d)


class Conv3d(_Conv):
    """A convolution layer over volumes with a weight and a bias to train.

    Shapes: input (N, in_channels, D, H, W) or (in_channels, D, H, W),
    weight (out_channels, in_channels / groups, Q, R, S), bias (out_channels,),
    output (N, out_channels, Do, Ho, Wo) or (out_channels, Do, Ho, Wo).
    Parameters, attributes, errors and source as `Conv2d`, with three spatial axes.

    Examples
    --------
    >>> import numpy as np, triconv as tc
    >>> layer = tc.nn.Conv3d(3, 4, 3, rng=0)
    >>> y = layer(np.ones((2, 3, 4, 4, 4), dtype=np.float32))
    >>> y.shape
    (2, 4, 2, 2, 2)
    >>> layer.backward(np.ones_like(y)).shape
    (2, 3, 4, 4, 4)
    >>> layer.weight_grad.shape, layer.bias_grad.shape
    ((4, 3, 3, 3, 3), (4,))
    """

    _rank = 3
    _plan_conv = staticmethod(plan_conv3d)
