"""The second run of a step that failed: what it finds, and the bundle that reproduces it."""

import json
import runpy
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jgd
from jgd.train.debug._bundle import load_bundle, save_bundle
from jgd.train.debug._op_by_op import first_not_finite
from jgd.train.debug._report import debug_step
from jgd.train.guards._guard import Guard
from jgd.train.guards._loss_scale import LossScale

OPTIMIZER = jgd.adam(0.1)


def log_loss(params, batch):
    hidden = jax.nn.relu(batch["x"] @ params["w"])
    return jnp.mean(jnp.log(hidden))


def state_of(optimizer=OPTIMIZER, **more):
    return jgd.TrainState.create({"w": np.ones(3, np.float32), "b": np.zeros((), np.float32)}, optimizer, **more)


def batch(bad=2, size=4):
    x = np.ones((size, 3), np.float32)
    x[bad] = -1
    return {"x": x, "id": np.arange(100, 100 + size, dtype=np.int32)}


def good_batch():
    return {"x": np.full((4, 3), 1.5, np.float32), "id": np.arange(4, dtype=np.int32)}


@pytest.fixture(scope="module")
def failed(tmp_path_factory):
    """The error of a step that failed at its second batch, with the bundle that it wrote."""
    step = jgd.make_step(log_loss, OPTIMIZER, debug=tmp_path_factory.mktemp("debug") / "bundles")
    state, _ = step(state_of(), good_batch())
    with pytest.raises(jgd.NonFiniteError, match="step 1") as caught:
        step(state, batch())
    return caught.value


def test_it_names_the_operation_its_line_and_the_examples(failed):
    report = failed.report
    assert (report.leaf, report.operation, report.makes, report.backward) == ("loss", "log", "infinity", False)
    assert report.line == "return jnp.mean(jnp.log(hidden))"
    assert report.source.startswith("test_debug.py:")
    assert (report.examples, report.ids) == ([2], [102])
    assert "test_debug.py" in str(report)
    assert "by id [102]" in str(report)


def test_a_gradient_that_fails_by_itself_is_found_too():
    def loss(params, batch):
        return jnp.mean(jnp.sqrt(jnp.abs(batch["x"]) @ params["w"]))

    x = np.float32([[0, 0, 0], [1, 1, 1]])
    report = debug_step(jgd.make_step(loss, OPTIMIZER), state_of(), {"x": x})
    assert (report.leaf, report.backward, report.examples, report.ids) == ("['w']", True, [0], None)
    assert np.isfinite(report.loss)
    assert "jnp.sqrt(" in report.line


def test_a_batch_that_holds_nan_is_itself_the_cause():
    bad = batch()
    bad["x"][3, 0] = np.nan
    report = debug_step(jgd.make_step(log_loss, OPTIMIZER), state_of(), bad)
    assert (report.operation, report.examples) == ("batch['x']", [2, 3])
    assert "The first input with NaN: batch['x']" in str(report)


def test_examples_of_a_padded_batch_are_seen_with_their_mask():
    def loss(params, padded):
        roots = jnp.sqrt(padded.batch["x"] @ params["w"])
        return jnp.sum(jnp.where(padded.mask, roots, 0)) / jnp.sum(padded.mask)

    bad = jgd.gradients.pad_batch({"x": np.float32([[1, 1, 1], [-1, -1, -1], [2, 2, 2]])}, 4)
    step = jgd.make_step(loss, OPTIMIZER, accumulate=2, loss_weight="examples")
    report = debug_step(step, state_of(), bad)
    assert (report.operation, report.examples) == ("sqrt", [1])


def test_infinities_that_are_gone_before_the_end_are_no_cause():
    def masked(params, batch):
        scores = jnp.where(batch["x"] > 0, batch["x"] * params["w"], -jnp.inf)
        weights = jax.nn.softmax(scores)  # minus infinity is what a mask is made of
        return jnp.mean(jnp.sqrt(weights[:, 0] - 0.5))

    x = np.float32([[1, -1, -1], [1, 1, 1]])
    report = debug_step(jgd.make_step(masked, OPTIMIZER), state_of(), {"x": x})
    assert (report.operation, report.makes, report.examples) == ("sqrt", "NaN", [1])


def test_loops_say_at_which_iteration():
    def looping(params, batch):
        def body(carry, x):
            return carry + jnp.log(x), carry

        return jax.lax.scan(body, jnp.sum(params["w"]), batch["x"])[0]

    report = debug_step(jgd.make_step(looping, OPTIMIZER), state_of(), {"x": np.float32([1, 1, 1, -1, 1])})
    assert (report.leaf, report.operation, report.inside) == ("loss", "log", ("iteration 3 of a scan of 5",))


def test_the_interpreter_computes_what_jax_computes():
    @jax.custom_vjp
    def doubled(x):
        return 2 * x

    doubled.defvjp(lambda x: (2 * x, None), lambda _, g: (3 * g,))

    def everything(x, key):
        y = jax.lax.while_loop(lambda v: v[0] < 3, lambda v: (v[0] + 1, v[1] * jnp.sin(v[1])), (0, x))[1]
        y = jax.lax.cond(y[0] > 0, jnp.cos, jnp.tanh, y) + jax.random.normal(key, x.shape)
        ys = jax.lax.scan(lambda c, v: (c * v, c + v), jnp.ones(()), doubled(x), reverse=True)[1]
        return jax.jit(jnp.dot)(jax.checkpoint(jnp.exp)(y), jax.nn.relu(ys)), jax.grad(lambda v: doubled(v).sum())(x)

    x, key = np.float32([1, 2, 3, 4]), jax.random.key(0)
    result, origin = first_not_finite(everything, x=x, key=key)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), result, jax.jit(everything)(x, key))
    assert origin is None
    (_, y), origin = first_not_finite(
        lambda x: (0, jax.lax.while_loop(lambda v: v > -5, lambda v: jnp.log(v), x)), x=2.0
    )
    assert (origin.operation, origin.inside) == ("log", ("iteration 2 of a while loop",))
    assert np.isnan(y)


def test_loops_that_run_backward_are_followed_backward():
    def backward(x):
        return jax.lax.scan(lambda carry, v: (carry / 2 + jnp.log(v), carry), 0.0, x, reverse=True)[1]

    x = jnp.array([1.0, -1.0, 2.0])
    result, origin = first_not_finite(backward, x=x)
    np.testing.assert_allclose(result, backward(x), rtol=1e-6)
    assert origin.inside == ("iteration 1 of a scan of 3",)


def test_a_finite_step_says_so():
    report = debug_step(jgd.make_step(log_loss, OPTIMIZER), state_of(), {"x": jnp.ones((2, 3))})
    assert (report.leaf, report.operation, report.examples) == (None, None, None)
    assert "operation by operation, loss and gradients are finite" in str(report)


def test_an_overflow_of_a_scaled_loss_and_micro_batches_are_seen():
    guard = Guard(loss_scale=LossScale(initial=2.0**15))

    def loss(params, batch):
        return jnp.mean((batch["x"] * params["h"]) ** 2)

    step = jgd.make_step(loss, OPTIMIZER, guard=guard, accumulate=2)
    state = jgd.TrainState.create({"h": jnp.ones((), jnp.float16)}, OPTIMIZER, guard=guard)
    report = debug_step(step, state, {"x": np.float16([0.1, 0.1, 90.0, 0.1])})
    assert (report.leaf, report.backward, report.examples) == ("['h']", True, [2])
    assert report.inside == ("iteration 1 of a scan of 2",)


def check_bundle(error):
    assert any("The first operation with infinity: log" in note for note in error.__notes__)
    assert error.report.bundle.parts[-2:] == ("bundles", "step_1")
    found = load_bundle(error.report.bundle)
    assert jax.tree.structure(found.state) == jax.tree.structure(error.state)
    jax.tree.map(np.testing.assert_array_equal, found.state, error.state)
    jax.tree.map(np.testing.assert_array_equal, found.batch, batch())
    assert (found.info["step"], found.info["report"]["examples"], found.info["options"]["accumulate"]) == (1, [2], 1)
    assert sorted(path.name for path in error.report.bundle.iterdir()) == [
        "arrays.npz", "bundle.json", "error.txt", "reproduce.py"
    ]  # fmt: skip


def test_a_failing_step_writes_a_bundle_that_reproduces_it_to_the_bit(failed, monkeypatch, capsys):
    check_bundle(failed)
    monkeypatch.setattr(sys, "argv", ["reproduce.py"])
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setitem(sys.modules, log_loss.__module__, sys.modules[__name__])
    runpy.run_path(str(failed.report.bundle / "reproduce.py"))
    assert "Examples that are not finite alone: [2], by id [102]" in capsys.readouterr().out


def test_a_scan_with_a_failing_step_writes_the_bundle_of_that_step(tmp_path):
    run = jgd.scan_steps(jgd.make_step(log_loss, OPTIMIZER, debug=tmp_path / "bundles"))
    batches = jax.tree.map(lambda *leaves: np.stack(leaves), good_batch(), batch(), good_batch())
    with pytest.raises(jgd.NonFiniteError, match="step 1") as caught:
        run(state_of(), batches)
    assert caught.value.report.bundle == tmp_path / "bundles" / "step_1"
    check_bundle(caught.value)


def test_an_error_of_the_second_run_never_hides_the_first(tmp_path):
    (tmp_path / "taken").write_text("a file, where a folder is to be")
    step = jgd.make_step(log_loss, OPTIMIZER, debug=tmp_path / "taken")
    with pytest.raises(jgd.NonFiniteError, match="step 0") as caught:
        step(state_of(), batch())
    assert any("the second run of the batch failed" in note for note in caught.value.__notes__)


def test_bundles_hold_every_dtype_and_container(tmp_path):
    with jax.enable_x64(True):
        wide = jnp.array([0.1], jnp.float64)
    tree = {
        "half": jnp.array([1.5, jnp.nan, -0.0], jnp.bfloat16),
        "eight": jnp.array([1.5], jnp.float8_e4m3fn),
        "whole": np.array([[2**40]], np.int64),
        "list": [jnp.zeros((0, 3)), (1.25, None, True, 3)],
        "key": jax.random.key(7, impl="rbg"),
        "numbers": {5: np.float32(0.1)},
        "wide": wide,
    }
    first = save_bundle(tmp_path / "b", tree, OPTIMIZER.init(jnp.ones(2)), {"step": 0}, {})
    second = save_bundle(tmp_path / "b", tree, None, {"step": 0}, {})
    assert (first.name, second.name) == ("b", "b_1")
    found = load_bundle(first)
    assert isinstance(found.batch, jgd.OptState)
    for name in ("half", "eight", "whole", "wide"):
        assert found.state[name].dtype == tree[name].dtype
        assert np.asarray(found.state[name]).tobytes() == np.asarray(tree[name]).tobytes()
    assert isinstance(found.state["whole"], np.ndarray)
    assert found.state["list"][1] == (1.25, None, True, 3)
    assert found.state["list"][0].shape == (0, 3)
    assert jnp.all(jax.random.key_data(found.state["key"]) == jax.random.key_data(tree["key"]))
    assert float(found.state["numbers"][5]) == float(np.float32(0.1))


def test_a_bundle_with_a_class_of_its_own_needs_like(tmp_path):
    params = jgd.pack({"w": jnp.ones(3), "b": jnp.zeros(2)})
    folder = save_bundle(tmp_path / "b", params, {"x": 1}, {}, {})
    with pytest.raises(ValueError, match=r"cannot make a Packed, at the root; pass like="):
        load_bundle(folder)
    found = load_bundle(folder, like=(params, {"x": 0}))
    jax.tree.map(np.testing.assert_array_equal, found.state, params)
    with pytest.raises(ValueError, match=r"the batch of the bundle and of like differ in \['x'\], \['y'\]"):
        load_bundle(folder, like=(params, {"y": 0}))


def test_bundles_are_found_from_the_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert save_bundle("~/a/b", {"w": jnp.ones(2)}, {}, {}, {}) == tmp_path / "a/b"
    assert load_bundle("~/a/b").state["w"].tolist() == [1.0, 1.0]
    assert jgd.make_step(log_loss, OPTIMIZER, debug="~/c").debug == tmp_path / "c"


@pytest.mark.parametrize("call", [
    lambda given: load_bundle(given),
    lambda given: debug_step(jgd.make_step(log_loss, OPTIMIZER), jgd.TrainState.create(1.0, OPTIMIZER), 0, given),
    lambda given: jgd.make_step(log_loss, OPTIMIZER, debug=given),
], ids=["load_bundle", "debug_step", "make_step"])  # fmt: skip
def test_what_is_no_path(call):
    with pytest.raises(
        TypeError, match=r"\w+: \w+ must be (a path, as text or pathlib.Path; got a int|.* or a path; got 3)"
    ):
        call(3)
    with pytest.raises(ValueError, match=r"\w+: \w+='' is not a path"):
        call("")


def test_a_bundle_in_the_root_and_other_arguments_that_cannot_be(tmp_path):
    with pytest.raises(ValueError, match="is the root; expected the name of a new folder"):
        save_bundle("/", {}, {}, {}, {})
    with pytest.raises(TypeError, match="debug_step: state must be a TrainState; got a int"):
        debug_step(jgd.make_step(log_loss, OPTIMIZER), 3, {})
    with pytest.raises(TypeError, match=r"load_bundle: like must be \(state, batch\), or None; got a int"):
        load_bundle(tmp_path, like=3)


@pytest.mark.parametrize("damage", ["{", "[]", "{}"])
def test_a_damaged_bundle_is_told(tmp_path, damage):
    folder = save_bundle(tmp_path / "b", {"w": jnp.ones(2)}, {}, {}, {})
    (folder / "bundle.json").write_text(damage)
    with pytest.raises(ValueError, match=r"the bundle .*b cannot be read"):
        load_bundle(folder)
    folder = save_bundle(tmp_path / "c", {"w": jnp.ones(2)}, {}, {}, {})
    (folder / "arrays.npz").write_text("not a zip")
    with pytest.raises(ValueError, match=r"the bundle .*c cannot be read"):
        load_bundle(folder)


def test_bundles_that_cannot_be_read(tmp_path):
    with pytest.raises(FileNotFoundError, match="no bundle at"):
        load_bundle(tmp_path)
    folder = save_bundle(tmp_path / "b", {}, {}, {}, {})
    document = json.loads((folder / "bundle.json").read_text()) | {"format": 99}
    (folder / "bundle.json").write_text(json.dumps(document))
    with pytest.raises(ValueError, match="a bundle of format 99"):
        load_bundle(folder)
    with pytest.raises(TypeError, match="debug_step: expected the step that make_step returned; got a function"):
        debug_step(log_loss, state_of(), batch())
