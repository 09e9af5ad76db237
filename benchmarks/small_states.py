"""Does training with small states end where it does with float32, and what does a step cost?

    python benchmarks/small_states.py                              # everything; about half an hour on two cores
    python benchmarks/small_states.py --parts states --tasks mlp --steps 200 --seeds 1

Three tables in Markdown.

- `states`: AdamW with a state in float32, int8 and bfloat16 on three tasks: two nets that read handwritten digits under
  noise, and a small GPT that writes Python's own documentation letter by letter. All see the same params, batches and
  learning rates at first. The loss is taken over the same examples after the last step, whose rate is near zero.
- `params`: bfloat16 params with split master weights against float32 params on the small GPT. All losses are taken at
  the params rounded to bfloat16, along the run, over the same examples: what a user of bfloat16 params would see.
- `cost`: bytes of state a parameter and the time of one update, on the trees of `benchmarks/trees.py`.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pydoc_data import topics
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.datasets import load_digits
from trees import TREES, describe

import jgd

Params = dict[str, Any]
Batch = tuple[jax.Array, jax.Array]
STATES = ("float32", "int8", "bfloat16")


class Task(NamedTuple):
    """One thing to learn: params from a key, the mean loss of a batch, and batches by the generator's seed."""

    init: Callable[[jax.Array], Params]
    loss: Callable[[Params, Batch], jax.Array]
    batch: Callable[[np.random.Generator, int], Batch]
    batch_size: int
    steps: int
    peak: float


def dense(key: jax.Array, fan_in: int, *shape: int) -> jax.Array:
    return jax.random.normal(key, shape) * np.sqrt(1 / fan_in)


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    picked = jnp.take_along_axis(jax.nn.log_softmax(logits), labels[..., None], axis=-1)
    return -jnp.mean(picked)


# Digits under noise: without it, both nets would know all of them by heart, and a loss near zero says little.

IMAGES, LABELS = load_digits(return_X_y=True)
IMAGES = (IMAGES / 16).astype(np.float32)


def noisy_digits(rng: np.random.Generator, size: int) -> Batch:
    chosen = rng.integers(0, len(IMAGES), size)
    noise = rng.normal(0, 0.4, (size, 64)).astype(np.float32)
    return jnp.asarray(IMAGES[chosen] + noise), jnp.asarray(LABELS[chosen])


def mlp_init(key: jax.Array) -> Params:
    sizes = (64, 256, 256, 10)
    layers = zip(jax.random.split(key, 3), sizes, sizes[1:], strict=False)
    return {f"dense{i}": {"w": dense(k, n, n, m), "b": jnp.zeros(m)} for i, (k, n, m) in enumerate(layers)}


def mlp_loss(params: Params, batch: Batch) -> jax.Array:
    x = batch[0]
    for i in range(3):
        x = x @ params[f"dense{i}"]["w"] + params[f"dense{i}"]["b"]
        x = jax.nn.relu(x) if i < 2 else x
    return cross_entropy(x, batch[1])


def cnn_init(key: jax.Array) -> Params:
    keys = jax.random.split(key, 4)
    return {
        "conv0": {"w": dense(keys[0], 9, 3, 3, 1, 32), "b": jnp.zeros(32)},
        "conv1": {"w": dense(keys[1], 288, 3, 3, 32, 64), "b": jnp.zeros(64)},
        "dense": {"w": dense(keys[2], 1024, 1024, 64), "b": jnp.zeros(64)},
        "out": {"w": dense(keys[3], 64, 64, 10), "b": jnp.zeros(10)},
    }


def cnn_loss(params: Params, batch: Batch) -> jax.Array:
    x = batch[0].reshape(-1, 8, 8, 1)
    for name, stride in (("conv0", 1), ("conv1", 2)):
        x = jax.lax.conv_general_dilated(
            x, params[name]["w"], (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        x = jax.nn.relu(x + params[name]["b"])
    x = jax.nn.relu(x.reshape(len(x), -1) @ params["dense"]["w"] + params["dense"]["b"])
    return cross_entropy(x @ params["out"]["w"] + params["out"]["b"], batch[1])


TEXT = np.frombuffer("\n".join(topics.topics.values()).encode("ascii", "ignore"), np.uint8)
LETTERS, WIDTH, HEADS, LAYERS, CONTEXT = 128, 96, 4, 2, 64


def passages(rng: np.random.Generator, size: int) -> Batch:
    starts = rng.integers(0, len(TEXT) - CONTEXT - 1, size)
    text = TEXT[starts[:, None] + np.arange(CONTEXT + 1)].astype(np.int32)
    return jnp.asarray(text[:, :-1]), jnp.asarray(text[:, 1:])


def gpt_init(key: jax.Array) -> Params:
    keys = iter(jax.random.split(key, 3 + 4 * LAYERS))
    params: Params = {
        "letters": 0.1 * dense(next(keys), 1, LETTERS, WIDTH),
        "places": 0.1 * dense(next(keys), 1, CONTEXT, WIDTH),
        "out": dense(next(keys), WIDTH, WIDTH, LETTERS),
    }
    for i in range(LAYERS):
        params[f"layer{i}"] = {
            "qkv": dense(next(keys), WIDTH, WIDTH, 3 * WIDTH),
            "mixed": dense(next(keys), WIDTH * 2 * LAYERS, WIDTH, WIDTH),
            "up": dense(next(keys), WIDTH, WIDTH, 4 * WIDTH),
            "down": dense(next(keys), 4 * WIDTH * 2 * LAYERS, 4 * WIDTH, WIDTH),
            "scales": jnp.ones((2, WIDTH)),
        }
    return params


def normalized(x: jax.Array, scale: jax.Array) -> jax.Array:
    return x * jax.lax.rsqrt(jnp.mean(x**2, axis=-1, keepdims=True) + 1e-6) * scale


def gpt_loss(params: Params, batch: Batch) -> jax.Array:
    x = params["letters"][batch[0]] + params["places"]
    for i in range(LAYERS):
        layer = params[f"layer{i}"]
        heads = (*x.shape[:2], HEADS, WIDTH // HEADS)
        q, k, v = (part.reshape(heads) for part in jnp.split(normalized(x, layer["scales"][0]) @ layer["qkv"], 3, -1))
        mixed = jax.nn.dot_product_attention(q, k, v, is_causal=True)
        x = x + mixed.reshape(x.shape) @ layer["mixed"]
        x = x + jax.nn.gelu(normalized(x, layer["scales"][1]) @ layer["up"]) @ layer["down"]
    return cross_entropy(normalized(x, jnp.ones(WIDTH)) @ params["out"], batch[1])


TASKS = {
    "mlp": Task(mlp_init, mlp_loss, noisy_digits, 64, 800, 2e-3),
    "cnn": Task(cnn_init, cnn_loss, noisy_digits, 64, 400, 2e-3),
    "gpt": Task(gpt_init, gpt_loss, passages, 16, 500, 3e-3),
}


def rates(task: Task, steps: int) -> np.ndarray:
    """A short rise, then half a cosine down to zero."""
    at = np.arange(steps) / steps
    return (task.peak * np.minimum(at / 0.05, 1) * 0.5 * (1 + np.cos(np.pi * at))).astype(np.float32)


def examples(task: Task) -> list[Batch]:
    """What the losses of all runs are taken over."""
    rng = np.random.default_rng(1234)
    return [task.batch(rng, 512 if task is not TASKS["gpt"] else 64) for _ in range(8)]


def train(
    task: Task, optimizer: jgd.Optimizer, seed: int, steps: int, params: Params, look: Callable[[int, Params], None]
) -> None:
    """Runs the task; `look(step, params)` before each step and after the last."""

    @jax.jit
    def step(params: Params, state: Any, batch: Batch, rate: jax.Array) -> tuple[Params, Any]:
        state = jgd.set_hyperparams(state, learning_rate=rate)
        updates, state = optimizer.update(jax.grad(task.loss)(params, batch), state, params)
        return jgd.apply_updates(params, updates), state

    rng, state = np.random.default_rng(seed), optimizer.init(params)
    for i, rate in enumerate(rates(task, steps)):
        look(i, params)
        params, state = step(params, state, task.batch(rng, task.batch_size), rate)
    look(steps, params)


def mean_loss(task: Task) -> Callable[[Params], float]:
    held, loss = examples(task), jax.jit(task.loss)
    return lambda params: float(np.mean([loss(params, batch) for batch in held]))


def compare_states(name: str, seeds: int, steps: int | None, states: dict[str, Any]) -> dict[str, list[float]]:
    """Final losses by state, one a seed."""
    task = TASKS[name]
    total, evaluate = steps or task.steps, mean_loss(task)
    found: dict[str, list[float]] = {state: [] for state in states}
    for seed in range(seeds):
        for state, asked in states.items():

            def look(i: int, params: Params, state: str = state) -> None:
                if i == total:
                    found[state].append(evaluate(params))

            optimizer = jgd.adamw(0.0, weight_decay=0.01, state_dtype=asked)
            train(task, optimizer, seed, total, task.init(jax.random.key(seed)), look)
    return found


def print_states(found: dict[str, dict[str, list[float]]]) -> None:
    print("\n| task | state | final loss, mean | against float32, mean | by seed |\n| --- | --- | --- | --- | --- |")
    for name, by_state in found.items():
        base = np.array(by_state["float32"])
        for state, losses in by_state.items():
            change = 100 * (np.array(losses) / base - 1)
            total = 100 * (np.mean(losses) / np.mean(base) - 1)
            each = ", ".join(f"{value:+.2f}" for value in change)
            print(f"| {name} | {state} | {np.mean(losses):.4f} | {total:+.2f} % | {each} |")


def compare_params(seed: int, steps: int, every: int) -> dict[str, list[float]]:
    """Loss curves of the small GPT, taken at params rounded to bfloat16."""
    task = TASKS["gpt"]
    evaluate = mean_loss(task)
    half = jax.jit(lambda params: jax.tree.map(lambda p: p.astype(jnp.bfloat16), params))
    wide = jax.jit(lambda params: jax.tree.map(lambda p: p.astype(jnp.float32), params))
    plain = jgd.adamw(0.0, weight_decay=0.01)
    # A float32 run with gradients at rounded params, as bfloat16 params have them: what is left of the distance is what
    # the wrappers lose.
    rounded = task._replace(loss=lambda params, batch: task.loss(wide(half(params)), batch))
    kinds = {
        "float32": (task, plain, lambda p: p),
        "float32, rounded in the loss": (rounded, plain, lambda p: p),
        "bf16 + int16": (rounded, jgd.split_master_weights(plain), half),
        "bf16 + int8": (rounded, jgd.split_master_weights(plain, bits=8), half),
        "bf16 alone": (rounded, plain, half),
    }
    curves: dict[str, list[float]] = {kind: [] for kind in kinds}
    for kind, (objective, optimizer, cast) in kinds.items():

        def look(i: int, params: Params, kind: str = kind) -> None:
            if i % every == 0:
                curves[kind].append(evaluate(wide(half(params))))

        train(objective, optimizer, seed, steps, cast(task.init(jax.random.key(seed))), look)
    return curves


def print_params(curves: dict[str, list[float]], every: int) -> None:
    base, near = np.array(curves["float32"]), np.array(curves["float32, rounded in the loss"])
    print("\n| params | final loss | largest distance from float32 | from float32, rounded in the loss |")
    print("| --- | --- | --- | --- |")
    for kind, losses in curves.items():
        away = [100 * np.max(np.abs(np.array(losses) / other - 1)) for other in (base, near)]
        print(f"| {kind} | {losses[-1]:.4f} | {away[0]:.3f} % | {away[1]:.3f} % |")
    print(f"\nThe loss was taken every {every} steps, {len(base)} times.")


def time_updates(tree: str, rounds: int) -> dict[str, tuple[float, float]]:
    """Bytes of state a parameter and milliseconds an update, by state; by turns, medians."""
    rng = np.random.default_rng(0)
    shapes = TREES[tree]()
    grads = {leaf: jnp.asarray(0.01 * rng.standard_normal(shape, np.float32)) for leaf, shape in shapes.items()}

    def contestant(asked: str) -> tuple[Callable[[], None], float]:
        optimizer = jgd.adamw(1e-3, state_dtype=asked)
        params = {leaf: jnp.ones(shape) for leaf, shape in shapes.items()}

        def step(params: Any, state: Any, grads: Any) -> tuple[Any, Any]:
            updates, state = optimizer.update(grads, state, params)
            return jgd.apply_updates(params, updates), state

        compiled = jax.jit(step, donate_argnums=(0, 1))
        carried = [params, optimizer.init(params)]
        size = jgd.state_bytes(carried[1], params).per_parameter

        def run() -> None:
            carried[:] = compiled(*carried, grads)
            jax.block_until_ready(carried)

        return run, size or 0.0

    made = {asked: contestant(asked) for asked in STATES}
    times: dict[str, list[float]] = {asked: [] for asked in STATES}
    for i in range(rounds + 2):
        for asked, (run, _) in made.items():
            start = time.perf_counter()
            run()
            times[asked] += [1e3 * (time.perf_counter() - start)] if i > 1 else []
    return {asked: (made[asked][1], statistics.median(times[asked])) for asked in STATES}


def print_cost(found: dict[str, dict[str, tuple[float, float]]]) -> None:
    print("\n| tree | state | bytes a parameter | ms an update | against float32 |\n| --- | --- | --- | --- | --- |")
    for tree, by_state in found.items():
        for state, (size, ms) in by_state.items():
            print(f"| {tree} | {state} | {size:.3f} | {ms:.2f} | {ms / by_state['float32'][1]:.2f} |")


def main() -> None:
    """Measures what the command line asks for."""
    parser = argparse.ArgumentParser(description="Small states: final losses, bytes and times.")
    parser.add_argument("--parts", default="states,params,cost")
    parser.add_argument("--tasks", default=",".join(TASKS))
    parser.add_argument("--trees", default="gpt2tiny,resnet50")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, help="steps of a run, in place of each task's own")
    parser.add_argument("--rounds", type=int, default=20, help="updates that are timed")
    given = parser.parse_args()
    parts = given.parts.split(",")
    print(f"jax {jax.__version__} on {jax.devices()[0].device_kind}, jgd {jgd.__version__}", flush=True)
    if "states" in parts:
        states = {state: state for state in STATES}
        found = {}
        for name in given.tasks.split(","):
            found[name] = compare_states(name, given.seeds, given.steps, states)
            print(f"  {name} done", flush=True)
        print_states(found)
    if "params" in parts:
        steps = given.steps or 1000
        print_params(compare_params(0, steps, max(1, steps // 20)), max(1, steps // 20))
    if "cost" in parts:
        print("\n" + "; ".join(describe(tree) for tree in given.trees.split(",")))
        print_cost({tree: time_updates(tree, given.rounds) for tree in given.trees.split(",")})


if __name__ == "__main__":
    main()
