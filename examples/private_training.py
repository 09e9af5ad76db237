"""Healthcare, privately: what does it cost that no patient can be told to have been in the data?

Run it:  python examples/private_training.py    (15 seconds)

Logistic regression on 30 measurements of 455 breast tumors, by DP-SGD: every step draws each patient with the same
probability, clips each patient's gradient to a norm of 1, and adds noise to the sum. The more noise, the smaller
epsilon, which bounds how much one patient more or less can change what is published; delta is 1e-4. The table has means
over three splits, 114 patients to test on each, where one patient is 0.9%. Without clipping and noise the accuracy is
97.1%; at epsilon 3.75 it is 96.2%, at 0.69 it is 93.0%.

The measurements are scaled by the training patients' own mean and deviation, as if these were public; a hospital would
take published ones. This is an example of a library's use and no medical device.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split

import jgd

NOISES = (1.0, 2.0, 4.0, 8.0)
SPLITS = 3
EPOCHS = 20
BATCH = 64
DELTA = 1e-4  # well below one over the number of patients

Params = dict[str, jax.Array]


def load_split(seed: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Training and test patients."""
    data: Any = load_breast_cancer()
    x, y = data.data, (1 - data.target).astype(np.float32)
    train, test = train_test_split(np.arange(len(y)), test_size=0.2, stratify=y, random_state=seed)
    x = ((x - x[train].mean(0)) / x[train].std(0)).astype(np.float32)
    return {"x": x[train], "y": y[train]}, {"x": x[test], "y": y[test]}


def logits_of(params: Params, x: Any) -> jax.Array:
    return x @ params["w"] + params["b"]


def loss_fn(params: Params, batch: dict[str, jax.Array]) -> jax.Array:
    return jnp.mean(optax.sigmoid_binary_cross_entropy(logits_of(params, batch["x"]), batch["y"]))


def step_of(noise: float | None) -> tuple[optax.GradientTransformation, Any]:
    """The optimizer and its step; without noise nothing is clipped either."""
    optimizer = jgd.sgd(0.5, momentum=0.9)
    step = jgd.dp_sgd(
        loss_fn,
        optimizer,
        max_norm=1.0 if noise else 1e6,
        noise_multiplier=noise or 0.0,
        expected_batch_size=BATCH,
    )
    return optimizer, step


def main() -> dict[str, dict[str, float]]:
    print("noise  epsilon  accuracy")
    found = {}
    for noise in (None, *NOISES):
        optimizer, step = step_of(noise)
        right, epsilon = [], float("inf")
        for seed in range(SPLITS):
            patients, others = load_split(seed)
            loader = jgd.PoissonLoader(patients, expected_batch_size=BATCH, seed=seed)
            state = jgd.TrainState.create({"w": jnp.zeros(30), "b": jnp.zeros(())}, optimizer, key=seed)
            state, history = jgd.fit(state, step, loader, epochs=EPOCHS, progress=False)
            right.append(np.mean((logits_of(state.params, others["x"]) > 0) == others["y"]))
            if noise and seed == 0:
                steps = len(history["loss"])
                epsilon = jgd.gradients.private_epsilon(noise, loader.sampling_rate, steps, delta=DELTA)
        label = "none" if noise is None else f"{noise:g}"
        print(f"{label:>5}  {epsilon:>7.2f}  {100 * np.mean(right):>7.1f}%")
        found[label] = {"epsilon": epsilon if noise else 0.0, "accuracy": float(np.mean(right))}
    return found


if __name__ == "__main__":
    main()
