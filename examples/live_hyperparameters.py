"""Hyperparameters are data: change a learning rate in mid-run, sweep it, differentiate with respect to it.

Run it:  python examples/live_hyperparameters.py    (10 seconds)

A small network learns a sine, four times over:
1. the learning rate changes twice in mid-run, and the step is traced once;
2. 16 learning rates train at once, as one program, traced once; the best of them is 0.126;
3. the final loss is differentiated with respect to the learning rate, through all 100 steps of Adam: it agrees with a
   finite difference to 1e-9, and 15 steps of descent on the *logarithm of the learning rate* lead from 0.003 to 0.075,
   and the final loss from 9e-2 to 5e-5;
4. a schedule, and `learning_rate_scale`, the factor on it, which is how a scheduled run is changed.
"""

import textwrap
from typing import Any

import jax
import jax.numpy as jnp
import optax

import jgd

STEPS = 100
jax.config.update("jax_enable_x64", True)  # in float32 the finite difference would be mostly rounding

traces = 0  # jit runs the Python of a function only when it traces it; so we can count


def loss_fn(params: dict[str, jax.Array], batch: tuple[jax.Array, jax.Array]) -> jax.Array:
    global traces
    traces += 1
    x, y = batch
    hidden = jnp.tanh(x @ params["w1"] + params["b1"])
    return jnp.mean((hidden @ params["w2"] - y) ** 2)


def count_traces() -> int:
    """How often the loss was traced since the last call."""
    global traces
    counted, traces = traces, 0
    return counted


def problem() -> tuple[dict[str, jax.Array], tuple[jax.Array, jax.Array]]:
    """Params to start from, and 64 points of a sine."""
    w1, b1, w2 = jax.random.split(jax.random.key(0), 3)
    params = {
        "w1": jax.random.normal(w1, (1, 16)),
        "b1": jax.random.normal(b1, (16,)),
        "w2": jax.random.normal(w2, (16, 1)) / 4,  # 1 / sqrt(16)
    }
    x = jnp.linspace(-2, 2, 64)[:, None]
    return params, (x, jnp.sin(2 * x))


def change_in_mid_run(params: Any, batch: Any) -> int:
    print("1. a learning rate changed in mid-run")
    optimizer = jgd.adam(0.1)
    state = jgd.TrainState.create(params, optimizer)
    step = jgd.make_step(loss_fn, optimizer)
    for i in range(STEPS):
        if i in (50, 75):
            new_rate = jgd.get_hyperparams(state)["learning_rate"] / 10
            state = jgd.set_hyperparams(state, learning_rate=new_rate)
        state, metrics = step(state, batch)
        if i in (0, 49, 50, 74, 75, 99):
            print(f"   step {i:>2}  learning rate {metrics['learning_rate']:<6.3g} loss {metrics['loss']:.2e}")
    counted = count_traces()
    print(f"   traces of the loss in {STEPS} steps: {counted}")
    return counted


def main() -> dict[str, float]:
    params, batch = problem()
    step_traces = change_in_mid_run(params, batch)

    # From here on a whole run is one function of the learning rate. The factory's 0.1 is only where the state begins.
    optimizer = jgd.adam(0.1)
    start = jgd.TrainState.create(params, optimizer)
    run = jgd.scan_steps(jgd.make_step(loss_fn, optimizer, donate=False))  # `start` is used again and again
    batches = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (STEPS, *leaf.shape)), batch)

    def final_loss(learning_rate: jax.Array) -> jax.Array:
        _, metrics = run(jgd.set_hyperparams(start, learning_rate=learning_rate), batches)
        return metrics["loss"][-1]

    print("\n2. sixteen learning rates at once")
    rates = jnp.logspace(-3, 0.5, 16)
    losses = jax.jit(jax.vmap(final_loss))(rates)
    sweep_traces = count_traces()
    best = rates[jnp.argmin(losses)]
    for i in range(8):
        halves = [f"   {rate:>7.4f}  {loss:.2e}" for rate, loss in ((rates[j], losses[j]) for j in (i, i + 8))]
        print("      ".join(halves))
    print(f"   traces of the loss for 16 runs of {STEPS} steps: {sweep_traces}; best rate {best:.3f}")

    print("\n3. the derivative of log(final loss) with respect to log(learning rate)")

    # The logarithm of the rate, since rates differ by factors and stay positive; that of the loss, which falls by
    # factors as well.
    def objective(log_rate: jax.Array) -> jax.Array:
        return jnp.log(final_loss(jnp.exp(log_rate)))

    derivative = jax.jit(jax.value_and_grad(objective))
    log_rate, h = jnp.log(0.01), 1e-5  # error about h^2 = 1e-10 of the formula, and 1e-16 / h = 1e-11 of rounding
    exact = derivative(log_rate)[1]
    approximate = (derivative(log_rate + h)[0] - derivative(log_rate - h)[0]) / (2 * h)
    relative_error = float(jnp.abs(exact / approximate - 1))
    print(f"   at rate 0.01: {exact:.8f}, finite difference {approximate:.8f}, relative error {relative_error:.0e}")

    # Steps of 0.1 per unit of gradient: above a rate of about 0.1 the objective turns jagged, and long steps leap off.
    outer = jgd.gradient_descent(0.1)
    log_rate = jnp.log(0.003)
    outer_state = outer.init(log_rate)
    path: list[tuple[float, float]] = []
    for i in range(16):
        value, grad = derivative(log_rate)
        path.append((float(jnp.exp(log_rate)), float(jnp.exp(value))))
        if i % 3 == 0:
            print(f"   after {i:>2} steps on log(rate): rate {path[-1][0]:.4f}, final loss {path[-1][1]:.2e}")
        updates, outer_state = outer.update(grad, outer_state, log_rate)
        log_rate = jgd.apply_updates(log_rate, updates)

    print("\n4. a schedule and its scale")
    scheduled = jgd.adam(optax.cosine_decay_schedule(0.1, STEPS))
    state = jgd.TrainState.create(params, scheduled)
    step = jgd.make_step(loss_fn, scheduled)
    count_traces()
    metrics: dict[str, Any] = {}
    for i in range(STEPS):
        if i == 50:
            state = jgd.set_hyperparams(state, learning_rate_scale=0.5)
        state, metrics = step(state, batch)
        if i in (0, 49, 50, 75, 99):
            scale = jgd.get_hyperparams(state)["learning_rate_scale"]
            rate, loss = metrics["learning_rate"], metrics["loss"]
            print(f"   step {i:>2}  scale {scale:.1f}  learning rate {rate:.2e}  loss {loss:.2e}")
    schedule_traces = count_traces()
    print(f"   traces of the loss in {STEPS} steps: {schedule_traces}")
    try:
        jgd.set_hyperparams(state, learning_rate=0.1)
    except ValueError as error:  # it would be lost at the next step, so it is refused
        print(textwrap.fill(f"ValueError: {error}", 110, initial_indent="   ", subsequent_indent="   "))
    return {
        "step_traces": step_traces,
        "sweep_traces": sweep_traces,
        "schedule_traces": schedule_traces,
        "best_rate": float(best),
        "best_loss": float(jnp.min(losses)),
        "relative_error": relative_error,
        "first_loss": path[0][1],
        "tuned_rate": path[-1][0],
        "tuned_loss": path[-1][1],
        "scheduled_loss": float(metrics["loss"]),
    }


if __name__ == "__main__":
    main()
