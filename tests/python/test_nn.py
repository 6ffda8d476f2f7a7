"""Layers: their gradients against finite differences and PyTorch, their initial parameters, and a training loop."""

from __future__ import annotations

import copy
import math
import pickle

import numpy as np
import pytest
import triconv as tc
from strategies import OnlyDLPack

LAYERS = [(tc.nn.Conv1d, (2, 4, 9)), (tc.nn.Conv2d, (2, 4, 7, 6)), (tc.nn.Conv3d, (2, 4, 5, 4, 4))]
PARAMETERS = {"stride": 2, "padding": 1, "dilation": 1, "groups": 2}


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("layer_type", "size"), LAYERS)
def test_gradients_are_those_of_the_loss(rng, layer_type, size, bias):
    """L = <dy, layer(x)> is linear in x, in the weight and in the bias: unit steps give its derivatives."""
    layer = layer_type(4, 6, 3, **PARAMETERS, bias=bias, dtype=np.float64, rng=1)
    x = rng.normal(size=size)
    dy = rng.normal(size=layer(x).shape)
    dx = layer.backward(dy)
    gradients = layer.gradients()
    assert list(gradients) == list(layer.parameters()) == (["weight", "bias"] if bias else ["weight"])
    layer.training = False

    def derivative(array):
        base = np.vdot(dy, layer(x))
        steps = np.empty(array.shape)
        for index in np.ndindex(*array.shape):
            kept = array[index]
            array[index] += 1
            steps[index] = np.vdot(dy, layer(x)) - base
            array[index] = kept
        return steps

    np.testing.assert_allclose(dx, derivative(x), rtol=0, atol=1e-11, err_msg=repr(layer))
    for name, array in layer.parameters().items():
        assert gradients[name].shape == array.shape
        np.testing.assert_allclose(gradients[name], derivative(array), rtol=0, atol=1e-11, err_msg=repr(layer))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("layer_type", "size"), LAYERS)
def test_layer_is_pytorchs(rng, layer_type, size, dtype):
    from torch_support import torch

    layer = layer_type(4, 6, 3, **PARAMETERS, dtype=dtype)
    peer = getattr(torch.nn, layer_type.__name__)(4, 6, 3, **PARAMETERS, dtype=getattr(torch, dtype))
    layer.weight[...] = peer.weight.detach().numpy()
    layer.bias[...] = peer.bias.detach().numpy()
    x = rng.normal(size=size).astype(dtype)
    tensor = torch.from_numpy(x).requires_grad_()
    expected = peer(tensor)
    y = layer(x)
    dy = rng.normal(size=y.shape).astype(dtype)
    expected.backward(torch.from_numpy(dy))
    dx = layer.backward(dy)
    tolerance = 1e-4 if dtype == "float32" else 1e-12  # sums of at most some 500 products of order 1
    for result, peers in (
        (y, expected.detach()),
        (dx, tensor.grad),
        (layer.weight_grad, peer.weight.grad),
        (layer.bias_grad, peer.bias.grad),
    ):
        assert result.dtype == dtype
        np.testing.assert_allclose(result, peers.numpy(), rtol=0, atol=tolerance, err_msg=repr(layer))


def test_initial_parameters_have_pytorchs_scale():
    layer = tc.nn.Conv2d(8, 64, (3, 5), groups=2, rng=0)
    bound = 1 / math.sqrt(4 * 3 * 5)
    assert layer.weight.shape == (64, 4, 3, 5)
    assert layer.weight.dtype == layer.bias.dtype == np.float32
    for array in (layer.weight, layer.bias):
        assert np.abs(array).max() <= bound
    assert np.abs(layer.weight).max() > 0.98 * bound
    assert abs(layer.weight.mean()) < 0.1 * bound
    assert abs(layer.weight.std() - bound / math.sqrt(3)) < 0.05 * bound


def test_rng_makes_layers_repeatable():
    first, second, other = (tc.nn.Conv1d(2, 3, 4, rng=seed) for seed in (7, np.random.default_rng(7), 8))
    np.testing.assert_array_equal(first.weight, second.weight)
    np.testing.assert_array_equal(first.bias, second.bias)
    assert (first.weight != other.weight).any()
    assert (tc.nn.Conv1d(2, 3, 4).weight != tc.nn.Conv1d(2, 3, 4).weight).any()


def test_first_layer_needs_no_input_gradient(rng):
    layer = tc.nn.Conv2d(3, 4, 3, padding="same", rng=0)
    x = rng.normal(size=(2, 3, 8, 8)).astype("f")
    dy = layer(x)
    assert layer.backward(dy, needs_input_grad=False) is None
    weight_grad = layer.weight_grad
    layer(x)
    assert layer.backward(dy).shape == x.shape
    np.testing.assert_allclose(layer.weight_grad, weight_grad, rtol=1e-5, atol=1e-4)


def test_unbatched_sample(rng):
    layer = tc.nn.Conv2d(3, 4, 3, dtype="float64", rng=0, algorithm="direct")
    x = rng.normal(size=(1, 3, 8, 8))
    y = layer(x)
    dx = layer.backward(y)
    weight_grad, bias_grad = layer.weight_grad, layer.bias_grad
    np.testing.assert_array_equal(layer(x[0]), y[0])
    np.testing.assert_array_equal(layer.backward(y[0]), dx[0])
    np.testing.assert_array_equal(layer.weight_grad, weight_grad)
    np.testing.assert_array_equal(layer.bias_grad, bias_grad)


def test_layer_converts_what_fits_its_dtype():
    layer = tc.nn.Conv2d(1, 2, 3, rng=0)
    image = np.arange(64, dtype=np.uint8).reshape(1, 1, 8, 8)
    np.testing.assert_array_equal(layer(image), layer(image.astype("f")))
    with pytest.raises(TypeError, match="input has dtype float64, expected float32, the dtype of the layer"):
        layer(image.astype("d"))
    with pytest.raises(TypeError, match="grad_output has dtype int64, expected float32"):
        layer.backward(np.ones((1, 2, 6, 6), np.int64))


def test_backward_needs_a_forward_in_training_mode(rng):
    layer = tc.nn.Conv1d(1, 1, 3)
    dy = np.ones((1, 1, 6), "f")
    with pytest.raises(RuntimeError, match="backward needs a forward pass"):
        layer.backward(dy)
    layer.training = False
    y = layer(np.ones((1, 1, 8), "f"))
    with pytest.raises(RuntimeError, match="training = True"):
        layer.backward(dy)
    layer.training = True
    np.testing.assert_array_equal(layer(np.ones((1, 1, 8), "f")), y)
    layer.backward(dy)
    with pytest.raises(RuntimeError, match="called once"):
        layer.backward(dy)


def test_layer_reads_what_the_functions_read(rng):
    layer = tc.nn.Conv1d(3, 4, 3, rng=0)
    x = rng.normal(size=(2, 3, 9)).astype("f")
    y = layer(x)
    np.testing.assert_array_equal(layer(OnlyDLPack(x)), y)
    dx = layer.backward(OnlyDLPack(y))
    layer(x)
    np.testing.assert_array_equal(dx, layer.backward(y))
    with pytest.raises(TypeError, match="input is None, expected an array"):
        layer(None)
    with pytest.raises(TypeError, match="input has dtype object, expected real numbers"):
        layer(object())


def test_kernel_size_of_one_entry_is_that_of_every_axis():
    assert tc.nn.Conv2d(1, 1, (3,)).kernel_size == tc.nn.Conv2d(1, 1, 3).kernel_size == (3, 3)
    assert tc.nn.Conv3d(1, 1, [1, 2, 3]).weight.shape == (1, 1, 1, 2, 3)


def test_no_dtype_is_float32():
    layer = tc.nn.Conv2d(1, 1, 3, dtype=None)
    assert layer.dtype == layer.weight.dtype == layer(np.ones((1, 4, 4), "f")).dtype == np.float32


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))])
def test_copy_has_the_parameters_but_not_the_pending_forward(rng, copied):
    layer = tc.nn.Conv2d(3, 4, 3, rng=0)
    x = rng.normal(size=(2, 3, 8, 8)).astype("f")
    y = layer(x)
    other = copied(layer)
    with pytest.raises(RuntimeError, match="backward needs a forward pass"):
        other.backward(y)
    np.testing.assert_array_equal(other(x), y)
    np.testing.assert_array_equal(other.backward(y), layer.backward(y))
    np.testing.assert_array_equal(other.weight_grad, layer.weight_grad)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"stride": 0}, ValueError, "stride is 0, expected at least 1 on every axis"),
        ({"stride": 1.5}, TypeError, "stride is 1.5, expected an int or a sequence of 2 ints"),
        ({"padding": -1}, ValueError, "padding is -1, expected 0 or more at every end"),
        ({"padding": "sam"}, ValueError, "padding is 'sam', expected an int, 2 ints"),
        ({"padding": "same", "stride": 2}, ValueError, "padding is 'same' with stride 2, expected stride 1"),
        ({"dilation": (1, 2, 3)}, ValueError, r"dilation is \(1, 2, 3\) with 3 entries, expected an int or 2 ints"),
        ({"dilation": 2**62}, ValueError, "dilation is 4611686018427387904 .*expected a kernel that spans at most"),
        ({"groups": 1.0}, TypeError, "groups is 1.0, expected an int"),
        ({"algorithm": "FTT"}, ValueError, "algorithm is 'FTT', expected 'auto'"),
        ({"algorithm": None}, TypeError, "algorithm is None, expected a str"),
        ({"algorithm": "fft:2"}, ValueError, "algorithm has an FFT tile of 2, expected at least 3"),
    ],
)
def test_bad_geometry_is_refused_at_construction(arguments, error, message):
    with pytest.raises(error, match=message):
        tc.nn.Conv2d(4, 4, 3, **arguments)


def test_winograd_layer_is_judged_with_its_stride():
    """Stride 2 splits 9 taps into 5 and 4; without it, no transform has so many."""
    assert tc.nn.Conv2d(1, 1, 9, 2, algorithm="winograd")(np.ones((1, 20, 20), "f")).shape == (1, 6, 6)
    with pytest.raises(ValueError, match="winograd has no transform for 9 taps along the height, expected 1 to 7"):
        tc.nn.Conv2d(1, 1, 9, algorithm="winograd")


def test_bad_arguments():
    with pytest.raises(ValueError, match="groups is 2, which does not divide in_channels, 3"):
        tc.nn.Conv2d(3, 4, 3, groups=2)
    with pytest.raises(ValueError, match="groups is 2, which does not divide out_channels, 3"):
        tc.nn.Conv2d(4, 3, 3, groups=2)
    with pytest.raises(ValueError, match="in_channels is 0, expected at least 1"):
        tc.nn.Conv2d(0, 4, 3)
    with pytest.raises(TypeError, match=r"out_channels is 4.0, expected an int"):
        tc.nn.Conv2d(4, 4.0, 3)
    with pytest.raises(ValueError, match=r"kernel_size is \(3, 3, 3\) with 3 entries, expected an int or 2 ints"):
        tc.nn.Conv2d(4, 4, (3, 3, 3))
    with pytest.raises(ValueError, match=r"kernel_size is 0, expected at least 1 on every axis"):
        tc.nn.Conv2d(4, 4, 0)
    with pytest.raises(TypeError, match=r"kernel_size is 'big', expected an int or a sequence of 2 ints"):
        tc.nn.Conv2d(4, 4, "big")
    with pytest.raises(TypeError, match="dtype is int32, expected float32 or float64"):
        tc.nn.Conv2d(4, 4, 3, dtype=np.int32)
    layer = tc.nn.Conv2d(4, 4, 3)
    with pytest.raises(ValueError, match=r"input has 3 channels, shape \(1, 3, 8, 8\), expected 4"):
        layer(np.ones((1, 3, 8, 8), "f"))
    with pytest.raises(ValueError, match=r"input has 2 dimensions, shape \(8, 8\), expected 4 or 3"):
        layer(np.ones((8, 8), "f"))
    layer(np.ones((1, 4, 8, 8), "f"))
    with pytest.raises(ValueError, match=r"grad_output has shape \(1, 4, 8, 8\), expected \(1, 4, 6, 6\)"):
        layer.backward(np.ones((1, 4, 8, 8), "f"))


def test_repr_tells_every_parameter():
    assert repr(tc.nn.Conv2d(2, 4, (3, 5), padding="same", bias=False)) == (
        "Conv2d(2, 4, kernel_size=(3, 5), stride=1, padding='same', dilation=1, groups=1, bias=False, "
        "padding_mode='zeros', dtype=float32, algorithm='auto')"
    )


@pytest.mark.parametrize("algorithm", ["auto", "direct", "fft", "winograd"])
def test_gradient_descent_learns_a_kernel(rng, algorithm):
    """Plain gradient descent on a quadratic loss recovers the blur that made the data."""
    blur = rng.normal(size=(1, 1, 3, 3))
    x = rng.normal(size=(4, 1, 12, 12))
    target = tc.conv2d(x, blur, [0.5])
    layer = tc.nn.Conv2d(1, 1, 3, dtype=np.float64, rng=0, algorithm=algorithm)
    for _ in range(200):
        layer.backward((layer(x) - target) / target.size, needs_input_grad=False)
        for name, parameter in layer.parameters().items():
            parameter -= 0.7 * layer.gradients()[name]
    np.testing.assert_allclose(layer.weight, blur, atol=1e-6)
    np.testing.assert_allclose(layer.bias, [0.5], atol=1e-6)
