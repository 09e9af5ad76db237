"""Models written with probed operations, for `per_example.py`: with `probe=None` they are ordinary functions."""

import itertools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jgd.gradients import probes

MAX_NORM = 1.0
WIDTHS = (784, 512, 512, 10)
CHANNELS = (1, 16, 32)
VOCABULARY, SEQUENCE, WIDTH, HEADS, LAYERS = 256, 64, 128, 4, 3


class Model(NamedTuple):
    """A model to differentiate.

    Attributes:
        losses_fn: `(params, batch, probe) -> losses [B]`.
        init: From a seed to params.
        batch: From a size to a batch.
    """

    losses_fn: Callable[[Any, Any, Any], jax.Array]
    init: Callable[[int], Any]
    batch: Callable[[int], Any]


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Minus the log-probability of each label."""
    picked = jnp.take_along_axis(logits, labels[..., None], axis=-1)[..., 0]
    return jax.nn.logsumexp(logits, axis=-1) - picked


def matrices(seed: int, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, jax.Array]:
    """Normal numbers, scaled by the number of inputs; gains are one, biases zero."""
    rng, params = np.random.default_rng(seed), {}
    for name, shape in shapes.items():
        if len(shape) == 1:
            params[name] = jnp.full(shape, float(name.endswith("gain")), jnp.float32)
        else:
            params[name] = jnp.asarray(rng.normal(size=shape) / np.sqrt(np.prod(shape[:-1])), jnp.float32)
    return params


def images(size: int) -> dict[str, jax.Array]:
    """Noise in the shape of small pictures, and labels."""
    rng = np.random.default_rng(1)
    return {
        "x": jnp.asarray(rng.normal(size=(size, 28, 28, 1)), jnp.float32),
        "y": jnp.asarray(rng.integers(0, 10, size)),
    }


def text(size: int) -> dict[str, jax.Array]:
    """Random bytes."""
    return {"x": jnp.asarray(np.random.default_rng(1).integers(0, VOCABULARY, (size, SEQUENCE + 1)))}


def mlp_params(seed: int) -> Any:
    sizes = list(enumerate(itertools.pairwise(WIDTHS)))
    return matrices(seed, {f"{i}w": shape for i, shape in sizes} | {f"{i}b": shape[1:] for i, shape in sizes})


def mlp(params: Any, batch: Any, probe: Any = None) -> jax.Array:
    """Three dense layers."""
    x, last = batch["x"].reshape(len(batch["x"]), -1), len(WIDTHS) - 2
    for i in range(last + 1):
        x = probes.bias(probes.dense(x, params[f"{i}w"], probe), params[f"{i}b"], probe)
        x = jax.nn.relu(x) if i < last else x
    return cross_entropy(x, batch["y"])


def cnn_params(seed: int) -> Any:
    sizes = list(enumerate(itertools.pairwise(CHANNELS)))
    shapes = {f"{i}w": (3, 3, *shape) for i, shape in sizes} | {f"{i}b": shape[1:] for i, shape in sizes}
    return matrices(seed, shapes | {"w": (7 * 7 * CHANNELS[-1], 10), "b": (10,)})


def cnn(params: Any, batch: Any, probe: Any = None) -> jax.Array:
    """Two convolutions, each followed by a maximum over pairs, and a dense layer."""
    x = batch["x"]
    for i in range(len(CHANNELS) - 1):
        x = jax.nn.relu(probes.bias(probes.conv(x, params[f"{i}w"], probe), params[f"{i}b"], probe))
        x = x.reshape(len(x), x.shape[1] // 2, 2, x.shape[2] // 2, 2, -1).max((2, 4))
    x = probes.bias(probes.dense(x.reshape(len(x), -1), params["w"], probe), params["b"], probe)
    return cross_entropy(x, batch["y"])


def transformer_params(seed: int) -> Any:
    shapes: dict[str, tuple[int, ...]] = {"table": (VOCABULARY, WIDTH), "places": (SEQUENCE, WIDTH), "gain": (WIDTH,)}
    for i in range(LAYERS):
        shapes |= {f"{i}qkv": (WIDTH, 3 * WIDTH), f"{i}out": (WIDTH, WIDTH), f"{i}gain": (WIDTH,)}
        shapes |= {f"{i}up": (WIDTH, 4 * WIDTH), f"{i}down": (4 * WIDTH, WIDTH), f"{i}mlp_gain": (WIDTH,)}
        shapes |= {f"{i}up_bias": (4 * WIDTH,), f"{i}down_bias": (WIDTH,)}
    return matrices(seed, shapes)


def transformer(params: Any, batch: Any, probe: Any = None) -> jax.Array:
    """A decoder whose table of embeddings is its last layer, too."""

    def normalized(x: jax.Array, gain: jax.Array) -> jax.Array:
        return probes.scale(x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + 1e-6), gain, probe)

    def attend(x: jax.Array, i: int) -> jax.Array:
        parts = probes.dense(x, params[f"{i}qkv"], probe).reshape(*x.shape[:2], 3, HEADS, -1)
        q, k, v = parts[:, :, 0], parts[:, :, 1], parts[:, :, 2]
        scores = jnp.einsum("bthd,bshd->bhts", q, k) / np.sqrt(q.shape[-1])
        mask = jnp.tril(jnp.ones((x.shape[1], x.shape[1]), bool))
        mixed = jnp.einsum("bhts,bshd->bthd", jax.nn.softmax(jnp.where(mask, scores, -1e9)), v)
        return probes.dense(mixed.reshape(x.shape), params[f"{i}out"], probe)

    def feed(x: jax.Array, i: int) -> jax.Array:
        x = jax.nn.gelu(probes.bias(probes.dense(x, params[f"{i}up"], probe), params[f"{i}up_bias"], probe))
        return probes.bias(probes.dense(x, params[f"{i}down"], probe), params[f"{i}down_bias"], probe)

    ids, labels = batch["x"][:, :-1], batch["x"][:, 1:]
    x = probes.bias(probes.embed(ids, params["table"], probe), params["places"], probe)
    for i in range(LAYERS):
        x = x + attend(normalized(x, params[f"{i}gain"]), i)
        x = x + feed(normalized(x, params[f"{i}mlp_gain"]), i)
    logits = probes.dense(normalized(x, params["gain"]), params["table"], probe, transposed=True)
    return jnp.mean(cross_entropy(logits, labels), axis=-1)


MODELS = {
    "mlp": Model(mlp, mlp_params, images),
    "cnn": Model(cnn, cnn_params, images),
    "transformer": Model(transformer, transformer_params, text),
}
