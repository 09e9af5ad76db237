"""Where batches come from: order, position, what is drawn ahead; and steps over data on the device."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jgd
from jgd.train.data._array_loader import ArrayLoader
from jgd.train.data._position import Place, Source
from jgd.train.data._prefetch import prefetched
from jgd.train.loop._epoch_scan import epoch_scan

X = np.arange(11)
ORDER_OF_SEED_1_EPOCH_5 = [8, 3, 5, 6, 1, 2, 7, 0, 4, 10, 9]


def batches(loader):
    return [batch.tolist() for batch in loader]


def test_an_epoch_holds_each_example_once_in_an_order_of_its_own():
    loader = ArrayLoader(X, 4, seed=1)
    epochs = [batches(loader) for _ in range(3)]
    assert [[len(batch) for batch in epoch] for epoch in epochs] == [[4, 4, 3]] * 3
    for epoch in epochs:
        assert sorted(np.concatenate(epoch)) == X.tolist()
    assert epochs[0] != epochs[1] != epochs[2]
    assert batches(ArrayLoader(X, 4, seed=2)) != epochs[0]


def test_the_order_is_fixed_for_ever_and_by_nothing_else():
    np.random.seed(0)
    before = np.random.get_state()[1].tolist()
    assert ArrayLoader(X, 4, seed=1).order(5).tolist() == ORDER_OF_SEED_1_EPOCH_5
    assert np.random.get_state()[1].tolist() == before


def test_remainders():
    assert batches(ArrayLoader(X, 4, shuffle=False)) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10]]
    assert batches(ArrayLoader(X, 4, shuffle=False, remainder="drop")) == [[0, 1, 2, 3], [4, 5, 6, 7]]
    padded = list(ArrayLoader({"x": X}, 4, shuffle=False, remainder="pad"))
    assert [batch.mask.sum() for batch in padded] == [4, 4, 3]
    assert padded[-1].batch["x"][:3].tolist() == [8, 9, 10]
    assert [len(ArrayLoader(X, 4, remainder=how)) for how in ("keep", "drop", "pad")] == [3, 2, 3]


def test_a_position_is_found_again_without_the_batches_before_it(monkeypatch):
    loader = ArrayLoader({"x": X, "y": X * 2}, 2, seed=3)
    whole = [batch["y"].tolist() for _ in range(2) for batch in loader]
    for k in range(12):
        loader = ArrayLoader({"x": X, "y": X * 2}, 2, seed=3)
        for _ in range(2):  # two epochs, as far as there are batches to draw
            for _, _ in zip(range(k), loader):
                pass
            break
        state = json.loads(json.dumps(loader.state()))
        other = ArrayLoader({"x": X, "y": X * 2}, 2, seed=3)
        made = []
        make = other.batch
        monkeypatch.setattr(
            other, "batch", lambda epoch, batch, make=make, made=made: made.append(1) or make(epoch, batch)
        )
        other.restore(state)
        rest = [batch["y"].tolist() for _ in range(2) for batch in other][: 12 - min(k, 6)]
        assert rest == whole[min(k, 6) :]
        if k < 6:
            assert len(made) == 12 - k


def test_a_position_of_another_order_is_refused():
    state = ArrayLoader(X, 4, seed=1).state()
    with pytest.raises(ValueError, match=r"batch_size is 5 and was 4, seed is 2 and was 1"):
        ArrayLoader(X, 5, seed=2).restore(state)
    with pytest.raises(ValueError, match=r"no batch 4 in epoch 0; expected .* from 0 to 3"):
        ArrayLoader(X, 4).seek(0, 4)


@pytest.mark.parametrize(("arguments", "options", "message"), [
    (({"a": np.ones(3), "b": np.ones(2)}, 1), {}, r"examples as its first axis; got lengths \['a'\] 3, \['b'\] 2"),
    ((np.float32(1), 1), {}, r"lengths the root none"),
    (((), 1), {}, r"of no arrays"),
    ((np.ones((0, 2)), 1), {}, r"hold no examples"),
    ((X, 0), {}, r"batch_size must be a whole number of at least 1; got 0"),
    ((X, 12), {"remainder": "drop"}, r"leaves no batch: 11 examples, batch_size 12"),
    ((X, 2), {"remainder": "cut"}, r"remainder must be one of 'keep', 'drop', 'pad'; got 'cut'"),
    ((X, 2), {"seed": -1}, r"seed must be a whole number of at least 0"),
])  # fmt: skip
def test_a_loader_that_cannot_be(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        ArrayLoader(*arguments, **options)


def test_what_is_drawn_ahead_comes_in_order_and_its_errors_in_their_turn():
    drawn = []

    def source():
        for i in range(5):
            drawn.append(i)
            if i == 4:
                raise OSError("no more")
            yield i

    items = prefetched(source(), 2)
    assert [(next(items), len(drawn)) for _ in range(4)] == [(0, 3), (1, 4), (2, 5), (3, 5)]
    with pytest.raises(OSError, match="no more"):
        next(items)


def test_positions_are_those_of_batches_trained_on():
    loader = ArrayLoader(X, 4, seed=1)
    for batch, place in Source(loader, Place(2, 1), prefetch=2, save=True):
        assert isinstance(batch, jax.Array)
        assert loader.state()["batch"] > place.batch or loader.state()["epoch"] > place.epoch or place.batch == 3
        assert (place.data["epoch"], place.data["batch"]) == (2, place.batch)
    assert place.batch == 3


class Counting:
    """A stream with its own position, that goes on from epoch to epoch."""

    def __init__(self):
        self.drawn, self.total = 0, 0

    def __iter__(self):
        while self.drawn < 3:
            self.drawn, self.total = self.drawn + 1, self.total + 1
            yield np.float32(self.total)
        self.drawn = 0

    def state(self):
        return [self.drawn, self.total]

    def restore(self, state):
        self.drawn, self.total = state


class Stream:
    """An iterator with the protocol of grain's."""

    def __init__(self):
        self.i = 0

    def __iter__(self):
        return self

    def __next__(self):
        self.i += 1
        if self.i > 5:
            raise StopIteration
        return self.i

    def get_state(self):
        return str(self.i).encode()

    def set_state(self, state):
        self.i = int(state)


class Dataset:
    def __iter__(self):
        return Stream()


def shared():
    loader = ArrayLoader(X, 4, seed=3)
    return lambda epoch: loader


@pytest.mark.parametrize(
    "make",
    [
        Counting,
        Dataset,
        shared,
        lambda: [1, 2, 3],
        lambda: lambda epoch: iter([epoch, 5, 6]),
        lambda: ArrayLoader(X, 4, seed=3),
        lambda: lambda epoch: ArrayLoader(X, 4, seed=epoch),
        lambda: lambda epoch: Stream(),
    ],
)
@pytest.mark.parametrize("prefetch", [0, 2])
def test_any_data_goes_on_where_it_was(make, prefetch):
    whole, data, start = [], make(), Place()
    for _ in range(2):
        source = Source(data, start, prefetch, save=True)
        whole += [(float(np.sum(batch)), json.loads(json.dumps(place))) for batch, place in source]
        start = source.after()
    for k in range(1, len(whole)):
        data, rest, start = make(), [], Place(*whole[k - 1][1])
        while start.epoch < 2:
            source = Source(data, start, prefetch, save=True)
            rest += [float(np.sum(batch)) for batch, _ in source]
            start = source.after()
        assert rest == [batch for batch, _ in whole[k:]]


def test_data_that_has_become_shorter():
    with pytest.raises(ValueError, match=r"saved after 4 batches of epoch 1, and the data now holds 3 in it"):
        list(Source([1, 2, 3], Place(1, 4), 0, save=False))


def test_grain_goes_on_where_it_was():
    grain = pytest.importorskip("grain")
    data = grain.MapDataset.range(20).shuffle(seed=1).batch(3).to_iter_dataset()
    whole = [(batch.tolist(), json.loads(json.dumps(place))) for batch, place in Source(data, Place(), 0, save=True)]
    for k in (1, 4):
        rest = [batch.tolist() for batch, _ in Source(data, Place(*whole[k - 1][1]), 2, save=True)]
        assert rest == [batch for batch, _ in whole[k:]]
        assert whole[k - 1][1][2] is not None


ARRAYS = {"x": np.random.default_rng(0).normal(size=(22, 3)), "y": np.arange(22) % 2}


def loss_fn(params, batch, key):
    keep = jax.random.bernoulli(key, 0.9, (4,))
    batch, mask = (batch.batch, batch.mask) if hasattr(batch, "mask") else (batch, jnp.ones(batch["y"].shape))
    hidden = jnp.tanh(batch["x"] @ params["w"]) * keep
    return jnp.sum(((hidden @ params["v"]) - batch["y"]) ** 2 * mask) / jnp.sum(mask), {"real": jnp.sum(mask)}


OPTIMIZER = jgd.adam(0.05)
STEP = jgd.make_step(loss_fn, OPTIMIZER, has_aux=True)


def state_at_start():
    return jgd.TrainState.create({"w": np.ones((3, 4), np.float32), "v": np.ones(4, np.float32)}, OPTIMIZER, key=0)


def trained(scan, remainder="keep", step=STEP, **options):
    loader = ArrayLoader(ARRAYS, 4, seed=5, remainder=remainder)
    options = {"epochs": 3, "progress": False, "scan": scan, "fetch_every": 3} | options
    return jgd.fit(state_at_start(), step, loader, **options)


@functools.cache
def trained_and_counted(scan, remainder):
    """With how often the loss was traced."""
    traces = []

    def counted(*args):
        traces.append(1)
        return loss_fn(*args)

    return *trained(scan, remainder, jgd.make_step(counted, OPTIMIZER, has_aux=True)), len(traces)


@pytest.mark.parametrize("remainder", ["keep", "drop", "pad"])
def test_steps_in_one_compiled_loop_equal_single_ones_bit_for_bit(remainder):
    train = trained_and_counted if remainder == "pad" else trained
    (a, one_by_one, *_), (b, at_once, *_) = train(False, remainder), train(True, remainder)
    a, b = (state._replace(key=None) for state in (a, b))
    jax.tree.map(np.testing.assert_array_equal, a, b)
    assert one_by_one.keys() == at_once.keys()
    for name, values in one_by_one.items():
        np.testing.assert_array_equal(at_once[name], values)
        assert name == "stopped" or at_once[name].dtype == values.dtype


def test_the_loop_traces_the_loss_as_often_as_a_step():
    assert trained_and_counted(True, "pad")[-1] == trained_and_counted(False, "pad")[-1]


def test_the_loop_writes_the_same_log_and_stops_at_the_same_step(tmp_path):
    for scan in (False, True):
        trained(scan, log_dir=tmp_path / str(scan), tol=0.3, epochs=50)
    logs = [(tmp_path / str(scan) / "history.jsonl").read_text() for scan in (False, True)]
    assert logs[0] == logs[1]
    assert logs[0].count('"step"') < 50 * 6


@pytest.mark.parametrize(("data", "suits"), [
    (ArrayLoader(ARRAYS, 4), True),
    ([ARRAYS], False),
    (lambda epoch: ArrayLoader(ARRAYS, 4), False),
    (ArrayLoader(ARRAYS, 23), False),
    (type("Augmented", (ArrayLoader,), {"batch": lambda self, epoch, batch: None})(ARRAYS, 4), False),
])  # fmt: skip
def test_the_loop_is_chosen_where_it_is_safe(data, suits):
    state = state_at_start()
    assert (epoch_scan("auto", STEP, data, state, 5) is not None) is suits
    assert epoch_scan(False, STEP, data, state, 5) is None
    if not suits:
        with pytest.raises(ValueError, match=r"scan=True runs over a jgd.ArrayLoader with at least one full batch"):
            epoch_scan(True, STEP, data, state, 5)


def test_the_loop_is_not_chosen_for_convolutions_on_a_cpu_or_for_data_too_large(monkeypatch):
    def conv_loss(w, batch):
        return jnp.mean(jax.lax.conv(batch, w, (1, 1), "SAME") ** 2)

    step, w = jgd.make_step(conv_loss, OPTIMIZER), jnp.ones((1, 1, 3, 3))
    state, loader = jgd.TrainState.create(w, OPTIMIZER), ArrayLoader(np.ones((8, 1, 5, 5)), 4)
    assert epoch_scan("auto", step, loader, state, 5) is None
    assert epoch_scan(True, step, loader, state, 5) is not None
    monkeypatch.setattr("jgd.train.loop._epoch_scan._MOST_BYTES", 100)
    step = jgd.make_step(lambda w, batch: jnp.mean(w) * jnp.mean(batch), OPTIMIZER)
    assert epoch_scan("auto", step, loader, state, 5) is None
    with pytest.raises(ValueError, match=r"scan must be True, False or 'auto'; got 'yes'"):
        epoch_scan("yes", step, loader, state, 5)
