"""Checks of a batch, and of a stack of batches."""

import jax
import jax.numpy as jnp

from jgd.core import PyTree, is_array, path_text, shown


def check_batch(owner: str, batch: PyTree, name: str = "batch") -> None:
    """Refuses a batch with a leaf that JAX does not take for an array.

    Raises:
        TypeError: There is one; the message names it.
        ValueError: One is an integer that no array holds.
    """
    for path, leaf in jax.tree_util.tree_flatten_with_path(batch)[0]:
        where = f"{owner}: the leaf of {name} at {path_text(path)}"
        if not is_array(leaf):
            is_torch = type(leaf).__module__.startswith("torch")
            kind = f"a torch.{type(leaf).__name__}" if is_torch else shown(leaf)
            hint = " Convert it: leaf.cpu().numpy()." if is_torch else ""
            raise TypeError(f"{where} is {kind}; expected an array of NumPy or JAX.{hint}")
        if isinstance(leaf, int) and abs(leaf) > jnp.iinfo(jnp.result_type(int)).max:
            raise ValueError(f"{where} is {leaf}, which {jnp.result_type(int)} does not hold.")


def ranks_of(batch: PyTree) -> tuple[int, ...]:
    """How many axes each leaf has."""
    return tuple(jnp.ndim(leaf) for leaf in jax.tree.leaves(batch))


def check_stacked(batches: PyTree, known: set[tuple[int, ...]]) -> None:
    """Refuses batches without an axis of steps in front.

    Args:
        batches: What `scan_steps` was given.
        known: The ranks of the batches that the step was called with so far.

    Raises:
        TypeError: A leaf is not an array.
        ValueError: The leaves do not agree in how many steps they hold, hold none, or have the axes of one batch.
    """
    check_batch("scan_steps", batches, "batches")
    named = jax.tree_util.tree_flatten_with_path(batches)[0]
    lengths = {jnp.shape(leaf)[:1] for _, leaf in named}
    listed = ", ".join(f"{path_text(path)} {list(jnp.shape(leaf))}" for path, leaf in named)
    if len(lengths) != 1 or () in lengths:
        raise ValueError(
            f"scan_steps: every leaf of batches must have the steps as its first axis; got {listed or 'no leaves'}."
        )
    if lengths == {(0,)}:
        raise ValueError("scan_steps: batches holds no steps; expected at least one.")
    ranks = ranks_of(batches)
    if ranks in known and tuple(rank - 1 for rank in ranks) not in known:
        raise ValueError(
            f"scan_steps: batches has the axes of one batch, as the step was called with: {listed}. Expected one axis"
            " more in front, the steps: jax.tree.map(lambda *rows: np.stack(rows), *batches) makes it of several"
            " batches, jax.tree.map(lambda leaf: leaf[None], batch) of one."
        )
