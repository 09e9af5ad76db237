r"""AdamW: Adam whose weight decay does not pass through the second moment.

$$
\theta_t = \theta_{t-1} - \eta\, \bigl(\hat m_t / (\sqrt{\hat v_t + \epsilon_\text{root}} + \epsilon)
           + \lambda\, \theta_{t-1}\bigr)
$$

with $\hat m$ and $\hat v$ of `jgd.adam`. The decay is multiplied by the learning rate, as in optax and
PyTorch; the paper multiplies it by the schedule alone. PyTorch's default for $\lambda$ is 0.01, optax's and ours
1e-4.

References:
    - Loshchilov and Hutter, "Decoupled weight decay regularization", https://arxiv.org/abs/1711.05101, 2017,
      Algorithm 2.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax

from jgd.core import Array, Hyper, Mask, Optimizer, PyTree, Rule, ScalarOrSchedule, Slots, broadcast_mask, lift
from jgd.rules._adam import ADAM, NADAM, adam_update, nadam_update


def adamw_update(grad: Array, slots: Slots, param: Array, hyper: Hyper, step: Array) -> tuple[Array, Slots]:
    """AdamW, on one leaf."""
    delta, slots = adam_update(grad, slots, param, hyper, step)
    return delta - hyper["decay"] * param, slots


def nadamw_update(grad: Array, slots: Slots, param: Array, hyper: Hyper, step: Array) -> tuple[Array, Slots]:
    """AdamW with Nesterov momentum, on one leaf."""
    delta, slots = nadam_update(grad, slots, param, hyper, step)
    return delta - hyper["decay"] * param, slots


def with_decay(rule: Rule) -> Callable[[Hyper, Array], Hyper]:
    """What the rule prepares, and the share of the parameter that this step takes away."""

    def prepare(hyper: Hyper, step: Array) -> Hyper:
        return rule.prepare(hyper, step) | {"decay": hyper["learning_rate"] * hyper["weight_decay"]}

    return prepare


ADAMW = dataclasses.replace(ADAM, update=adamw_update, needs_params=True, prepare=with_decay(ADAM))
NADAMW = dataclasses.replace(NADAM, update=nadamw_update, needs_params=True, prepare=with_decay(NADAM))


def adamw(
    learning_rate: ScalarOrSchedule,
    b1: ScalarOrSchedule = 0.9,
    b2: ScalarOrSchedule = 0.999,
    eps: ScalarOrSchedule = 1e-8,
    eps_root: ScalarOrSchedule = 0.0,
    mu_dtype: Any = "auto",
    weight_decay: ScalarOrSchedule = 1e-4,
    mask: Mask = None,
    *,
    nesterov: bool = False,
    state_dtype: Any = None,
    layout: Any = "auto",
) -> Optimizer:
    """Adam with decoupled weight decay.

    Arguments that are not described here are those of `jgd.adam`.

    Args:
        learning_rate: About the size of a step in each parameter, at least 0.
        b1: See `jgd.adam`.
        b2: See `jgd.adam`.
        eps: See `jgd.adam`.
        eps_root: See `jgd.adam`.
        mu_dtype: See `jgd.adam`.
        weight_decay: The share of each parameter, times the learning rate, that a step takes away; at least 0.
        mask: Which leaves decay: a tree of booleans shaped like the params or a prefix of them, a function from params
            to such a tree, or None for all. Biases and the scales of norms are often left out.
        nesterov: Whether to use Nesterov momentum; `nadamw` is the same thing.
        state_dtype: See `jgd.adam`.
        layout: See `jgd.adam`.

    Returns:
        An optimizer with the hyperparameters of `jgd.adam` and `weight_decay`, and its slots `mu`, `nu`.

    Raises:
        TypeError, ValueError: A hyperparameter is no finite number or outside its range, the mask does not fit the
            params, or `update` is called without params.

    Examples:
        >>> import jax.numpy as jnp, jgd
        >>> params = {"kernel": jnp.ones(2), "bias": jnp.ones(2)}
        >>> optimizer = jgd.adamw(0.1, weight_decay=0.5, mask={"kernel": True, "bias": False})
        >>> grads = {"kernel": jnp.ones(2), "bias": jnp.ones(2)}
        >>> updates, state = optimizer.update(grads, optimizer.init(params), params)
        >>> print(updates["kernel"].round(3), updates["bias"].round(3))
        [-0.15 -0.15] [-0.1 -0.1]
    """
    decaying, plain = (NADAMW, NADAM) if nesterov else (ADAMW, ADAM)

    def choose(params: PyTree) -> PyTree:
        return jax.tree.map(lambda decays: decaying if decays else plain, broadcast_mask("adamw", mask, params))

    hyperparams = {"learning_rate": learning_rate, "b1": b1, "b2": b2, "eps": eps, "eps_root": eps_root}
    return lift(
        decaying,
        hyperparams | {"weight_decay": weight_decay},
        name="adamw",
        choose=None if mask is None else choose,
        slot_dtypes={"mu": mu_dtype},
        state_dtype=state_dtype,
        layout=layout,
    )


def nadamw(
    learning_rate: ScalarOrSchedule,
    b1: ScalarOrSchedule = 0.9,
    b2: ScalarOrSchedule = 0.999,
    eps: ScalarOrSchedule = 1e-8,
    eps_root: ScalarOrSchedule = 0.0,
    mu_dtype: Any = "auto",
    weight_decay: ScalarOrSchedule = 1e-4,
    mask: Mask = None,
    *,
    nesterov: bool = True,
    state_dtype: Any = None,
    layout: Any = "auto",
) -> Optimizer:
    """AdamW with Nesterov momentum: `adamw` with `nesterov=True`, which see for arguments, state and errors.

    Examples:
        >>> import jax.numpy as jnp, jgd
        >>> optimizer = jgd.nadamw(0.1, weight_decay=0.0)
        >>> updates, state = optimizer.update(jnp.ones(1), optimizer.init(jnp.ones(1)), jnp.ones(1))
        >>> print(updates.round(3))
        [-0.147]
    """
    return adamw(
        learning_rate, b1, b2, eps, eps_root, mu_dtype, weight_decay, mask,
        nesterov=nesterov, state_dtype=state_dtype, layout=layout,
    )  # fmt: skip
