"""`python -m jgd demo`: it trains a convolutional classifier on handwritten digits, and shows the progress."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jgd
from jgd.core import Array, PyTree, check_hyperparam, require, tree_size
from jgd.train.checkpoints import as_path, make_folder, orbax

BATCH_SIZE = 32
FOLDER = "jgd-demo"
MADE = ("history.jsonl", "loss.png", "checkpoint")

#: For each optimizer that the demo knows how to make it, and a learning rate that suits this problem.
OPTIMIZERS: dict[str, tuple[Callable[[Any], jgd.Optimizer], float]] = {
    "adamw": (lambda rate: jgd.adamw(rate, weight_decay=0.01), 2e-3),
    "adam": (jgd.adam, 2e-3),
    "nadam": (jgd.nadam, 2e-3),
    "nadamw": (jgd.nadamw, 2e-3),
    "amsgrad": (jgd.amsgrad, 2e-3),
    "gradient_descent": (jgd.gradient_descent, 0.2),
    "sgd": (lambda rate: jgd.sgd(rate, momentum=0.9, nesterov=True), 0.05),
    "lion": (jgd.lion, 3e-4),
    "muon": (lambda rate: jgd.muon(rate, adam_learning_rate=2e-3), 0.02),
}


class Digits(NamedTuple):
    """Images `[n, 8, 8, 1]` between 0 and 1, labels `[n]` from 0 to 9."""

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray


def load_digits(seed: int) -> Digits:
    """Scikit-learn's 1,797 handwritten digits, four fifths to learn from and one fifth to be tested on."""
    data: Any = require("sklearn.datasets", "examples", "the demo").load_digits()
    images = (data.images / 16.0).astype(np.float32)[..., None]
    labels = data.target.astype(np.int32)
    order = np.random.default_rng(seed).permutation(len(labels))
    train, test = np.split(order, [round(0.8 * len(labels))])
    return Digits(images[train], labels[train], images[test], labels[test])


def init_params(key: Array) -> PyTree:
    """Three convolutions and two dense layers, drawn so that signals keep their size on the way through."""

    def layer(key: Array, *shape: int) -> dict[str, Array]:
        fan_in = int(np.prod(shape[:-1]))
        return {"kernel": jax.random.normal(key, shape) * np.sqrt(2.0 / fan_in), "bias": jnp.zeros(shape[-1])}

    shapes = {
        "conv1": (3, 3, 1, 32),
        "conv2": (3, 3, 32, 64),
        "conv3": (3, 3, 64, 64),
        "dense": (4 * 4 * 64, 128),
        "out": (128, 10),
    }
    keys = jax.random.split(key, len(shapes))
    return {name: layer(k, *shape) for k, (name, shape) in zip(keys, shapes.items(), strict=True)}


def logits_of(params: PyTree, images: Array, key: Array | None = None) -> Array:
    """`[n, 8, 8, 1] -> [n, 10]`; with a key, units are dropped at random, as in training."""

    def conv(x: Array, layer: dict[str, Array], stride: int) -> Array:
        dims = ("NHWC", "HWIO", "NHWC")
        y = jax.lax.conv_general_dilated(x, layer["kernel"], (stride, stride), "SAME", dimension_numbers=dims)
        return jax.nn.relu(y + layer["bias"])

    x = conv(images, params["conv1"], 1)
    x = conv(x, params["conv2"], 2)
    x = conv(x, params["conv3"], 1).reshape(images.shape[0], -1)
    keys = (None, None) if key is None else jax.random.split(key)
    x = drop(x, keys[0])
    x = jax.nn.relu(x @ params["dense"]["kernel"] + params["dense"]["bias"])
    return drop(x, keys[1]) @ params["out"]["kernel"] + params["out"]["bias"]


def drop(x: Array, key: Array | None, rate: float = 0.4) -> Array:
    """Dropout: each unit is zero with probability `rate`, and the others make up for it."""
    return x if key is None else jnp.where(jax.random.bernoulli(key, 1 - rate, x.shape), x / (1 - rate), 0.0)


def jitter(images: Array, key: Array, share: float = 0.3) -> Array:
    """A share of the images moved by up to one pixel either way, so that no position is learned by heart."""
    which, where = jax.random.split(key)
    padded = jnp.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
    corners = jax.random.randint(where, (images.shape[0], 2), 0, 3)
    moved = jax.vmap(lambda image, corner: jax.lax.dynamic_slice(image, (*corner, 0), images.shape[1:]))(
        padded, corners
    )
    return jnp.where(jax.random.bernoulli(which, share, (images.shape[0], 1, 1, 1)), moved, images)


def loss_fn(params: PyTree, batch: dict[str, Array], key: Array) -> Array:
    """Mean cross-entropy in training."""
    jitter_key, drop_key = jax.random.split(key)
    logits = logits_of(params, jitter(batch["image"], jitter_key), drop_key)
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"]))


@jax.jit
def loss_and_accuracy(params: PyTree, images: Array, labels: Array) -> tuple[Array, Array]:
    """Mean cross-entropy, and the share of images whose largest logit is the right one."""
    logits = logits_of(params, images)
    loss = jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels))
    return loss, jnp.mean(jnp.argmax(logits, axis=-1) == labels)


class Minibatches:
    """One epoch's batches in an order of its own; the few examples that fill no batch wait for another epoch."""

    def __init__(self, digits: Digits, seed: int, epoch: int):
        self._digits = digits
        self._order = np.random.default_rng((seed, epoch)).permutation(len(digits.train_labels))

    def __len__(self) -> int:
        return len(self._order) // BATCH_SIZE

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        for i in range(len(self)):
            chosen = self._order[i * BATCH_SIZE : (i + 1) * BATCH_SIZE]
            yield {"image": self._digits.train_images[chosen], "label": self._digits.train_labels[chosen]}


def folder_for(out: Path | None) -> Path:
    """The folder that was asked for, if nothing is in the way there; by default a new one in the working folder.

    Raises:
        FileExistsError: It holds a demo already, or other files of those names.
        OSError: It cannot be made, or written to.
    """
    number = 1
    while out is None:
        place = Path.cwd() / (FOLDER if number == 1 else f"{FOLDER}-{number}")
        if not place.exists():
            out = place
        number += 1
    place = as_path("demo", "--out", out)
    make_folder("demo", "--out", place)
    if taken := [name for name in MADE if (place / name).exists()]:
        raise FileExistsError(
            f"demo: --out: the folder {place} holds {', '.join(taken)} already, which would be overwritten. Nothing was"
            " changed; give another folder, or move that away."
        )
    return place


def demo(optimizer_name: str, epochs: int, learning_rate: float | None, seed: int, out: Path | None) -> float:
    """Trains, reports, and leaves history, plot and checkpoint in `out`.

    Args:
        optimizer_name: One of `OPTIMIZERS`.
        epochs: How many times to go through the images, at least 1.
        learning_rate: The peak; None for one that suits the optimizer.
        seed: From 0; of the split, the model and the order of examples.
        out: The folder; None for `jgd-demo` in the working folder, or `jgd-demo-2` and so on where that is there.

    Returns:
        The accuracy on the test images; NaN where the run was stopped before its first epoch was over.

    Raises:
        ImportError: A package of the extra `examples` is missing.
        ValueError: An argument is outside its range.
        OSError: The folder holds a demo already, or cannot be made or written to. Nothing was trained then.
    """
    plot = require("matplotlib.figure", "examples", "the demo's plot")
    orbax()
    started = time.perf_counter()
    make, usual_rate = OPTIMIZERS[optimizer_name]
    rate = usual_rate if learning_rate is None else learning_rate
    check_hyperparam("demo", "learning_rate", rate)  # within a schedule it would not be checked
    out = folder_for(out)
    digits = load_digits(seed)

    # Up to the peak rate over the first tenth of the run, then down to zero along a cosine.
    steps = epochs * (len(digits.train_labels) // BATCH_SIZE)
    optimizer = make(optax.warmup_cosine_decay_schedule(0.0, rate, steps // 10, steps))
    state = jgd.TrainState.create(init_params(jax.random.key(seed)), optimizer, key=seed)
    step = jgd.make_step(loss_fn, optimizer)

    print(f"folder: {out}")
    print(f"digits: {len(digits.train_labels)} to learn from, {len(digits.test_labels)} to be tested on")
    print(f"model: {tree_size(state.params):,} parameters; device: {jax.devices()[0].device_kind}")
    print(
        f"optimizer: {optimizer_name}, peak learning rate {rate:g}, {epochs} epochs of {steps // epochs} steps",
        flush=True,
    )

    def evaluate(state: jgd.TrainState) -> dict[str, Array]:
        train_loss, train_accuracy = loss_and_accuracy(state.params, digits.train_images, digits.train_labels)
        test_loss, test_accuracy = loss_and_accuracy(state.params, digits.test_images, digits.test_labels)
        return {
            "train_loss": train_loss,
            "train_accuracy": train_accuracy,
            "test_loss": test_loss,
            "test_accuracy": test_accuracy,
        }

    state, history = jgd.fit(
        state, step, lambda epoch: Minibatches(digits, seed, epoch), epochs=epochs, eval_fn=evaluate, log_dir=out
    )
    if "epoch_test_accuracy" not in history:
        print("stopped before the first epoch was over: nothing to report")
        return float("nan")
    accuracy = float(history["epoch_test_accuracy"][-1])
    draw(plot, history, optimizer_name, out / "loss.png")
    checkpoint = jgd.save_checkpoint(out / "checkpoint", state)

    wrong = round((1 - accuracy) * len(digits.test_labels))
    print(
        f"test accuracy {accuracy:.2%} ({wrong} of {len(digits.test_labels)} wrong)"
        f" after {time.perf_counter() - started:.1f} s, compilation included"
    )
    for label, path in (("history", out / "history.jsonl"), ("plot", out / "loss.png"), ("checkpoint", checkpoint)):
        print(f"{label + ':':<12}{path}")
    return accuracy


def draw(plot: Any, history: jgd.History, optimizer_name: str, path: Path) -> None:
    """Loss and error rate over the epochs, on the images learned from and on those held back."""
    train, test, faint = "#1b6ca8", "#d1495b", "#b9cfe0"
    figure = plot.Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    done = len(history["epoch_test_loss"])
    epochs = np.arange(1, done + 1)
    steps = (np.arange(len(history["loss"])) + 1) / np.sum(history["epoch"] == history["epoch"][0])

    left.plot(steps, history["loss"], color=faint, linewidth=0.7, label="each minibatch, in training")
    left.plot(epochs, history["epoch_train_loss"], color=train, linewidth=2, marker="o", markersize=3, label="train")
    left.plot(epochs, history["epoch_test_loss"], color=test, linewidth=2, marker="o", markersize=3, label="test")
    left.set(title="Loss", xlabel="epochs done", ylabel="cross-entropy", yscale="log")

    for name, color in (("train", train), ("test", test)):
        error = 100 * (1 - history[f"epoch_{name}_accuracy"])
        right.plot(epochs, error, color=color, linewidth=2, marker="o", markersize=3, label=name)
        right.annotate(f"{error[-1]:.1f}%", (epochs[-1], error[-1]), (4, 4), textcoords="offset points", color=color)
    right.set(title="Wrong answers", xlabel="epochs done", ylabel="percent", ylim=(0, None))
    right.set_yscale("symlog", linthresh=1.0)
    right.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    for axes in (left, right):
        axes.grid(alpha=0.25)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
    figure.suptitle(
        f"Handwritten digits, {optimizer_name}: {history['epoch_test_accuracy'][-1]:.2%} of test images right"
    )
    figure.savefig(path, dpi=130)
