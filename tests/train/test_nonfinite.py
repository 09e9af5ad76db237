"""A loss or gradient that is not finite: seen, named, and never let into the state unasked."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jgd

OPTIMIZER = jgd.chain(jgd.clip_by_global_norm(1.0), jgd.adam(0.1))


def loss_fn(params, batch):
    """The gradient at `b` alone is poisoned by the batch's `b`, that at `c` as well by its `c`."""
    return jnp.sum(params["a"] ** 2) + jnp.sum(params["b"]) * batch["b"] + jnp.sum(params["c"]) * batch["c"]


@functools.cache
def step_that(on_nonfinite):
    """One step for all tests, compiled once."""
    return jgd.make_step(loss_fn, OPTIMIZER, on_nonfinite=on_nonfinite)


def batch(b=1.0, c=1.0):
    return {"b": np.float32(b), "c": np.float32(c)}


def start():
    return jgd.TrainState.create({name: np.ones(2, np.float32) for name in "abc"}, OPTIMIZER, key=None)


def assert_equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def after(steps):
    state = start()
    for _ in range(steps):
        state, _ = step_that("raise")(state, batch())
    return state


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_the_error_names_the_first_bad_leaf_and_the_step_and_holds_the_state_before(bad):
    step, state = step_that("raise"), after(3)
    with pytest.raises(jgd.NonFiniteError, match=r"step 3: the gradient at \['b'\] is not finite") as caught:
        step(state, batch(b=bad, c=bad))
    assert isinstance(caught.value, FloatingPointError)
    assert (caught.value.step, caught.value.leaf) == (3, "['b']")
    assert_equal(caught.value.state, after(3))
    state, metrics = step(caught.value.state, batch())  # and one can go on from there
    assert bool(metrics["finite"])
    assert_equal(state, after(4))


def test_a_loss_that_is_bad_by_itself_is_named():
    step = jgd.make_step(lambda p, batch: jnp.sum(p) + jax.lax.stop_gradient(batch), OPTIMIZER)
    with pytest.raises(jgd.NonFiniteError, match=r"step 0: the loss is not finite \(the loss is nan\)"):
        step(jgd.TrainState.create(jnp.ones(2), OPTIMIZER), jnp.nan)


def test_skipping_moves_nothing_but_the_step():
    step = step_that("skip")
    state, metrics = step(after(3), batch(b=float("nan")))
    assert not bool(metrics["finite"])
    assert_equal(state, after(3)._replace(step=jnp.int32(4)))
    state, _ = step(state, batch())
    assert_equal(state, after(4)._replace(step=jnp.int32(5)))


def test_what_a_model_remembers_of_a_skipped_batch_is_dropped():
    def remembering(params, model_state, batch):
        return jnp.sum(params * batch), (batch, None)

    step = jgd.make_step(remembering, jgd.sgd(0.1), on_nonfinite="skip")
    state = jgd.TrainState.create(np.ones(1), jgd.sgd(0.1), model_state=np.float32(0))
    remembered = []
    for value in (1.0, np.nan, 3.0):
        state, _ = step(state, np.float32(value))
        remembered.append(float(state.model_state))
    assert remembered == [1, 1, 3]


def test_ignoring_makes_the_update():
    state, metrics = step_that("ignore")(start(), batch(b=float("nan")))
    assert not bool(metrics["finite"])
    assert np.any(np.isnan(state.params["b"]))


def test_large_finite_gradients_count_as_finite():
    # Their squares overflow float32, and so does their norm.
    step = jgd.make_step(lambda p, batch: jnp.sum(p * batch), jgd.gradient_descent(0.1))
    state = jgd.TrainState.create(jnp.zeros(2), jgd.gradient_descent(0.1))
    state, metrics = step(state, jnp.float32(1e30))
    assert bool(metrics["finite"])
    np.testing.assert_allclose(state.params, -1e29, rtol=1e-6)


def stacked(bad_at):
    b = np.ones(6, np.float32)
    b[list(bad_at)] = np.nan
    return {"b": b, "c": np.ones(6, np.float32)}


def test_a_scan_stops_at_the_bad_step_and_names_it():
    run = jgd.scan_steps(step_that("raise"))
    with pytest.raises(jgd.NonFiniteError, match=r"step 2: the gradient at \['b'\]") as caught:
        run(start(), stacked([2, 4]))
    assert_equal(caught.value.state, after(2))


def test_a_scan_that_skips_goes_on():
    run = jgd.scan_steps(step_that("skip"))
    state, metrics = run(start(), stacked([2, 4]))
    np.testing.assert_array_equal(metrics["finite"], [1, 1, 0, 1, 0, 1])
    assert_equal(state, after(4)._replace(step=jnp.int32(6)))


def test_fit_stops_at_the_bad_step_however_late_it_looks():
    batches = [batch(), batch(), batch(b=float("nan")), batch(), batch()]
    with pytest.raises(jgd.NonFiniteError, match=r"step 2: the gradient at \['b'\]") as caught:
        jgd.fit(start(), step_that("raise"), batches, epochs=2, progress=False, fetch_every=100)
    assert_equal(caught.value.state, after(2))


def test_fit_counts_what_it_skips():
    batches = [batch(), batch(b=float("nan")), batch()]
    state, history = jgd.fit(start(), step_that("skip"), batches, epochs=1, progress=False)
    assert history["epoch_nonfinite"].tolist() == [1]
    assert_equal(state.params, after(2).params)


def test_a_state_whose_dtypes_change_goes_through_a_step_all_the_same():
    # As some of optax's do at the first update: the branches of a conditional may not differ so.
    drifting = optax.GradientTransformation(
        lambda params: jnp.zeros((), jnp.bfloat16),
        lambda grads, state, params=None: (jax.tree.map(jnp.negative, grads), state + jnp.float32(1)),
    )
    step = jgd.make_step(lambda w, batch: jnp.sum((w - batch) ** 2), drifting)
    state, _ = step(jgd.TrainState.create(jnp.zeros(2), drifting), jnp.ones(2))
    assert state.opt_state.dtype == jnp.float32
    np.testing.assert_allclose(state.params, 2.0)


@pytest.mark.skipif(
    jax.version.__version_info__ < (0, 10, 2), reason="XLA of jaxlib 0.10.0 copies the state all the same"
)
@pytest.mark.usefixtures("as_compiled_for_users")
@pytest.mark.parametrize(("norms", "copies"), [(True, 1.3), (False, 0.3)])  # with norms, of the updates alone
def test_a_step_that_may_stay_holds_no_second_copy_of_the_state(norms, copies):
    optimizer = jgd.adamw(0.1)
    step = jgd.make_step(lambda w, batch: jnp.sum(w * batch), optimizer, norms=norms)
    params = jnp.ones((512, 512))
    state = jgd.TrainState.create(params, optimizer)
    compiled = step.compiled.lower(state, params, np.array(True)).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < copies * params.nbytes  # the gradient is the batch here
    assert " copy(f32[512,512]" not in compiled.as_text()


def test_under_vmap_nothing_is_raised_and_the_bad_one_stays_where_it_was():
    optimizer = jgd.sgd(0.1)
    step = jgd.make_step(lambda w, batch: jnp.mean(batch * w), optimizer, on_nonfinite="raise")
    states = jax.vmap(lambda w: jgd.TrainState.create(w, optimizer))(jnp.ones(3))
    new, metrics = jax.vmap(step)(states, jnp.array([1.0, jnp.nan, 2.0]))
    np.testing.assert_array_equal(metrics["finite"], [True, False, True])
    np.testing.assert_array_equal(new.step, [1, 0, 1])
    np.testing.assert_allclose(new.params, [0.9, 1.0, 0.8], rtol=1e-6)
