"""The definitions by the book, in plain NumPy: to learn from, and to test against.

Nothing here is fast and nothing calls the compiled code. One channel first, where the mathematics is plainest: a
signal x, a kernel w, and y their correlation over the positions where w lies wholly inside x ("valid"). Seen as a
matrix this is y = T(w) x with a Toeplitz matrix made of w, and also y = T_x w with a matrix made of the patches of x;
both are linear, so the gradients are their transposes:

    dL/dx = T(w)^T dL/dy        dL/dw = T_x^T dL/dy

The discrete Fourier transform diagonalises circular convolution, which turns each of these into products of spectra
without changing a single number but for rounding. Last come the three passes of a layer with every parameter, summed
in extended precision.

Sources
-------
.. [DV] V. Dumoulin, F. Visin, "A guide to convolution arithmetic for deep learning", arXiv:1603.07285.
.. [GVL] G. H. Golub, C. F. Van Loan, "Matrix Computations", 4th ed., sections 1.4 and 4.7-4.8.
.. [OS] A. V. Oppenheim, R. W. Schafer, "Discrete-Time Signal Processing", 3rd ed., sections 2.3 and 8.6-8.7.
.. [C] K. Chellapilla, S. Puri, P. Simard, "High performance convolutional neural networks for document processing",
   2006 (im2col).
.. [MHL] M. Mathieu, M. Henaff, Y. LeCun, "Fast training of convolutional networks through FFTs", arXiv:1312.5851.
.. [LG] A. Lavin, S. Gray, "Fast algorithms for convolutional neural networks", arXiv:1509.09308 (Winograd).
"""

from ._fourier import (
    circulant_matrix,
    convolve_circular_dft,
    dft_matrix,
    input_grad_fft,
    weight_grad_fft,
)
from ._layer import (
    conv_input_reference,
    conv_reference,
    conv_transpose_reference,
    conv_weight_reference,
)
from ._matrices import (
    bttb_matrix,
    im2col,
    input_matrix_1d,
    input_matrix_2d,
    toeplitz_matrix,
)
from ._multiplications import (
    multiplications_direct,
    multiplications_fft,
    multiplications_winograd,
)
from ._one_channel import (
    convolve1d_fft,
    convolve1d_loops,
    convolve2d_fft,
    convolve2d_loops,
    correlate1d_loops,
    correlate2d_loops,
    flip,
)

__all__ = [
    "bttb_matrix",
    "circulant_matrix",
    "conv_input_reference",
    "conv_reference",
    "conv_transpose_reference",
    "conv_weight_reference",
    "convolve1d_fft",
    "convolve1d_loops",
    "convolve2d_fft",
    "convolve2d_loops",
    "convolve_circular_dft",
    "correlate1d_loops",
    "correlate2d_loops",
    "dft_matrix",
    "flip",
    "im2col",
    "input_grad_fft",
    "input_matrix_1d",
    "input_matrix_2d",
    "multiplications_direct",
    "multiplications_fft",
    "multiplications_winograd",
    "toeplitz_matrix",
    "weight_grad_fft",
]
