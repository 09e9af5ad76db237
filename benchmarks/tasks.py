"""The models that `train.py` trains, each written twice: in JAX, and in torch where it is installed.

All learn from scikit-learn's 1,797 handwritten digits of 8x8 pixels with 17 shades, which come with the package. Both
forms start from the same numbers, see the same batches, and compute the same loss.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from trees import Shapes, gpt2

Arrays = dict[str, np.ndarray]


class Task(NamedTuple):
    """Something to be trained.

    Attributes:
        params: The numbers to start from, float32, kernels of convolutions HWIO.
        batches: `[steps, batch, ...]` a leaf, what each step is given.
        loss: `loss(params, batch) -> scalar`, in JAX.
        torch_loss: The same in torch; the params' convolution kernels are OIHW there, as torch has them.
    """

    params: Arrays
    batches: Arrays
    loss: Callable[[Any, Any], jax.Array]
    torch_loss: Callable[[Any, Any], Any]


def drawn(shapes: Shapes, scale: Callable[[tuple[int, ...]], float]) -> Arrays:
    """Normal numbers in kernels, ones in `scale` vectors, zeros in the others."""
    rng = np.random.default_rng(0)

    def draw(name: str, shape: tuple[int, ...]) -> np.ndarray:
        if len(shape) == 1:
            return np.full(shape, name.endswith("scale"), np.float32)
        return (scale(shape) * rng.standard_normal(shape)).astype(np.float32)

    return {name: draw(name, shape) for name, shape in shapes.items()}


def he(shape: tuple[int, ...]) -> float:
    """The standard deviation that keeps the size of signals through a relu."""
    return float(np.sqrt(2 / np.prod(shape[:-1])))


def digits(steps: int, batch: int) -> tuple[np.ndarray, np.ndarray]:
    """Shades `[steps, batch, 64]` from 0 to 16 and labels `[steps, batch]`, drawn at random."""
    from sklearn.datasets import load_digits

    data: Any = load_digits()
    chosen = np.random.default_rng(1).integers(0, len(data.target), (steps, batch))
    return data.data[chosen].astype(np.int32), data.target[chosen].astype(np.int32)


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """The mean over all examples."""
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels))


def torch_cross_entropy(logits: Any, labels: Any) -> Any:
    """The same in torch."""
    import torch.nn.functional as F  # noqa: N812

    return F.cross_entropy(logits.flatten(0, -2), labels.flatten().long())


def mlp(steps: int) -> Task:
    """Two hidden layers of 256; 64 images a batch."""
    pixels, labels = digits(steps, 64)
    shapes: Shapes = {}
    for i, (rows, columns) in enumerate(((64, 256), (256, 256), (256, 10))):
        shapes |= {f"layer{i}/kernel": (rows, columns), f"layer{i}/bias": (columns,)}

    def logits(params: Any, x: Any, relu: Callable[[Any], Any]) -> Any:
        for i in range(3):
            x = x @ params[f"layer{i}/kernel"] + params[f"layer{i}/bias"]
            x = relu(x) if i < 2 else x
        return x

    return Task(
        drawn(shapes, he),
        {"image": (pixels / 16).astype(np.float32), "label": labels},
        lambda params, batch: cross_entropy(logits(params, batch["image"], jax.nn.relu), batch["label"]),
        lambda params, batch: torch_cross_entropy(
            logits(params, batch["image"], lambda x: x.clamp(min=0)), batch["label"]
        ),
    )


def cnn(steps: int) -> Task:
    """Three convolutions, a mean over the image and a dense layer; 64 images a batch."""
    pixels, labels = digits(steps, 64)
    shapes: Shapes = {}
    strides = (1, 2, 2)
    for i, (fan_in, fan_out) in enumerate(((1, 16), (16, 32), (32, 64))):
        shapes |= {f"conv{i}/kernel": (3, 3, fan_in, fan_out), f"conv{i}/bias": (fan_out,)}
    shapes |= {"dense/kernel": (64, 10), "dense/bias": (10,)}

    def loss(params: Any, batch: Any) -> jax.Array:
        x = batch["image"].reshape(-1, 8, 8, 1)
        for i, stride in enumerate(strides):
            x = jax.lax.conv_general_dilated(
                x,
                params[f"conv{i}/kernel"],
                (stride, stride),
                ((1, 1), (1, 1)),  # torch's padding; "SAME" is another one at stride 2
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
            )
            x = jax.nn.relu(x + params[f"conv{i}/bias"])
        return cross_entropy(x.mean((1, 2)) @ params["dense/kernel"] + params["dense/bias"], batch["label"])

    def torch_loss(params: Any, batch: Any) -> Any:
        import torch.nn.functional as F  # noqa: N812

        x = batch["image"].reshape(-1, 1, 8, 8)
        for i, stride in enumerate(strides):
            x = F.conv2d(x, params[f"conv{i}/kernel"], params[f"conv{i}/bias"], stride=stride, padding=1).relu()
        return torch_cross_entropy(x.mean((2, 3)) @ params["dense/kernel"] + params["dense/bias"], batch["label"])

    return Task(drawn(shapes, he), {"image": (pixels / 16).astype(np.float32), "label": labels}, loss, torch_loss)


def gpt(steps: int, layers: int = 2, width: int = 128, heads: int = 4, batch: int = 8) -> Task:
    """A small GPT-2 that reads an image as 64 shades and foretells each from those before it."""
    pixels, _ = digits(steps, batch)
    beginning = np.full((steps, batch, 1), 17, np.int32)
    shapes = gpt2(layers=layers, width=width, vocabulary=32, context=64)

    def split(qkv: Any) -> list[Any]:
        """`[batch, 64, 3 width] -> three of [batch, heads, 64, width / heads]`."""
        n = qkv.shape[0]
        parts = [qkv[..., i * width : (i + 1) * width] for i in range(3)]
        return [part.reshape(n, 64, heads, width // heads).swapaxes(1, 2) for part in parts]

    def logits(params: Any, tokens: Any, norm: Any, gelu: Any, attend: Any) -> Any:
        """Both forms in one: what JAX and torch name differently is handed in."""

        def dense(name: str, x: Any) -> Any:
            return x @ params[f"{name}/kernel"] + params[f"{name}/bias"]

        def normed(name: str, x: Any) -> Any:
            return norm(x, params[f"{name}/scale"], params[f"{name}/bias"])

        x = params["wte"][tokens] + params["wpe"]
        for i in range(layers):
            attended = attend(*split(dense(f"h{i}/attn/qkv", normed(f"h{i}/ln1", x))))
            x = x + dense(f"h{i}/attn/out", attended.swapaxes(1, 2).reshape(x.shape))
            x = x + dense(f"h{i}/mlp/down", gelu(dense(f"h{i}/mlp/up", normed(f"h{i}/ln2", x))))
        return normed("ln", x) @ params["wte"].T

    def loss(params: Any, batch: Any) -> jax.Array:
        def norm(x: jax.Array, scale: jax.Array, bias: jax.Array) -> jax.Array:
            return jax.nn.standardize(x, axis=-1, epsilon=1e-5) * scale + bias

        def attend(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
            scores = q @ k.swapaxes(-1, -2) / np.sqrt(width // heads)
            return jax.nn.softmax(jnp.where(np.tri(64, dtype=bool), scores, -jnp.inf)) @ v

        return cross_entropy(logits(params, batch["in"], norm, jax.nn.gelu, attend), batch["out"])

    def torch_loss(params: Any, batch: Any) -> Any:
        import torch.nn.functional as F  # noqa: N812

        def attend(q: Any, k: Any, v: Any) -> Any:
            return F.scaled_dot_product_attention(q, k, v, is_causal=True)

        def norm(x: Any, scale: Any, bias: Any) -> Any:
            return F.layer_norm(x, (width,), scale, bias)

        predicted = logits(params, batch["in"], norm, lambda x: F.gelu(x, approximate="tanh"), attend)
        return torch_cross_entropy(predicted, batch["out"])

    tokens = {"in": np.concatenate([beginning, pixels[..., :-1]], axis=-1), "out": pixels}
    return Task(drawn(shapes, lambda _: 0.02), tokens, loss, torch_loss)


#: Each with the number of steps that make up one turn: so many that a turn takes a tenth of a second on two cores.
TASKS: dict[str, tuple[Callable[[int], Task], int]] = {"mlp": (mlp, 100), "cnn": (cnn, 20), "gpt": (gpt, 5)}
