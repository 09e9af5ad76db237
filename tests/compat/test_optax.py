"""Optax's factories with hyperparameters as data."""

import inspect
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest
from cases import RULES
from optax_runs import first_params, largest_difference, loss_fn, make_step, run
from rows import Rule

import jgd
from jgd.compat.optax import lift

NEEDS_OTHER_GRADIENTS = ("dpsgd",)
KNOWN = {rule.name: rule for rule in RULES}
# One of each kind: plain; with numbers that stay Python's, and rounded; given the loss; whose rate is a slot.
IN_THE_FAST_TIER = ("adamw", "adafactor", "polyak_sgd", "rprop")


def optax_factories():
    for space in (optax, optax.contrib):
        for name, value in vars(space).items():
            if not inspect.isfunction(value) or name.startswith(("_", "scale_by", "schedule_free")):
                continue
            if "learning_rate" in inspect.signature(value).parameters and name not in NEEDS_OTHER_GRADIENTS:
                yield pytest.param(value, id=name, marks=() if name in IN_THE_FAST_TIER else pytest.mark.slow)


def make(factory, *args, **kwargs):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # noisy_sgd, optimistic_adam and dpsgd are on their way out
        return factory(*args, **kwargs)


@pytest.mark.usefixtures("x64")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("factory", list(optax_factories()))
def test_a_lifted_factory_does_what_optax_does_and_its_rate_is_data(factory):
    rule = KNOWN.get(factory.__name__, Rule(factory.__name__))  # optax has some that jgd has not
    params, needs, more = first_params(jnp.float64), rule.needs, rule.lifted
    theirs, ours = make(factory, learning_rate=0.02, **more), lift(factory, learning_rate=0.02, **more)
    expected, _ = run(theirs, params, theirs.init(params), 4, *needs)
    found, state = run(ours, params, ours.init(params), 4, *needs)
    assert largest_difference(found, expected) < rule.optax_rounds
    assert state.hyperparams["learning_rate"].dtype == jnp.float64

    if not rule.has_rate:
        return
    other = make(factory, learning_rate=0.005, **more)
    expected, _ = run(other, params, other.init(params), 4, *needs)
    found, _ = run(ours, params, jgd.set_hyperparams(ours.init(params), learning_rate=0.005), 4, *needs)
    assert largest_difference(found, expected) < rule.optax_rounds


def test_a_change_of_any_number_compiles_nothing():
    traces = []

    def factory(learning_rate, b1=0.9, b2=0.999, clip=1.0):
        traces.append(1)
        return optax.chain(optax.clip_by_global_norm(clip), optax.adam(learning_rate, b1, b2))

    optimizer = lift(factory, 0.1)
    params = first_params()
    state, step = optimizer.init(params), make_step(optimizer)
    before = len(traces)
    for rate in np.linspace(0.01, 0.1, 20):
        state = jgd.set_hyperparams(state, learning_rate=rate, b1=0.5 + rate, b2=0.9 + rate / 2, clip=10 * rate)
        params, state = step(params, state)
    assert len(traces) == before + 1
    np.testing.assert_allclose(state.hyperparams["clip"], 1.0)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
def test_hyperparameters_and_moments_are_float32_and_the_dtypes_of_the_state_stay(dtype):
    optimizer = lift(optax.adamw, 1e-2)
    params = first_params(dtype)
    state = optimizer.init(params)
    new_params, new_state = run(optimizer, params, state, 3)
    kinds = jax.tree.map(lambda x: (x.shape, x.dtype, x.weak_type), (params, state))
    assert kinds == jax.tree.map(lambda x: (x.shape, x.dtype, x.weak_type), (new_params, new_state))
    assert {value.dtype for value in new_state.hyperparams.values()} == {jnp.dtype(jnp.float32)}
    assert {leaf.dtype for leaf in jax.tree.leaves(new_state.inner[0]._replace(count=()))} == {jnp.dtype(jnp.float32)}
    wide, _ = run(optimizer, first_params(jnp.float32), optimizer.init(first_params(jnp.float32)), 3)
    assert largest_difference(new_params, wide) < 16 * float(jnp.finfo(dtype).eps)


@pytest.mark.usefixtures("x64")
def test_float32_params_stay_float32_where_x64_is_on():
    optimizer = lift(optax.adamw, 1e-2)
    params = first_params(jnp.float32)
    new_params, state = run(optimizer, params, optimizer.init(params), 2)
    assert {leaf.dtype for leaf in jax.tree.leaves((new_params, state.inner[0].mu))} == {jnp.dtype(jnp.float32)}
    assert state.hyperparams["b2"].dtype == jnp.float64


@pytest.mark.usefixtures("x64")
def test_leaves_of_two_dtypes_keep_them():
    optimizer = lift(optax.adamw, 1e-2)
    params = {"w": first_params(jnp.float32)["w"], "b": first_params(jnp.float64)["b"]}
    new_params, state = run(optimizer, params, optimizer.init(params), 2)
    for tree in (new_params, state.inner[0].mu, state.inner[0].nu):
        assert (tree["w"].dtype, tree["b"].dtype) == (jnp.float32, jnp.float64)


def test_a_schedule_is_evaluated_on_the_device_and_has_its_scale():
    schedule = optax.linear_schedule(0.1, 0.0, 10)
    ours, theirs = lift(optax.adam, schedule), optax.adam(schedule)
    params = first_params()
    expected, _ = run(theirs, params, theirs.init(params), 5)
    found, state = run(ours, params, ours.init(params), 5)
    assert largest_difference(found, expected) < 1e-5
    assert float(state.hyperparams["learning_rate"]) == pytest.approx(0.06)
    halved = jgd.set_hyperparams(state, learning_rate_scale=0.5)
    _, halved = run(ours, found, halved, 1)
    assert float(halved.hyperparams["learning_rate"]) == pytest.approx(0.025)
    with pytest.raises(ValueError, match="follows a schedule"):
        jgd.set_hyperparams(state, learning_rate=0.1)


def test_a_sweep_under_vmap_equals_its_runs_one_by_one():
    rates = np.float32([1e-3, 1e-2, 1e-1])
    optimizer = lift(optax.novograd, 0.1)

    def after(rate):
        params = first_params()
        return run(optimizer, params, jgd.set_hyperparams(optimizer.init(params), learning_rate=rate), 4)[0]

    swept = jax.tree.map(np.asarray, jax.jit(jax.vmap(after))(rates))
    for i, rate in enumerate(rates):
        assert largest_difference(jax.tree.map(lambda leaf, i=i: leaf[i], swept), after(rate)) < 1e-6


def test_a_derivative_goes_through_to_the_hyperparameters():
    optimizer = lift(optax.sgd, 0.1, momentum=0.9)

    def final_loss(rate):
        params = first_params()
        return loss_fn(run(optimizer, params, jgd.set_hyperparams(optimizer.init(params), learning_rate=rate), 3)[0])

    compiled = jax.jit(jax.value_and_grad(final_loss))
    slope = compiled(0.01)[1]
    assert float(slope) == pytest.approx(float(compiled(0.0101)[0] - compiled(0.0099)[0]) / 2e-4, rel=1e-2)


def test_what_is_no_number_stays_as_it_is():
    matrices = lambda params: jax.tree.map(lambda leaf: leaf.ndim > 1, params)  # noqa: E731
    optimizer = lift(optax.adamw, 1e-2, mask=matrices, mu_dtype=jnp.bfloat16, nesterov=True)
    state = optimizer.init(first_params())
    assert list(jgd.get_hyperparams(state)) == ["learning_rate", "b1", "b2", "eps", "eps_root", "weight_decay"]
    assert state.inner[0].mu["w"].dtype == jnp.bfloat16
    assert "memory_size" not in lift(optax.lbfgs, 0.1).init(first_params()).hyperparams
    assert "min_dim_size_to_factor" not in lift(optax.adafactor, 0.1).init(first_params()).hyperparams
    assert "clip_value_fn" not in lift(optax.contrib.adopt, 0.1).init(first_params()).hyperparams
    assert "learning_rate" in lift(optax.sgd, 1).init(first_params()).hyperparams  # an integer given for a float


def test_a_pair_of_numbers_is_data():
    optimizer = lift(optax.contrib.prodigy, betas=(0.9, 0.99))
    state = optimizer.init(first_params())
    np.testing.assert_allclose(state.hyperparams["betas"], [0.9, 0.99])
    other = make(optax.contrib.prodigy, betas=(0.5, 0.9))
    expected, _ = run(other, first_params(), other.init(first_params()), 3)
    found, _ = run(optimizer, first_params(), jgd.set_hyperparams(state, betas=jnp.array([0.5, 0.9])), 3)
    assert largest_difference(found, expected) < 1e-6


def test_a_factory_with_keywords_of_its_own_and_positional_only_arguments():
    def factory(rate, /, *parts, **more):
        return optax.chain(*parts, optax.sgd(rate, **more))

    optimizer = lift(factory, 0.1, optax.clip(1.0), momentum=0.5)
    state = optimizer.init(first_params())
    assert list(state.hyperparams) == ["rate", "momentum"]
    theirs = factory(0.1, optax.clip(1.0), momentum=0.5)
    expected, _ = run(theirs, first_params(), theirs.init(first_params()), 3)
    assert largest_difference(run(optimizer, first_params(), state, 3)[0], expected) < 1e-6


def test_integer_leaves_are_left_alone():
    params = {"w": jnp.ones(2), "steps": jnp.arange(3)}
    optimizer = lift(optax.adamw, 0.1)
    grads = {"w": jnp.ones(2), "steps": np.zeros(3, jax.dtypes.float0)}
    updates, _ = jax.jit(optimizer.update)(grads, optimizer.init(params), params)
    np.testing.assert_array_equal(updates["steps"], [0, 0, 0])
    assert float(updates["w"][0]) < 0


def test_a_lifted_state_may_be_donated_and_made_of_shapes():
    optimizer = lift(optax.contrib.dog, 1.0)
    params = first_params()
    shapes = jax.eval_shape(lambda: params)
    made = optimizer.init(shapes)
    state = optimizer.init(params)
    assert jax.tree.structure(made) == jax.tree.structure(state)
    step = jax.jit(lambda p, s: optimizer.update(p, s, p), donate_argnums=(0, 1))
    step(params, state)


def test_a_lifted_factory_goes_into_chains_and_scans():
    optimizer = jgd.chain(jgd.clip_by_global_norm(1.0), lift(optax.yogi, 0.1))
    params = first_params()

    def step(carry, _):
        return make_step(optimizer)(*carry), None

    (found, state), _ = jax.jit(lambda *start: jax.lax.scan(step, start, length=5))(params, optimizer.init(params))
    assert "max_norm" in jgd.get_hyperparams(state)
    assert loss_fn(found) < loss_fn(params)


def branching(learning_rate, power=0.5, scale=2.0):
    if power > 0.4:
        scale = scale / 2
    return optax.sgd(learning_rate * scale)


def test_a_number_that_python_needs_is_named():
    optimizer = lift(branching, 0.1)
    params = first_params()
    with pytest.raises(TypeError, match=r"needs the value of power in Python.*static=\('power',\)"):
        make_step(optimizer)(params, optimizer.init(params))
    optimizer = lift(branching, 0.1, static=("power",))
    _, state = jax.eval_shape(make_step(optimizer), params, optimizer.init(params))
    assert list(state.hyperparams) == ["learning_rate", "scale"]


def test_what_does_not_fit_is_refused():
    with pytest.raises(TypeError, match="unexpected keyword argument 'learning_rat'; its arguments are learning"):
        lift(optax.adam, 0.1, learning_rat=0.1)
    with pytest.raises(TypeError, match="static='momenta' is none of its arguments"):
        lift(optax.adam, 0.1, static="momenta")
    with pytest.raises(ValueError, match="b1 must be at least 0 and below 1"):
        lift(optax.adam, 0.1, b1=1.5)
    optimizer = lift(optax.adam, 0.1)
    state = optimizer.init(first_params())
    with pytest.raises(ValueError, match=r"\['w'\] has shape"):
        optimizer.update({"w": jnp.ones(2), "b": jnp.ones(3)}, state, first_params())
    with pytest.raises(TypeError, match="LiftedState"):
        optimizer.update(first_params(), optax.adam(0.1).init(first_params()))

    class Stateful:
        def init(self):
            return 0

        def update(self, state):
            return state

        def __call__(self, state):
            return 0.1

    with pytest.raises(TypeError, match="schedule with a state of its own"):
        lift(optax.adam, Stateful())
