"""The extension module and the Python package compute the same bits by one library: it has one number of threads."""

import numpy as np
import triconv as tc
from native_layer import correlate, num_threads

rng = np.random.default_rng(0)
image, kernel = rng.normal(size=(50, 40)).astype("f"), rng.normal(size=(7, 5)).astype("f")
expected = tc.conv2d(image[None, None], kernel[None, None])[0, 0]
np.testing.assert_array_equal(correlate(image, kernel), expected)
for count in (1, 3):
    tc.set_num_threads(count)
    assert num_threads() == count
print("one library")
