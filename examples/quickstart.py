"""Gradient descent in one dimension: minimize (w - 2)^2 from w = 5.

Run it:  python examples/quickstart.py    (3 seconds)

It prints a gradient of 6.0 and an updated weight of 4.4, then runs until there is nothing left to gain. With a learning
rate of 0.1 that takes 70 steps. With 1.1 every step overshoots by more than the one before, and jgd stops at step 238
and says so. With 0.001 the weight crawls, and has come no further than 2.405 after 1,000 steps.
"""

import jax
import jax.numpy as jnp

import jgd

START, MAX_STEPS, TOLERANCE = 5.0, 1000, 1e-6


def loss_fn(w: jax.Array) -> jax.Array:
    return (w - 2.0) ** 2


def one_step() -> tuple[float, float]:
    """A gradient, an update, an addition. Everything else in the library is this, compiled and watched."""
    optimizer = jgd.gradient_descent(learning_rate=0.1)
    w = jnp.array(START)
    opt_state = optimizer.init(w)
    gradient = jax.grad(loss_fn)(w)  # 2 (5 - 2) = 6
    updates, opt_state = optimizer.update(gradient, opt_state, w)  # -0.1 * 6, against the gradient
    w = jgd.apply_updates(w, updates)
    return float(gradient), float(w)


def descend(learning_rate: float) -> tuple[float, int, str]:
    """Steps until the gradient is tiny or MAX_STEPS are over: the last weight, the steps made, why they ended."""
    optimizer = jgd.gradient_descent(learning_rate)
    # make_step takes a loss of params and a batch of data. Here are no data: the batch is (), and one batch an epoch.
    step = jgd.make_step(lambda w, _: loss_fn(w), optimizer)
    state = jgd.TrainState.create(jnp.array(START), optimizer)
    try:
        state, history = jgd.fit(state, step, [()], epochs=MAX_STEPS, tol=TOLERANCE, progress=False)
    except jgd.NonFiniteError as error:  # it holds the state from before the step that went wrong
        return float(error.state.params), error.step, f"diverged: the {error.leaf} no longer fits a float32"
    steps, gradient = len(history["loss"]), history["grad_norm"][-1]
    if history["stopped"] == "converged":
        return float(state.params), steps, f"converged: the gradient is at most {TOLERANCE:g}"
    return float(state.params), steps, f"out of steps: the gradient is still {gradient:.2f}"


def main() -> dict[str, float]:
    gradient, weight = one_step()
    print(f"one step from w = {START} with learning rate 0.1")
    print(f"  gradient        {gradient:.1f}")
    print(f"  updated weight  {weight:.1f}")
    results: dict[str, float] = {"gradient": gradient, "weight": weight}

    print(f"\nat most {MAX_STEPS:,} steps")
    print("  learning rate  steps        w  why it ended")
    # A step multiplies the distance to 2 by 1 - 2 * learning_rate: by 0.8, by -1.2 and by 0.998.
    for learning_rate in (0.1, 1.1, 0.001):
        w, steps, reason = descend(learning_rate)
        print(f"  {learning_rate:>13}  {steps:>5}  {w:>7.4g}  {reason}")
        results |= {f"w_{learning_rate}": w, f"steps_{learning_rate}": steps}
    return results


if __name__ == "__main__":
    main()
