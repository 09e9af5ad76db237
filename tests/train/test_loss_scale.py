"""Dynamic loss scaling for float16."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jgd
from jgd.train.guards._events import events_of
from jgd.train.guards._guard import Guard
from jgd.train.guards._loss_scale import LossScale, next_scale

OPTIMIZER = jgd.adam(0.01)


def loss_fn(p, batch):
    """The gradient of `tiny` is 1e-8 before scaling: zero in float16."""
    half = p["tiny"] * jnp.float16(1e-4)
    return jnp.mean(half * (batch["x"] * jnp.float16(1e-4))) + jnp.mean((p["w"] - batch["y"]) ** 2)


def batch(x=1.0, y=0.5):
    return {"x": np.full(4, x, np.float16), "y": np.full(4, y, np.float16), "id": np.arange(10, 14, dtype=np.int32)}


# The scale's numbers lie in the state: all scales have one program.
step_of = functools.cache(functools.partial(jgd.make_step, guard=Guard(loss_scale=LossScale())))


def make(scale=None, optimizer=OPTIMIZER, loss=loss_fn, **options):
    guard = Guard(loss_scale=scale or LossScale(initial=2.0**10))
    params = {"tiny": np.ones((), np.float16), "w": np.ones((), np.float16)}
    return step_of(loss, optimizer, **options), jgd.TrainState.create(params, optimizer, guard=guard)


def test_small_gradients_are_not_lost_and_are_unscaled_in_float32():
    assert float(jax.jit(jax.grad(loss_fn))({"tiny": np.float16(1), "w": np.float16(1)}, batch())["tiny"]) == 0
    step, state = make(optimizer=jgd.chain(jgd.clip_by_global_norm(1e9), jgd.adam(0.01)))
    state, metrics = step(state, batch())
    mu = state.opt_state[1].slots["mu"]
    np.testing.assert_allclose(mu["tiny"], 0.1 * 1e-8, rtol=0.02)  # float16 rounds 1e-4 by 0.3 percent
    np.testing.assert_allclose(metrics["grad_norm"], 1.0, rtol=1e-3)  # that of w: 2 (1 - 0.5)
    np.testing.assert_allclose(metrics["loss"], 0.25, rtol=1e-3)  # not multiplied
    assert mu["tiny"].dtype == jnp.float32


def test_an_overflow_is_left_out_and_halves_the_scale_and_good_steps_double_it():
    step, state = make(LossScale(initial=2.0**10, every=3))
    state, _ = step(state, batch())  # a good step before an overflow does not count
    before = jax.tree.map(np.array, state.params)
    state, metrics = step(state, batch(y=-100.0))  # the gradient 202 times 1024 is more than float16 holds
    assert (float(metrics["loss_scale"]), int(metrics["overflows"]), bool(metrics["finite"])) == (2.0**9, 1, False)
    assert (int(state.step), int(state.opt_state.count), int(metrics["skips"])) == (2, 1, 0)
    jax.tree.map(np.testing.assert_array_equal, state.params, before)
    (event,) = events_of(metrics, step=1, params=state.params, batch=batch())
    assert event == {
        "kind": "overflow", "step": 1, "action": "skip", "leaf": "['w']", "loss_scale": 512.0, "ids": [10, 11, 12, 13]
    }  # fmt: skip
    scales = []
    for _ in range(6):
        state, metrics = step(state, batch())
        scales.append(float(metrics["loss_scale"]))
        assert bool(metrics["finite"])
    assert scales == [512, 512, 1024, 1024, 1024, 2048]
    assert int(state.opt_state.count) == 7


@pytest.mark.parametrize("on_nonfinite", ["raise", "skip"])
def test_at_the_floor_an_overflow_is_an_error_or_a_skip(on_nonfinite):
    def always_infinite(p, batch):
        return loss_fn(p, batch) + 0 * jnp.sqrt(p["w"] * 0)  # a finite loss; its gradient is not

    step, state = make(LossScale(initial=4.0, floor=1.0), loss=always_infinite, on_nonfinite=on_nonfinite)
    for expected in (2.0, 1.0):
        state, metrics = step(state, batch())
        assert float(metrics["loss_scale"]) == expected
    if on_nonfinite == "raise":
        with pytest.raises(jgd.NonFiniteError, match=r"step 2: the gradient at \['w'\]") as caught:
            step(state, batch())
        assert float(caught.value.state.params["w"]) == 1
    else:
        state, metrics = step(state, batch())
        assert (float(metrics["loss_scale"]), int(metrics["skips"]), int(metrics["overflows"])) == (1.0, 1, 2)


def test_a_loss_that_is_not_finite_is_no_overflow():
    step, state = make()
    with pytest.raises(jgd.NonFiniteError, match="step 0"):
        step(state, batch(x=float("nan")))


def test_accumulation_unscales_each_part_and_scans_equal_loops():
    def with_aux(p, b):
        return loss_fn(p, b), {"seen": jnp.mean(b["x"])}

    step, state = make(accumulate=2, loss=with_aux, has_aux=True)
    batches = [batch(), batch(y=-100.0), batch(y=0.25)]
    scales = []
    for one in batches:
        state, metrics = step(state, one)
        scales.append(float(metrics["loss_scale"]))
    assert scales == [1024, 512, 512]
    assert float(metrics["aux"]["seen"]) == 1
    np.testing.assert_allclose(state.opt_state.slots["mu"]["tiny"], (0.1 + 0.09) * 1e-8, rtol=0.02)
    _, start = make(accumulate=2)
    scanned, numbers = jgd.scan_steps(step)(start, jax.tree.map(lambda *leaves: np.stack(leaves), *batches))
    assert numbers["loss_scale"].tolist() == scales
    jax.tree.map(np.testing.assert_array_equal, scanned, state)


def test_an_optimizer_that_evaluates_again_is_given_true_gradients():
    def again(grads, state, params=None, *, grad_fn, **extra):
        return jax.tree.map(lambda g: -0.1 * g, grad_fn(params, state)), state

    optimizer = optax.GradientTransformationExtraArgs(lambda params: (), again)
    step, state = make(LossScale(initial=2.0**12), optimizer)
    state, metrics = step(state, batch())
    np.testing.assert_allclose(state.params["w"], 1 - 0.1, rtol=1e-3)
    np.testing.assert_allclose(metrics["update_norm"], 0.1, rtol=1e-3)  # not 4096 times that


def test_the_scale_stays_between_floor_and_ceiling():
    state, after = LossScale(initial=4.0, floor=2.0, ceiling=8.0, every=1).init(), jax.jit(next_scale)
    yes, no = np.array(True), np.array(False)
    up = after(after(state, no, yes), no, yes)
    down = after(after(state, yes, no), yes, no)
    assert (float(up.scale), float(down.scale), int(down.overflows)) == (8.0, 2.0, 2)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"initial": 0.5}, "0 < floor <= initial <= ceiling"),
        ({"backoff": 1.0}, "growth > 1 and 0 < backoff < 1"),
        ({"every": 0}, "every must be a whole number of at least 1; got 0"),
    ],
)
def test_numbers_that_cannot_be(given, message):
    with pytest.raises(ValueError, match=message):
        LossScale(**given)
