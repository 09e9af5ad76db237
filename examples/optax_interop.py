"""jgd and optax side by side: an optimizer of jgd is one of optax, and the other way round.

Run it:  python examples/optax_interop.py    (20 seconds)

Each row of the table trains the same small network twice for 50 steps, once with pure optax and once with jgd in it
somewhere, and prints the largest difference of the params, which are around 1, at the end. It is at most 1e-5 in every
row, and that is float32's rounding: in float64 the last line finds a difference of 1e-15. The same line says on whose
side the rounding is: from the float64 result, optax's Adam is 3e-06 away and jgd's 6e-07.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import jgd
import jgd as optax_by_name  # what `import jgd as optax` does to code that exists

STEPS = 50
Batch = tuple[jax.Array, jax.Array]


def problem() -> tuple[dict[str, jax.Array], list[Batch]]:
    """Params of a small network, and batches of 32 points of a sine."""
    w1, w2, data = jax.random.split(jax.random.key(0), 3)
    params = {
        "w1": jax.random.normal(w1, (1, 32)),
        "b1": jnp.zeros(32),
        "w2": jax.random.normal(w2, (32, 1)) / np.sqrt(32),
    }
    xs = jax.random.uniform(data, (STEPS, 32, 1), minval=-2, maxval=2)
    return params, [(x, jnp.sin(2 * x)) for x in xs]


def loss_fn(params: dict[str, jax.Array], batch: Batch) -> jax.Array:
    x, y = batch
    return jnp.mean((jnp.tanh(x @ params["w1"] + params["b1"]) @ params["w2"] - y) ** 2)


def by_hand(optimizer: optax.GradientTransformation, params: Any, batches: list[Batch]) -> Any:
    """The loop that everyone who uses optax has written. It does not know whose optimizer it is given."""
    opt_state = optimizer.init(params)

    @jax.jit
    def step(params: Any, opt_state: Any, batch: Batch) -> tuple[Any, Any]:
        grads = jax.grad(loss_fn)(params, batch)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    for batch in batches:
        params, opt_state = step(params, opt_state, batch)
    return params


def by_make_step(optimizer: optax.GradientTransformation, params: Any, batches: list[Batch]) -> Any:
    """The same by jgd, which takes optax's optimizers as well as its own."""
    state = jgd.TrainState.create(params, optimizer)
    step = jgd.make_step(loss_fn, optimizer)
    for batch in batches:
        state, _ = step(state, batch)
    return state.params


def difference(a: Any, b: Any) -> float:
    """The largest between two trees of the same shapes, whatever their containers are called."""
    return max(float(jnp.max(jnp.abs(x - y))) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


# Optimizers: pure optax on the left, with jgd in it on the right.
PAIRS: dict[str, tuple[optax.GradientTransformation, optax.GradientTransformation]] = {
    "jgd in optax.chain": (
        optax.chain(optax.clip_by_global_norm(0.5), optax.adamw(1e-2)),
        optax.chain(optax.clip_by_global_norm(0.5), jgd.adamw(1e-2)),
    ),
    "optax in jgd.chain": (
        optax.chain(optax.scale_by_adam(), optax.add_decayed_weights(1e-3), optax.scale_by_learning_rate(1e-2)),
        jgd.chain(optax.scale_by_adam(), jgd.add_decayed_weights(1e-3), jgd.scale_by_learning_rate(1e-2)),
    ),
    "optax.MultiSteps": (  # one update for every two batches
        optax.MultiSteps(optax.lion(1e-3), every_k_schedule=2).gradient_transformation(),
        optax.MultiSteps(jgd.lion(1e-3), every_k_schedule=2).gradient_transformation(),
    ),
    # Both keep the learning rate in the state. jgd does so without this wrapper; inside it works all the same.
    "optax.inject_hyperparams": (
        optax.inject_hyperparams(optax.sgd)(learning_rate=optax.linear_schedule(0.1, 0.0, STEPS), momentum=0.9),
        optax.inject_hyperparams(jgd.sgd)(learning_rate=optax.linear_schedule(0.1, 0.0, STEPS), momentum=0.9),
    ),
    "import jgd as optax": (optax.adam(1e-2), optax_by_name.adam(1e-2)),
}


def train_nnx(make_optimizer: Callable[..., Any], batches: list[Batch]) -> Any:
    """Flax: its own Optimizer holds ours, and changes the model in place."""

    class Model(nnx.Module):
        def __init__(self, rngs: nnx.Rngs):
            self.hidden = nnx.Linear(1, 32, rngs=rngs)
            self.out = nnx.Linear(32, 1, rngs=rngs)

        def __call__(self, x: jax.Array) -> jax.Array:
            return self.out(jnp.tanh(self.hidden(x)))

    model = Model(nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, make_optimizer(1e-2), wrt=nnx.Param)

    @nnx.jit
    def step(model: Model, optimizer: nnx.Optimizer, batch: Batch) -> None:
        x, y = batch
        grads = nnx.grad(lambda model: jnp.mean((model(x) - y) ** 2))(model)
        optimizer.update(model, grads)

    for batch in batches:
        step(model, optimizer, batch)
    return nnx.state(model, nnx.Param)


def train_nnx_functional(make_optimizer: Callable[..., Any], batches: list[Batch]) -> Any:
    """Flax again, with make_step: the model is split into its graph, which stays, and its params, which train."""
    model = nnx.Sequential(nnx.Linear(1, 32, rngs=nnx.Rngs(0)), jnp.tanh, nnx.Linear(32, 1, rngs=nnx.Rngs(1)))
    graph, params = nnx.split(model, nnx.Param)

    def loss(params: Any, batch: Batch) -> jax.Array:
        x, y = batch
        return jnp.mean((nnx.merge(graph, params)(x) - y) ** 2)

    optimizer = make_optimizer(1e-2)
    state = jgd.TrainState.create(params, optimizer)
    step = jgd.make_step(loss, optimizer)
    for batch in batches:
        state, _ = step(state, batch)
    return state.params


def train_equinox(make_optimizer: Callable[..., Any], batches: list[Batch]) -> Any:
    """Equinox: a model is a pytree; its arrays train, the rest (activations, sizes) stays."""
    model = eqx.nn.MLP(1, 1, 32, depth=1, activation=jnp.tanh, key=jax.random.key(0))
    params, static = eqx.partition(model, eqx.is_inexact_array)

    def loss(params: Any, batch: Batch) -> jax.Array:
        x, y = batch
        return jnp.mean((jax.vmap(eqx.combine(params, static))(x) - y) ** 2)

    optimizer = make_optimizer(1e-2)
    state = jgd.TrainState.create(params, optimizer)
    step = jgd.make_step(loss, optimizer)
    for batch in batches:
        state, _ = step(state, batch)
    return state.params


def main() -> dict[str, float]:
    params, batches = problem()
    print(f"{STEPS} steps; the largest difference of any param to pure optax")
    print("                                 by hand   make_step")
    results: dict[str, float] = {}
    for name, (pure, mixed) in PAIRS.items():
        reference = by_hand(pure, params, batches)
        hand, step = (difference(reference, train(mixed, params, batches)) for train in (by_hand, by_make_step))
        results[name] = max(hand, step)
        print(f"{name:<30}  {hand:>8.0e}  {step:>10.0e}")

    pure = optax.adamw(1e-2)
    results["optax in make_step"] = difference(by_hand(pure, params, batches), by_make_step(pure, params, batches))
    print(f"{'pure optax in make_step':<30}  {'':>8}  {results['optax in make_step']:>10.0e}")

    for name, train in (
        ("flax: nnx.Optimizer", train_nnx),
        ("flax: nnx.split", train_nnx_functional),
        ("equinox: eqx.partition", train_equinox),
    ):
        results[name] = difference(train(optax.adamw, batches), train(jgd.adamw, batches))
        columns = (f"{results[name]:.0e}", "") if train is train_nnx else ("", f"{results[name]:.0e}")
        print(f"{name:<30}  {columns[0]:>8}  {columns[1]:>10}".rstrip())

    # Adam divides by 1 - b2^t, which starts at 0.001: taken as a difference in float32 it has lost three digits.
    single = [by_hand(make(1e-2), params, batches) for make in (optax.adamw, jgd.adamw)]
    with jax.enable_x64(True):
        params, batches = jax.tree.map(lambda leaf: jnp.array(leaf, jnp.float64), (params, batches))
        double = [by_hand(make(1e-2), params, batches) for make in (optax.adamw, jgd.adamw)]
        results["float64"] = difference(*double)
        results["optax_rounding"], results["jgd_rounding"] = (difference(one, double[0]) for one in single)
    print(
        f"\nadamw in float64: {results['float64']:.0e} apart. In float32 optax is {results['optax_rounding']:.0e}"
        f" and jgd {results['jgd_rounding']:.0e} away from that."
    )
    return results


if __name__ == "__main__":
    main()
