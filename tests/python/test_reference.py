"""triconv.reference against NumPy, SciPy and itself, and what it proves about gradients in the Fourier domain."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import scipy.linalg
import scipy.signal
from triconv import reference as ref

SIZES_1D = [(1, 1), (5, 1), (5, 5), (8, 3), (13, 4)]
SIZES_2D = [((1, 1), (1, 1)), ((5, 7), (3, 2)), ((4, 4), (4, 4)), ((6, 3), (1, 3)), ((9, 8), (2, 5))]


def assert_equal_to_rounding(actual, expected, case):
    """Both are sums of at most 100 products of numbers of order 1, so 1e-12 is 50 times the worst rounding."""
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-12, err_msg=str(case))


@pytest.mark.parametrize(("n", "taps"), SIZES_1D)
def test_convolution_1d_is_numpys(rng, n, taps):
    x, w = rng.normal(size=n), rng.normal(size=taps)
    expected = np.convolve(x, w)
    assert_equal_to_rounding(ref.convolve1d_loops(x, w), expected, (n, taps))
    assert_equal_to_rounding(ref.convolve1d_fft(x, w), expected, (n, taps))


@pytest.mark.parametrize(("size", "kernel"), SIZES_2D)
def test_convolution_2d_is_scipys(rng, size, kernel):
    x, w = rng.normal(size=size), rng.normal(size=kernel)
    expected = scipy.signal.convolve2d(x, w)
    assert_equal_to_rounding(ref.convolve2d_loops(x, w), expected, (size, kernel))
    assert_equal_to_rounding(ref.convolve2d_fft(x, w), expected, (size, kernel))


@pytest.mark.parametrize(("n", "taps"), SIZES_1D)
def test_correlation_1d_is_numpys_and_convolution_with_the_flipped_kernel(rng, n, taps):
    x, w = rng.normal(size=n), rng.normal(size=taps)
    y = ref.correlate1d_loops(x, w)
    assert_equal_to_rounding(y, np.correlate(x, w), (n, taps))
    assert_equal_to_rounding(y, ref.convolve1d_loops(x, ref.flip(w))[taps - 1 : n], (n, taps))


@pytest.mark.parametrize(("size", "kernel"), SIZES_2D)
def test_correlation_2d_is_scipys_and_convolution_with_the_flipped_kernel(rng, size, kernel):
    x, w = rng.normal(size=size), rng.normal(size=kernel)
    y = ref.correlate2d_loops(x, w)
    assert_equal_to_rounding(y, scipy.signal.correlate2d(x, w, "valid"), (size, kernel))
    valid = ref.convolve2d_loops(x, ref.flip(w))[kernel[0] - 1 : size[0], kernel[1] - 1 : size[1]]
    assert_equal_to_rounding(y, valid, (size, kernel))


@pytest.mark.parametrize(("n", "taps"), SIZES_1D)
def test_toeplitz_matrices_1d(rng, n, taps):
    x, w = rng.normal(size=n), rng.normal(size=taps)
    T, T_x = ref.toeplitz_matrix(w, n), ref.input_matrix_1d(x, taps)
    y = ref.correlate1d_loops(x, w)
    assert_equal_to_rounding(T @ x, y, (n, taps))
    assert_equal_to_rounding(T_x @ w, y, (n, taps))
    column, row = np.zeros(n - taps + 1), np.zeros(n)
    column[0], row[:taps] = w[0], w
    np.testing.assert_array_equal(T, scipy.linalg.toeplitz(column, row))
    np.testing.assert_array_equal(T_x, scipy.linalg.hankel(x[: n - taps + 1], x[n - taps :]))


@pytest.mark.parametrize(("size", "kernel"), SIZES_2D)
def test_block_toeplitz_matrices_2d(rng, size, kernel):
    x, w = rng.normal(size=size), rng.normal(size=kernel)
    T, T_x = ref.bttb_matrix(w, size), ref.input_matrix_2d(x, kernel)
    y = ref.correlate2d_loops(x, w).ravel()
    assert_equal_to_rounding(T @ x.ravel(), y, (size, kernel))
    assert_equal_to_rounding(T_x @ w.ravel(), y, (size, kernel))
    blocks = T.reshape(size[0] - kernel[0] + 1, size[1] - kernel[1] + 1, *size)
    for o, i, p, j in np.ndindex(blocks.shape[0] - 1, size[0] - 1, blocks.shape[1] - 1, size[1] - 1):
        assert blocks[o, p, i, j] == blocks[o + 1, p, i + 1, j], "blocks repeat along the diagonals"
        assert blocks[o, p, i, j] == blocks[o, p + 1, i, j + 1], "so do the elements of a block"


def test_im2col_makes_a_layer_one_matrix_product(rng):
    x, w = rng.normal(size=(3, 6, 5)), rng.normal(size=(4, 3, 2, 3))
    y = w.reshape(4, -1) @ ref.im2col(x, (2, 3))
    assert_equal_to_rounding(y.reshape(1, 4, 5, 3), ref.conv_reference(x[np.newaxis], w), "im2col")


@pytest.mark.parametrize("n", [1, 2, 3, 8, 15, 64])
def test_dft_matrix_is_the_transform_and_its_conjugate_over_n_the_inverse(rng, n):
    F = ref.dft_matrix(n)
    x = rng.normal(size=n)
    assert_equal_to_rounding(F @ x, np.fft.fft(x), n)
    assert_equal_to_rounding(F.conj() / n @ F, np.eye(n), n)
    np.testing.assert_array_equal(F, F.T)


@pytest.mark.parametrize(("n", "taps"), SIZES_1D)
def test_the_dft_diagonalises_circulant_matrices(rng, n, taps):
    x, w = rng.normal(size=n), rng.normal(size=taps)
    C, F = ref.circulant_matrix(w, n), ref.dft_matrix(n)
    padded = np.pad(w, (0, n - taps))
    assert_equal_to_rounding(F @ C @ F.conj() / n, np.diag(F @ padded), (n, taps))
    assert_equal_to_rounding(ref.convolve_circular_dft(x, w), C @ x, (n, taps))
    assert_equal_to_rounding(ref.convolve_circular_dft(x, w)[taps - 1 :], np.convolve(x, w, "valid"), (n, taps))


# ---- The gradient through the Fourier domain is the spatial gradient -------------------------------------------------


def gradients_by_dft_matrices_1d(x, w, dy):
    """dL/dw and dL/dx with nothing but F, diagonal matrices and F^-1: y = crop F^-1 diag(conj(F w)) F x."""
    n = len(x)
    F = ref.dft_matrix(n)
    inverse = F.conj() / n
    spectrum_w, spectrum_dy = F @ np.pad(w, (0, n - len(w))), F @ np.pad(dy, (0, n - len(dy)))
    dw = (inverse @ np.diag(spectrum_dy.conj()) @ F @ x).real[: len(w)]
    dx = (inverse @ np.diag(spectrum_w) @ spectrum_dy).real
    return dw, dx


@pytest.mark.parametrize(("n", "taps"), SIZES_1D)
def test_fourier_gradients_equal_spatial_ones_element_by_element_1d(rng, n, taps):
    x, w = rng.normal(size=n), rng.normal(size=taps)
    dy = rng.normal(size=n - taps + 1)
    spatial_dw = ref.input_matrix_1d(x, taps).T @ dy
    spatial_dx = ref.toeplitz_matrix(w, n).T @ dy
    dw, dx = gradients_by_dft_matrices_1d(x, w, dy)
    assert_equal_to_rounding(dw, spatial_dw, (n, taps))
    assert_equal_to_rounding(dx, spatial_dx, (n, taps))
    assert_equal_to_rounding(ref.weight_grad_fft(x, dy), spatial_dw, (n, taps))
    assert_equal_to_rounding(ref.input_grad_fft(w, dy), spatial_dx, (n, taps))


@pytest.mark.parametrize(("size", "kernel"), SIZES_2D)
def test_fourier_gradients_equal_spatial_ones_element_by_element_2d(rng, size, kernel):
    x, w = rng.normal(size=size), rng.normal(size=kernel)
    dy = rng.normal(size=(size[0] - kernel[0] + 1, size[1] - kernel[1] + 1))
    spatial_dw = (ref.input_matrix_2d(x, kernel).T @ dy.ravel()).reshape(kernel)
    spatial_dx = (ref.bttb_matrix(w, size).T @ dy.ravel()).reshape(size)
    assert_equal_to_rounding(ref.weight_grad_fft(x, dy), spatial_dw, (size, kernel))
    assert_equal_to_rounding(ref.input_grad_fft(w, dy), spatial_dx, (size, kernel))


def test_spatial_gradients_are_derivatives_of_the_loss(rng):
    """L = <dy, correlate(x, w)> is linear in x and in w: unit steps give its derivatives exactly, up to rounding."""
    x, w, dy = rng.normal(size=9), rng.normal(size=4), rng.normal(size=6)

    def loss(x, w):
        return dy @ ref.correlate1d_loops(x, w)

    dw = [loss(x, w + unit) - loss(x, w) for unit in np.eye(4)]
    dx = [loss(x + unit, w) - loss(x, w) for unit in np.eye(9)]
    assert_equal_to_rounding(ref.input_matrix_1d(x, 4).T @ dy, dw, "dw")
    assert_equal_to_rounding(ref.toeplitz_matrix(w, 9).T @ dy, dx, "dx")


def test_each_weights_gradient_depends_only_on_the_pixels_it_touched(rng):
    """Through the Fourier domain as in space: move one pixel, and only the weights that touched it hear of it.

    Weight (r, s) touches pixel (i, j) if some output (o, p) = (i - r, j - s) exists. A change elsewhere leaves its
    gradient as it was: exactly in space, to rounding through the transforms, although every bin of the spectrum moved.
    The change of the others is the size of the step times dy there, so the two cannot be confused.
    """
    size, kernel, outputs = (6, 5), (4, 3), (3, 3)
    x = rng.normal(size=size)
    dy = rng.uniform(1, 2, size=outputs)
    spatial = (ref.input_matrix_2d(x, kernel).T @ dy.ravel()).reshape(kernel)
    fourier = ref.weight_grad_fft(x, dy)
    seen = set()
    for i, j in np.ndindex(*size):
        moved = x.copy()
        moved[i, j] += 1.0
        assert np.abs(np.fft.fft2(moved) - np.fft.fft2(x)).min() > 0.5, "every bin of the spectrum moved"
        touched = np.zeros(kernel, bool)
        for r, s in np.ndindex(*kernel):
            touched[r, s] = 0 <= i - r < outputs[0] and 0 <= j - s < outputs[1]
        seen.add(int(touched.sum()))

        spatial_change = (ref.input_matrix_2d(moved, kernel).T @ dy.ravel()).reshape(kernel) - spatial
        fourier_change = ref.weight_grad_fft(moved, dy) - fourier
        assert_equal_to_rounding(fourier_change, spatial_change, (i, j))
        assert (spatial_change[~touched] == 0).all(), (i, j)
        assert (np.abs(fourier_change[~touched]) < 1e-12).all(), (i, j)
        assert (np.abs(fourier_change[touched]) > 0.9).all(), (i, j)
    assert min(seen) == 1, "a corner is touched by one weight"
    assert max(seen) == 9, "the middle by as many as there are outputs"


# ---- Multiplications -------------------------------------------------------------------------------------------------


def test_multiplication_counts_of_the_papers():
    """F(2x2, 3x3) saves 2.25x and F(4x4, 3x3) 4x over direct (Lavin and Gray, sections 4.1 and 4.2)."""
    direct = ref.multiplications_direct(1, (8, 8), (3, 3))
    assert direct == 64 * 9
    assert direct / ref.multiplications_winograd(1, (8, 8), (3, 3), (2, 2)) == 2.25
    assert direct / ref.multiplications_winograd(1, (8, 8), (3, 3), (4, 4)) == 4


@pytest.mark.parametrize("length", [(4,), (5,), (4, 4), (4, 5), (3, 3), (2, 4, 6)])
def test_fft_count_is_that_of_the_products_of_hermitian_spectra(length):
    """1 for a bin that mirrors itself, 4 for every pair of mirrored bins, counted one by one."""
    count = 0
    for bins in itertools.product(*(range(t) for t in length)):
        mirror = tuple(-b % t for b, t in zip(bins, length, strict=True))
        count += 1 if mirror == bins else 2
    assert ref.multiplications_fft(1, (1,) * len(length), (1,) * len(length), length) == count


# ---- The layer -------------------------------------------------------------------------------------------------------


def test_layer_reference_is_the_definition(rng):
    """Against seven plain loops, with every parameter at once."""
    x, w, bias = rng.normal(size=(2, 4, 7, 6)), rng.normal(size=(6, 2, 3, 2)), rng.normal(size=6)
    y = ref.conv_reference(x, w, bias, stride=(2, 1), padding=((1, 2), (0, 3)), dilation=(1, 2), groups=2)
    expected = np.empty(y.shape)
    for n, k, o, p in np.ndindex(*y.shape):
        total = bias[k]
        for c, r, s in np.ndindex(*w.shape[1:]):
            i, j = 2 * o + r - 1, p + 2 * s
            if 0 <= i < 7 and 0 <= j < 6:
                total += x[n, 2 * (k // 3) + c, i, j] * w[k, c, r, s]
        expected[n, k, o, p] = total
    assert y.shape == (2, 6, 4, 7)
    assert_equal_to_rounding(y, expected, "layer")


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_layer_reference_passes_are_transposes_of_one_another(rng, rank):
    """<dy, conv(x, w)> = <conv_input(dy, w), x> = <conv_weight(x, dy), w>."""
    parameters = {"stride": 2, "padding": ((2, 1),) * rank, "dilation": 2, "groups": 2}
    x, w = rng.normal(size=(2, 4, *(6, 7, 5)[:rank])), rng.normal(size=(6, 2, *(2, 3, 1)[:rank]))
    y = ref.conv_reference(x, w, **parameters)
    dy = rng.normal(size=y.shape)
    dx = ref.conv_input_reference(x.shape, w, dy, **parameters)
    dw = ref.conv_weight_reference(x, w.shape, dy, **parameters)
    assert_equal_to_rounding(np.vdot(dx, x) / np.vdot(dy, y), 1, rank)
    assert_equal_to_rounding(np.vdot(dw, w) / np.vdot(dy, y), 1, rank)


def test_layer_reference_is_pytorchs(rng):
    from torch_support import torch

    x, w, bias = rng.normal(size=(2, 4, 9, 8)), rng.normal(size=(6, 2, 3, 4)), rng.normal(size=6)
    parameters = {"stride": (2, 1), "padding": (1, 2), "dilation": (2, 1), "groups": 2}
    expected = torch.nn.functional.conv2d(*map(torch.from_numpy, (x, w, bias)), **parameters).numpy()
    assert_equal_to_rounding(ref.conv_reference(x, w, bias, **parameters), expected, parameters)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_transposed_reference_is_pytorchs(rng, rank):
    from torch_support import torch

    x, w, bias = (
        rng.normal(size=(2, 4, *(4, 3, 2)[:rank])),
        rng.normal(size=(4, 3, *(2, 3, 3)[:rank])),
        rng.normal(size=6),
    )
    parameters = {"stride": 2, "padding": 1, "output_padding": 1, "groups": 2, "dilation": 3}
    function = getattr(torch.nn.functional, f"conv_transpose{rank}d")
    expected = function(*map(torch.from_numpy, (x, w, bias)), **parameters).numpy()
    assert_equal_to_rounding(ref.conv_transpose_reference(x, w, bias, **parameters), expected, parameters)


def test_layer_reference_sums_in_extended_precision():
    """2e5 terms whose plain double sum is off by far more than the last bit."""
    if np.finfo(np.longdouble).eps >= np.finfo(np.float64).eps:
        pytest.skip("longdouble is double here")
    rng = np.random.default_rng(1)
    x = rng.normal(size=(1, 1, 200_000))
    y = ref.conv_reference(x, x.copy())
    exact = sum(int(v * 2**60) ** 2 for v in x.ravel()) / 2**120
    assert abs(y.item() - exact) <= 4 * np.spacing(exact)
