"""How many multiplications each algorithm needs for a layer.

The sources are named in the package.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def multiplications_direct(channels: int, outputs: Sequence[int], kernel: Sequence[int]) -> int:
    """Real multiplications of one sample's layer by the definition: every output, every channel pair, every tap.

    `channels` is the number of pairs of input and output channel, C K / groups.

    Examples
    --------
    >>> from triconv.reference import multiplications_direct
    >>> multiplications_direct(64 * 64, (56, 56), (3, 3))
    115605504
    """
    return channels * math.prod(outputs) * math.prod(kernel)


def multiplications_winograd(channels: int, outputs: Sequence[int], kernel: Sequence[int], tile: Sequence[int]) -> int:
    """Real multiplications in the products of Winograd's F(tile, kernel): ``tile + kernel - 1`` per axis [LG].

    `tile` is the number of outputs per tile. The transforms, not counted, are shared by the channels.

    Examples
    --------
    >>> from triconv.reference import multiplications_winograd
    >>> multiplications_winograd(64 * 64, (56, 56), (3, 3), (4, 4))
    28901376
    """
    tiles = math.prod(-(-o // m) for o, m in zip(outputs, tile, strict=True))
    return channels * tiles * math.prod(m + r - 1 for m, r in zip(tile, kernel, strict=True))


def multiplications_fft(channels: int, outputs: Sequence[int], kernel: Sequence[int], length: Sequence[int]) -> int:
    """Real multiplications in the products of tiled FFT convolution with transforms of `length` per axis [MHL].

    A tile keeps ``length - kernel + 1`` outputs per axis. Its spectrum is Hermitian: the bins that are their own mirror
    image are real and take 1 multiplication, of the others every second one takes 4 (3 if multiplied as Gauss did, as
    the engine does in matrix products). The transforms, not counted, are shared by the channels.

    Examples
    --------
    >>> from triconv.reference import multiplications_fft
    >>> multiplications_fft(64 * 64, (56, 56), (7, 7), (16, 16))
    74907648
    """
    tiles = math.prod(-(-o // (t - r + 1)) for o, t, r in zip(outputs, length, kernel, strict=True))
    bins = math.prod(length)
    real_bins = math.prod(2 if t % 2 == 0 else 1 for t in length)
    return channels * tiles * (real_bins + 4 * (bins - real_bins) // 2)
