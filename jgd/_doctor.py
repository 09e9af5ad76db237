"""`python -m jgd doctor`: is this machine ready, how fast is its memory, and is the arithmetic right?"""

import importlib.metadata
import platform
import statistics
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np

import jgd
from jgd.core import Array

PACKAGES = ("jgd", "jax", "jaxlib", "optax", "chex", "tqdm", "orbax-checkpoint", "matplotlib", "scikit-learn")


def report() -> int:
    """Prints the report.

    Returns:
        0 if the self-check passes, 1 otherwise.
    """
    print(f"python {platform.python_version()} on {platform.platform()}")
    for package in PACKAGES:
        print(f"  {package:<18}{_version(package)}")
    for device in jax.devices():
        print(f"device {device.id}: {device.device_kind} ({device.platform})")
    print(f"x64: {'on' if jax.dtypes.canonicalize_dtype(float) == np.float64 else 'off'}")
    bandwidth = memory_bandwidth()
    print(f"memory bandwidth: {bandwidth / 1e9:.1f} GB/s (read and write counted)")
    print(f"  at 28 bytes a float32 parameter, AdamW takes at least {28e6 / bandwidth * 1e3:.2f} ms a million")
    errors = self_check()
    worst = max(errors.values())
    for name, error in errors.items():
        print(f"  {name:<18}one step is {error:.1e} from the float64 result, relative")
    # Float32 rounds to 6e-8; the square root, the quotients and the sums of a step amount to a few times that.
    passed = worst < 2e-6
    print(f"self-check: {'passed' if passed else 'FAILED: results on this device are not to be trusted'}")
    return 0 if passed else 1


def _version(package: str) -> str:
    if package == "jgd":
        return jgd.__version__  # this one, installed or not
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def memory_bandwidth(size: int = 1 << 26, repeats: int = 9) -> float:
    """Bytes a second read and written by `x + 1` on `size` float32 numbers, too many for a cache; a median."""
    # In place: the time that a system takes to allocate memory does not count.
    add_one = jax.jit(lambda x: x + 1, donate_argnums=0)
    x = add_one(jnp.ones(size, jnp.float32)).block_until_ready()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        x = add_one(x).block_until_ready()
        seconds.append(time.perf_counter() - start)
    return 2 * 4 * size / statistics.median(seconds)


def self_check() -> dict[str, float]:
    """One compiled step of some rules on the default device, against the same formula in NumPy's float64.

    Returns:
        For each rule the error of the updated params relative to the size of the update.
    """
    rng = np.random.default_rng(0)
    params, grads = rng.normal(size=1000), rng.normal(size=1000) * 10.0 ** rng.uniform(-4, 2, size=1000)
    params, grads = params.astype(np.float32), grads.astype(np.float32)
    p, g, rate, decay = params.astype(np.float64), grads.astype(np.float64), np.float32(0.1), np.float32(0.01)
    rate, decay = float(rate), float(decay)
    expected = {
        "gradient_descent": -rate * g,
        "sgd": -rate * (g + float(np.float32(0.9)) * g),
        "adamw": -rate * (g / (np.abs(g) + float(np.float32(1e-8))) + decay * p),
        "lion": -rate * (np.sign(g) + decay * p),
    }
    optimizers = {
        "gradient_descent": jgd.gradient_descent(0.1),
        "sgd": jgd.sgd(0.1, momentum=0.9, nesterov=True),
        "adamw": jgd.adamw(0.1, weight_decay=0.01),
        "lion": jgd.lion(0.1, weight_decay=0.01),
    }
    return {name: _error(optimizers[name], params, grads, truth) for name, truth in expected.items()}


def _error(optimizer: jgd.Optimizer, params: np.ndarray, grads: np.ndarray, truth: np.ndarray) -> float:
    state = optimizer.init(jnp.asarray(params))
    updates: Array = jax.jit(optimizer.update)(jnp.asarray(grads), state, jnp.asarray(params))[0]
    return float(np.max(np.abs(np.asarray(updates, np.float64) - truth) / np.abs(truth)))


if __name__ == "__main__":
    sys.exit(report())
