"""Checks that an optimizer is a pure function: whatever compiles, batches or donates it must get the same numbers."""

import warnings
from typing import Any

import jax
import jax.numpy as jnp

from jgd.core import GradientTransformation, PyTree, check_integers
from jgd.testing._subject import (
    Extra,
    OptimizerCheckError,
    as_subject,
    assert_close,
    at,
    by_path,
    check,
    gradients,
    scaled,
)


@check
def check_jit_equals_eager(
    optimizer: GradientTransformation, *, params: PyTree = None, extra: Extra = None, rtol: float = 1e-4
) -> None:
    """Three updates under `jax.jit` give what they give outside of it.

    They differ where a Python value changes from call to call: under `jit` it is frozen into the program.

    Args:
        optimizer: Any optax optimizer.
        params: As for `check_optimizer`.
        extra: As for `check_optimizer`.
        rtol: By how much an entry may differ, relative to the largest of its leaf: fusion moves the last bits.

    Raises:
        OptimizerCheckError: An update or the last state differs.

    Examples:
        >>> import optax
        >>> from jgd.testing import check_jit_equals_eager
        >>> check_jit_equals_eager(optax.sgd(0.1))
    """
    subject = as_subject(optimizer, params, extra)

    def run(step: Any) -> tuple[list[PyTree], PyTree]:
        params, all_updates = subject.params, []
        state = subject.init(params)
        for seed in range(3):
            updates, state, params = step(gradients(params, seed), state, params)
            all_updates.append(updates)
        return all_updates, state

    eager, jitted = run(subject.plain_step), run(subject.step)
    for number, (actual, expected) in enumerate(zip(jitted[0], eager[0], strict=True), 1):
        assert_close(f"update {number} under jit", actual, expected, rtol, "outside of it", subject.params)
    assert_close("the state under jit", jitted[1], eager[1], rtol, "outside of it")


@check
def check_vmap_equals_loop(
    optimizer: GradientTransformation, *, params: PyTree = None, extra: Extra = None, rtol: float = 1e-4
) -> None:
    """A stack of three problems under `jax.vmap` gives what each gives by itself, `init` included.

    They differ where an update reads across the batch, as a callback or a batching rule of one's own may.

    Args:
        optimizer: Any optax optimizer.
        params: As for `check_optimizer`.
        extra: As for `check_optimizer`.
        rtol: By how much an entry may differ, relative to the largest of its leaf.

    Raises:
        OptimizerCheckError: An update or a state differs, or `vmap` fails.

    Examples:
        >>> import optax
        >>> from jgd.testing import check_vmap_equals_loop
        >>> check_vmap_equals_loop(optax.sgd(0.1, momentum=0.9))
    """
    subject = as_subject(optimizer, params, extra)

    def run(init: Any, step: Any, start: PyTree, grads: list[PyTree]) -> tuple[PyTree, PyTree]:
        state = init(start)
        _, state, params = step(grads[0], state, start)
        updates, state, _ = step(grads[1], state, params)
        return updates, state

    # Problems of very different sizes: a norm taken over all of them is far from each one's own.
    problems = [
        (
            scaled(subject.params, size),
            [_stackable(scaled(gradients(subject.params, 2 * i + j), size)) for j in range(2)],
        )
        for i, size in enumerate((1, 10, 100))
    ]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *problems)
    batched = run(jax.jit(jax.vmap(subject.init)), jax.jit(jax.vmap(subject.plain_step)), *stacked)
    for i, problem in enumerate(problems):
        alone = run(subject.init, subject.step, *problem)
        one = jax.tree.map(lambda leaf, i=i: leaf[i], batched)
        assert_close(f"the update of problem {i} of 3 under vmap", one[0], alone[0], rtol, "by itself", problem[0])
        assert_close(f"the state of problem {i} of 3 under vmap", one[1], alone[1], rtol, "by itself")


def _stackable(grads: PyTree) -> PyTree:
    # Plain zeros stand for the gradients of integers, which have a dtype that cannot be stacked.
    return jax.tree.map(lambda g: jnp.zeros(g.shape) if g.dtype == jax.dtypes.float0 else g, grads)


@check
def check_one_trace(
    optimizer: GradientTransformation, *, params: PyTree = None, extra: Extra = None, steps: int = 4
) -> None:
    """One trace serves every step: `jax.jit` never traces an update again.

    It does where the state's structure or types change, such as a step count that is not an array but a static field.

    Args:
        optimizer: Any optax optimizer.
        params: As for `check_optimizer`.
        extra: As for `check_optimizer`.
        steps: How many updates follow each other.

    Raises:
        OptimizerCheckError: A later update is traced again; the message says what changed in the state.
        TypeError, ValueError: `steps` is not an integer of at least 1, or exceeds int32.

    Examples:
        >>> import optax
        >>> from jgd.testing import check_one_trace
        >>> check_one_trace(optax.sgd(0.1, momentum=0.9))
    """
    check_integers("check_one_trace", 1, steps=steps)
    subject = as_subject(optimizer, params, extra)
    traces: list[Any] = []

    # `chex.assert_max_traces` counts by source line over the whole process; two optimizers would share a count.
    @jax.jit
    def step(grads: PyTree, state: PyTree, params: PyTree) -> tuple[PyTree, PyTree]:
        traces.append((jax.tree.structure(state), {path: jax.typeof(leaf) for path, leaf in by_path(state).items()}))
        return subject.update(grads, state, params)

    state, grads = subject.init(subject.params), gradients(subject.params, 0)
    for number in range(1, steps + 1):
        # Tracing is all that is asked for here; nothing is compiled.
        _, state = jax.eval_shape(step, grads, state, subject.params)
        if len(traces) > 1:
            raise OptimizerCheckError(f"update {number} is traced again: {_change(*traces[0], *traces[1])}.")


def _change(old_tree: Any, old: dict[str, Any], new_tree: Any, new: dict[str, Any]) -> str:
    for path, actual in new.items():
        if path in old and (actual, actual.weak_type) != (old[path], old[path].weak_type):
            return f"the state{at(path)} was {old[path]} and became {actual}; a ~ marks a weak type"
    if old_tree != new_tree:
        return f"the state was {old_tree} and became {new_tree}"
    return "its update reads something outside of its arguments"


@check
def check_donation(
    optimizer: GradientTransformation, *, params: PyTree = None, extra: Extra = None, rtol: float = 1e-4
) -> None:
    """Params and state can be donated to a compiled step, twice in a row, with the results that they have otherwise.

    That fails where two leaves of the state, or a leaf of the state and a param, share one buffer.

    Args:
        optimizer: Any optax optimizer.
        params: As for `check_optimizer`; they are copied before they are donated.
        extra: As for `check_optimizer`.
        rtol: By how much an entry may differ, relative to the largest of its leaf.

    Raises:
        OptimizerCheckError: Two leaves share a buffer, or the donating step fails or gives other numbers.

    Examples:
        >>> import optax
        >>> from jgd.testing import check_donation
        >>> check_donation(optax.sgd(0.1, momentum=0.9))
    """
    subject = as_subject(optimizer, params, extra)
    params = jax.tree.map(lambda leaf: jnp.array(leaf, copy=True), subject.params)
    state = subject.init(params)
    owners: dict[int, str] = {}
    for root, tree in (("params", params), ("state", state)):
        for path, leaf in by_path(tree).items():
            name = root if path == "the root" else root + path
            for buffer in _buffers(leaf):
                if buffer in owners:
                    raise OptimizerCheckError(f"{name} and {owners[buffer]} share one buffer; copy it in init.")
                owners[buffer] = name
    expected = (subject.init(subject.params), subject.params)
    donating = jax.jit(subject.plain_step, donate_argnums=(1, 2))
    for seed in range(2):
        grads = gradients(subject.params, seed)
        expected = subject.step(grads, *expected)[1:]
        with warnings.catch_warnings():
            # Where a leaf changes its dtype its buffer is of no use; that is another check's finding.
            warnings.filterwarnings("ignore", message="Some donated buffers were not usable")
            state, params = donating(grads, state, params)[1:]
    for what, actual, reference in zip(("state", "params"), (state, params), expected, strict=True):
        assert_close(f"the {what} after two donating steps", actual, reference, rtol, "without donation")


def _buffers(leaf: Any) -> list[int]:
    """The addresses of an array's memory; none for arrays without entries, which have no memory to share."""
    if not isinstance(leaf, jax.Array) or not leaf.size or jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return []
    return list({shard.data.unsafe_buffer_pointer() for shard in leaf.addressable_shards})
