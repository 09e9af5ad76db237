"""Projected gradient, proximal gradient and mirror descent: solutions, feasibility, derivatives, float32, errors."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.experimental import checkify
from jax.tree_util import Partial
from minimize.programs import numbers, run
from scipy.optimize import lsq_linear, nnls

from jgd.minimizers import (
    L1,
    ElasticNet,
    GroupLasso,
    Indicator,
    MirrorDescent,
    NonNegativeL1,
    ProjectedGradient,
    ProximalGradient,
    Status,
    explain,
    minimize,
)
from jgd.minimizers.problem._problem import Problem

SETS = optax.projections
ENDED = (Status.CONVERGED, Status.SMALL_STEP, Status.SMALL_DECREASE)
GENERATOR = np.random.default_rng(0)
#: A design whose columns go together, and targets.
DESIGN = GENERATOR.normal(size=(40, 12)) + GENERATOR.normal(size=(40, 1))
TARGETS = DESIGN @ np.where(np.arange(12) % 3 == 0, 1.0, 0.0) * 0.5 + 0.1 * GENERATOR.normal(size=40)
#: The strength of an l1 penalty above which all is zero.
LARGEST = np.abs(DESIGN.T @ TARGETS).max()
LIPSCHITZ = np.linalg.norm(DESIGN, 2) ** 2


def squares(x, design, targets):
    return 0.5 * jnp.sum((design @ x - targets) ** 2)


def slope(x):
    """The gradient of the squares at a solution."""
    return DESIGN.T @ (DESIGN @ np.asarray(x) - TARGETS)


def fit(method, *, fun=squares, targets=TARGETS, start=None, **options):
    options = {"tol": 1e-9, "max_steps": 5000} | options
    start = np.zeros(12) if start is None else start
    return minimize(fun, start, args=(DESIGN, targets), method=method, **options)


def fitted(method, **options):
    """As `fit`, as one program, its result in NumPy."""
    return numbers(jax.jit(lambda: fit(method, **options))())


#: Solutions that depend on a number, and where to look.
SWEEPS = {
    "lasso": (lambda s: fit(ProximalGradient(L1(s))), 0.1 * LARGEST),
    "box": (lambda s: fit(ProjectedGradient(), bounds=(-0.1, s * np.linspace(0.1, 0.3, 12))), 1.0),
    "simplex": (lambda s: fit(ProjectedGradient(SETS.projection_simplex), targets=s * TARGETS), 1.0),
}
#: How far apart the numbers are, relative to the one in the middle; the last two are far away.
WIDTH = 5e-3
NUMBERS = np.array([1 - 2 * WIDTH, 1 - WIDTH, 1, 1 + WIDTH, 1 + 2 * WIDTH, 0.2, 5])
MIDDLE = 2


@functools.cache
def swept(name):
    """Solutions for `NUMBERS` and their derivatives, from one program."""
    solve, at = SWEEPS[name]
    with jax.enable_x64(True):
        return numbers(jax.jit(jax.vmap(lambda s: jax.jvp(solve, (s,), (jnp.ones_like(s),))))(at * NUMBERS))


@pytest.mark.parametrize("name", SWEEPS)
def test_lanes_of_a_sweep_converge_with_few_gradients(name):
    result, _ = swept(name)
    assert np.all(np.isin(result.status, [Status.CONVERGED, Status.SMALL_DECREASE])), result.status
    assert np.all(result.grad_norm <= 1e-8), result.grad_norm
    assert np.all(result.evaluations.gradients <= 200), result.evaluations.gradients


@pytest.mark.parametrize("name", SWEEPS)
def test_implicit_derivatives_equal_central_differences(name):
    result, slopes = swept(name)
    width = WIDTH * SWEEPS[name][1]

    def difference(values):
        """By the formula of fourth order."""
        return (8 * (values[3] - values[1]) - (values[4] - values[0])) / (12 * width)

    moves = difference(result.params)
    assert np.abs(moves).max() > 1e-3
    assert np.allclose(slopes.params[MIDDLE], moves, rtol=0, atol=1e-6 * np.abs(moves).max())
    assert np.isclose(slopes.value[MIDDLE], difference(result.value), rtol=1e-6)


@pytest.mark.usefixtures("x64")
def test_implicit_derivatives_in_reverse():
    solve, at = SWEEPS["lasso"]
    weights = np.linspace(1.0, 2.0, 12)
    slope = jax.jit(jax.grad(lambda s: weights @ solve(s).params))(at)
    assert np.isclose(slope, weights @ swept("lasso")[1].params[MIDDLE], rtol=1e-8)


def lasso_by_coordinates(strength, sweeps=3000):
    """Coordinate descent for the lasso."""
    x, gram, pull = np.zeros(12), DESIGN.T @ DESIGN, DESIGN.T @ TARGETS
    for _ in range(sweeps):
        for i in range(12):
            rest = pull[i] - gram[i] @ x + gram[i, i] * x[i]
            x[i] = np.sign(rest) * max(abs(rest) - strength, 0) / gram[i, i]
    return x


def test_the_lasso_agrees_with_coordinate_descent():
    result, _ = swept("lasso")
    for i in (MIDDLE, 5, 6):
        strength = 0.1 * LARGEST * NUMBERS[i]
        expected = lasso_by_coordinates(strength)
        assert 0 < np.sum(expected != 0) < 12
        assert np.allclose(result.params[i], expected, rtol=0, atol=1e-8)
        assert np.array_equal(result.params[i] == 0, expected == 0), "zeros are zeros"
        whole = 0.5 * np.sum((DESIGN @ expected - TARGETS) ** 2) + strength * np.abs(expected).sum()
        assert np.isclose(result.value[i], whole, rtol=1e-9)


def test_momentum_saves_gradients():
    with jax.enable_x64(True):
        ista = fitted(ProximalGradient(L1(0.1 * LARGEST), accelerated=False))
    fista, _ = swept("lasso")
    assert bool(ista.converged)
    assert np.allclose(ista.params, fista.params[MIDDLE], rtol=0, atol=1e-8)
    assert fista.steps[MIDDLE] < 0.6 * int(ista.steps)
    assert fista.evaluations.gradients[MIDDLE] < int(ista.evaluations.gradients)


def test_box_constraints_agree_with_scipy():
    expected = lsq_linear(DESIGN, TARGETS, (-0.1, np.linspace(0.1, 0.3, 12)), method="bvls", tol=1e-14)
    assert np.allclose(swept("box")[0].params[MIDDLE], expected.x, rtol=0, atol=1e-8)
    assert 0 < np.abs(expected.active_mask).sum() < 12


#: Sets that one program knows, chosen by a number.
CHOICES = ["non_negative", "l1_ball", "l2_ball"]


def onto(x, choice):
    return jax.lax.switch(
        choice,
        [
            SETS.projection_non_negative,
            functools.partial(SETS.projection_l1_ball, scale=0.7),
            functools.partial(SETS.projection_l2_ball, scale=0.5),
        ],
        x,
    )


@functools.cache
def alone():
    """Solutions of the least-squares problem over some sets, one by one."""
    with jax.enable_x64(True):
        program = jax.jit(lambda choice: fit(ProjectedGradient(Partial(onto, choice=choice))))
        return {name: numbers(program(i)) for i, name in enumerate(CHOICES)} | {
            "fista": fitted(ProximalGradient(Indicator(SETS.projection_simplex)), start=np.ones(12)),
            "mirror": fitted(MirrorDescent(), tol=1e-7),
        }


def test_non_negative_least_squares_agree_with_scipy():
    assert np.allclose(alone()["non_negative"].params, nnls(DESIGN, TARGETS)[0], rtol=0, atol=1e-8)


def test_solutions_on_the_simplex_and_balls_meet_their_optimality_conditions():
    x = swept("simplex")[0].params[MIDDLE]
    assert abs(x.sum() - 1) < 1e-12
    assert np.all(x >= 0)
    least = slope(x)[x > 0].mean()
    assert np.allclose(np.where(x > 0, slope(x), least), least, rtol=0, atol=1e-7)
    assert np.all(slope(x) >= least - 1e-7)

    x = np.asarray(alone()["l1_ball"].params)
    most = np.abs(slope(x)).max()
    assert np.isclose(np.abs(x).sum(), 0.7)
    assert most > 1
    assert np.allclose(np.where(x != 0, slope(x), 0), -most * np.sign(x), rtol=0, atol=1e-7)

    x = np.asarray(alone()["l2_ball"].params)
    assert np.isclose(np.linalg.norm(x), 0.5)
    assert np.allclose(slope(x), -2 * np.linalg.norm(slope(x)) * x, rtol=0, atol=1e-7)


def test_three_methods_agree_on_the_simplex():
    assert np.allclose(alone()["fista"].params, swept("simplex")[0].params[MIDDLE], rtol=0, atol=1e-9)
    assert np.allclose(alone()["mirror"].params, alone()["fista"].params, rtol=0, atol=1e-6)


PENALTIES = [L1(0.5), NonNegativeL1(0.5), ElasticNet(0.5, 2.0), GroupLasso(0.8), L1({"w": 0.3, "b": 0.0})]


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("penalty", PENALTIES, ids=str)
def test_proximal_operators_minimize_what_they_should(penalty):
    tree = {"w": np.array([[1.0, -0.2, 0.3], [0.1, 0.2, -0.3]]), "b": np.array(2.0)}
    tree = {"b": tree["b"]} | tree if not isinstance(penalty, GroupLasso) else {"w": tree["w"]}
    step = 0.7

    @jax.jit
    def objective(x):
        x = penalty.project(x) if hasattr(penalty, "project") else x
        square = sum(jnp.sum((x[name] - tree[name]) ** 2) for name in tree)
        return penalty.value(x) + square / (2 * step)

    near = numbers(jax.jit(penalty.prox)(tree, step))
    least = objective(near)
    generator = np.random.default_rng(1)
    for size in (1e-1, 1e-3):
        for _ in range(20):
            assert objective({k: v + size * generator.normal(size=v.shape) for k, v in near.items()}) >= least
    assert np.any(near["w"] == 0)


def absolute(tree, strength):
    return strength * np.abs(tree).sum()


#: What the penalties are, written down once more.
FORMULAS = [
    lambda w, b: absolute(w, 0.5) + absolute(b, 0.5),
    lambda w, b: absolute(w, 0.5) + absolute(b, 0.5),
    lambda w, b: absolute(w, 0.5) + absolute(b, 0.5) + np.sum(w**2) + b**2,
    lambda w, b: 0.8 * np.linalg.norm(w, axis=1).sum() + 0.8 * abs(b),
    lambda w, b: absolute(w, 0.3),
]


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("penalty", "formula"), list(zip(PENALTIES, FORMULAS, strict=True)), ids=map(str, PENALTIES))
def test_the_value_of_a_penalty_is_its_formula(rng, penalty, formula):
    w, b = np.abs(rng.normal(size=(2, 3))), np.array(2.0)
    assert np.isclose(jax.jit(penalty.value)({"w": w, "b": b}), formula(w, b), rtol=1e-12)


@pytest.mark.usefixtures("x64")
def test_the_group_lasso_meets_its_optimality_conditions():
    found = fitted(
        ProximalGradient(GroupLasso({"w": 0.2 * LARGEST, "b": 0.0, "count": 1.0})),
        fun=lambda p, a, b: squares(p["w"].T.ravel(), a, b - p["b"]),
        start={"w": np.zeros((3, 4)), "b": 0.0, "count": 3},
    ).params
    w, b = np.asarray(found["w"]), float(found["b"])
    pull = (-DESIGN.T @ (DESIGN @ w.T.ravel() - TARGETS + b)).reshape(4, 3).T
    sizes = np.linalg.norm(w, axis=1, keepdims=True)
    assert 0 < np.sum(sizes > 0) < 3
    expected = 0.2 * LARGEST * w / np.where(sizes > 0, sizes, 1)
    assert np.allclose(np.where(sizes > 0, pull, 0), expected, rtol=0, atol=1e-6)
    assert np.all(np.linalg.norm(pull, axis=1) <= 0.2 * LARGEST + 1e-6)
    assert abs(np.sum(DESIGN @ w.T.ravel() - TARGETS + b)) < 1e-6, "what is not penalized is at its minimum"
    assert found["count"] == 3


FEASIBLE = {
    "box": (ProjectedGradient(Partial(SETS.projection_box, lower=-0.1, upper=0.3)), (-0.1, 0.3), None),
    "fista": (ProximalGradient(Indicator(SETS.projection_simplex)), (0.0, 1.0), 1.0),
    "mirror": (MirrorDescent(), (0.0, 1.0), 1.0),
}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", FEASIBLE)
def test_all_iterates_are_feasible_and_hold_their_own_value_and_gradient(name):
    method, (lower, upper), total = FEASIBLE[name]
    problem = Problem(lambda x: jnp.sum(jnp.cosh(DESIGN @ x - TARGETS)), ravel=lambda x: x, unravel=lambda x: x)

    @jax.jit
    def path(start):
        first = method.point(problem, method.start(problem, start))

        def turn(carry, _):
            point, state, _ = method.step(problem, *carry)
            return (point, state), (point, problem.point(point.params))

        carry = (first, method.init(problem, first))
        return jax.lax.scan(turn, carry, None, length=12)[1]

    points, expected = numbers(path(GENERATOR.normal(size=12)))
    for x in points.params:
        assert np.all((x >= lower) & (x <= upper))
        assert total is None or abs(x.sum() - total) < 1e-13
    for found, right in zip(points, expected, strict=True):
        assert np.allclose(found, right, rtol=1e-12)
    assert len(np.unique(points.value)) > 5, "it moves"


@pytest.mark.parametrize(
    "method",
    [
        ProjectedGradient(SETS.projection_simplex),
        ProximalGradient(L1(0.1 * LARGEST)),
        MirrorDescent(),
    ],
    ids=["projected", "fista", "mirror"],
)
def test_float32_ends_at_the_noise_floor(method):
    result = run(
        lambda x, a, b: 1000.0 + squares(x, a, b),
        np.zeros(12),
        args=(np.float32(DESIGN), np.float32(TARGETS)),
        method=method,
        tol=0.0,
        max_steps=2000,
    )
    assert int(result.status) in ENDED, explain(result)
    assert int(result.evaluations.values) <= 600
    # the values of a problem with a constant of 1000 are known to 1e-4, so that params are to a hundredth
    assert float(result.grad_norm) < 0.3


UNROLLED = {
    "projected": (lambda rate: ProjectedGradient(SETS.projection_simplex, rate), 0.5 / LIPSCHITZ),
    "proximal": (lambda rate: ProximalGradient(L1(0.1 * LARGEST), rate), 0.5 / LIPSCHITZ),
    "mirror": (lambda rate: MirrorDescent("positive", rate), 0.1 / LARGEST),
}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", UNROLLED)
def test_runs_with_a_given_step_can_be_unrolled(name):
    method, rate = UNROLLED[name]

    def after_five_steps(rate):
        params = fit(method(rate), max_steps=5, differentiate="unroll", tol=0.0).params
        return np.linspace(1.0, 2.0, 12) @ params

    width = 1e-5 * rate
    program = jax.jit(jax.value_and_grad(after_five_steps))
    expected = (program(rate + width)[0] - program(rate - width)[0]) / (2 * width)
    assert abs(expected * rate) > 1e-4
    assert np.isclose(program(rate)[1], expected, rtol=1e-6)


@pytest.mark.usefixtures("x64")
def test_a_lane_that_starts_at_the_solution_costs_one_evaluation():
    starts = np.stack([alone()["fista"].params, np.ones(12) / 12, np.zeros(12)])
    method = ProjectedGradient(SETS.projection_simplex)
    result = numbers(jax.jit(jax.vmap(lambda x: fit(method, start=x, tol=1e-8)))(starts))
    assert np.all(result.converged)
    assert result.evaluations.gradients[0] == 1
    assert np.all(result.evaluations.gradients[1:] > 5)
    assert np.allclose(result.params, alone()["fista"].params, rtol=0, atol=1e-8)


@pytest.mark.parametrize(
    "method",
    [
        ProjectedGradient(SETS.projection_simplex),
        ProximalGradient(L1(0.1 * LARGEST)),
    ],
    ids=["projected", "fista"],
)
def test_evaluations_are_counted(method):
    calls, design, targets = [], np.float32(DESIGN), np.float32(TARGETS)

    @jax.custom_vjp
    def counted(x):
        jax.debug.callback(lambda: calls.append("value"))
        return squares(x, design, targets)

    def forward(x):
        jax.debug.callback(lambda: calls.append("both"))
        return jax.value_and_grad(squares)(x, design, targets)

    counted.defvjp(forward, lambda grad, back: (back * grad,))
    result = run(counted, np.zeros(12), method=method, max_steps=12, tol=0.0)
    jax.effects_barrier()
    assert int(result.evaluations.values) == len(calls)
    assert int(result.evaluations.gradients) == calls.count("both")
    assert int(result.steps) == 12


def test_steps_that_are_far_too_long_or_leave_the_domain_are_shortened():
    def barrier(x):
        return jnp.sum(50.0 * x - jnp.log(x))

    for method in [
        ProjectedGradient(Partial(SETS.projection_box, lower=-1.0, upper=5.0)),
        MirrorDescent("positive"),
    ]:
        result = run(barrier, np.full(3, 4.0), method=method, tol=1e-3)
        assert np.allclose(result.params, 1 / 50, rtol=1e-3), (method, explain(result))


def test_mirror_descent_takes_rows_of_each_leaf_and_starts_with_zeros():
    start = {"rows": np.array([[2.0, 0.0, 0.0], [0.0, 0.0, 0.0]]), "one": np.array([0.0, 0.0, 5.0])}
    costs = {"rows": np.array([[3.0, 1.0, 2.0], [1.0, 2.0, 3.0]]), "one": np.array([1.0, 5.0, 9.0])}

    def fun(p):
        return sum(jnp.vdot(p[name], costs[name]) for name in costs)

    result = run(fun, start, method=MirrorDescent())
    assert bool(result.converged)
    assert np.allclose(result.params["rows"], [[0, 1, 0], [1, 0, 0]], atol=1e-6)
    assert np.allclose(result.params["one"], [1, 0, 0], atol=1e-6)


def shrink(x, by):
    return np.sign(x) * np.maximum(np.abs(x) - by, 0)


ONE_STEP = {
    "projected": (ProjectedGradient(SETS.projection_non_negative, 0.1), lambda x, g: np.maximum(x - 0.1 * g, 0)),
    "proximal": (ProximalGradient(L1(0.5), 0.1), lambda x, g: shrink(x - 0.1 * g, 0.05)),
    "mirror": (MirrorDescent(learning_rate=0.1), lambda x, g: x * np.exp(-0.1 * g) / np.sum(x * np.exp(-0.1 * g))),
    "positive": (MirrorDescent("positive", 0.1), lambda x, g: x * np.exp(-0.1 * g)),
}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", ONE_STEP)
def test_a_step_of_a_given_size_is_the_formula(name):
    method, formula = ONE_STEP[name]
    start, goal = np.array([0.2, 0.3, 0.5]), np.array([1.0, -4.0, 0.4])
    result = run(lambda x: 0.5 * jnp.sum((x - goal) ** 2), start, method=method, max_steps=1)
    assert np.allclose(result.params, formula(start, start - goal), rtol=1e-12)


@pytest.mark.usefixtures("x64")
def test_errors_say_what_is_expected():
    with pytest.raises(ValueError, match="there is no set; expected a projection"):
        fit(ProjectedGradient())
    with pytest.raises(ValueError, match="found a projection and bounds; expected one of them"):
        fit(ProjectedGradient(SETS.projection_simplex), bounds=(0.0, 1.0))
    with pytest.raises(TypeError, match=r"projection must be a function or None; got 0.1"):
        ProjectedGradient(0.1)
    with pytest.raises(ValueError, match="window must be at least 1; got 0"):
        ProjectedGradient(SETS.projection_simplex, window=0)
    with pytest.raises(TypeError, match=r"penalty must be an object with value.*got a float"):
        ProximalGradient(0.1)
    with pytest.raises(ValueError, match="geometry must be one of 'simplex', 'positive'; got 'ball'"):
        MirrorDescent("ball")
    with pytest.raises(ValueError, match=r"L1: strength at the root has the shape \(3,\).*\(12,\)"):
        fit(ProximalGradient(L1(np.ones(3))))
    with pytest.raises(ValueError, match="L1: strength must be a number, an array, or a tree as params"):
        fit(ProximalGradient(L1({"w": 0.1})))
    with pytest.raises(ValueError, match=r"L1: strength at the root is -0\.1; expected at least 0"):
        fit(ProximalGradient(L1(-0.1)))
    with pytest.raises(TypeError, match="L1: strength must be a tree of arrays; got 'much'"):
        fit(ProximalGradient(L1("much")))
    with pytest.raises(ValueError, match=r"projection returned a tree of the shapes \(2,\); expected.*\(12,\)"):
        fit(ProjectedGradient(lambda x: x[:2]))


@functools.cache
def svm():
    """The dual of a multiclass SVM, of more params than the data can tell apart: its function of the strength."""
    random = np.random.default_rng(0)
    data = random.normal(size=(20, 2)).astype(np.float32)
    labels = np.eye(3, dtype=np.float32)[random.integers(0, 3, 20)]

    def dual(shares, strength):
        primal = data.T @ (labels - shares) / strength
        return jnp.vdot(shares, labels) + 0.5 * strength * jnp.vdot(primal, primal)

    method = ProjectedGradient(jax.vmap(SETS.projection_simplex))

    weights = random.normal(size=(2, 3)).astype(np.float32)

    def total(strength, tol):
        start = np.full((20, 3), 1 / 3, np.float32)
        shares = minimize(dual, start, args=(strength,), method=method, tol=tol).params
        return jnp.vdot(weights, data.T @ (labels - shares) / strength)

    @jax.jit
    def derivatives(strength, tol):
        value, backward = jax.value_and_grad(total)(strength, tol)
        return value, backward, jax.jvp(lambda s: total(s, tol), (strength,), (jnp.ones_like(strength),))[1]

    return derivatives


def test_a_singular_system_has_the_derivative_that_is_unique():
    # near the solution more shares are free than the two features can tell apart
    _, backward, forward = svm()(100.0, 1e-4)
    np.testing.assert_allclose(backward, forward, rtol=1e-2)
    # there all shares are zero or one, so that the primal is a constant over the strength
    value, backward, forward = svm()(100.0, 1e-6)
    np.testing.assert_allclose([backward, forward], -value / 100, rtol=1e-3)


@pytest.mark.parametrize("method", ["lbfgs", ProjectedGradient(SETS.projection_simplex)], ids=["plain", "simplex"])
def test_a_derivative_that_does_not_exist_is_nan(method):
    weights = jnp.arange(1.0, 5.0)

    def solve(goal):
        def fun(x):
            return 0.5 * (weights @ x - goal) ** 2

        return minimize(fun, jnp.array([0.1, 0.2, 0.3, 0.4]), method=method, tol=1e-5).params

    # all solutions share their product with the weights, and nothing else
    shared, one = jax.jit(jax.jacrev(lambda goal: (weights @ solve(goal), solve(goal)[0])))(2.5)
    np.testing.assert_allclose(shared, 1.0, rtol=1e-5)
    assert np.isnan(one)
    checked = checkify.checkify(jax.jit(jax.grad(lambda goal: solve(goal)[0])), errors=checkify.nan_checks)
    assert "nan generated by primitive" in checked(2.5)[0].get()
