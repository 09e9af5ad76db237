"""Newton's methods by conjugate gradients, and optimizers as methods: what they cost, where they go, derivatives."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from minimize.programs import run, solver

import jgd
from jgd.minimizers import LBFGS, Armijo, NewtonCG, TrustRegion, minimize
from jgd.minimizers.methods._steihaug import newton_step

pytestmark = pytest.mark.usefixtures("x64")


def rosenbrock(x):
    return 100 * (x[1] - x[0] ** 2) ** 2 + (1 - x[0]) ** 2


def saddle(x):
    return x[0] ** 2 - x[1] ** 2 + x[1] ** 4


def far(x):
    return jnp.sum((x - 1000.0) ** 2)


@pytest.mark.parametrize(("method", "gradients", "products"), [("newton_cg", 30, 60), ("trust_region", 36, 60)])
def test_few_gradients_and_products_and_saddles_are_left(method, gradients, products):
    solve = solver({"rosenbrock": rosenbrock, "saddle": saddle, "far": far}, method)
    # scipy: 107 and 146 by Newton-CG, 27 and 81 by trust-ncg
    found = solve("rosenbrock", [-1.2, 1.0])
    assert bool(found.converged)
    assert int(found.evaluations.gradients) <= gradients
    assert int(found.evaluations.products) <= products
    found = solve("saddle", [1.0, 1e-3])
    assert bool(found.converged)
    np.testing.assert_allclose(float(found.value), -0.25, atol=1e-9)
    # a trust region of one at first, which grows to a thousand
    assert int(solve("far", [0.0, 0.0]).evaluations.gradients) <= 20


def test_conjugate_gradients_go_to_the_boundary_or_end_where_the_curvature_is_negative():
    curvatures = np.array([2.0, -1.0])

    @functools.partial(jax.jit, static_argnums=1)
    def step(grad, bounded):
        radius = np.array(3.0) if bounded else None
        return newton_step(lambda v: curvatures * v, grad, radius, 1e-9, 10, True)

    # Along the gradient itself.
    grad = np.array([0.1, 1.0])
    np.testing.assert_allclose(step(grad, False).step, -grad)
    np.testing.assert_allclose(step(grad, True).step, -3 * grad / np.linalg.norm(grad))
    # Along the second direction: conjugate to the first, in which the curvature is positive.
    grad = np.array([1.0, 0.1])
    first = -grad * (grad @ grad) / (grad @ (curvatures * grad))
    np.testing.assert_allclose(step(grad, False).step, first)
    on = np.asarray(step(grad, True).step)
    np.testing.assert_allclose(np.linalg.norm(on), 3.0)
    np.testing.assert_allclose((on - first) @ (curvatures * grad), 0.0, atol=1e-12)
    assert grad @ on + 0.5 * on @ (curvatures * on) < grad @ first + 0.5 * first @ (curvatures * first)


@pytest.mark.parametrize("method", [NewtonCG(), TrustRegion(radius=0.5)], ids=["newton_cg", "trust_region"])
def test_unrolled_derivatives_are_those_of_the_steps(method):
    def bowl(x, a):
        return jnp.sum(jnp.cosh(x - a * jnp.array([1.0, -0.5]))) + 0.5 * a * (x[0] * x[1]) ** 2

    @jax.jit
    @jax.value_and_grad
    def solve(a, tol):
        # two steps, the first of the trust region's to its boundary: far from the solution's derivative
        start, more = np.array([1.5, 1.0]), {"max_steps": 2, "tol": tol, "differentiate": "unroll"}
        return minimize(bowl, start, args=(a,), method=method, **more).params @ np.array([1.0, 2.0])

    for tol in (0.0, 2.0):  # the second run stops after one step
        expected = (solve(1 + 1e-6, tol)[0] - solve(1 - 1e-6, tol)[0]) / 2e-6
        assert abs(float(expected)) > 0.01
        np.testing.assert_allclose(solve(1.0, tol)[1], expected, rtol=1e-5)


def quartic(x):
    return jnp.sum((x - 1) ** 2 * jnp.array([1.0, 4.0]) + (x - 1) ** 4)


@pytest.mark.parametrize(
    ("optimizer", "with_slopes"),
    [
        (jgd.lbfgs(), True),
        (optax.lbfgs(linesearch=optax.scale_by_backtracking_linesearch(15)), False),
        (LBFGS(line_search=Armijo()), False),
    ],
)
def test_evaluations_of_an_optimizers_own_line_search_are_counted(optimizer, with_slopes):
    calls = []

    def fun(x):
        jax.debug.callback(lambda: calls.append(1))
        return quartic(x)

    found = run(fun, np.zeros(2), method=optimizer)
    jax.effects_barrier()
    assert bool(found.converged)
    assert int(found.evaluations.values) == len(calls) > int(found.steps) + 1
    assert int(found.evaluations.gradients) == (len(calls) if with_slopes else int(found.steps) + 1)


@pytest.mark.parametrize("make", [jgd.schedule_free_sgd, optax.contrib.schedule_free_sgd])
def test_the_params_to_evaluate_are_the_ones_returned(make):
    found = run(quartic, np.zeros(2), method=make(0.05), max_steps=40, tol=0.0)
    evaluate = (jgd if make is jgd.schedule_free_sgd else optax.contrib).schedule_free_eval_params

    @jax.jit
    def train(params):
        optimizer = make(0.05)

        def step(carry, _):
            params, state = carry
            updates, state = optimizer.update(jax.grad(quartic)(params), state, params)
            return (optax.apply_updates(params, updates), state), None

        params, state = jax.lax.scan(step, (params, optimizer.init(params)), None, length=40)[0]
        average = evaluate(state, params)
        return params, average, quartic(average)

    params, evaluated, value = train(np.zeros(2))
    assert np.max(np.abs(evaluated - params)) > 1e-4
    np.testing.assert_allclose(found.params, evaluated, rtol=1e-6)
    np.testing.assert_allclose(found.value, value, rtol=1e-6)
    assert [int(n) for n in found.evaluations] == [81, 81, 0], "two a step, of what is trained and of the average"


def test_a_schedule_may_begin_at_zero():
    found = run(quartic, np.zeros(2), method=optax.sgd(optax.linear_schedule(0.0, 0.05, 10)), tol=1e-4)
    assert bool(found.converged)


def test_a_search_of_an_optimizers_own_cannot_be_unrolled():
    with pytest.raises(ValueError, match="line search"):
        minimize(quartic, np.zeros(2), method=optax.lbfgs(), max_steps=3, differentiate="unroll")
