"""NAdam: the factory. The formulas are those of `jgd.rules.parts._nesterov`."""

from typing import Any

from jgd.core import Optimizer, ScalarOrSchedule, lift
from jgd.rules._adam import ADAM
from jgd.rules.parts._nesterov import NesterovForm, nesterov_rule


def nadam(
    learning_rate: ScalarOrSchedule,
    b1: ScalarOrSchedule = 0.9,
    b2: ScalarOrSchedule = 0.999,
    eps: ScalarOrSchedule = 1e-8,
    eps_root: ScalarOrSchedule = 0.0,
    mu_dtype: Any = "auto",
    *,
    nesterov: bool = True,
    nesterov_form: NesterovForm = "optax",
    momentum_decay: ScalarOrSchedule = 0.004,
    state_dtype: Any = None,
    layout: Any = "auto",
) -> Optimizer:
    """Adam with Nesterov momentum: `adam` with `nesterov=True`, which see for arguments, state and errors.

    Args:
        learning_rate: See `jgd.adam`.
        b1: See `jgd.adam`.
        b2: See `jgd.adam`.
        eps: See `jgd.adam`.
        eps_root: See `jgd.adam`.
        mu_dtype: See `jgd.adam`.
        nesterov: False makes this `jgd.adam`.
        nesterov_form: Whose form to follow; see the table above.
        momentum_decay: How fast the momentum approaches `b1` in PyTorch's form, at least 0; else not used.
        state_dtype: See `jgd.adam`.
        layout: See `jgd.adam`.

    Examples:
        >>> import jax.numpy as jnp, jgd
        >>> optimizer = jgd.nadam(0.1)
        >>> updates, state = optimizer.update(jnp.array([3.0]), optimizer.init(jnp.zeros(1)))
        >>> print(updates.round(3))
        [-0.147]
    """
    hyperparams = {"learning_rate": learning_rate, "b1": b1, "b2": b2, "eps": eps, "eps_root": eps_root}
    hyperparams |= {"momentum_decay": momentum_decay} if nesterov_form == "torch" else {}
    return lift(
        nesterov_rule(nesterov_form) if nesterov else ADAM,
        hyperparams,
        name="nadam",
        slot_dtypes={"mu": mu_dtype},
        state_dtype=state_dtype,
        layout=layout,
    )
