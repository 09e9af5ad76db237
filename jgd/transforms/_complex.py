"""Complex leaves as pairs of real ones, for optimizers that take real leaves alone."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jgd.core import GradientTransformation, Optimizer, PyTree, make_optimizer, transform_text


class RealPair(NamedTuple):
    """A complex leaf's two parts."""

    real: Any
    imaginary: Any


class SplitRealAndImaginaryState(NamedTuple):
    """The inner state, on the tree of real leaves."""

    inner_state: PyTree


def _split(leaf: Any) -> Any:
    return RealPair(jnp.real(leaf), jnp.imag(leaf)) if jnp.iscomplexobj(leaf) else leaf


def _join(node: Any) -> Any:
    return jax.lax.complex(node.real, node.imaginary) if isinstance(node, RealPair) else node


def split_real_and_imaginary(inner: GradientTransformation) -> Optimizer:
    """Lets an optimizer see each complex leaf as two real ones.

    Args:
        inner: Any optimizer.

    Returns:
        An optimizer whose state is `SplitRealAndImaginaryState(inner_state)`.

    Raises:
        TypeError: `inner` is not an optimizer.

    Examples:
        >>> import jax.numpy as jnp, jgd
        >>> optimizer = jgd.split_real_and_imaginary(jgd.sign_sgd(0.1))
        >>> print(optimizer.update(jnp.array([3.0 - 5.0j]), optimizer.init(jnp.zeros(1, complex)))[0])
        [-0.1+0.1j]
    """
    base = optax.with_extra_args_support(inner)

    def init(params: PyTree) -> SplitRealAndImaginaryState:
        return SplitRealAndImaginaryState(base.init(jax.tree.map(_split, params)))

    def update(grads: PyTree, state: Any, params: PyTree = None, **extra: Any) -> tuple[PyTree, Any]:
        split_params = None if params is None else jax.tree.map(_split, params)
        updates, new_inner_state = base.update(jax.tree.map(_split, grads), state.inner_state, split_params, **extra)
        joined = jax.tree.map(_join, updates, is_leaf=lambda node: isinstance(node, RealPair))
        return joined, SplitRealAndImaginaryState(new_inner_state)

    return make_optimizer(init, update, f"jgd.split_real_and_imaginary({transform_text(inner)})")
