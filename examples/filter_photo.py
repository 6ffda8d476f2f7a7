"""Filter a photograph with triconv.signal: blurs, a search for a template, and convolution beside correlation.

The photographs, 427x640 pixels, ship inside scikit-learn. Four things are done to one of them:

1. It is blurred with a 5x5 and with a 101x101 Gaussian kernel. Outside of it, it is mirrored, so that the margin stays
   as bright as the rest.
2. A template, cut out of it and then dimmed, is found again by normalised cross-correlation, which unlike plain
   correlation depends on neither brightness nor contrast.
3. Lamps in the dark are convolved and correlated with a kernel that has no symmetry: convolution draws the kernel at
   each lamp, correlation draws it turned by half a turn.
4. Correlation with the kernel flipped along both axes is convolution again, and the program checks it.

Run ``python examples/filter_photo.py --help`` for the options. All panels go into one picture.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import triconv as tc
from sklearn.datasets import load_sample_image
from triconv import signal

PHOTOS = ("china.jpg", "flower.jpg")
GAUSSIAN_5 = (
    np.array([[1, 4, 7, 4, 1], [4, 16, 26, 16, 4], [7, 26, 41, 26, 7], [4, 16, 26, 16, 4], [1, 4, 7, 4, 1]]) / 273
)
# Luminance of red, green and blue.
GREY = np.array([0.299, 0.587, 0.114], np.float32)
# Variances within so many units of rounding of the largest sum of squares are taken for zero.
FLAT = 100
# Largest difference between the two ways to a convolution, relative to the largest value: float32's rounding.
TOLERANCE = 1e-5


@dataclass(frozen=True)
class Box:
    """A rectangle of pixels."""

    row: int
    column: int
    height: int
    width: int

    def cut(self, image: np.ndarray) -> np.ndarray:
        return image[self.row : self.row + self.height, self.column : self.column + self.width]


TEMPLATE = Box(row=170, column=300, height=48, width=64)


# ---- filters ---------------------------------------------------------------------------------------------------------


def load_photo(name: str) -> np.ndarray:
    """H W 3, float32, values from 0 to 1."""
    return load_sample_image(name).astype(np.float32) / 255


def gaussian(size: int) -> np.ndarray:
    """A kernel of size x size whose margin is three standard deviations off its middle."""
    x = np.linspace(-3, 3, size)
    bell = np.exp(-(x**2) / 2)
    kernel = np.outer(bell, bell)
    return (kernel / kernel.sum()).astype(np.float32)


def blur(photo: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Each colour convolved with the kernel. Rounding may leave 0 to 1 by a little, which pictures must not."""
    channels = [signal.convolve2d(photo[..., c], kernel, mode="same", boundary="symm") for c in range(photo.shape[-1])]
    return np.stack(channels, axis=-1).clip(0, 1)


def normalised_cross_correlation(image: np.ndarray, template: np.ndarray) -> np.ndarray:
    """The correlation coefficient, from -1 to 1, of the template with the window of the image at each position.

    With t, the template less its mean, and a window w of n pixels this is

        sum(t * w) / sqrt(sum(t²) * (sum(w²) - sum(w)² / n))

    where each sum over the window is a correlation of the image, the last two with a kernel of ones. A window without
    contrast has coefficient 0. ValueError if the template has none, for then every coefficient is 0 / 0.
    """
    if np.ptp(template) == 0:
        raise ValueError("the template has no contrast")
    image = image - image.mean()  # changes no coefficient; the difference below is then one of small numbers
    centred = template - template.mean()
    ones = np.ones_like(template)
    products = signal.correlate(image, centred, mode="valid")
    sums = signal.correlate(image, ones, mode="valid")
    squares = signal.correlate(image**2, ones, mode="valid")
    variances = (squares - sums**2 / template.size).clip(0)  # rounding may make them negative
    flat = variances <= FLAT * np.finfo(image.dtype).eps * squares.max()
    scales = np.sqrt(variances * (centred**2).sum())
    return np.divide(products, scales, out=np.zeros_like(products), where=~flat & (scales > 0)).clip(-1, 1)


def best_position(scores: np.ndarray) -> tuple[int, int]:
    row, column = np.unravel_index(scores.argmax(), scores.shape)
    return int(row), int(column)


def comet(size: int = 31) -> np.ndarray:
    """A kernel without symmetry: a head in the middle, and a tail from there down to the right that fades away."""
    kernel = np.zeros((size, size), np.float32)
    middle = size // 2
    tail = np.arange(middle + 1)
    kernel[middle + tail, middle + tail] = 0.8**tail
    kernel[middle - 1 : middle + 2, middle - 1 : middle + 2] += 0.5
    return kernel / kernel.sum()


def lamps(photo: np.ndarray) -> np.ndarray:
    """The photograph by night, H W, with lamps at regular distances."""
    night = 0.25 * (photo @ GREY)
    night[30::60, 30::80] = 20
    return night


# ---- what the program does -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Result:
    photo: np.ndarray
    blurred: dict[str, np.ndarray]
    scores: np.ndarray
    found: tuple[int, int]
    found_unnormalised: tuple[int, int]
    night: np.ndarray
    kernel: np.ndarray
    convolved: np.ndarray
    correlated: np.ndarray
    flipped: np.ndarray  # correlated with the flipped kernel


def timed(what: str, call: Callable[..., np.ndarray], *arguments: np.ndarray) -> np.ndarray:
    """The result of the call; prints the time it took."""
    begin = time.perf_counter()
    result = call(*arguments)
    milliseconds = 1e3 * (time.perf_counter() - begin)
    run = tc.last_run()
    print(f"{what:<44}{milliseconds:8.1f} ms  {run.algorithm if run else ''}")
    return result


def filter_photo(photo: np.ndarray, box: Box = TEMPLATE) -> Result:
    kernels = {"5x5": GAUSSIAN_5.astype(np.float32), "101x101": gaussian(101)}
    blurred = {name: timed(f"blur with {name}, 3 colours", blur, photo, kernel) for name, kernel in kernels.items()}
    grey = photo @ GREY
    template = 0.5 * box.cut(grey) + 0.1
    what = f"normalised correlation, template {box.height}x{box.width}"
    scores = timed(what, normalised_cross_correlation, grey, template)
    night, kernel = lamps(photo), comet()
    return Result(
        photo,
        blurred,
        scores,
        best_position(scores),
        best_position(signal.correlate(grey, template, mode="valid")),
        night,
        kernel,
        timed("convolution with 31x31", lambda: signal.convolve(night, kernel, mode="same")),
        timed("correlation with 31x31", lambda: signal.correlate(night, kernel, mode="same")),
        timed("correlation with 31x31, flipped", lambda: signal.correlate(night, kernel[::-1, ::-1], mode="same")),
    )


def check(result: Result, box: Box = TEMPLATE) -> None:
    """Print what was found; SystemExit if it is not what must be."""
    score = result.scores[result.found]
    print(f"\ntemplate cut out at row {box.row}, column {box.column}, and dimmed")
    print("found by normalised correlation at row {}, column {}".format(*result.found), f"(coefficient {score:.6f})")
    print("largest plain correlation at row {}, column {}, drawn by brightness".format(*result.found_unnormalised))
    if result.found != (box.row, box.column):
        raise SystemExit("the template was not found where it was cut out")
    difference = np.abs(result.flipped - result.convolved).max() / result.convolved.max()
    print(f"correlation with the flipped kernel differs from convolution by {difference:.1e} of the largest value")
    if not difference <= TOLERANCE:
        raise SystemExit("correlation with the flipped kernel is not convolution")


def save_figure(result: Result, path: Path, box: Box = TEMPLATE) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.patches import Rectangle

    crop = (slice(0, 240), slice(0, 320))
    panels = [
        ("photograph and template", result.photo, {}),
        *((f"blurred, Gaussian {name}", image, {}) for name, image in result.blurred.items()),
        ("normalised cross-correlation", result.scores, {"cmap": "RdBu_r", "vmin": -1, "vmax": 1}),
        ("kernel", result.kernel, {"cmap": "gray"}),
        ("lamps convolved: the kernel at each", result.convolved[crop], {"cmap": "gray", "vmin": 0, "vmax": 1}),
        ("lamps correlated: half a turn", result.correlated[crop], {"cmap": "gray", "vmin": 0, "vmax": 1}),
        ("correlated with the flipped kernel", result.flipped[crop], {"cmap": "gray", "vmin": 0, "vmax": 1}),
    ]
    figure, axes = pyplot.subplots(2, 4, figsize=(16, 6.2), layout="constrained")
    for axis, (title, image, options) in zip(axes.flat, panels, strict=True):
        axis.imshow(image, **options)
        axis.set_title(title)
        axis.axis("off")
    corner = (box.column - 0.5, box.row - 0.5)
    axes[0, 0].add_patch(Rectangle(corner, box.width, box.height, fill=False, color="red"))
    row, column = result.found
    axes[0, 3].plot(column, row, "o", color="black", markersize=14, fillstyle="none")
    figure.savefig(path, dpi=100)
    pyplot.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description="Blur a photograph, find a template in it, convolve and correlate.")
    parser.add_argument("--photo", choices=PHOTOS, default=PHOTOS[0], help="of scikit-learn's (%(default)s)")
    parser.add_argument("--output", type=Path, default=Path("filter_photo.png"), help="picture to save (%(default)s)")
    options = parser.parse_args()
    result = filter_photo(load_photo(options.photo))
    check(result)
    save_figure(result, options.output)
    print(f"saved {options.output}")


if __name__ == "__main__":
    main()
