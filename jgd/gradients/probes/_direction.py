"""How every example's loss changes in the direction of the mean gradient."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jgd.core import Array, PyTree, checked
from jgd.gradients._padding import Padded, batch_size
from jgd.gradients.probes._batches import masked, real_examples
from jgd.gradients.probes._passes import LossesFn, check_losses, split_params


@checked
def dot_with_mean(losses_fn: LossesFn) -> Callable[[PyTree, PyTree], tuple[Array, Array]]:
    r"""$g_i \cdot \bar g$ for every example: how far a step along the mean gradient lowers each example's loss.

    The derivative of all losses in the direction of their mean's gradient: one forward, one backward, one tangent pass.

    Args:
        losses_fn: As for `norms`, but any operations will do, as long as forward mode goes through them: it is called
            with `probe=None`.

    Returns:
        `dots_fn(params, batch) -> (losses [B], dots [B])`, compiled at its first call. The batch may be `Padded`: the
        mean is over real examples, and padded ones have 0.

    Raises:
        ValueError: When called: losses of another shape than `[B]`.

    Examples:
        >>> import jax.numpy as jnp
        >>> from jgd.gradients import probes
        >>> def losses_fn(w, batch, probe):
        ...     return 0.5 * probes.dense(batch, w, probe)[:, 0] ** 2
        >>> print(probes.dot_with_mean(losses_fn)(jnp.array([[2.0]]), jnp.array([[1.0], [3.0]]))[1])
        [ 20. 180.]
    """
    owner = "probes.dot_with_mean"

    def dots_fn(params: PyTree, batch: PyTree | Padded) -> tuple[Array, Array]:
        split = split_params(owner, params)
        batch, mask = real_examples(owner, batch)

        def losses_of(leaves: list[Array]) -> Array:
            losses = losses_fn(split.merge(leaves), batch, None)
            check_losses(owner, losses, batch_size(owner, batch))
            return losses

        losses, tangents_of = jax.linearize(losses_of, split.leaves)
        shares = jnp.ones_like(losses) if mask is None else mask.astype(losses.dtype)
        shares = shares / jnp.maximum(jnp.sum(shares), 1)
        (mean,) = jax.linear_transpose(tangents_of, split.leaves)(shares)
        losses, dots = masked((losses, tangents_of(mean)), mask)
        return losses, dots

    return jax.jit(dots_fn)
