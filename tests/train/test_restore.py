"""Which checkpoint a path means, and params without the optimizer that trained them."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jgd
from jgd.train.checkpoints._files import CheckpointError

PARAMS = {"w": np.arange(3, dtype=np.float32), "b": np.ones((), jnp.bfloat16)}
STATS = {"mean": np.float32([1, 2])}


def state_at(step, optimizer=None, params=PARAMS, **more):
    return jgd.TrainState.create(params, optimizer or jgd.adam(0.1), **more)._replace(step=jnp.int32(step))


def run(folder, steps=(1, 2), **more):
    checkpoints = jgd.Checkpoints(folder)
    for step in steps:
        params = {**PARAMS, "w": PARAMS["w"] + np.float32(step)}
        checkpoints.save(state_at(step, params=params, **more), step)
    checkpoints.wait()
    return checkpoints


def test_the_folder_of_a_run_means_its_newest_checkpoint(tmp_path):
    optimizer = jgd.adam(0.1)
    step = jgd.make_step(lambda w, batch: jnp.sum((w - batch) ** 2), optimizer)
    state, _ = jgd.fit(
        jgd.TrainState.create(jnp.ones(3), optimizer),
        step,
        [jnp.zeros(3)] * 2,
        epochs=3,
        checkpoint_dir=tmp_path,
        log_dir=tmp_path,
        progress=False,
    )
    like = jgd.TrainState.create(jnp.zeros(3), optimizer)
    jax.tree.map(np.testing.assert_array_equal, jgd.restore_checkpoint(tmp_path, like), state)
    np.testing.assert_array_equal(jgd.restore_params(str(tmp_path), like.params), state.params)
    assert int(jgd.restore_checkpoint(tmp_path / "000001-step-4", like).step) == 4


def test_a_damaged_newest_is_passed_over_and_named(tmp_path):
    checkpoints = run(tmp_path)
    (checkpoints.paths()[-1] / "record.json").write_text("{}")
    with pytest.warns(RuntimeWarning, match=r"going on from .*000000-step-1, as those after it are damaged"):
        assert int(jgd.restore_checkpoint(tmp_path, state_at(0)).step) == 1
    with pytest.warns(RuntimeWarning, match="damaged"):
        assert jgd.restore_params(tmp_path, PARAMS)["w"].tolist() == [1, 2, 3]
    (checkpoints.paths()[0] / "record.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"every checkpoint in .* is damaged"):
        jgd.restore_checkpoint(tmp_path, state_at(0))


def web_app(folder):
    (folder / "x").mkdir(parents=True)
    (folder / "x/manifest.json").write_text("{}")


@pytest.mark.parametrize(("make", "message"), [
    (lambda folder: None, r"no checkpoint at .*x: there is no such folder"),
    (lambda folder: (folder / "x").write_text(""), r"no checkpoint at .*x: it is a file"),
    (lambda folder: (folder / "x").mkdir(), r"no checkpoint at .*x: the folder holds nothing, and neither"),
    (web_app, r"no checkpoint at .*x: the folder holds manifest.json, and neither"),
    (lambda folder: run(folder / "x/run"), r"the folder holds run, and neither .* Did you mean what is in it: run\?"),
    (
        lambda folder: jgd.save_checkpoint(folder / "x/checkpoint", state_at(1)),
        r"the folder holds checkpoint, and neither .* Did you mean what is in it: checkpoint\?",
    ),
])  # fmt: skip
def test_what_holds_no_checkpoint_is_not_called_damaged(tmp_path, make, message):
    make(tmp_path)
    for restore in (lambda path: jgd.restore_checkpoint(path, state_at(0)), lambda p: jgd.restore_params(p, PARAMS)):
        with pytest.raises(FileNotFoundError, match=message):
            restore(tmp_path / "x")


@pytest.mark.parametrize("like", ["arrays", "shapes"])
def test_params_come_back_without_their_optimizer(tmp_path, like):
    params = {**PARAMS, "key": jax.random.key(3)}
    state = jgd.TrainState.create(params, jgd.chain(jgd.clip_by_global_norm(1.0), jgd.muon(0.1)), key=0)
    state = state._replace(model_state=STATS)
    path = jgd.save_checkpoint(tmp_path / "one", state)
    tree = params, STATS
    if like == "shapes":
        tree = jax.eval_shape(lambda: tree)
    restored, stats = jgd.restore_params(path, tree[0], model_state=tree[1])
    alone = jgd.restore_params(path, tree[0])
    for found in (restored, alone):
        assert jax.random.key_data(found.pop("key")).tolist() == jax.random.key_data(params["key"]).tolist()
        assert found.keys() == PARAMS.keys()
        for name, value in PARAMS.items():
            assert found[name].dtype == value.dtype
            np.testing.assert_array_equal(found[name], value)
    np.testing.assert_array_equal(stats["mean"], STATS["mean"])
    fresh = jgd.TrainState.create(restored, jgd.sgd(0.1))  # to go on with another optimizer
    np.testing.assert_array_equal(fresh.params["w"], PARAMS["w"])


def test_params_that_do_not_fit_are_named(tmp_path):
    path = jgd.save_checkpoint(tmp_path / "one", state_at(1))
    with pytest.raises(ValueError, match="does not fit the tree of params given") as caught:
        jgd.restore_params(path, {"w": jnp.zeros(4), "c": jnp.zeros(2)})
    for part in (
        "leaf params.w has shape (3,); the tree of params expects (4,)",
        "the checkpoint has a leaf params.b that the tree of params lacks",
        "the tree of params has a leaf params.c that the checkpoint lacks",
    ):
        assert part in str(caught.value)
    with pytest.raises(
        ValueError, match=r"the tree of model_state has a leaf model_state.mean that the checkpoint lacks"
    ):
        jgd.restore_params(path, PARAMS, model_state=STATS)
    with pytest.raises(ValueError, match="leaf opt_state") as caught:
        jgd.restore_checkpoint(path, state_at(0, jgd.sgd(0.1)))
    assert "jgd.restore_params(path, params)" in caught.value.__notes__[0]


@pytest.mark.parametrize(("like", "message"), [
    (None, r"restore_\w+: like must be a TrainState or another tree of arrays; got None"),
    ({}, r"restore_\w+: like must be a TrainState or another tree of arrays; got {}"),
    (jgd.adam, r"restore_\w+: like: the leaf at the root is a function, not an array"),
    ("float32", r"restore_\w+: like: the leaf at the root is 'float32', not an array"),
    (jgd.sgd(0.1), r"restore_\w+: like: the leaf at .init is a function"),
])  # fmt: skip
def test_what_is_no_tree_of_arrays(tmp_path, like, message):
    for restore in (jgd.restore_checkpoint, jgd.restore_params):
        with pytest.raises(TypeError, match=message):
            restore(tmp_path, like)
    with pytest.raises(TypeError, match=r"restore_params: expected params; got a TrainState. Pass its .params"):
        jgd.restore_params(tmp_path, state_at(0))
    with pytest.raises(TypeError, match=r"restore_params: path must be a path, .* got a TrainState"):
        jgd.restore_params(state_at(0), PARAMS)


def test_a_checkpoint_of_another_tree_holds_no_params(tmp_path):
    path = jgd.save_checkpoint(tmp_path / "one", PARAMS)
    assert jgd.restore_checkpoint(path, PARAMS)["w"].tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match="holds another tree than a TrainState, so it has no params"):
        jgd.restore_params(path, PARAMS)


@pytest.mark.parametrize(("optimizer", "warned"), [
    (jgd.schedule_free_adamw(0.1), True),
    (jgd.average_params(jgd.adam(0.1)), True),
    (jgd.groups({"*": jgd.adam(0.1)}), False),
    (jgd.groups({"w": jgd.schedule_free_sgd(0.1), "b": None}), True),
    (jgd.chain(jgd.clip_by_global_norm(1.0), jgd.adamw(0.1)), False),
], ids=str)  # fmt: skip
def test_params_that_are_not_those_to_evaluate_are_warned_of(tmp_path, optimizer, warned):
    path = jgd.save_checkpoint(tmp_path / "one", state_at(1, optimizer))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        jgd.restore_params(path, PARAMS)
    told = [str(each.message) for each in caught if each.category is UserWarning]
    assert [("jgd.eval_params(state.opt_state, state.params)" in text) for text in told] == [True] * warned
