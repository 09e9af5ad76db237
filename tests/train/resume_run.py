"""A training run of 40 steps that is ended in many ways and resumed in new processes; the result must not change.

    python resume_run.py CASE stop STRIDE    SIGTERM after each STRIDE steps; STRIDE 1 resumes at every k
    python resume_run.py CASE kill TIMES     `kill -9` at TIMES random moments, saves included
    python resume_run.py CASE both STEPS     SIGTERM after STEPS steps, then `kill -9` within a later save

This process imports JAX and starts no backend, so that each run is a fork of it, which saves the import.
"""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import contextlib
import json
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import jgd
from jgd.train.checkpoints._folder import Checkpoints
from jgd.train.data._array_loader import ArrayLoader

EPOCHS, BATCHES, SIZE = 4, 10, 4
RNG = np.random.default_rng(0)
ARRAYS = {
    "x": RNG.normal(size=(BATCHES * SIZE, 3)).astype(np.float32),
    "y": RNG.normal(size=(BATCHES * SIZE,)).astype(np.float32),
    "id": np.arange(BATCHES * SIZE, dtype=np.int32),
}


def loss_fn(params, averages, batch, key):
    """A layer with dropout and a running mean, so that key and model state matter."""
    hidden = jnp.tanh(batch["x"] @ params["w"]) * jax.random.bernoulli(key, 0.8, (4,))
    new = {"mean": 0.9 * averages["mean"] + 0.1 * hidden.mean(0)}
    loss = jnp.mean(((hidden - averages["mean"]) @ params["v"] - batch["y"]) ** 2)
    return loss, (new, {"ids": jnp.sum(batch["id"] * (1 + jnp.arange(batch["id"].shape[0])))})


def by_epoch(epoch):
    """Data that says nothing of its position: a generator."""
    order = np.random.default_rng(epoch).permutation(len(ARRAYS["y"]))
    for i in range(BATCHES):
        yield {name: array[order[i * SIZE : (i + 1) * SIZE]] for name, array in ARRAYS.items()}


class Loader(ArrayLoader):
    """A loader that sends SIGTERM to its process when step `stop_at` is due."""

    stop_at = -1

    def batch(self, epoch, batch):
        end_at(epoch * BATCHES + batch + 1, self.stop_at)
        return super().batch(epoch, batch)


class SeekingLoader(ArrayLoader):
    """One for a compiled loop, which draws no batches: the signal comes after step `stop_at`."""

    stop_at = -1

    def seek(self, epoch, batch=0):
        if batch and self.stop_at > 0:
            end_at(min(epoch * BATCHES + batch, self.stop_at), self.stop_at)
        super().seek(epoch, batch)


def ending(stop_at):
    """`by_epoch`, with SIGTERM when step `stop_at` is due."""

    def data(epoch):
        for i, batch in enumerate(by_epoch(epoch)):
            end_at(epoch * BATCHES + i + 1, stop_at)
            yield batch

    return data


def end_at(step, stop_at):
    if step == stop_at:
        os.kill(os.getpid(), signal.SIGTERM)


def make(case):
    """Optimizer, step options, data and options of `fit` by case."""
    adam = jgd.adamw(jgd.schedules.cosine_decay_schedule(0.05, 40))
    if case == "loader":  # mid-epoch; the batch is gone through in two parts inside the step
        return adam, {"accumulate": 2}, Loader(ARRAYS, SIZE, seed=3), {"scan": False}
    if case == "scan":
        part = jax.tree.map(lambda array: array[:-2], ARRAYS)  # the last batch of an epoch is smaller
        return adam, {}, SeekingLoader(part, SIZE, seed=3), {"scan": True}
    if case == "across":  # mid-accumulation: one update from three steps
        return jgd.accumulate(adam, 3), {}, by_epoch, {"prefetch": 2}
    raise ValueError(case)


def train(case, folder, out, stop_after=None):
    """One process's part of the run."""
    cache = os.environ.get("JGD_TEST_CACHE")
    if cache:  # compile once for all processes
        jax.config.update("jax_compilation_cache_dir", cache)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    optimizer, options, data, more = make(case)
    step = jgd.make_step(loss_fn, optimizer, **options)
    params = {"w": jnp.ones((3, 4)) * 0.3, "v": jnp.ones(4)}
    state = jgd.TrainState.create(params, optimizer, key=1, model_state={"mean": jnp.zeros(4)})
    if stop_after is not None:
        newest = Checkpoints(folder).paths()[-1:]
        stop_at = stop_after + (int(newest[0].name.split("-")[-1]) if newest else 0)
        if callable(data):
            data, more = ending(stop_at), {}  # drawn ahead, the signal would come early
        else:
            data.stop_at = stop_at
    checkpoints = None if folder is None else Checkpoints(folder, every_steps=3, max_to_keep=2, best="loss")
    log = None if folder is None else folder / "log"
    more |= {"progress": False, "fetch_every": 4, "on_interrupt": "return"}
    state, history = jgd.fit(state, step, data, epochs=EPOCHS, checkpoint_dir=checkpoints, log_dir=log, **more)
    history.pop("notices", None)  # of the process, not of the run
    if history["stopped"] == "finished":
        leaves = {
            jax.tree_util.keystr(path): leaf
            for path, leaf in jax.tree_util.tree_leaves_with_path(state._replace(key=jax.random.key_data(state.key)))
        }
        np.savez(out.with_suffix(".partial.npz"), **leaves, **{f"history {name}": v for name, v in history.items()})
        os.replace(out.with_suffix(".partial.npz"), out)


def in_child(function, *arguments):
    """Forks, and returns the child's process id."""
    child = os.fork()
    if child == 0:
        code = 1
        with contextlib.suppress(SystemExit):
            try:
                function(*arguments)
                code = 0
            except BaseException:
                import traceback

                traceback.print_exc()
        sys.stdout.flush()
        os._exit(code)
    return child


def wait(child):
    """The child's exit code, negative for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def check(found, expected, folder):
    """Bit by bit; and the log holds each step once."""
    with np.load(found) as a, np.load(expected) as b:
        assert set(a) == set(b), set(a) ^ set(b)
        for name in a:
            assert a[name].dtype == b[name].dtype, name
            assert a[name].tobytes() == b[name].tobytes(), f"{name}: {a[name]} against {b[name]}"
    lines = [json.loads(line) for line in (folder / "log/history.jsonl").read_text().splitlines()]
    for kind, count in (("step", EPOCHS * BATCHES), ("epoch", EPOCHS)):
        seen = [line[kind] for line in lines if line["kind"] == kind]
        assert seen == list(range(len(seen))), f"{kind}: {seen}"
        assert len(seen) == count, f"{kind}: {len(seen)}"


def stop(case, stride, base):
    """Resumes after each `stride` steps."""
    folder, out, processes = base / "run", base / "found.npz", 0
    while not out.exists():
        assert wait(in_child(train, case, folder, out, stride)) == 0
        processes += 1
        assert processes < 100
    return folder, f"{processes} processes"


def kill(case, times, base):
    """Kills runs at random moments until there were so many; each is ended for good once in a while."""
    rng, folder = random.Random(times), base / "run"
    killed = within = finished = 0
    began = time.monotonic()
    assert wait(in_child(train, case, base / "timing", base / "timing.npz")) == 0
    whole = time.monotonic() - began
    while killed < times:
        out = base / "found.npz"
        child = in_child(train, case, folder, out)
        if killed % 2:
            time.sleep(rng.uniform(0.2, 1.1) * whole)
        else:
            await_a_save(folder, whole)
            time.sleep(rng.uniform(0, 0.03))
        os.kill(child, signal.SIGKILL)  # it is ours until it is waited for, even if it has ended
        code = wait(child)
        assert code in (0, -signal.SIGKILL), code
        killed += code != 0
        within += code != 0 and any(folder.glob(".*.partial-*"))
        if out.exists():  # it came to its end: compare, and begin again
            finished += 1
            if killed < times:
                check(out, base / "expected.npz", folder)
                out.unlink()
                shutil.rmtree(folder)
    if not (base / "found.npz").exists():
        assert wait(in_child(train, case, folder, base / "found.npz")) == 0
    return folder, f"{killed} kills, {within} of them within a save, and {finished + 1} ends"


def both(case, steps, base):
    """Resumes after `steps` steps, and again after a kill within a save."""
    folder, out = base / "run", base / "found.npz"
    for _ in range(3):
        assert wait(in_child(train, case, folder, out, steps)) == 0
        assert not out.exists()
        child = in_child(train, case, folder, out)
        await_a_save(folder, 10)
        os.kill(child, signal.SIGKILL)
        if wait(child) == -signal.SIGKILL and not out.exists():
            assert wait(in_child(train, case, folder, out)) == 0
            return folder, "a stop and a kill"
        shutil.rmtree(folder)  # it came to its end: begin again
        out.unlink(missing_ok=True)
    raise AssertionError("no run was killed before its end")


def await_a_save(folder, most):
    """Waits until a checkpoint is being written."""
    end = time.monotonic() + 2 * most
    old = set(folder.glob(".*.partial-*"))
    while time.monotonic() < end and set(folder.glob(".*.partial-*")) <= old:
        time.sleep(0.001)


def main(case, mode, count):
    """Runs one case, and says how it went."""
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        os.environ.setdefault("JGD_TEST_CACHE", str(base / "cache"))
        began = time.monotonic()
        assert wait(in_child(train, case, None, base / "expected.npz")) == 0
        folder, text = {"stop": stop, "kill": kill, "both": both}[mode](case, count, base)
        check(base / "found.npz", base / "expected.npz", folder)
        print(f"{case} {mode} {count}: bit-equal after {text}, {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
