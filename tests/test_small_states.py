"""States and params of fewer bits: rounding, eight-bit slots, what each rule makes of them, split master weights."""

import functools
import importlib.util
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from cases import RULES
from declared import check_signs
from hypothesis import given
from hypothesis import strategies as st
from tiers import over

import jgd
from jgd.core import Rule, lift, real_zeros, zeros
from jgd.core._int8 import LEAST_SIZE, Int8Slot, decode, encode, row_axes
from jgd.core._rounding import _mix, random_bits, stochastic_round
from jgd.transforms._low_precision import join_float, split_float

U32 = jnp.uint32
SMALL_FORMS = ["int8", "bfloat16"]
FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)


def seeds(count):
    return jnp.arange(count, dtype=U32)


# Random bits.


def test_each_bit_is_set_half_of_the_time_whatever_the_shape():
    for shape in [(2**14,), (128, 128), (8, 2, 1024)]:
        bits = np.asarray(random_bits(shape, U32(5))).ravel()
        share = [np.mean(bits >> i & 1) for i in range(32)]
        assert np.max(np.abs(np.array(share) - 0.5)) < 0.03
        assert len(np.unique(bits)) > 0.999 * bits.size


def test_bits_of_two_seeds_or_two_positions_have_nothing_to_do_with_each_other():
    many = np.asarray(jax.vmap(lambda seed: random_bits((4096,), seed))(seeds(64)))
    # Were one seed's row a shifted copy of another's, most numbers would be there twice.
    assert len(np.unique(many)) > 0.999 * many.size
    signs = (many >> 31).astype(float) - 0.5
    assert np.abs(np.corrcoef(signs) - np.eye(64)).max() < 0.1
    assert np.abs(np.corrcoef(signs.T[:64]) - np.eye(64)).max() < 0.7  # 64 samples: 5 standard errors


def test_no_seed_gives_a_shifted_copy_of_anothers_bits():
    """Positions start at a random number each; where two start near each other, their bits must differ all the same."""
    starts = np.asarray(jax.vmap(lambda seed: _mix(seed, U32(0)))(seeds(20_000)))
    places = starts * np.uint32(pow(0x9E3779B1, -1, 2**32))
    order = np.argsort(places)
    gaps = np.diff(places[order])
    near = int(np.argmin(gaps))
    shift = int(gaps[near])
    assert shift < 1000
    first, second = (np.asarray(random_bits((4096,), U32(order[near + i]))) for i in (0, 1))
    assert np.mean(first[shift:] == second[: 4096 - shift]) < 0.01


# Rounding to 16 bits.


def neighbours(x, dtype):
    """The largest 16-bit number that is not above x, and the smallest that is not below."""
    near = np.float32(x).astype(dtype)
    wide = float(near.astype(np.float64))
    lower, upper = np.nextafter(near, dtype(-np.inf)), np.nextafter(near, dtype(np.inf))
    below, above = (near, near) if wide == x else (near, upper) if wide < x else (lower, near)
    largest = float(jnp.finfo(dtype).max)
    return tuple(float(np.clip(float(bound), -largest, largest)) for bound in (below, above))


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16], ids=["bfloat16", "float16"])
@given(values=st.lists(FLOATS, min_size=16, max_size=16))
def test_a_rounded_number_is_one_of_its_neighbours(dtype, values):
    tiny = float(jnp.finfo(jnp.float32).tiny)
    wanted = np.array([0.0 if abs(x) < tiny else x for x in values], np.float32)
    found = np.asarray(jax.vmap(lambda seed: stochastic_round(jnp.array(wanted), dtype, seed))(seeds(32)), np.float64)
    for x, rounded in zip(wanted, found.T, strict=True):
        with np.errstate(over="ignore"):
            assert set(rounded) <= set(neighbours(float(x), dtype.dtype.type))


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16], ids=["bfloat16", "float16"])
@pytest.mark.parametrize("value", [1.001, -0.7501, 3.3e-5, 1e-7, -1234.567, 0.99999])
def test_the_mean_of_many_roundings_is_the_number(dtype, value):
    rounded = jax.vmap(lambda seed: stochastic_round(jnp.full(4, value, jnp.float32), dtype, seed))(seeds(10_000))
    rounded = np.asarray(rounded, np.float64)
    spread = max(rounded.std() / np.sqrt(rounded.size), 1e-12)
    assert abs(rounded.mean() - np.float32(value)) < 5 * spread
    # Unlike rounding to nearest, which is off by up to half of the distance between neighbours.
    assert len(np.unique(rounded)) == 2


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16], ids=["bfloat16", "float16"])
def test_what_is_exact_not_finite_or_too_large_is_seen_to(dtype):
    largest = float(jnp.finfo(dtype).max)
    exact = jnp.array([0.0, -0.0, 1.0, -2.5, largest, -largest, jnp.inf, -jnp.inf, jnp.nan], jnp.float32)
    for seed in range(50):
        np.testing.assert_array_equal(stochastic_round(exact, dtype, U32(seed)).astype(jnp.float32), exact)
    beyond = jnp.array([largest * 1.001, -largest * 1.003], jnp.float32)
    found = jax.vmap(lambda seed: stochastic_round(beyond, dtype, seed))(seeds(200)).astype(jnp.float32)
    np.testing.assert_array_equal(found, np.broadcast_to([largest, -largest], (200, 2)))


# Eight bits.


@pytest.mark.parametrize(
    ("shape", "axes"),
    [
        ((5000,), (0,)),
        ((64, 128), (1,)),
        ((3, 3, 64, 64), (3,)),
        ((512, 512, 3, 3), (1, 2, 3)),
        ((1000, 8), (0, 1)),
        ((4, 32, 32), (1, 2)),
    ],
)
def test_a_row_is_as_many_of_the_last_axes_as_have_64_entries(shape, axes):
    assert row_axes(shape) == axes
    stored = jax.eval_shape(functools.partial(encode, nonnegative=False), jnp.zeros(shape), U32(0))
    assert stored.codes.shape == shape
    assert stored.scales.shape == tuple(1 if i in axes else size for i, size in enumerate(shape))


@pytest.mark.parametrize("nonnegative", [False, True], ids=["signed", "nonnegative"])
def test_codes_keep_what_they_stand_for(nonnegative, rng):
    codes = np.arange(0, 256) if nonnegative else np.arange(-127, 128)
    levels = Int8Slot(jnp.asarray(codes, jnp.uint8 if nonnegative else jnp.int8), jnp.full((1,), 3.7e-3))
    for seed in range(20):
        again = encode(decode(levels), U32(seed), nonnegative)
        assert np.mean(again.codes != levels.codes) < 0.02  # the last bit of a product decides, rarely
        np.testing.assert_allclose(decode(again), decode(levels), rtol=0.05)
        np.testing.assert_array_equal(again.scales, levels.scales)


@pytest.mark.parametrize("nonnegative", [False, True], ids=["signed", "nonnegative"])
def test_eight_bits_round_to_neighbours_and_are_right_on_average(nonnegative, rng):
    value = rng.standard_normal((4, 128)).astype(np.float32) * 10.0 ** rng.uniform(-3, 0, (4, 128)).astype(np.float32)
    value = value**2 if nonnegative else value
    coded = jax.vmap(lambda seed: encode(jnp.asarray(value), seed, nonnegative))(seeds(4000))
    found = np.asarray(jax.vmap(decode)(coded), np.float64)
    codes = np.asarray(coded.codes, int)
    assert np.all(np.ptp(codes, axis=0) <= 1)
    above_least = np.abs(codes).min(axis=0) >= 1 if nonnegative else np.ones(value.shape, bool)
    assert above_least.mean() > 0.9
    error = np.abs(found.mean(axis=0) - value) / np.maximum(found.std(axis=0) / np.sqrt(4000), 1e-6 * np.abs(value))
    assert np.max(error[above_least & (codes.min(axis=0) != 1)]) < 6
    # A share of 1e-3 of the largest, or 1e-6 where squares are stored, is known to a third.
    share = np.abs(value) / np.abs(value).max(axis=1, keepdims=True)
    known = share > (1e-6 if nonnegative else 1e-3)
    assert np.max(np.abs(found - value)[:, known] / np.abs(value[known])) < (0.6 if nonnegative else 0.7)


def test_what_is_never_negative_and_not_zero_is_rounded_to_no_zero():
    value = jnp.array([1.0, 1e-12, 1e-30, 0.0, 1e-20] * 20)
    for seed in range(50):
        found = np.asarray(decode(encode(value, U32(seed), nonnegative=True)))
        np.testing.assert_array_equal(found == 0, np.asarray(value) == 0)
        # a share of the largest, and what the next lower code stands for, that are less than a float32 holds
        share = decode(encode(jnp.full(64, 1e-37).at[0].set(1e12), U32(seed), nonnegative=True))
        assert np.all(np.asarray(share) > 0)
        smallest = decode(encode(jnp.full(64, 1.3e-38).at[0].set(1e-30), U32(seed), nonnegative=True))
        assert np.all(np.asarray(smallest) > 0)


@pytest.mark.parametrize("nonnegative", [False, True], ids=["signed", "nonnegative"])
def test_rows_of_zeros_stay_and_what_is_not_finite_shows(nonnegative):
    value = jnp.ones((3, 64)).at[0].set(0).at[1, 5].set(jnp.nan).at[2, 7].set(jnp.inf)
    found = np.asarray(decode(encode(value, U32(1), nonnegative)))
    np.testing.assert_array_equal(found[0], 0)
    assert np.isnan(found[1]).all()
    assert not np.isfinite(found[2, 7])


def test_a_zero_second_moment_with_a_first_one_gives_no_exploding_step(rng):
    """Entries far below the largest of their row: where their second moment were lost, `mu / eps` would be the step."""
    size = jnp.asarray(10.0 ** rng.uniform(-9, 0, (64, 128)), jnp.float32)
    optimizer, params = jgd.adam(1.0, state_dtype="int8"), jnp.zeros((64, 128))
    state, largest = optimizer.init(params), 0.0
    for _ in range(30):
        grads = size * jnp.asarray(rng.standard_normal((64, 128)), jnp.float32)
        updates, state = jax.jit(optimizer.update)(grads, state)
        largest = max(largest, float(jnp.max(jnp.abs(updates))))
    assert largest < 15  # float32: 3.2 at the most


# States.


def large_and_small():
    shape = (64, LEAST_SIZE // 64)
    return {
        "complex": jnp.ones(LEAST_SIZE, jnp.complex64),
        "empty": jnp.zeros((0, 64)),
        "half": jnp.ones(shape, jnp.bfloat16),
        "integers": jnp.arange(3),
        "large": jnp.ones(shape),
        "none": None,
        "scalar": jnp.ones(()),
        "small": jnp.ones(LEAST_SIZE - 1),
    }


def signature(tree):
    return jax.tree.map(lambda x: (x.shape, x.dtype, x.weak_type), jax.eval_shape(lambda: tree))


@pytest.mark.parametrize("form", SMALL_FORMS)
def test_a_small_state_has_its_form_from_the_start_and_keeps_it(form):
    params = large_and_small()
    optimizer = jgd.adamw(1e-3, state_dtype=form)
    if form == "bfloat16":
        params = {name: leaf for name, leaf in params.items() if name != "complex"}
    state = optimizer.init(params)
    abstract = jax.eval_shape(optimizer.init, params)
    assert signature(state) == signature(abstract)
    assert signature(optimizer.init(jax.eval_shape(lambda: params))) == signature(state)

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def run(params, state):
        def body(carry, _):
            params, state = carry
            grads = jax.tree.map(lambda p: p if p.dtype == jnp.int32 else (p / 3 + 0.1).astype(p.dtype), params)
            grads["integers"] = jnp.zeros(3)
            grads["integers"] = params["integers"] * 0
            updates, state = optimizer.update({**grads, "integers": jnp.zeros(3, jnp.int32)}, state, params)
            return (jgd.apply_updates(params, updates), state), None

        return jax.lax.scan(body, (params, state), length=3)[0]

    before = signature(state)
    _, state = run(params, state)
    assert signature(state) == before
    mu, nu = state.slots["mu"], state.slots["nu"]
    if form == "bfloat16":
        assert {leaf.dtype for leaf in jax.tree.leaves(state.slots)} == {jnp.dtype("bfloat16")}
        return
    for name in ("large", "half"):
        assert (mu[name].codes.dtype, nu[name].codes.dtype) == (jnp.int8, jnp.uint8)
    assert mu["complex"].dtype == jnp.complex64
    assert {mu[name].dtype for name in ("small", "scalar", "empty")} == {jnp.dtype("float32")}


def test_a_batch_of_small_states_is_a_sweep():
    optimizer = jgd.adamw(1e-3, state_dtype="int8")
    params, grads = jnp.ones((64, 64)), jnp.linspace(-1, 1, 4096).reshape(64, 64)

    def once(learning_rate):
        state = jgd.set_hyperparams(optimizer.init(params), learning_rate=learning_rate)
        return optimizer.update(grads, state, params)

    rates = jnp.array([0.1, 0.2])
    updates, states = jax.jit(jax.vmap(once))(rates)
    for i in range(2):
        alone, state = once(rates[i])
        np.testing.assert_allclose(updates[i], alone, rtol=1e-5)
        np.testing.assert_array_equal(states.slots["mu"].codes[i], state.slots["mu"].codes)


def test_each_slot_and_leaf_and_step_is_rounded_with_bits_of_its_own():
    def constant(grad, slots, param, hyper, step):
        return grad, jax.tree.map(lambda slot: jnp.full_like(slot, 1.003), slots)

    rule = Rule(constant, slots={"one": zeros, "two": lambda param: [zeros(param), zeros(param)]})
    optimizer = lift(rule, {}, name="constant", state_dtype="bfloat16")
    params = {"x": jnp.zeros(512), "y": jnp.zeros(512)}
    _, first = optimizer.update(params, optimizer.init(params))
    _, second = optimizer.update(params, first)
    drawn = [np.asarray(leaf, np.float32) for leaf in jax.tree.leaves((first.slots, second.slots))]
    assert len(drawn) == 12
    for i, one in enumerate(drawn):
        assert all(0.2 < np.mean(one != other) < 0.7 for other in drawn[:i])


def test_small_changes_add_up_in_a_bfloat16_state_but_not_under_mu_dtype():
    """An average with decay 0.999 moves by less than half of a bfloat16's distance to its neighbour."""
    grads = jnp.ones(4096)

    def average(optimizer):
        def run(state):
            return jax.lax.scan(lambda s, _: (optimizer.update(grads, s)[1], None), state, length=2000)[0]

        return np.asarray(optax.tree.get(jax.jit(run)(optimizer.init(grads)), "mu"), np.float32)

    assert abs(average(jgd.adam(1e-3, b1=0.999, state_dtype="bfloat16")).mean() - (1 - 0.999**2000)) < 2e-3
    assert average(jgd.adam(1e-3, b1=0.999, mu_dtype="bfloat16")).mean() < 0.6


def test_float16_loses_no_second_moment():
    optimizer, grads = jgd.adam(1.0, state_dtype="float16"), jnp.full(64, 1e-6)
    state = optimizer.init(grads)
    for _ in range(5):
        updates, state = optimizer.update(grads, state)
    assert float(state.slots["nu"].min()) > 0
    assert float(jnp.max(jnp.abs(updates))) < 2


def test_a_mapping_says_it_for_each_slot():
    params = jnp.zeros((64, 64))
    state = jgd.adam(0.1, state_dtype={"mu": "int8", "nu": "bfloat16"}).init(params)
    assert isinstance(state.slots["mu"], Int8Slot)
    assert state.slots["nu"].dtype == jnp.bfloat16
    state = jgd.adam(0.1, mu_dtype="float16", state_dtype={"nu": jnp.int8}).init(params)
    assert state.slots["mu"].dtype == jnp.float16
    assert state.slots["nu"].codes.dtype == jnp.uint8
    assert jgd.adam(0.1, state_dtype={}).init(params).slots["nu"].dtype == jnp.float32
    assert jgd.prodigy(state_dtype={"params0": "bfloat16"}).init(params).slots["params0"].dtype == jnp.bfloat16


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: jgd.adam(0.1, state_dtype={"m": "int8"}), ValueError, r"adam: .* slot 'm'; .* slots are 'mu', 'nu'\."),
        (lambda: jgd.sign_sgd(0.1, state_dtype={"mu": "int8"}), ValueError, r"this rule's slots are none\."),
        (lambda: jgd.adam(0.1, state_dtype={"mu": "int4"}), TypeError, r"slot 'mu' .* as 'int4': expected a float"),
        (lambda: jgd.adam(0.1, state_dtype="uint8"), TypeError, r"'float32', 'bfloat16', .* or 'int8'"),
        (lambda: jgd.asgd(0.1, state_dtype="int8"), ValueError, r"asgd: .* would change nothing: .* \(average\)"),
        (
            lambda: jgd.prodigy(state_dtype={"params0": "int8"}),
            ValueError,
            r"'params0' cannot be stored as 'int8'",
        ),
        (lambda: jgd.schedule_free_sgd(0.1, state_dtype="int8"), TypeError, r"schedule_free: .* since z are params"),
    ],
)
def test_what_cannot_be_is_said_when_it_is_made(make, error, message):
    with pytest.raises(error, match=message):
        make()


# Every rule.

SMALL = [rule for rule in RULES if rule.small == "taken"]
REFUSING = [rule for rule in RULES if rule.small == "refused"]


@over("rule", SMALL, fast=lambda rule: rule.name in ("adamw", "muon", "adafactor"))
def test_every_rule_stays_near_its_float32_run(rule):
    rng = np.random.default_rng(0)
    scale = jnp.asarray(10.0 ** rng.uniform(-1, 1, (64, 1)), jnp.float32)
    start = {"w": jnp.asarray(rng.standard_normal((64, 64)), jnp.float32)}
    noise = jnp.asarray(0.3 * rng.standard_normal((10, 64, 64)), jnp.float32)
    optimizers = {form: rule.make(state_dtype=form) for form in ("float32", *SMALL_FORMS)}

    def loss(params):
        return 0.5 * jnp.sum(scale * (params["w"] - 0.5) ** 2)

    def run(optimizer):
        def body(carry, noise):
            params, state = carry
            grads = {"w": jax.grad(loss)(params)["w"] + noise}
            more = rule.extra(loss, params, grads)
            updates, state = optimizer.update(grads, state, params, **more)
            return (jgd.apply_updates(params, updates), state), None

        return jax.lax.scan(body, (start, optimizer.init(start)), noise)[0]

    found = jax.jit(lambda: {form: run(optimizer) for form, optimizer in optimizers.items()})()
    way = found["float32"][0]["w"] - start["w"]
    for form in SMALL_FORMS:
        away = jnp.linalg.norm(found[form][0]["w"] - found["float32"][0]["w"]) / jnp.linalg.norm(way)
        assert float(away) < rule.small_tolerance.get(form, 0.1)
        assert signature(found[form][1]) == signature(optimizers[form].init(start))
    # Something became smaller, where there is anything of the leaf's size.
    if any(slot.size >= LEAST_SIZE for slot in jax.tree.leaves(found["float32"][1]) if slot.dtype == jnp.float32):
        assert all(
            jgd.state_bytes(found[form][1]).total < jgd.state_bytes(found["float32"][1]).total for form in SMALL_FORMS
        )
    check_signs(rule, found["float32"][1], LEAST_SIZE)


@over("rule", REFUSING)
@pytest.mark.parametrize("form", SMALL_FORMS)
def test_rules_that_need_all_of_their_slots_exactly_say_so(rule, form):
    with pytest.raises(ValueError, match=rf"{rule.name}: state_dtype='{form}' would change nothing"):
        rule.make(state_dtype=form)
    assert rule.make(state_dtype="float32")


def test_slots_that_are_the_difference_of_large_numbers_stay_exact():
    state = jgd.rmsprop(0.1, centered=True, momentum=0.9, state_dtype="int8").init(jnp.zeros((64, 64)))
    assert isinstance(state.slots["trace"], Int8Slot)
    assert {state.slots["nu"].dtype, state.slots["mu"].dtype} == {jnp.dtype("float32")}
    start = jgd.prodigy(state_dtype="bfloat16").init(jnp.zeros((64, 64))).slots["params0"]
    assert start.dtype == jnp.float32


def test_a_slot_that_has_a_sign_in_one_of_two_rules_has_one():
    squares = Rule(lambda g, s, p, h, t: (-g, {"v": s["v"] + g**2}), slots={"v": real_zeros}, nonnegative=("v",))
    signed = Rule(lambda g, s, p, h, t: (-g, {"v": s["v"] + g}), slots={"v": zeros})
    optimizer = lift([squares, signed], {}, name="both", choose=lambda p: [squares, signed], state_dtype="int8")
    state = optimizer.init([jnp.zeros((64, 64)), jnp.zeros((64, 64))])
    assert {slot.codes.dtype for slot in state.slots["v"]} == {jnp.dtype("int8")}


# Bytes.


def tree_of_benchmark(name):
    file = pathlib.Path(__file__).parents[1] / "benchmarks" / "trees.py"
    spec = importlib.util.spec_from_file_location("benchmark_trees", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    shapes = module.TREES[name]()
    return {leaf: jax.ShapeDtypeStruct(shape, jnp.float32) for leaf, shape in shapes.items()}


@pytest.mark.parametrize("tree", ["gpt2tiny", "resnet50", "gpt2s"])
def test_adamw_in_eight_bits_takes_little_more_than_two_bytes(tree):
    params = tree_of_benchmark(tree)
    found = {
        form: jgd.state_bytes(jax.eval_shape(jgd.adamw(1e-3, state_dtype=form).init, params), params).per_parameter
        for form in ("float32", *SMALL_FORMS)
    }
    assert found["float32"] == pytest.approx(8, abs=1e-3)
    assert found["bfloat16"] == pytest.approx(4, abs=1e-3)
    assert found["int8"] <= 2.2


def test_bytes_are_counted_by_slot():
    params = {"w": jnp.zeros((64, 64)), "b": jnp.zeros(3), "n": jnp.arange(5)}
    found = jgd.state_bytes(jgd.adam(0.1, state_dtype={"mu": "int8"}).init(params), params)
    assert found.by_slot["mu"] == 4096 + 4 * 64 + 12
    assert found.by_slot["nu"] == 4 * 4099
    assert found.by_slot["count"] == 4
    assert found.total == sum(found.by_slot.values())
    assert found.per_parameter == found.total / 4099
    assert jgd.state_bytes(jgd.adam(0.1).init(params)).per_parameter is None


@pytest.mark.parametrize(
    ("make", "slots"),
    [
        (lambda: optax.adam(0.1), {"mu": 48, "nu": 48, "count": 4}),
        (lambda: jgd.chain(jgd.clip_by_global_norm(1.0), jgd.sgd(0.1, momentum=0.9)), {"trace": 48}),
        (lambda: jgd.lookahead(optax.sgd(0.1, momentum=0.9)), {"slow": 48, "trace": 48}),
        (lambda: optax.MultiSteps(optax.sgd(0.1, momentum=0.9), 2), {"trace": 48, "acc_grads": 48}),
        (lambda: jgd.noisy_sgd(0.1), {"rng_key": 8}),
    ],
    ids=["optax", "chain", "lookahead", "MultiSteps", "key"],
)
def test_bytes_are_found_in_any_state(make, slots):
    params = {"layers": [jnp.zeros((3, 2)), jnp.zeros(6)]}
    state = make().init(params)
    found = jgd.state_bytes(state, params)
    assert {name: found.by_slot[name] for name in slots} == slots
    assert found.total == sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    assert jgd.state_bytes(jax.eval_shape(lambda: state), params) == found


# Params of 16 bits.


def test_updates_lead_to_the_stochastically_rounded_sum(rng):
    params = {"a": jnp.asarray(rng.standard_normal(20_000), jnp.bfloat16), "b": jnp.asarray(rng.standard_normal(3))}
    delta = 1e-3
    for make in (jgd.sgd, optax.sgd):
        optimizer = jgd.stochastic_rounding(make(delta))
        ones = jax.tree.map(jnp.ones_like, params)
        updates, _ = jax.jit(optimizer.update)(ones, optimizer.init(params), params)
        for apply in (jgd.apply_updates, optax.apply_updates):
            new = apply(params, updates)
            assert new["a"].dtype == jnp.bfloat16
            exact = np.asarray(params["a"], np.float64) - np.float32(delta)
            found = np.asarray(new["a"], np.float64)
            step = np.abs(np.asarray(jnp.nextafter(new["a"], jnp.full_like(new["a"], jnp.inf)), np.float64) - found)
            assert np.all(np.abs(found - exact) <= np.maximum(step, 2 * np.abs(exact) * 2**-8))
            assert abs(np.mean(found - exact)) < 5 * np.std(found - exact) / np.sqrt(20_000)
        np.testing.assert_allclose(updates["b"], -delta, rtol=1e-6)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("wrapper", [jgd.stochastic_rounding, jgd.split_master_weights], ids=["stochastic", "split"])
def test_sixteen_bit_params_descend_where_rounding_to_nearest_stalls(wrapper, dtype):
    if wrapper is jgd.split_master_weights and dtype == "float16":
        with pytest.raises(TypeError, match=r"split_master_weights: the param at .* is float16; expected bfloat16"):
            wrapper(jgd.sgd(0.1)).init(jnp.ones(3, dtype))
        return
    optimizer = wrapper(jgd.sgd(1e-4))
    start = jnp.ones(4096, dtype)

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def run(params, state):
        def body(carry, _):
            params, state = carry
            updates, state = optimizer.update(jnp.ones_like(params), state, params)
            return (jgd.apply_updates(params, updates), state), None

        return jax.lax.scan(body, (params, state), length=1000)[0]

    state = optimizer.init(start)
    before = signature(state)
    params, state = run(start, state)
    assert params.dtype == dtype
    assert signature(state) == before
    assert abs(float(params.astype(jnp.float32).mean()) - 0.9) < 2e-3


def test_no_two_updates_of_stochastic_rounding_are_alike():
    optimizer, params = jgd.stochastic_rounding(jgd.sgd(1e-3)), [jnp.ones(1000, jnp.bfloat16)] * 2
    first, state = optimizer.update(params, optimizer.init(params), params)
    second, _ = optimizer.update(params, state, params)
    other, _ = jgd.stochastic_rounding(jgd.sgd(1e-3), seed=1).update(params, optimizer.init(params), params)
    drawn = [first[0], first[1], second[0], second[1], other[0]]
    for i, one in enumerate(drawn):
        assert all(float(jnp.mean(one != another)) > 0.2 for another in drawn[:i])


def bit_patterns():
    """Every upper half with lower halves that matter, and every lower half below upper halves that matter."""
    upper, lower = np.arange(2**16, dtype=np.uint32), np.array([0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF], np.uint32)
    special = np.array([0, 1, 0x007F, 0x0080, 0x3F80, 0x7F7E, 0x7F7F, 0x8000, 0x8001, 0xBF7F, 0xFF7F], np.uint32)
    return np.concatenate([((upper << 16)[:, None] | lower).ravel(), ((special << 16)[:, None] | upper).ravel()])


def test_a_float32_is_a_bfloat16_and_sixteen_bits():
    bits = bit_patterns()
    value = bits.view(np.float32)
    half, lower = jax.jit(split_float)(jax.lax.bitcast_convert_type(jnp.asarray(bits), jnp.float32))
    assert (half.dtype, lower.dtype) == (jnp.bfloat16, jnp.int16)
    joined = jax.lax.bitcast_convert_type(jax.jit(join_float)(half, lower), U32)
    number = ~np.isnan(value)
    np.testing.assert_array_equal(np.asarray(joined)[number], bits[number])
    assert np.isnan(np.asarray(joined).view(np.float32)[~number]).all()
    assert np.isnan(np.asarray(half, np.float32)[~number]).all()
    # The half is the nearest one, and where there are two of them the larger.
    with np.errstate(over="ignore", invalid="ignore"):
        nearest = value.astype(jnp.bfloat16)
    tie = bits & 0xFFFF == 0x8000
    plain = number & ~tie
    np.testing.assert_array_equal(np.asarray(half).view(np.uint16)[plain], nearest.view(np.uint16)[plain])


def test_eight_bits_of_correction_are_half_of_that():
    value = jnp.asarray(np.random.default_rng(0).standard_normal(500), jnp.float32)
    halves, lower = jax.vmap(lambda seed: split_float(value, seed))(seeds(2000))
    assert lower.dtype == jnp.int8
    joined = np.asarray(jax.vmap(join_float)(halves, lower), np.float64)
    error = joined - np.asarray(value, np.float64)
    assert np.all(np.abs(error) < np.abs(value) * 2**-15)
    assert np.max(np.abs(error.mean(axis=0)) / np.maximum(error.std(axis=0), 1e-12)) < 6 / np.sqrt(2000)
    special = jnp.array([0.0, -0.0, jnp.inf, -jnp.inf, jnp.nan, jnp.finfo(jnp.float32).max, 1.0])
    for seed in range(20):
        joined = np.asarray(join_float(*split_float(special, U32(seed))))
        np.testing.assert_array_equal(joined[[0, 1, 2, 3, 4, 6]], np.asarray(special)[[0, 1, 2, 3, 4, 6]])
        assert np.isfinite(joined[5])


def test_split_params_are_the_float32_ones_rounded(rng):
    """Bit for bit those of a float32 run: the only thing that differs is what the caller holds."""
    params = {"w": jnp.asarray(rng.standard_normal((32, 32)), jnp.bfloat16), "b": jnp.zeros(32)}
    wide = jax.tree.map(lambda p: p.astype(jnp.float32), params)
    plain, split = jgd.adamw(1e-3, weight_decay=0.1), jgd.split_master_weights(jgd.adamw(1e-3, weight_decay=0.1))
    plain_state, state = plain.init(wide), split.init(params)
    assert isinstance(state.own.slots["correction"]["b"], optax.MaskedNode)
    for _ in range(30):
        grads = {"w": jnp.asarray(rng.standard_normal((32, 32)), jnp.bfloat16), "b": jnp.ones(32)}
        updates, state = split.update(grads, state, params)
        params = jgd.apply_updates(params, updates)
        wide_grads = jax.tree.map(lambda g: g.astype(jnp.float32), grads)
        wide_updates, plain_state = plain.update(wide_grads, plain_state, wide)
        wide = jgd.apply_updates(wide, wide_updates)
        jax.tree.map(np.testing.assert_array_equal, jgd.master_params(state, params), wide)
        jax.tree.map(np.testing.assert_array_equal, state.inner, plain_state)
        assert np.max(np.abs(np.asarray(params["w"], np.float32) / np.asarray(wide["w"]) - 1)) <= 2**-8
    assert params["w"].dtype == jnp.bfloat16


def test_sums_lead_to_every_bfloat16_from_every_other(rng):
    """The update is a difference of two params, and rounded; added to one it must give the other all the same."""
    params = jnp.asarray(rng.standard_normal(200_000) * 10.0 ** rng.uniform(-12, 12, 200_000), jnp.bfloat16)
    near = -np.asarray(params, np.float32) * (1 + rng.choice([1e-7, 1e-6, 1e-4, 1e-2], 200_000) * rng.uniform(-1, 1))
    far = rng.standard_normal(200_000) * 10.0 ** rng.uniform(-12, 12, 200_000)
    move = jnp.asarray(np.where(rng.random(200_000) < 0.5, near, far), jnp.float32)
    for wrapper in (jgd.split_master_weights, jgd.stochastic_rounding):
        optimizer = wrapper(optax.identity())
        updates, state = optimizer.update(move, optimizer.init(params), params)
        new = jgd.apply_updates(params, updates)
        # At a power of two the sum may be one float32 away from the bfloat16, to which it is then rounded.
        np.testing.assert_allclose(params.astype(jnp.float32) + updates, new.astype(jnp.float32), rtol=2.0**-23)
        if wrapper is jgd.split_master_weights:
            np.testing.assert_array_equal(jgd.master_params(state, new), params.astype(jnp.float32) + move)


@given(
    before=st.floats(-(2.0**99), 2.0**99, width=32, allow_subnormal=False),
    move=st.floats(-(2.0**99), 2.0**99, width=32, allow_subnormal=False),
)
def test_a_split_param_is_where_the_float32_sum_is(before, move):
    params = jnp.asarray(before, jnp.bfloat16)
    optimizer = jgd.split_master_weights(optax.identity())
    updates, state = optimizer.update(jnp.float32(move), optimizer.init(params), params)
    new = jgd.apply_updates(params, updates)
    exact = np.float32(params) + np.float32(move)
    master = np.float32(jgd.master_params(state, new))
    if abs(exact) < 2.0**-108:  # so small that differences are no normal numbers
        assert abs(master - exact) < 2.0**-108
    else:
        assert master == exact
    assert abs(np.float32(new) - master) <= abs(np.float32(new)) * 2.0**-8


def test_params_that_others_changed_are_taken_as_they_are():
    optimizer = jgd.split_master_weights(jgd.sgd(1e-3))
    params = jnp.ones(512, jnp.bfloat16)
    state = optimizer.init(params)
    for _ in range(3):
        updates, state = optimizer.update(jnp.tile(jnp.linspace(-3, 3, 128), 4), state, params)
        params = jgd.apply_updates(params, updates)
    assert {-1, 1} <= set(np.sign(np.asarray(state.own.slots["correction"][:128])))
    others = jnp.concatenate([jnp.zeros(128), -jnp.zeros(128), jnp.full(128, 5.0), jnp.full(128, -1e-3)])
    others = others.astype(jnp.bfloat16)
    found = np.asarray(jgd.master_params(state, others))
    wanted = np.asarray(others, np.float32)
    assert np.all(np.abs(found - wanted) <= np.abs(wanted) * 2.0**-8 + 1e-38)
    updates, state = optimizer.update(jnp.zeros(512), state, others)
    np.testing.assert_array_equal(jgd.apply_updates(others, updates), others)


@pytest.mark.parametrize("wrapper", [jgd.stochastic_rounding, jgd.split_master_weights], ids=["stochastic", "split"])
def test_wrappers_of_sixteen_bit_params_fit_in_everywhere(wrapper):
    params = {"w": jnp.ones((4, 4), jnp.bfloat16), "b": jnp.ones(4), "i": jnp.arange(3), "none": None}
    params["s"] = jnp.ones((), jnp.bfloat16)
    optimizer = jgd.chain(jgd.clip_by_global_norm(1.0), wrapper(jgd.adamw(0.1, state_dtype="bfloat16")))
    state = optimizer.init(params)
    assert signature(jax.eval_shape(optimizer.init, params)) == signature(state)
    assert signature(optimizer.init(jax.eval_shape(lambda: params))) == signature(state)
    grads = {**jax.tree.map(jnp.ones_like, params), "i": jnp.zeros(3, jnp.int32)}
    updates, new = jax.jit(optimizer.update)(grads, state, params)
    assert signature(new) == signature(state)
    moved = jgd.apply_updates(params, updates)
    assert signature(moved) == signature(params)
    np.testing.assert_array_equal(moved["i"], params["i"])
    assert float(jgd.get_hyperparams(new)["learning_rate"]) == pytest.approx(0.1)
    assert float(moved["w"][0, 0]) < 1


ONES = jnp.ones(2)
START = jgd.stochastic_rounding(jgd.sgd(0.1)).init(ONES)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: jgd.split_master_weights(jgd.sgd(0.1), bits=12), ValueError, "bits must be one of 8, 16; got 12"),
        (lambda: jgd.stochastic_rounding(0.1), TypeError, "stochastic_rounding: optimizer must be an optimizer"),
        (lambda: jgd.stochastic_rounding(jgd.sgd(0.1)).update(ONES, START, None), ValueError, "it reads the params"),
        (lambda: jgd.stochastic_rounding(jgd.sgd(0.1)).update(ONES, START.own, ONES), TypeError, "got OptState"),
        (lambda: jgd.master_params(START, ONES), ValueError, "expected one state .* found 0"),
    ],
)
def test_what_the_wrappers_refuse(make, error, message):
    with pytest.raises(error, match=message):
        make()
