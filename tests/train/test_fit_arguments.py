"""What `fit` is given by mistake: a sentence that says what was found and what is expected, before the first step."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jgd

OPTIMIZER = jgd.sgd(0.1)
X, Y = np.ones((12, 3), np.float32), np.ones(12, np.float32)


def loss_fn(w, batch):
    return jnp.mean((batch["x"] @ w - batch["y"]) ** 2)


STEP = jgd.make_step(loss_fn, OPTIMIZER)
HALVES = jgd.make_step(loss_fn, OPTIMIZER, accumulate=2)
BATCH = {"x": X, "y": Y}


def start():
    return jgd.TrainState.create(jnp.zeros(3), OPTIMIZER)


def fit(data=(BATCH,), step=STEP, state=None, **options):
    state = start() if state is None else state
    return jgd.fit(state, step, data, **({"epochs": 1, "progress": False} | options))


class Tensor:
    """A tensor of another library."""

    __module__ = "torch"
    shape = (12,)

    def numpy(self):
        return Y


@pytest.mark.parametrize(("data", "message"), [
    ({"x": X, "y": Y}, r"got a dict, .* For batches of examples .* pass jgd.ArrayLoader\(the_dict, batch_size\)"),
    (X, r"got an array of shape \(12, 3\), whose rows would be taken .* jgd.ArrayLoader\(the_array, batch_size\)"),
    (jnp.ones(3), r"got an array of shape \(3,\)"),
    ((X, Y), r"got a tuple of arrays of shapes \(12, 3\), \(12,\), which cannot be batches of one loss"),
    ([X, Y], r"got a list of arrays of shapes \(12, 3\), \(12,\)"),
    ((X, X), r"got a tuple of arrays, each of which would be taken for a batch; batches go into a list"),
    (3, r"data must be batches or a function of the epoch; got a int"),
    (None, r"data must be batches or a function of the epoch; got a NoneType"),
    ("train.npz", r"data must be batches; got the text 'train.npz'"),
    ([{"x": X, "y": Tensor()}], r"batch at \['y'\] is a torch.Tensor; expected an array .* Convert it: leaf\.cpu"),
    ([{"x": X, "y": "label"}], r"the leaf of batch at \['y'\] is 'label'; expected an array"),
    ([{"x": X, "y": np.array(["a"] * 12)}], r"the leaf of batch at \['y'\] is an array of shape \(12,\) and dtype <U1"),
    (lambda epoch: [{"x": X, "y": np.array([None] * 12)}], r"leaf of batch at \['y'\] is an array of .* dtype object"),
    (lambda: [BATCH], r"data is called as data\(0\), with the epoch; this function takes \(\)"),
    (jgd.ArrayLoader({"x": X, "y": np.array(["a"] * 12)}, 4), r"leaf of batch at \['y'\] is an array of .* dtype <U1"),
    (dict, r"got the class dict"),
    (lambda epoch: None, r"data\(0\) returned a NoneType; expected batches"),
])  # fmt: skip
def test_what_is_no_data(data, message):
    with pytest.raises(TypeError, match=rf"fit: .*{message}"):
        fit(data)


def test_data_that_may_look_like_arrays_of_examples():
    step = jgd.make_step(lambda w, batch: jnp.mean((w - batch) ** 2), OPTIMIZER)
    state = jgd.TrainState.create(jnp.zeros(()), OPTIMIZER)
    for data in ([Y, Y], [Y], (Y,), [2.0], (2.0, 3.0), [np.float32(1), np.float32(2)]):
        _, history = jgd.fit(state, step, data, epochs=1, progress=False)
        assert len(history["loss"]) == len(data)
        state = jgd.TrainState.create(jnp.zeros(()), OPTIMIZER)


@pytest.mark.parametrize(("options", "message"), [
    ({"batch_size": 5, "remainder": "keep"}, "a batch, of 5 examples. Give the loader"),
    ({"batch_size": 10, "remainder": "keep"}, r"the last batch of an epoch, of 1 examples. Give the loader"),
    ({"batch_size": 12, "remainder": "keep"}, "the last batch of an epoch, of 11 examples"),
    ({"batch_size": 5, "remainder": "pad"}, "a batch, of 5 examples. Give the loader"),
])  # fmt: skip
def test_a_batch_that_accumulate_does_not_divide_is_seen_before_the_first_step(options, message):
    loader = jgd.ArrayLoader({"x": X[:11], "y": Y[:11]}, **options)
    with pytest.raises(ValueError, match=f"fit: accumulate=2 does not divide {message}") as caught:
        fit(loader, HALVES)
    assert not hasattr(caught.value, "state")


def test_a_remainder_that_is_dropped_or_padded_is_divided():
    padded_loss = lambda w, padded: loss_fn(w, padded.batch)  # noqa: E731
    padded_step = jgd.make_step(padded_loss, OPTIMIZER, accumulate=2, loss_weight="parts")
    for remainder, step in (("drop", HALVES), ("pad", padded_step)):
        loader = jgd.ArrayLoader({"x": X[:11], "y": Y[:11]}, 4, remainder=remainder)
        assert len(fit(loader, step)[1]["loss"]) == len(loader)


def test_a_list_of_batches_is_looked_at_too():
    with pytest.raises(ValueError, match=r"accumulate=2 does not divide batch 1, of 5 examples"):
        fit([BATCH, {"x": X[:5], "y": Y[:5]}], HALVES)
    many = jgd.PoissonLoader({"x": X[:11]}, 3)
    with pytest.raises(ValueError, match=r"accumulate=2 does not divide a batch, of 11 examples. Give"):
        fit(many, HALVES)


def test_a_batch_of_states():
    states = jax.vmap(lambda rate: jgd.TrainState.create(jnp.zeros(3), jgd.sgd(rate)))(jnp.array([0.1, 0.2]))
    with pytest.raises(ValueError, match=r"fit: the state holds a batch of runs: its step has shape \(2,\)"):
        fit(state=states)


@pytest.mark.parametrize("scan", [True, False])
def test_a_loss_that_is_none(scan):
    step = jgd.make_step(lambda w, batch: None, OPTIMIZER)
    with pytest.raises(TypeError, match=r"loss_fn: expected .*scalar.*; got .*None") as caught:
        fit(jgd.ArrayLoader(BATCH, 4), step, scan=scan)
    assert int(caught.value.state.step) == 0


@pytest.mark.parametrize(("returned", "error", "message"), [
    (0.5, TypeError, "eval_fn must return a dict of scalars by name; got a float"),
    (None, TypeError, "eval_fn must return a dict of scalars by name; got a NoneType"),
    ([("score", 1.0)], TypeError, "eval_fn must return a dict of scalars by name; got a list"),
    ({3: 1.0}, TypeError, "eval_fn must return a dict of scalars by name; got the name 3"),
    ({"score": np.ones(3)}, ValueError, r"eval_fn returned 'score' of shape \(3,\); expected a scalar"),
    ({"score": "good"}, TypeError, "eval_fn returned 'score' as a str; expected a real number"),
    ({"score": None}, TypeError, "eval_fn returned 'score' as a NoneType; expected a real number"),
    ({"score": 1j}, TypeError, "eval_fn returned 'score' as complex128; expected a real number"),
    ({"epoch": 1.0}, ValueError, "eval_fn returned a number under 'epoch', a name that the loop itself uses"),
])  # fmt: skip
def test_what_an_evaluation_returns(returned, error, message):
    with pytest.raises(error, match=f"fit: {message}"):
        fit(eval_fn=lambda state: returned)


def test_an_evaluation_that_takes_the_place_of_the_training_loss_is_told_of(caplog):
    _, history = fit(eval_fn=lambda state: {"loss": 7.0}, epochs=2)
    assert history["epoch_loss"].tolist() == [7, 7]
    (text,) = history["notices"]
    assert "eval_fn returns 'loss', which takes the place of the training's own" in text
    assert len(caplog.records) == 1
    _, history = fit(eval_fn=lambda state: {"score": jnp.bfloat16(0.5), "good": np.True_, "count": 3})
    assert (history["epoch_score"][0], history["epoch_good"][0], history["epoch_count"][0]) == (0.5, 1, 3)


@pytest.mark.parametrize(("options", "error", "message"), [
    ({"epochs": "3"}, ValueError, "epochs must be a whole number of at least 1; got '3'"),
    ({"epochs": None}, ValueError, "epochs must be a whole number of at least 1; got None"),
    ({"prefetch": 1.0}, ValueError, "prefetch must be a whole number of at least 0; got 1.0"),
    ({"eval_fn": {"score": 1.0}}, TypeError, "eval_fn must be None or a function of the state; got a dict"),
    ({"callbacks": print}, TypeError, r"callbacks must be a list of functions, callback\(state, summary\); got a b"),
    ({"callbacks": [print, 3]}, TypeError, "callbacks must be a list of functions, .*; got a list with other entries"),
    ({"callbacks": [lambda state: None]}, TypeError, r"a callback is called as callback\(state, summary"),
    ({"eval_fn": lambda: {"a": 1}}, TypeError, r"eval_fn is called as eval_fn\(state\); this function takes \(\)"),
    ({"resume": np.ones(2)}, ValueError, "resume must be True, False, 'state' or 'hyperparams'; got array"),
    ({"callbacks": None}, TypeError, "callbacks must be a list of functions, .*; got a NoneType"),
    ({"monitor": None}, TypeError, "monitor must be the name of a number, such as 'loss' or '-accuracy'; got None"),
    ({"monitor": "-"}, TypeError, "monitor must be the name of a number"),
    ({"progress": "bar"}, TypeError, "progress must be True or False; got 'bar'"),
    ({"restore_best": "loss"}, TypeError, "restore_best must be True or False; got 'loss'"),
    ({"scan": "yes"}, ValueError, "scan must be True, False or 'auto'; got 'yes'"),
    ({"scan": np.ones(2)}, ValueError, "scan must be True, False or 'auto'; got"),
    ({"log_dir": 3}, TypeError, "log_dir must be a path"),
    ({"checkpoint_dir": ["a"]}, TypeError, "checkpoint_dir must be None, a folder or a jgd.Checkpoints; got a list"),
])  # fmt: skip
def test_an_option_of_another_kind(options, error, message):
    with pytest.raises(error, match=f"fit: {message}"):
        fit(**options)


def test_a_callback_may_return_anything():
    for answer in (None, 0, "go on", np.ones(3), jnp.zeros(2), np.False_):
        assert fit(callbacks=[lambda state, summary, answer=answer: answer])[1]["stopped"] == "finished"
    assert fit(callbacks=[lambda state, summary: np.True_], epochs=3)[1]["stopped"] == "callback"


@pytest.mark.parametrize(("make", "error", "message"), [
    (lambda: jgd.ArrayLoader(X, 2, shuffle="no"), TypeError, "ArrayLoader: shuffle must be True or False; got 'no'"),
    (lambda: jgd.ArrayLoader(X, 2, remainder=["keep"]), ValueError, "ArrayLoader: remainder must be one of"),
    (lambda: jgd.ArrayLoader(X, "2"), ValueError, "ArrayLoader: batch_size must be a whole number"),
    (lambda: jgd.ArrayLoader([[1], [1, 2]], 1), ValueError, "ArrayLoader: .*first axis"),
    (lambda: jgd.ArrayLoader(X, 2).seek("0"), TypeError, "epoch and batch must be whole numbers; got '0' and 0"),
    (lambda: jgd.ArrayLoader(X, 2).seek(0.5), TypeError, "epoch and batch must be whole numbers; got 0.5 and 0"),
    (lambda: jgd.ArrayLoader(X, 2).batch(0, 1.0), TypeError, "epoch and batch must be whole numbers; got 0 and 1.0"),
    (lambda: jgd.ArrayLoader(X, 2).batch(0, 7), ValueError, "no batch 7 in epoch 0; expected .* a batch from 0 to 6"),
    (lambda: jgd.ArrayLoader(X, 2).order("x"), TypeError, "epoch and batch must be whole numbers; got 'x' and 0"),
    (lambda: jgd.PoissonLoader(X, 3).indices(-1, 0), ValueError, "PoissonLoader: no batch 0 in epoch -1"),
    (lambda: jgd.ArrayLoader(X, 2, remainder=X), ValueError, "ArrayLoader: remainder must be one of"),
    (lambda: jgd.ArrayLoader(X, 2).restore(3), TypeError, "expected what state\\(\\) returned, a dict; got a int"),
    (lambda: jgd.PoissonLoader(X, "3"), ValueError, "PoissonLoader: expected_batch_size must be above 0"),
    (lambda: jgd.PoissonLoader(X, float("nan")), ValueError, "PoissonLoader: expected_batch_size must be above 0"),
    (lambda: jgd.PoissonLoader(X, 3, max_batch_size="9"), ValueError, "PoissonLoader: max_batch_size must be None or"),
    (lambda: jgd.Rollback(factor="half"), ValueError, r"Rollback: factor must lie in \(0, 1\]; got 'half'"),
    (lambda: jgd.Rollback(keep=["host"]), ValueError, "Rollback: keep must be one of"),
])  # fmt: skip
def test_loaders_and_rollback_of_nonsense(make, error, message):
    with pytest.raises(error, match=message):
        make()
