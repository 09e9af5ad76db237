"""Adafactor: the factory. The formula is that of `jgd.rules._factored`."""

from typing import Any

import jax
import jax.numpy as jnp

from jgd.core import Mask, Optimizer, PyTree, ScalarOrSchedule, broadcast_mask, lift
from jgd.rules._factored import factored_rule


def adafactor(
    learning_rate: ScalarOrSchedule | None = None,
    min_dim_size_to_factor: int = 128,
    decay_rate: ScalarOrSchedule = 0.8,
    decay_offset: ScalarOrSchedule = 0,
    multiply_by_parameter_scale: bool = True,
    clipping_threshold: ScalarOrSchedule | None = 1.0,
    momentum: ScalarOrSchedule | None = None,
    dtype_momentum: Any = jnp.float32,
    weight_decay_rate: ScalarOrSchedule | None = None,
    eps: ScalarOrSchedule = 1e-30,
    factored: bool = True,
    weight_decay_mask: Mask = None,
    *,
    state_dtype: Any = None,
    layout: Any = "auto",
) -> Optimizer:
    """Adafactor: adaptive steps with sublinear memory.

    Args:
        learning_rate: The size of a step relative to the leaf, or absolutely without `multiply_by_parameter_scale`;
            at least 0. None for one.
        min_dim_size_to_factor: The least size of the second largest axis of a leaf whose second moment is factored.
        decay_rate: The exponent of how the decay of the second moment approaches one.
        decay_offset: The step from which that is counted, for fine-tuning.
        multiply_by_parameter_scale: Whether steps are scaled by the root mean square of the leaf.
        clipping_threshold: The largest root mean square of a leaf's direction, above 0; None for no bound.
        momentum: Decay rate of the average of steps, in [0, 1); None for none.
        dtype_momentum: The dtype of the slot `ema`.
        weight_decay_rate: The share of each parameter that a step takes away, whatever the learning rate; at least 0.
        eps: Added to the squared gradient, at least 0.
        factored: Whether to factor at all.
        weight_decay_mask: Which leaves decay; as `mask` of `jgd.adamw`.
        state_dtype: The dtype of all slots; it goes before `dtype_momentum`.
        layout: How leaves are laid out while the update runs, see `jgd.core.lift`.

    Returns:
        An optimizer with the hyperparameters of the numbers above, and the slots `v_row`, `v_col`, `v` (and `ema`): for
        a factored matrix one number a row and one a column.

    Raises:
        TypeError, ValueError: A hyperparameter is no finite number or outside its range, the mask does not fit the
            params, or `update` is called without params.

    Examples:
        >>> import jax.numpy as jnp, jgd
        >>> optimizer, params = jgd.adafactor(0.1, min_dim_size_to_factor=2), jnp.ones((2, 3))
        >>> state = optimizer.init(params)
        >>> updates, state = optimizer.update(5 * jnp.ones((2, 3)), state, params)
        >>> print(updates[0].round(3), state.slots["v_row"].shape, state.slots["v_col"].shape)
        [-0.1 -0.1 -0.1] (2,) (3,)
    """
    optional = {
        "clipping_threshold": clipping_threshold,
        "momentum": momentum,
        "weight_decay_rate": weight_decay_rate,
    }
    rules = {
        decays: factored_rule(
            factored,
            min_dim_size_to_factor,
            multiply_by_parameter_scale,
            clipping_threshold is not None,
            momentum is not None,
            decays,
        )
        for decays in (weight_decay_rate is not None, False)
    }

    def choose(params: PyTree) -> PyTree:
        decays = broadcast_mask("adafactor", weight_decay_mask, params)
        return jax.tree.map(lambda flag: rules[flag and weight_decay_rate is not None], decays)

    hyperparams = {
        "learning_rate": 1.0 if learning_rate is None else learning_rate,
        "decay_rate": decay_rate,
        "decay_offset": decay_offset,
        "eps": eps,
    }
    return lift(
        list(rules.values()),
        hyperparams | {name: value for name, value in optional.items() if value is not None},
        name="adafactor",
        choose=None if weight_decay_mask is None else choose,
        slot_dtypes={"ema": dtype_momentum},
        state_dtype=state_dtype,
        layout=layout,
    )
