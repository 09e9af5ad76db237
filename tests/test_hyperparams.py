"""Hyperparameters are data: read, set, swept, differentiated, scheduled, and never a reason to compile again."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jgd


def bowl(w):
    """A quadratic of uneven curvature, with a bend that makes second derivatives matter."""
    return jnp.sum(jnp.array([1.0, 5.0, 0.2]) * (w - 1.0) ** 2) + 0.1 * jnp.sum(jnp.sin(w))


def loss_after(steps, optimizer, start=(3.0, -1.0, 0.5)):
    params = jnp.array(start)
    state = optimizer.init(params)
    for _ in range(steps):
        updates, state = optimizer.update(jax.grad(bowl)(params), state, params)
        params = jgd.apply_updates(params, updates)
    return bowl(params)


@pytest.mark.parametrize("make", [jgd.gradient_descent, jgd.adamw, jgd.muon], ids=lambda make: make.__name__)
def test_a_hundred_learning_rates_go_through_one_compiled_step(make):
    traces = []

    def loss_fn(params, batch):
        traces.append(1)
        return jnp.sum((params["w"] - batch) ** 2)

    optimizer = make(0.1)
    step = jgd.make_step(loss_fn, optimizer)
    state = jgd.TrainState.create({"w": jnp.ones((2, 2))}, optimizer)
    used = []
    for rate in np.linspace(0.001, 0.1, 100):
        state = jgd.set_hyperparams(state, learning_rate=rate)
        state, metrics = step(state, jnp.zeros((2, 2)))
        used.append(float(metrics["learning_rate"]))
    assert len(traces) == 1
    np.testing.assert_allclose(used, np.linspace(0.001, 0.1, 100), rtol=1e-6)


@pytest.mark.parametrize(
    "make",
    [jgd.gradient_descent, lambda rate: jgd.sgd(rate, momentum=0.9), jgd.adamw, jgd.lion, jgd.nadam],
    ids=["gradient_descent", "sgd", "adamw", "lion", "nadam"],
)
def test_a_sweep_under_vmap_equals_its_runs_one_by_one(make):
    rates = jnp.geomspace(1e-3, 0.1, 16)
    optimizer = make(0.1)

    def run(rate):
        params = jnp.array([3.0, -1.0, 0.5])
        state = jgd.set_hyperparams(optimizer.init(params), learning_rate=rate)
        for _ in range(10):
            updates, state = optimizer.update(jax.grad(bowl)(params), state, params)
            params = jgd.apply_updates(params, updates)
        return params

    solo = jnp.stack([jax.jit(run)(rate) for rate in rates])
    np.testing.assert_allclose(jax.jit(jax.vmap(run))(rates), solo, rtol=1e-6, atol=1e-6)


DIFFERENTIABLE = {
    "gradient_descent": lambda **kw: jgd.gradient_descent(**({"learning_rate": 0.02} | kw)),
    "sgd": lambda **kw: jgd.sgd(**({"learning_rate": 0.02, "momentum": 0.8} | kw)),
    "nesterov": lambda **kw: jgd.sgd(**({"learning_rate": 0.02, "momentum": 0.8, "nesterov": True} | kw)),
    "adam": lambda **kw: jgd.adam(**({"learning_rate": 0.05} | kw)),
    "adamw": lambda **kw: jgd.adamw(**({"learning_rate": 0.05, "weight_decay": 0.1} | kw)),
    "nadamw": lambda **kw: jgd.nadamw(**({"learning_rate": 0.05, "weight_decay": 0.1} | kw)),
    # Lion's direction is a sign: the derivative with respect to b1 and b2 is zero wherever it exists.
    "lion": lambda **kw: jgd.lion(**({"learning_rate": 0.01, "weight_decay": 0.1} | kw)),
    "clipped": lambda **kw: jgd.chain(jgd.clip_by_global_norm(0.5), jgd.sgd(**({"learning_rate": 0.05} | kw))),
}


@pytest.mark.parametrize(
    ("rule", "name", "value"),
    [("adam", "b1", 0.0), ("adam", "b2", 0.99), ("clipped", "learning_rate", 0.02), ("lion", "weight_decay", 0.1)]
    + [
        pytest.param(rule, "learning_rate", 0.02, marks=pytest.mark.slow)
        for rule in DIFFERENTIABLE
        if rule != "clipped"
    ]
    + [
        pytest.param(*rest, marks=pytest.mark.slow)
        for rest in [
            ("sgd", "momentum", 0.8),
            ("adam", "b1", 0.9),
            ("adamw", "weight_decay", 0.1),
            ("adam", "eps", 1e-2),
        ]
    ],
)
def test_the_derivative_of_the_loss_after_ten_steps_equals_a_central_difference(rule, name, value, x64):
    def final_loss(x):
        return loss_after(10, DIFFERENTIABLE[rule](**{name: x}))

    if value == 0.0:  # at the edge of its range a difference can only look inward: second order, one-sided
        h = 1e-6
        expected = (-3 * final_loss(0.0) + 4 * final_loss(h) - final_loss(2 * h)) / (2 * h)
    else:
        # The central difference of fourth order: h^4 is 1e-16, and rounding adds 1e-16 / h = 1e-12.
        h = 1e-4
        outer, inner = (final_loss(value + k * h) - final_loss(value - k * h) for k in (2, 1))
        expected = (8 * inner - outer) / (12 * h)
    np.testing.assert_allclose(jax.grad(final_loss)(value), expected, rtol=1e-6, atol=1e-8)


def test_the_derivative_reaches_what_stands_in_the_state(x64):
    optimizer = jgd.sgd(0.02, momentum=0.8)
    start = optimizer.init(jnp.ones(3))

    def final_loss(rate):
        params, state = jnp.array([3.0, -1.0, 0.5]), jgd.set_hyperparams(start, learning_rate=rate)
        for _ in range(10):
            updates, state = optimizer.update(jax.grad(bowl)(params), state, params)
            params = jgd.apply_updates(params, updates)
        return bowl(params)

    expected = (final_loss(0.03 + 1e-5) - final_loss(0.03 - 1e-5)) / 2e-5
    np.testing.assert_allclose(jax.grad(final_loss)(0.03), expected, rtol=1e-6)


def test_they_are_found_through_chains_of_both_libraries_and_in_a_training_state():
    inner = jgd.chain(jgd.clip_by_global_norm(2.0), jgd.adam(0.1))
    optimizer = optax.chain(optax.clip(1.0), inner)
    state = jgd.TrainState.create(jnp.ones(2), optimizer)
    state = jgd.set_hyperparams(state, max_norm=3.0, b1=0.5)
    found = jgd.get_hyperparams(state)
    assert set(found) == {"max_norm", "learning_rate", "b1", "b2", "eps", "eps_root"}
    assert (float(found["max_norm"]), float(found["b1"])) == (3.0, 0.5)


def test_a_name_in_two_parts_is_addressed_by_position():
    optimizer = jgd.chain(jgd.add_decayed_weights(0.1), jgd.adamw(0.1, weight_decay=0.2))
    state = optimizer.init(jnp.ones(2))
    assert {"0.weight_decay", "1.weight_decay", "learning_rate"} <= set(jgd.get_hyperparams(state))
    state = jgd.set_hyperparams(state, **{"1.weight_decay": 0.3})
    assert [round(float(part.hyperparams["weight_decay"]), 3) for part in state] == [0.1, 0.3]
    with pytest.raises(ValueError, match=r"weight_decay stands in several parts.*0\.weight_decay, 1\.weight_decay"):
        jgd.set_hyperparams(state, weight_decay=0.3)


def test_setting_leaves_the_old_state_and_its_dtypes_alone():
    state = jgd.adam(0.1).init(jnp.ones(2))
    for value in (np.float64(0.2), 0.2, 1):
        new = jgd.set_hyperparams(state, learning_rate=value)
        assert float(state.hyperparams["learning_rate"]) == pytest.approx(0.1)
        assert float(new.hyperparams["learning_rate"]) == pytest.approx(value)
        assert jax.tree.map(jax.typeof, new) == jax.tree.map(jax.typeof, state)


def test_a_state_of_optax_inject_hyperparams_is_read_and_set_too():
    optimizer = optax.inject_hyperparams(optax.adam)(learning_rate=0.1)
    state = jgd.set_hyperparams(optimizer.init(jnp.ones(2)), learning_rate=0.5)
    assert float(state.hyperparams["learning_rate"]) == 0.5


def test_a_schedule_runs_on_the_device_and_the_value_used_stands_in_the_state():
    optimizer = jgd.sgd(optax.linear_schedule(1.0, 0.0, 10), momentum=lambda count: 0.1 * count)
    traces = []

    @jax.jit
    def update(grad, state):
        traces.append(1)
        return optimizer.update(grad, state)

    state, seen = optimizer.init(jnp.zeros(1)), []
    for _ in range(4):
        _, state = update(jnp.ones(1), state)
        seen.append((float(state.hyperparams["learning_rate"]), float(state.hyperparams["momentum"])))
    np.testing.assert_allclose(seen, [(1.0, 0.0), (0.9, 0.1), (0.8, 0.2), (0.7, 0.3)], atol=1e-6)
    assert len(traces) == 1


def test_a_constant_schedule_equals_its_constant():
    for make in (jgd.sgd, jgd.adamw, jgd.muon):
        params = jnp.ones((2, 3))
        results = []
        for rate in (0.1, lambda count: 0.1):
            optimizer = make(rate)
            results.append(optimizer.update(params, optimizer.init(params), params)[0])
        np.testing.assert_array_equal(*results)


def test_the_scale_of_a_schedule_is_data():
    optimizer = jgd.gradient_descent(optax.linear_schedule(1.0, 0.0, 10))
    state = jgd.set_hyperparams(optimizer.init(jnp.zeros(1)), learning_rate_scale=0.5)
    updates, state = optimizer.update(jnp.ones(1), state)
    assert (float(updates[0]), float(state.hyperparams["learning_rate"])) == (-0.5, 0.5)
    with pytest.raises(ValueError, match=r"learning_rate follows a schedule.*learning_rate_scale"):
        jgd.set_hyperparams(state, learning_rate=0.1)


def test_a_swept_state_takes_one_value_for_all_or_one_for_each():
    optimizer = jgd.sgd(0.1)
    states = jax.vmap(lambda _: optimizer.init(jnp.zeros(2)))(jnp.arange(3))
    for value, expected in ((0.5, [0.5, 0.5, 0.5]), (jnp.array([1.0, 2.0, 3.0]), [1.0, 2.0, 3.0])):
        new = jgd.set_hyperparams(states, learning_rate=value)
        np.testing.assert_array_equal(new.hyperparams["learning_rate"], expected)
    with pytest.raises(ValueError, match=r"must be an array of shape \(3,\); got shape \(2,\)"):
        jgd.set_hyperparams(states, learning_rate=jnp.ones(2))


def test_what_the_state_holds_counts_and_not_what_the_factory_was_given():
    state = jgd.sgd(0.5).init(jnp.zeros(1))
    updates, _ = jgd.sgd(0.1).update(jnp.ones(1), state)
    assert float(updates[0]) == -0.5


@pytest.mark.parametrize("make", [jgd.momo, jgd.momo_adam])
def test_a_lower_bound_that_is_set_counts(make):
    params, grads = jnp.array([1.0, 2.0]), jnp.array([0.5, -1.0])

    def update(optimizer, state):
        return optimizer.update(grads, state, params, value=jnp.array(1.5))[0]

    made, other = make(0.5, lower_bound=1.0), make(0.5)
    changed = jgd.set_hyperparams(other.init(params), lower_bound=1.0)
    np.testing.assert_array_equal(update(other, changed), update(made, made.init(params)))
    assert np.any(update(other, changed) != update(other, other.init(params)))


def test_a_traced_value_given_beside_a_state_from_elsewhere_counts():
    state = jgd.sgd(0.5).init(jnp.zeros(1))
    updates = jax.jit(lambda rate: jgd.sgd(rate).update(jnp.ones(1), state)[0])(0.25)
    assert float(updates[0]) == -0.25


def test_a_value_set_within_the_program_that_made_the_state_counts():
    def run(rate):
        optimizer = jgd.sgd(rate)
        state = jgd.set_hyperparams(optimizer.init(jnp.zeros(1)), learning_rate=2 * rate)
        return optimizer.update(jnp.ones(1), state)[0]

    assert float(jax.jit(run)(0.25)[0]) == -0.5


def test_whether_init_was_called_changes_no_update():
    state = jgd.sgd(0.5).init(jnp.zeros(1))

    def run(rate):
        optimizer = jgd.sgd(rate)
        optimizer.init(jnp.zeros(1))
        return optimizer.update(jnp.ones(1), state)[0]

    assert float(jax.jit(run)(0.25)[0]) == -0.25


@pytest.mark.parametrize("made_here", [True, False])
def test_which_number_counts_stays_so_over_many_updates(made_here):
    elsewhere = jgd.chain(jgd.clip(9.0), jgd.sgd(1.0)).init(jnp.zeros(1))

    def run(rate):
        optimizer = jgd.chain(jgd.clip(9.0), jgd.sgd(rate))
        state = optimizer.init(jnp.zeros(1)) if made_here else elsewhere
        state = jgd.set_hyperparams(state, learning_rate=2 * rate)

        def body(state, _):
            updates, state = optimizer.update(jnp.ones(1), state)
            return state, updates[0]

        return jax.lax.scan(body, state, length=3)[1]

    np.testing.assert_array_equal(jax.jit(run)(0.25), [-0.5] * 3 if made_here else [-0.25] * 3)
