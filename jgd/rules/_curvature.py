r"""Estimates of the diagonal of a Hessian, for Sophia.

$$
\hat h = v \odot \nabla^2 f(\theta)\, v \ \text{(Hutchinson)}, \qquad
\hat h = B\, \hat g \odot \hat g \ \text{(Gauss-Newton)}
$$

Hutchinson's has random signs $v$: unbiased, one Hessian-vector product. In the Gauss-Newton one $\hat g$ is the
gradient of the mean loss over a batch of $B$ whose labels were drawn from the model: never negative.

References:
    - Liu et al., https://arxiv.org/abs/2305.14342, 2023, Algorithms 1 and 2.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from jgd.core import KeyLike, Optimizer, PyTree, abs_sq, check_complex, make_optimizer


def hutchinson(random_seed: KeyLike | None = None) -> Optimizer:
    """Hutchinson's estimator. Its update needs `params` and `obj_fn`, the loss as a function of params.

    Args:
        random_seed: A key of `jax.random`; None for that of seed 0.

    Returns:
        A transform whose update returns the estimated diagonal. Its state is `{"key": key}`.

    Raises:
        TypeError: A leaf is complex; `update` is called without `params` or `obj_fn`.

    Examples:
        >>> import jax.numpy as jnp
        >>> from jgd.rules import hutchinson
        >>> estimator, params = hutchinson(), jnp.array([1.0, 2.0])
        >>> diagonal, state = estimator.update(None, estimator.init(params), params, obj_fn=lambda w: jnp.sum(w**3))
        >>> print(diagonal)
        [ 6. 12.]
    """

    def init(params: PyTree) -> dict[str, Any]:
        for path, leaf in jax.tree_util.tree_flatten_with_path(params)[0]:
            check_complex("hutchinson", path, leaf)
        return {"key": jax.random.PRNGKey(0) if random_seed is None else jnp.array(random_seed, copy=True)}

    def update(grads: PyTree, state: Any, params: PyTree = None, obj_fn: Any = None, **extra: Any) -> Any:
        del grads, extra
        if params is None or obj_fn is None:
            raise TypeError("hutchinson: this estimator needs update(grads, state, params, obj_fn=loss_of_params).")
        key, subkey = jax.random.split(state["key"])
        signs = optax.tree.random_like(subkey, params, jax.random.rademacher, dtype=jnp.float32)
        signs = jax.tree.map(lambda s, p: s.astype(jnp.result_type(p)), signs, params)
        hvp = jax.jvp(jax.grad(obj_fn), (params,), (signs,))[1]
        return jax.tree.map(lambda h, s: h * s, hvp, signs), {"key": key}

    return make_optimizer(init, update, "jgd.hutchinson()")


def gauss_newton(batch_size: int) -> Optimizer:
    """The Gauss-Newton estimator. Its update needs `sampled_grads`, gradients with labels drawn from the model.

    Args:
        batch_size: Examples in the batch that the mean loss is of, at least 1.

    Returns:
        A transform whose update returns the estimated diagonal. It has no state.

    Raises:
        TypeError: `update` is called without `sampled_grads`.

    Examples:
        >>> import jax.numpy as jnp
        >>> from jgd.rules import gauss_newton
        >>> estimator, sampled = gauss_newton(8), jnp.array([0.5, 0.1])
        >>> print(estimator.update(None, estimator.init(sampled), sampled_grads=sampled)[0].round(2))
        [2.   0.08]
    """

    def init(params: PyTree) -> tuple[()]:
        del params
        return ()

    def update(grads: PyTree, state: Any, params: PyTree = None, sampled_grads: Any = None, **extra: Any) -> Any:
        del grads, params, extra
        if sampled_grads is None:
            raise TypeError("gauss_newton: this estimator needs update(grads, state, params, sampled_grads=...).")
        return jax.tree.map(lambda g: batch_size * abs_sq(g), sampled_grads), state

    return make_optimizer(init, update, f"jgd.gauss_newton({batch_size})")
