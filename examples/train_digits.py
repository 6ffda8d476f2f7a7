"""Train a small convolutional network on handwritten digits, with every convolution pass computed by triconv.

The 1,797 images of 8x8 pixels ship inside scikit-learn; a quarter of them, stratified by digit, is held out. All but
the convolutions is NumPy, gradients written out, so that a training step can be read from top to bottom:

    image 1x8x8 -> conv 5x5 -> 16x8x8 -> ReLU -> conv 3x3 -> 32x8x8 -> ReLU -> largest of each 2x2 block -> 32x4x4
          -> linear -> 10 scores -> softmax cross-entropy

Run ``python examples/train_digits.py --help`` for the options. With one seed every algorithm starts from the same
weights and sees the same batches, so that their loss curves differ by rounding only:

    python examples/train_digits.py --algorithm direct fft winograd

Shapes in the comments: N images of a batch, C input channels, K output channels, H x W pixels, R x R kernel.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import triconv as tc
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from tqdm import tqdm

ALGORITHMS = ("auto", "direct", "fft", "winograd")
CLASSES = 10
EPOCHS = 20
BATCH_SIZE = 64
LEARNING_RATE = 1e-2


# ---- layers: forward(x) returns y; backward(dy), dy = dL/dy, sets the parameters' gradients and returns dL/dx --------


class Convolution:
    """A 2-D convolution layer on triconv's three passes, with a stopwatch for each.

    ``triconv.nn.Conv2d`` is such a layer ready-made. Here the passes are called one by one, to be seen and timed.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        algorithm: str,
        dtype: np.dtype,
        rng: np.random.Generator,
    ) -> None:
        bound = 1 / np.sqrt(in_channels * kernel**2)
        weight = rng.uniform(-bound, bound, (out_channels, in_channels, kernel, kernel))
        # Not zeros: the background of a digit is exactly 0, and with a bias of 0 so would be the argument of the ReLU;
        # its gradient jumps there, and the rounding of the algorithm would choose the side.
        bias = rng.uniform(-bound, bound, out_channels)
        self.parameters = {"weight": weight.astype(dtype), "bias": bias.astype(dtype)}
        self.gradients: dict[str, np.ndarray] = {}
        self.algorithm = algorithm
        self.plans: dict[tuple[int, ...], tc.Plan] = {}
        self.seconds = {"forward": 0.0, "input grad": 0.0, "weight grad": 0.0}

    def plan(self, input_size: tuple[int, ...]) -> tc.Plan:
        """The plan for inputs of one shape; "same" padding keeps H x W."""
        if input_size not in self.plans:
            weight = self.parameters["weight"]
            self.plans[input_size] = tc.plan_conv2d(
                input_size, weight.shape, padding="same", dtype=weight.dtype, algorithm=self.algorithm
            )
        return self.plans[input_size]

    def timed(self, name: str, run: Callable[..., np.ndarray], *arrays: np.ndarray) -> np.ndarray:
        begin = time.perf_counter()
        result = run(*arrays)
        self.seconds[name] += time.perf_counter() - begin
        return result

    def forward(self, x: np.ndarray) -> np.ndarray:
        """y[n, k, i, j] = bias[k] + sum over c, r, s of x[n, c, i + r - pad, j + s - pad] * weight[k, c, r, s]"""
        self.x = x  # N C H W
        return self.timed("forward", self.plan(x.shape).forward, x, self.parameters["weight"], self.parameters["bias"])

    def backward(self, dy: np.ndarray, needs_input_grad: bool = True) -> np.ndarray | None:
        """dy: N K H W. Every y is linear in x and in the weight, so each gradient is a convolution again."""
        plan = self.plan(self.x.shape)
        self.gradients = {
            # K C R R: a weight's gradient sums x * dy over all the places where that weight met that x.
            "weight": self.timed("weight grad", plan.weight_grad, self.x, dy),
            # K: a bias is added to every pixel of its channel.
            "bias": dy.sum(axis=(0, 2, 3)),
        }
        if not needs_input_grad:
            return None
        # N C H W: what a pixel gave to its neighbours comes back through the same weights.
        return self.timed("input grad", plan.input_grad, self.parameters["weight"], dy)


class Relu:
    """max(x, 0), of any shape."""

    def forward(self, x: np.ndarray) -> np.ndarray:
        self.positive = x > 0
        return x * self.positive

    def backward(self, dy: np.ndarray) -> np.ndarray:
        return dy * self.positive  # what was cut off has no influence


class MaxPool:
    """The largest of each 2x2 block: N C H W -> N C H/2 W/2."""

    def forward(self, x: np.ndarray) -> np.ndarray:
        n, c, h, w = x.shape
        blocks = x.reshape(n, c, h // 2, 2, w // 2, 2).transpose(0, 1, 2, 4, 3, 5).reshape(n, c, h // 2, w // 2, 4)
        self.largest = blocks.argmax(axis=-1)[..., np.newaxis]
        return np.take_along_axis(blocks, self.largest, axis=-1)[..., 0]

    def backward(self, dy: np.ndarray) -> np.ndarray:
        n, c, h, w = dy.shape
        blocks = np.zeros((n, c, h, w, 4), dy.dtype)  # the other three have no influence
        np.put_along_axis(blocks, self.largest, dy[..., np.newaxis], axis=-1)
        return blocks.reshape(n, c, h, w, 2, 2).transpose(0, 1, 2, 4, 3, 5).reshape(n, c, 2 * h, 2 * w)


class Linear:
    """scores = x @ weight + bias: N F -> N K."""

    def __init__(self, features: int, classes: int, dtype: np.dtype, rng: np.random.Generator) -> None:
        bound = 1 / np.sqrt(features)
        weight = rng.uniform(-bound, bound, (features, classes))
        self.parameters = {"weight": weight.astype(dtype), "bias": np.zeros(classes, dtype)}
        self.gradients: dict[str, np.ndarray] = {}

    def forward(self, x: np.ndarray) -> np.ndarray:
        self.x = x  # N F
        return x @ self.parameters["weight"] + self.parameters["bias"]

    def backward(self, dy: np.ndarray) -> np.ndarray:
        self.gradients = {"weight": self.x.T @ dy, "bias": dy.sum(axis=0)}  # F K, K
        return dy @ self.parameters["weight"].T  # N F


def cross_entropy(scores: np.ndarray, labels: np.ndarray) -> tuple[float, np.ndarray]:
    """Mean of -log softmax(scores)[label], and its gradient for the scores: (softmax - one-hot labels) / N."""
    rows = np.arange(len(labels))
    shifted = scores - scores.max(axis=1, keepdims=True)  # N K; exp cannot overflow
    exponentials = np.exp(shifted)
    total = exponentials.sum(axis=1, keepdims=True)  # N 1
    loss = (np.log(total[:, 0]) - shifted[rows, labels]).mean()
    gradient = exponentials / total
    gradient[rows, labels] -= 1
    return float(loss), gradient / len(labels)


# ---- the network and its optimizer -----------------------------------------------------------------------------------


class Network:
    def __init__(self, algorithm: str, dtype: np.dtype, rng: np.random.Generator) -> None:
        self.conv1 = Convolution(1, 16, 5, algorithm, dtype, rng)
        self.relu1 = Relu()
        self.conv2 = Convolution(16, 32, 3, algorithm, dtype, rng)
        self.relu2 = Relu()
        self.pool = MaxPool()
        self.linear = Linear(32 * 4 * 4, CLASSES, dtype, rng)

    @property
    def trained_layers(self) -> tuple[Convolution, Convolution, Linear]:
        return self.conv1, self.conv2, self.linear

    def forward(self, images: np.ndarray) -> np.ndarray:
        """Scores, N 10, of images, N 1 8 8."""
        x = self.relu1.forward(self.conv1.forward(images))  # N 16 8 8
        x = self.pool.forward(self.relu2.forward(self.conv2.forward(x)))  # N 32 4 4
        return self.linear.forward(x.reshape(len(x), -1))

    def backward(self, dscores: np.ndarray) -> None:
        """Set the gradients of all parameters, from the last layer to the first."""
        dx = self.linear.backward(dscores).reshape(-1, 32, 4, 4)
        dx = self.conv2.backward(self.relu2.backward(self.pool.backward(dx)))  # N 16 8 8
        self.conv1.backward(self.relu1.backward(dx), needs_input_grad=False)


class Adam:
    """Kingma and Ba, arXiv:1412.6980, algorithm 1: steps scaled by running moments of the gradient.

    The rate rises linearly over `warm_up` steps and falls linearly to 0 at `total_steps`. `epsilon` is larger than the
    paper's 1e-8: without it the first steps have full length along a gradient of nearly 0, whose sign is rounding.
    """

    def __init__(
        self,
        rate: float,
        total_steps: int,
        warm_up: int = 200,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-3,
    ) -> None:
        self.rate, self.beta1, self.beta2, self.epsilon = rate, beta1, beta2, epsilon
        self.total_steps, self.warm_up = total_steps, warm_up
        self.steps = 0
        self.moments: dict[tuple[int, str], tuple[np.ndarray, np.ndarray]] = {}

    def update(self, layers: tuple[Convolution | Linear, ...]) -> None:
        rate = self.rate * min((self.steps + 1) / self.warm_up, 1 - self.steps / self.total_steps)
        self.steps += 1
        for index, layer in enumerate(layers):
            for name, parameter in layer.parameters.items():
                gradient = layer.gradients[name]
                start = (np.zeros_like(parameter), np.zeros_like(parameter))
                mean, square = self.moments.setdefault((index, name), start)
                mean += (1 - self.beta1) * (gradient - mean)
                square += (1 - self.beta2) * (gradient**2 - square)
                unbiased_mean = mean / (1 - self.beta1**self.steps)
                unbiased_square = square / (1 - self.beta2**self.steps)
                parameter -= rate * unbiased_mean / (np.sqrt(unbiased_square) + self.epsilon)


# ---- data and training -----------------------------------------------------------------------------------------------


@dataclass
class Digits:
    """Images, N 1 8 8 with values from 0 to 1, and labels, N."""

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray


def load(dtype: np.dtype, seed: int) -> Digits:
    data = load_digits()
    images = (data.images / 16).astype(dtype)[:, np.newaxis]
    train_images, test_images, train_labels, test_labels = train_test_split(
        images, data.target, test_size=0.25, stratify=data.target, random_state=seed
    )
    return Digits(train_images, train_labels, test_images, test_labels)


@dataclass
class Result:
    """What `train` found. `losses`: of each step's batch, before the update; `test_losses`: after each epoch."""

    algorithm: str
    network: Network
    test_images: np.ndarray
    test_labels: np.ndarray
    losses: list[float] = field(default_factory=list)
    test_losses: list[tuple[int, float]] = field(default_factory=list)  # (steps so far, loss)
    predictions: np.ndarray = field(default_factory=lambda: np.empty(0, int))
    accuracy: float = 0.0
    seconds: float = 0.0  # of the training, tests included

    def test(self) -> None:
        scores = self.network.forward(self.test_images)
        self.test_losses.append((len(self.losses), cross_entropy(scores, self.test_labels)[0]))
        self.predictions = scores.argmax(axis=1)
        self.accuracy = float((self.predictions == self.test_labels).mean())


def train(
    algorithm: str = "auto",
    *,
    epochs: int = EPOCHS,
    steps: int | None = None,
    seed: int = 0,
    dtype: str = "float32",
    batch_size: int = BATCH_SIZE,
    progress: bool = False,
) -> Result:
    """Train for `epochs` passes over the training images, or until `steps` batches, whichever comes first.

    Weights and batches depend on `seed` only. Each epoch shuffles anew; images that fill no batch wait for the next.
    """
    begin = time.perf_counter()
    number_type = np.dtype(dtype)
    digits = load(number_type, seed)
    rng = np.random.default_rng(seed)
    network = Network(algorithm, number_type, rng)
    result = Result(algorithm, network, digits.test_images, digits.test_labels)
    count = len(digits.train_labels)
    if not 1 <= batch_size <= count:
        raise ValueError(f"batch_size is {batch_size}, expected 1 to {count}, the number of training images")
    per_epoch = count // batch_size
    optimizer = Adam(LEARNING_RATE, epochs * per_epoch)
    total = epochs * per_epoch if steps is None else min(steps, epochs * per_epoch)
    with tqdm(total=total, desc=algorithm, unit="step", disable=not progress) as bar:
        while len(result.losses) < total:
            order = rng.permutation(count)
            for batch in order[: min(per_epoch, total - len(result.losses)) * batch_size].reshape(-1, batch_size):
                scores = network.forward(digits.train_images[batch])
                loss, dscores = cross_entropy(scores, digits.train_labels[batch])
                network.backward(dscores)
                optimizer.update(network.trained_layers)
                result.losses.append(loss)
                bar.update()
            result.test()
            bar.set_postfix(loss=f"{result.losses[-1]:.4f}", accuracy=f"{result.accuracy:.3f}")
    result.seconds = time.perf_counter() - begin
    return result


# ---- reports ---------------------------------------------------------------------------------------------------------


def print_report(result: Result) -> None:
    print(f"\n{len(result.losses)} steps and the tests between took {result.seconds:.1f} s, of which the convolutions:")
    print(f"{'layer':<8}{'pass':<14}{'algorithm':<16}{'seconds':>8}")
    for name, layer in (("conv1", result.network.conv1), ("conv2", result.network.conv2)):
        algorithms = next(iter(layer.plans.values())).algorithm  # of the plan for the training batches
        for (name_of_pass, seconds), algorithm in zip(layer.seconds.items(), algorithms, strict=True):
            used = f"{algorithm:<16}{seconds:8.3f}" if seconds > 0 else "not needed"
            print(f"{name:<8}{name_of_pass:<14}{used}")
    wrong = int((result.predictions != result.test_labels).sum())
    print(f"{wrong} of {len(result.test_labels)} held-out digits misread")
    print(f"test accuracy: {result.accuracy:.4f}")


def save_figure(results: list[Result], path: Path) -> None:
    """Loss curves of all results; kernels and misread digits of the last."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure = pyplot.figure(figsize=(12, 4.2), layout="constrained")
    curves, kernels, misread = figure.subfigures(1, 3, width_ratios=(1.4, 1, 1))
    plot_losses(curves.subplots(), results)
    last = results[-1]
    kernels.suptitle("first layer's kernels, 5x5")
    plot_images(kernels, list(last.network.conv1.parameters["weight"][:, 0]), cmap="RdBu")
    wrong = np.flatnonzero(last.predictions != last.test_labels)[:16]
    misread.suptitle(f"misread: {(1 - last.accuracy) * 100:.1f} % of the held-out digits")
    titles = [f"{last.test_labels[i]} read as {last.predictions[i]}" for i in wrong]
    plot_images(misread, [last.test_images[i, 0] for i in wrong], titles, cmap="gray_r")
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def plot_losses(axes, results: list[Result]) -> None:
    for index, result in enumerate(results):
        style = {"color": f"C{index}", "linestyle": ("-", "--", ":", "-.")[index % 4]}
        axes.plot(result.losses, label=f"{result.algorithm}, batches", alpha=0.5, linewidth=1, **style)
        axes.plot(*zip(*result.test_losses, strict=True), label=f"{result.algorithm}, held out", linewidth=2, **style)
    axes.set(xlabel="step", ylabel="cross-entropy", yscale="log", title="loss")
    axes.legend()


def plot_images(figure, images: list[np.ndarray], titles: list[str] | None = None, *, cmap: str) -> None:
    columns = 4
    axes = figure.subplots(max(1, -(-len(images) // columns)), columns, squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for index, (axis, image) in enumerate(zip(axes.flat, images, strict=False)):  # the last row may be shorter
        axis.imshow(image, cmap=cmap)
        if titles:
            axis.set_title(titles[index], fontsize=8)


def main() -> None:
    parser = argparse.ArgumentParser(description="Train a small network on handwritten digits with triconv.")
    parser.add_argument(
        "--algorithm", nargs="+", choices=ALGORITHMS, default=["auto"], help="of the convolutions; several are compared"
    )
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="passes over the training images (%(default)s)")
    parser.add_argument("--steps", type=int, help="stop after this many batches")
    parser.add_argument("--batch-size", type=int, default=BATCH_SIZE, help="images per step (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="for the split, the weights and the batches (%(default)s)")
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float32", help="(%(default)s)")
    parser.add_argument("--output", type=Path, default=Path("train_digits.png"), help="picture to save (%(default)s)")
    options = parser.parse_args()
    results = []
    for algorithm in options.algorithm:
        results.append(
            train(
                algorithm,
                epochs=options.epochs,
                steps=options.steps,
                seed=options.seed,
                dtype=options.dtype,
                batch_size=options.batch_size,
                progress=True,
            )
        )
        print_report(results[-1])
    save_figure(results, options.output)
    print(f"saved {options.output}")


if __name__ == "__main__":
    main()
