"""NAdamW: NAdam with decoupled weight decay. The formulas are those of `jgd.nadam` and `jgd.adamw`."""

from typing import Any

from jgd.core import Mask, Optimizer, ScalarOrSchedule
from jgd.rules._adam import ADAM
from jgd.rules.parts._nesterov import NesterovForm, nesterov_rule
from jgd.rules.parts._weight_decay import DecayForm, lift_decayed


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
    nesterov_form: NesterovForm = "optax",
    momentum_decay: ScalarOrSchedule = 0.004,
    decay_form: DecayForm = "scaled",
    state_dtype: Any = None,
    layout: Any = "auto",
) -> Optimizer:
    """AdamW with Nesterov momentum: `adamw` with `nesterov=True`, which see for arguments, state and errors.

    Args:
        learning_rate: See `jgd.adam`.
        b1: See `jgd.adam`.
        b2: See `jgd.adam`.
        eps: See `jgd.adam`.
        eps_root: See `jgd.adam`.
        mu_dtype: See `jgd.adam`.
        weight_decay: See `jgd.adamw`.
        mask: See `jgd.adamw`.
        nesterov: False makes this `jgd.adamw`.
        nesterov_form: See `jgd.nadam`.
        momentum_decay: See `jgd.nadam`.
        decay_form: See `jgd.adamw`.
        state_dtype: See `jgd.adam`.
        layout: See `jgd.adam`.

    Examples:
        >>> import jax.numpy as jnp, jgd
        >>> optimizer = jgd.nadamw(0.1, weight_decay=0.0)
        >>> updates, state = optimizer.update(jnp.ones(1), optimizer.init(jnp.ones(1)), jnp.ones(1))
        >>> print(updates.round(3))
        [-0.147]
    """
    hyperparams = {"learning_rate": learning_rate, "b1": b1, "b2": b2, "eps": eps, "eps_root": eps_root}
    hyperparams |= {"momentum_decay": momentum_decay} if nesterov_form == "torch" else {}
    return lift_decayed(
        nesterov_rule(nesterov_form) if nesterov else ADAM,
        hyperparams,
        weight_decay,
        mask,
        decay_form,
        name="nadamw",
        slot_dtypes={"mu": mu_dtype},
        state_dtype=state_dtype,
        layout=layout,
    )
